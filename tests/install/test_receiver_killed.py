"""kill -9 of the receiver before each of its lines: the tree stays whole, and the next run completes the work."""

from __future__ import annotations

import shutil
import subprocess
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from certfleet.install.answer import Answer, State, parse
from certfleet.install.bundle import Item, pack
from certfleet.install.receiver import program
from tests.install.killer import CLOSERS, LINES, killable, state_of, with_killer, with_trace

SWITCHING = range(LINES.index("whole() {"), LINES.index("install() {"))


def fake(app: str, generation: int, *, bad: bool = False, adopt: bool = False) -> Item:
    """Looks enough like a certificate for the receiver; its words tell which one it is."""
    word = f"{app} {generation}{' BAD' if bad else ''}"
    return Item(
        app=app,
        generation=generation,
        serial=f"{generation:x}",
        fullchain=f"-----BEGIN CERTIFICATE-----\n{word}\n-----END CERTIFICATE-----\n",
        private_key=f"-----BEGIN PRIVATE KEY-----\n{word}\n".encode(),
        adopt=adopt,
    )


@dataclass(frozen=True)
class Machine:
    """A host whose web server is two lines of sh: the test refuses BAD keys, the reload notes what is current."""

    directory: Path
    path: str

    @property
    def root(self) -> Path:
        return self.directory / "root"

    def run(self, script: Path, *items: Item) -> tuple[int, bytes]:
        """One run of the receiver, or of a copy of it: its status and its output."""
        served = self.directory / "served"
        test = f"if grep -qs BAD {self.root}/*/current/privkey.pem; then echo BAD found; exit 1; fi"
        note = f"for c in {self.root}/*/current; do echo $c $(readlink $c); done >{served}"
        adopt = [word for item in items if item.adopt for word in ("--adopt", item.app)]
        done = subprocess.run(
            ["sh", str(script), "install", "--root", str(self.root), "--test", test, "--reload", note, *adopt],
            input=pack(items, str(self.root)),
            env={"PATH": self.path},
            capture_output=True,
            check=False,
            timeout=60,
        )
        return done.returncode, done.stdout

    def install(self, *items: Item) -> Answer:
        """A run that is not disturbed."""
        receiver = self.directory.with_suffix(".receiver")
        receiver.write_text(program())
        status, output = self.run(receiver, *items)
        assert status == 0, output
        return parse(output, host="machine", expected=[item.app for item in items])

    def current(self) -> dict[str, int]:
        """What is current, after a look at whether each is whole."""
        found = {}
        for link in self.root.glob("[a-z]*/current"):
            generation = int(str(link.readlink()))
            app = link.parent.name
            word = f"{app} {generation}"
            for name in ("fullchain.pem", "privkey.pem"):
                assert (link / name).read_text().splitlines()[1].removesuffix(" BAD") == word
            assert (link / "nginx.conf").read_text().endswith(f"{app}/current/privkey.pem;\n")
            found[app] = generation
        return found

    def served(self) -> dict[str, int]:
        """What was current at the last reload."""
        lines = (line.split() for line in (self.directory / "served").read_text().splitlines())
        return {Path(words[0]).parent.name: int(words[1]) for words in lines}

    def theirs(self) -> list[Path]:
        """Where the foreign file is now."""
        return [*self.root.glob("shop/theirs"), *self.root.glob("shop.before-certfleet.*/theirs")]

    def leftovers(self) -> set[str]:
        """What a finished run leaves besides apps and the lock of flock."""
        return {path.name for path in self.root.glob(".*")} - {".lock"}

    def copy(self, to: Path) -> Machine:
        """The same in another place."""
        shutil.copytree(self.directory, to, symlinks=True)
        return Machine(to, self.path)


BATCH = (fake("blog", 2), fake("shop", 1, adopt=True), fake("wiki", 2, bad=True), fake("news", 1))


def before(directory: Path, path: str) -> Machine:
    """Two apps in place and a foreign directory."""
    directory.mkdir()
    machine = Machine(directory, path)
    machine.install(fake("blog", 1), fake("wiki", 1))
    (machine.root / "shop").mkdir()
    (machine.root / "shop" / "theirs").touch()
    return machine


