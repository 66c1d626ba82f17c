"""The receiver's decisions about what comes in; the web server is a command that the test chooses."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import shlex
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import uvloop

from certfleet.errors import InstallError
from certfleet.install.answer import Answer, State, parse
from certfleet.install.drivers import local
from certfleet.install.receiver import program as receiver
from certfleet.models import Host
from tests.install.certificates import item
from tests.install.conftest import program
from tests.processes import ended

pytestmark = pytest.mark.usefixtures("shell")


def tree(root: Path) -> list[str]:
    """Everything below the root but the lock file."""
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.name != ".lock")


def only(answer: Answer) -> tuple[State, int, int]:
    (app,) = answer.apps.values()
    return app.state, app.generation, app.previous


async def test_an_older_generation_that_comes_late(plain: Host, root: Path) -> None:
    """What is newer stays, and the answer says which generation and serial it has."""
    newer = item("blog", 3)
    await local.install(plain, [newer])
    before = tree(root)
    answer = await local.install(plain, [item("blog", 2)])
    assert only(answer) == (State.STALE, 3, 3)
    assert answer.apps["blog"].serial == newer.serial
    assert (answer.reloads, tree(root)) == (0, before)


async def test_the_same_again(plain: Host) -> None:
    """The same generation is unchanged and needs no reload; another certificate under its number is stale."""
    same = item("blog", 3)
    assert only(await local.install(plain, [same])) == (State.INSTALLED, 3, 0)
    again = await local.install(plain, [same])
    assert (only(again), again.reloads) == ((State.UNCHANGED, 3, 3), 0)
    assert only(await local.install(plain, [item("blog", 3)])) == (State.STALE, 3, 3)


async def test_status(plain: Host, root: Path) -> None:
    """Status tells what is current, what is empty and what is foreign; a root that is not there holds nothing."""
    assert (await local.status(plain)).apps == {}
    assert not root.exists()
    blog = item("blog", 3)
    await local.install(plain, [blog, item("shop")])
    await local.rollback(plain, {"shop": 0})
    (root / "wiki").mkdir()
    answer = await local.status(plain)
    assert {name: app.state for name, app in answer.apps.items()} == {
        "blog": State.CURRENT,
        "shop": State.EMPTY,
        "wiki": State.FOREIGN,
    }
    assert (answer.apps["blog"].generation, answer.apps["blog"].serial) == (3, blog.serial)


async def test_old_generations_go(plain: Host, root: Path) -> None:
    """The newest three stay; the one that was current before stays too, however old it is."""
    for generation in (1, 2, 3, 9, 10, 11):
        await local.install(plain, [item("blog", generation)])
    assert sorted(path.name for path in (root / "blog").glob("[0-9]*")) == ["10", "11", "9"]
    await local.rollback(plain, {"blog": 9})
    for directory in ("12", "13"):
        (root / "blog" / directory).mkdir()
    await local.install(plain, [item("blog", 14)])
    assert sorted(path.name for path in (root / "blog").glob("[0-9]*")) == ["12", "13", "14", "9"]


async def test_a_current_that_points_to_nothing_is_mended(plain: Host, root: Path) -> None:
    """Somebody deleted the generation in use: the same one is installed again."""
    same = item("blog", 3)
    await local.install(plain, [same])
    (root / "blog" / "3" / "privkey.pem").unlink()
    assert only(await local.install(plain, [same])) == (State.INSTALLED, 3, 0)
    assert (root / "blog" / "current" / "privkey.pem").read_bytes() == same.private_key


@pytest.mark.parametrize("stranger", ["directory", "file", "symlink", "current-directory", "current-elsewhere"])
async def test_every_kind_of_foreign(plain: Host, root: Path, tmp_path: Path, stranger: str) -> None:
    """Whatever stands in an app's place without being ours is left alone, and moved aside whole when adopted."""
    place = root / "blog"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    root.mkdir()
    match stranger:
        case "directory":
            place.mkdir()
        case "file":
            place.write_text("a file")
        case "symlink":
            place.symlink_to(elsewhere)
        case "current-directory":
            (place / "current").mkdir(parents=True)
            (place / ".certfleet").touch()
        case _:
            place.mkdir()
            (place / "current").symlink_to(elsewhere)
            (place / ".certfleet").touch()
    before = tree(root)
    assert only(await local.install(plain, [item("blog")])) == (State.FOREIGN, 0, 0)
    assert only(await local.rollback(plain, {"blog": 0})) == (State.FOREIGN, 0, 0)
    assert tree(root) == before
    assert only(await local.install(plain, [item("blog", adopt=True)])) == (State.INSTALLED, 1, 0)
    assert len(list(root.glob("blog.before-certfleet.*"))) == 1


