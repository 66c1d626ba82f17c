"""kill -9 in the places of other servers and in the middle of challenges: never half, and put right by the next run."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from certfleet.install.bundle import Item, pack
from certfleet.install.challenge import Answerer, answerers, answers
from certfleet.install.receiver import program
from tests.install.conftest import program as program_at
from tests.install.killer import CLOSERS, LINES, killable, state_of, with_killer, with_trace
from tests.install.test_receiver_killed import SWITCHING, fake

ONE, OTHER = "a" * 43, "b" * 43


@dataclass(frozen=True)
class Case:
    """What is run, on which set-up, and what holds."""

    server: str
    verb: str
    before: Callable[[Path], Sequence[tuple[str, bytes]]]
    """Verbs and inputs of the runs that come before, in a new place."""
    content: Callable[[Path], bytes]
    holds: Callable[[Path], None]
    """After every kill."""
    ends: Callable[[Path], None]
    """After the next run."""
    words: Sequence[str] = ()
    settings: Sequence[str] = field(default=())
    """Further options, {place} for the directory."""


def run(place: Path, script: str, case: Case, verb: str, content: bytes) -> tuple[int, bytes]:
    """One run of the receiver, or of a copy of it. The web server refuses BAD keys and links that lead nowhere."""
    root = place / "root"
    file = place / "receiver"
    file.write_text(script)
    test = (
        f"if grep -qs BAD {root}/*/current/privkey.pem; then echo BAD found; exit 1; fi; "
        f'for f in {root}/haproxy.d/*.pem; do [ -e "$f" ] || [ ! -L "$f" ] || {{ echo dangling; exit 1; }}; done'
    )
    reload = f"cat {root}/challenges.d/*.conf >{place}/served 2>/dev/null; true"
    options = ["--root", str(root), "--server", case.server, "--webroot", str(place / "webroot")]
    settings = [word.format(place=place, app="{app}") for word in case.settings]
    words = case.words if verb == case.verb else ()
    done = subprocess.run(
        ["sh", str(file), verb, *options, "--test", test, "--reload", reload, *settings, *words],
        input=content,
        env={"PATH": str(place.parent / "bin") + ":/usr/bin:/bin"},
        capture_output=True,
        check=False,
        timeout=60,
    )
    return done.returncode, done.stdout


def bundle(place: Path, server: str, *items: Item) -> bytes:
    return pack(items, str(place / "root"), server)


def word_of(path: Path) -> str:
    """Which certificate a file is, by the words that stand for it; chain and key of one file have to be of one."""
    words = {line for line in path.read_text().splitlines() if re.fullmatch(r"[a-z]+ \d+( BAD)?", line)}
    assert len(words) == 1, f"{path}: {words}"
    return words.pop()


# --- haproxy: one good, one bad, one new ---------------------------------------------------------------


def links_are_whole(place: Path) -> None:
    links = {link.stem: link for link in (place / "root" / "haproxy.d").glob("*.pem")}
    assert {"blog", "wiki"} <= links.keys(), "nobody is without a certificate"
    for app, link in links.items():
        assert word_of(link).startswith(f"{app} ")
    assert word_of(links["blog"]) in ("blog 1", "blog 2")


def haproxy_ends(place: Path) -> None:
    found = {link.stem: word_of(link) for link in (place / "root" / "haproxy.d").glob("*.pem")}
    assert found == {"blog": "blog 2", "wiki": "wiki 1", "news": "news 1"}


HAPROXY = Case(
    server="haproxy",
    verb="install",
    before=lambda place: [("install", bundle(place, "haproxy", fake("blog", 1), fake("wiki", 1)))],
    content=lambda place: bundle(place, "haproxy", fake("blog", 2), fake("wiki", 2, bad=True), fake("news", 1)),
    holds=links_are_whole,
    ends=haproxy_ends,
)

# --- files: something foreign stands in a place, and is adopted ----------------------------------------------


def theirs_is_not_lost(place: Path) -> None:
    key, aside = place / "shop.key", place / ".shop.key.before-certfleet"
    kept = [path for path in (key, aside) if path.exists() and path.read_text() == "theirs"]
    assert len(kept) == 1
    if key.is_symlink() and key.exists() and (place / "shop.pem").exists():
        assert word_of(key) == word_of(place / "shop.pem")


def files_end(place: Path) -> None:
    assert (place / ".shop.key.before-certfleet").read_text() == "theirs"
    assert {word_of(place / f"shop.{end}") for end in ("pem", "key")} == {"shop 1"}
    assert not list(place.glob(".*.certfleet"))


def put_theirs(place: Path) -> Sequence[tuple[str, bytes]]:
    (place / "shop.key").write_text("theirs")
    return []


FILES = Case(
    server="files",
    verb="install",
    before=put_theirs,
    content=lambda place: bundle(place, "files", fake("shop", 1)),
    holds=theirs_is_not_lost,
    ends=files_end,
    words=("--adopt", "shop"),
    settings=("--fullchain", "{place}/{app}.pem", "--key", "{place}/{app}.key"),
)

# --- snippets --------------------------------------------------------------------------------------------


def lines(**thumbprints: str) -> bytes:
    return answerers(Answerer(app, thumbprint, (f"{app}.test",)) for app, thumbprint in thumbprints.items())


def snippets(place: Path) -> dict[str, str]:
    found = {}
    for file in (place / "root" / "challenges.d").glob("*.conf"):
        thumbprints = re.findall(r"\.([ab]{43})\"", file.read_text())
        assert len(thumbprints) == 1, file
        found[file.stem] = thumbprints[0]
    return found


def snippets_are_whole(place: Path) -> None:
    assert snippets(place).get("blog") in (ONE, OTHER)
    assert snippets(place).get("shop", OTHER) == OTHER


def snippets_end(place: Path) -> None:
    assert snippets(place) == {"blog": OTHER, "shop": OTHER}
    assert (place / "served").read_text().count(OTHER) == 2, "the web server has been reloaded since"


SNIPPETS = Case(
    server="nginx",
    verb="snippet",
    before=lambda _: [("snippet", lines(blog=ONE))],
    content=lambda _: lines(blog=OTHER, shop=OTHER),
    holds=snippets_are_whole,
    ends=snippets_end,
)

# --- challenges ------------------------------------------------------------------------------------------


def challenges(place: Path) -> dict[str, str]:
    directory = place / "webroot" / ".well-known" / "acme-challenge"
    return {path.name: path.read_text() for path in directory.glob("[!.]*")}


def challenges_are_whole(place: Path) -> None:
    for token, text in challenges(place).items():
        assert text == f"{token}.{ONE}"
        assert (place / "root" / ".webroot" / token).exists(), "what was written can be taken away"


def challenges_end(place: Path) -> None:
    assert challenges(place).keys() == {"one", "two"}
    assert not list((place / "webroot").rglob(".certfleet"))


CHALLENGES = Case(
    server="nginx",
    verb="challenge",
    before=lambda _: [],
    content=lambda _: answers({"one": f"one.{ONE}", "two": f"two.{ONE}"}),
    holds=challenges_are_whole,
    ends=challenges_end,
)


def points(case: Case, place: Path) -> list[tuple[int, int]]:
    """The lines that an undisturbed run comes to while it holds the lock, the first time and the third."""
    possible = {number for number in killable() if LINES[number].strip() not in CLOSERS}
    trace = place / "trace"
    assert run(place, with_trace(possible, trace), case, case.verb, case.content(place))[0] == 0
    reached = [int(word) for word in trace.read_text().split()]
    counted = Counter(reached[reached.index(LINES.index("recover")) :])
    return [(line, hit) for line, count in sorted(counted.items()) for hit in (1, 3) if count >= hit]


def set_up(case: Case, place: Path) -> Path:
    """A place in the state before."""
    place.mkdir()
    for verb, content in case.before(place):
        status, output = run(place, program(), case, verb, content)
        assert status == 0, output
    return place


def survive(case: Case, place: Path, line: int, hit: int, seen: set[str]) -> bool:
    """Kill before a line, look, run again, look: whether the line was come to so often."""
    set_up(case, place)
    status, _ = run(place, with_killer(line, hit), case, case.verb, case.content(place))
    case.holds(place)
    (place / "receiver").unlink()
    if (state := state_of(place)) in seen:  # as after another kill, from which the next run has been tried
        shutil.rmtree(place)
        return status == -9
    seen.add(state)
    status_of_next, output = run(place, program(), case, case.verb, case.content(place))
    assert (status_of_next, json.loads(output)["pending"]) == (0, False), f"line {line}: {LINES[line]}: {output!r}"
    case.ends(place)
    left = {path.name for path in (place / "root").glob(".*")} - {".lock", ".webroot"}
    assert left == set(), f"line {line}: {LINES[line]}"
    shutil.rmtree(place)
    return status == -9


def agrees(case: Case, place: Path, line: int) -> None:
    """Kill before a line; the next run is for another app: what is shown afterwards is what is current."""
    set_up(case, place)
    run(place, with_killer(line, 1), case, case.verb, case.content(place))
    status, output = run(place, program(), case, case.verb, bundle(place, case.server, fake("other", 1)))
    assert (status, json.loads(output)["pending"]) == (0, False), output
    for app in ("blog", "wiki", "news", "shop", "other"):
        current = place / "root" / app / "current"
        shown = place / "root" / "haproxy.d" / f"{app}.pem" if case.server == "haproxy" else place / f"{app}.key"
        if current.is_symlink():
            assert word_of(shown) == word_of(current / "privkey.pem"), f"line {line}: {LINES[line]}"
        else:
            assert not shown.is_symlink(), f"line {line}: {LINES[line]}"
    case.holds(place)
    shutil.rmtree(place)


@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    "case", [HAPROXY, FILES, SNIPPETS, CHALLENGES], ids=["haproxy", "files", "snippets", "challenges"]
)
def test_killed_before_every_line(case: Case, tmp_path: Path) -> None:
    """Whole after every kill; the next run ends where an undisturbed one does."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "sh").symlink_to(program_at("dash"))
    stand_in = tmp_path / "bin" / "openssl"  # these certificates are only words
    stand_in.write_text("#!/bin/sh\necho the same key\n")
    stand_in.chmod(0o755)
    kills, seen = points(case, set_up(case, tmp_path / "traced")), set[str]()
    with ThreadPoolExecutor(3) as pool:
        killed = list(
            pool.map(lambda kill: survive(case, tmp_path / f"{kill[0]}-{kill[1]}", kill[0], kill[1], seen), kills)
        )
        # The test would prove nothing if few of the lines had been reached.
        assert killed.count(True) > 40
        if case.verb == "install":
            switching = [line for line, hit in kills if hit == 1 and line in SWITCHING]
            list(pool.map(lambda line: agrees(case, tmp_path / f"{line}-other", line), switching))