def points(template: Machine, place: Path) -> list[tuple[int, int]]:
    """The lines that an undisturbed run comes to, and the third time for those that switch."""
    possible = killable()
    trace = place.with_suffix(".trace")
    script = place.with_suffix(".sh")
    # A command before a function's end would change what it returns: those lines are not traced, but all tried.
    traced = {number for number in possible if LINES[number].strip() not in CLOSERS}
    script.write_text(with_trace(traced, trace))
    assert template.copy(place).run(script, *BATCH)[0] == 0
    reached = Counter(int(word) for word in trace.read_text().split())
    first = [(number, 1) for number in possible if number not in traced or reached[number]]
    return first + [(number, 3) for number in SWITCHING if reached[number] > 2]


def survive(template: Machine, place: Path, line: int, hit: int, seen: set[str]) -> str:
    """Kill before a line, look, run again, look: "killed", "pending" (killed between switch and reload) or "passed"."""
    script = place.with_suffix(".sh")
    script.write_text(with_killer(line, hit))
    machine = template.copy(place)
    status, _ = machine.run(script, *BATCH)
    now = machine.current()
    assert now["blog"] in (1, 2), "blog is never without a certificate"
    assert len(machine.theirs()) == 1, "the foreign file is neither lost nor doubled"
    if status != -9:
        assert status == 0
        return "passed"
    outcome = "pending" if (machine.root / ".pending").exists() else "killed"
    state = state_of(machine.root)
    if state in seen:  # the next run starts from the same tree as after another kill, which has been tried
        shutil.rmtree(place)
        return outcome
    seen.add(state)

    other = machine.copy(place.with_suffix(".other"))
    other.install(fake("other", 1))
    now = other.current()
    assert now["blog"] in (1, 2)
    assert (now["wiki"], now["other"]) == (1, 1)
    assert other.served() == now
    assert (other.leftovers(), len(other.theirs())) == (set(), 1)

    answer = machine.install(*BATCH)
    assert machine.current() == machine.served() == {"blog": 2, "shop": 1, "wiki": 1, "news": 1}
    assert (machine.leftovers(), len(machine.theirs())) == (set(), 1)
    assert {answer.apps[app].state for app in ("blog", "shop", "news")} <= {State.INSTALLED, State.UNCHANGED}
    assert (answer.apps["wiki"].state, answer.apps["wiki"].message) == (State.FAILED, "BAD found")
    shutil.rmtree(place)
    shutil.rmtree(other.directory)
    return outcome


@pytest.mark.parametrize("name", ["dash", "busybox"])
def test_killed_before_every_line(
    name: str, shells: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Old or new is current after every kill, never half of one; the next run, whatever it installs, cleans up."""
    monkeypatch.setenv("PATH", shells[name])
    template = before(tmp_path / "template", shells[name])
    seen: set[str] = set()
    with ThreadPoolExecutor(3) as pool:
        outcomes = list(
            pool.map(
                lambda point: survive(template, tmp_path / f"{point[0]}-{point[1]}", point[0], point[1], seen),
                points(template, tmp_path / "traced"),
            )
        )
    # The test would prove nothing if few of the lines had been reached.
    assert outcomes.count("killed") > 100
    assert outcomes.count("pending") > 30
    assert len(seen) > 30


@pytest.mark.parametrize("name", ["dash", "busybox"])
def test_a_dead_owners_lock(name: str, shells: dict[str, str], tmp_path: Path) -> None:
    """A lock whose owner was killed, or whose number belongs to another process now, does not block."""
    machine = before(tmp_path / "machine", shells[name])
    for owner in ("999999999.1", "1.1"):
        (machine.root / ".lock.owner").symlink_to(owner)
        generation = machine.current()["blog"] + 1
        assert machine.install(fake("blog", generation)).apps["blog"].state is State.INSTALLED
        (machine.root / ".lock.owner").unlink(missing_ok=True)