async def test_modes(plain: Host, root: Path, tmp_path: Path) -> None:
    """Directories are 0700 and files 0600, and another account cannot read them even when it knows their names."""
    seen = tmp_path / "seen"
    looking = dataclasses.replace(plain, test_command=("sh", "-c", f"find {root} -perm -004 -type f >>{seen}"))
    os.umask(0o000)  # the receiver sets its own
    try:
        await local.install(looking, [item("blog"), item("shop")])
    finally:
        os.umask(0o022)
    assert seen.read_text() == ""
    for path in [root, *root.rglob("*")]:
        mode = path.lstat()
        if stat.S_ISDIR(mode.st_mode):
            assert stat.S_IMODE(mode.st_mode) == 0o700, path
        elif stat.S_ISREG(mode.st_mode):
            assert stat.S_IMODE(mode.st_mode) == 0o600, path
    if os.geteuid() == 0:
        for parent in root.parents:
            if parent.stat().st_uid == 0 and parent != Path("/"):
                parent.chmod(parent.stat().st_mode | 0o011)
        attempt = (
            "import os, sys; os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
            "try: print(open(sys.argv[1]).read())\n"
            "except PermissionError: print('refused')"
        )
        key = root / "blog" / "current" / "privkey.pem"
        run = subprocess.run(  # noqa: ASYNC221  a moment
            [sys.executable, "-c", attempt, str(key)], capture_output=True, text=True, check=False, timeout=20
        )
        assert (run.stdout, run.stderr) == ("refused\n", "")


async def test_no_key_in_arguments_or_answer(plain: Host, root: Path, tmp_path: Path) -> None:
    """While the receiver runs, no process has the key in its arguments or environment; nor has the answer."""
    record = tmp_path / "record"
    recorder = f"cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ >>{record} 2>/dev/null; true"
    host = dataclasses.replace(plain, test_command=("sh", "-c", recorder), reload_command=("false",))
    secret = item("blog")
    answer = await local.install(host, [secret])
    lines = secret.private_key.decode().splitlines()[1:-1]
    for text in (record.read_bytes().decode(errors="replace"), repr(answer), repr(secret)):
        assert "PRIVATE KEY" not in text
        assert not any(line in text for line in lines)
    assert str(root) in record.read_bytes().decode(errors="replace")


async def test_a_hanging_web_server_is_given_up(
    plain: Host, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A test that hangs is ended together with the receiver, and the next run is not blocked."""
    monkeypatch.setattr(local, "TIMEOUT", 0.5)
    note = tmp_path / "pid"
    hanging = dataclasses.replace(plain, test_command=("sh", "-c", f"echo $$ >{note}; exec sleep 100"))
    with pytest.raises(InstallError, match="was not done after"):
        await local.install(hanging, [item("blog")])
    assert await ended(int(note.read_text()))
    monkeypatch.setattr(local, "TIMEOUT", 30)
    assert only(await local.install(plain, [item("blog")])) == (State.INSTALLED, 1, 0)
    assert tree(root)[:2] == ["blog", "blog/.certfleet"]


def test_a_receiver_that_is_done_before_it_was_written_to(plain: Host) -> None:
    """On the event loop of the workers, which takes that for an error: `status` reads nothing, and is quick."""

    async def many() -> list[Answer]:
        return await asyncio.gather(*(local.status(plain) for _ in range(24)))

    assert all(answer.apps == {} for answer in uvloop.run(many()))


async def test_runs_wait_for_each_other(plain: Host, tmp_path: Path) -> None:
    """Ten runs at once on one root come one after the other, and the newest generation wins."""
    note = tmp_path / "note"
    # Says "twice" when it finds itself running already.
    guard = f"mkdir {note}.busy 2>/dev/null || echo twice >>{note}; rmdir {note}.busy"
    host = dataclasses.replace(plain, test_command=("sh", "-c", guard))
    answers = await asyncio.gather(*(local.install(host, [item("blog", generation)]) for generation in range(1, 11)))
    assert {app.state for answer in answers for app in answer.apps.values()} <= {State.INSTALLED, State.STALE}
    assert not note.exists()
    assert (await local.status(plain)).apps["blog"].generation == 10


async def test_bad_use_is_an_answer_too(plain: Host, root: Path) -> None:
    """Unknown words, a relative root and a bad generation get one JSON answer with the reason."""
    with pytest.raises(InstallError, match="not APP:GENERATION"):
        await local._run(plain, ["rollback", *local._options(plain), "blog"]) and await local.rollback(plain, {"a": -1})
    for arguments, said in (
        (["destroy"], "usage"),
        (["status", "--root", "here"], "absolute"),
        (["status", "--root", '/tmp/"'], "letters, digits"),
        (["install", "--root", str(root), "--force"], "unknown option"),
        (["install", "--root", str(root)], "--test and --reload"),
    ):
        with pytest.raises(InstallError, match=said):
            parse(await local._run(plain, arguments), host="plain")


def test_shellcheck() -> None:
    """With shellcheck at its strictest: it has nothing to say about the receiver, read as POSIX sh."""
    run = subprocess.run(
        [program("shellcheck"), "--shell=sh", "--severity=style", "-"],
        input=receiver(),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (run.returncode, run.stdout) == (0, "")


async def test_the_commands_words_stay_words(plain: Host, tmp_path: Path) -> None:
    """A command with spaces and quotes in its words arrives as it was given."""
    note = tmp_path / "it's a note"
    host = dataclasses.replace(
        plain, reload_command=("sh", "-c", f'echo "$1" >{shlex.quote(str(note))}', "sh", "a  b'\"$HOME")
    )
    await local.install(host, [item("blog")])
    assert note.read_text() == "a  b'\"$HOME\n"
