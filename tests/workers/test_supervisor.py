"""The supervisor: what dies is started again, what is ended ends in order, nothing is left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from workers import supervisor
from workers.supervisor import Child, Running, Service, bound_log, spawn, supervise

LONGEST = 30.0  # seconds that anything here may take

# Writes its name when it starts and when it is asked to end, into one file that all share.
POLITE = """
import os, signal, sys, time
def note(what):
    with open(sys.argv[1], "a") as file:
        file.write(what + "\\n")
def end(*_):
    note("end " + sys.argv[2])
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
note("start " + sys.argv[2])
from workers.supervisor import tell_ready
tell_ready()
while True:
    time.sleep(60)
"""
STUBBORN = POLITE.replace("sys.exit(0)", "pass")
SHORT = POLITE.replace("while True:\n    time.sleep(60)", "sys.exit(3)")
OWNER = """
import asyncio, sys
from pathlib import Path
from workers.supervisor import spawn
async def main():
    child = spawn((sys.executable, "-c", sys.argv[2], sys.argv[1], "orphan"),
                  log=Path(sys.argv[1] + ".log"), environment={})
    await child.told_ready.wait()
    print(child.pid, flush=True)
    await asyncio.sleep(600)
asyncio.run(main())
"""


class Rig:
    """A supervisor under test: its notes, what it said, its two signals."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.notes = directory / "notes"
        self.notes.touch()
        self.said: list[str] = []
        self.stop = asyncio.Event()
        self.hurry = asyncio.Event()
        self.up = asyncio.Event()
        self.children: dict[str, list[Child]] = {}

    def service(self, name: str, program: str = POLITE, grace: float = LONGEST) -> Service:
        """A small real program under a name."""

        async def start() -> Running:
            command = (sys.executable, "-c", program, str(self.notes), name)
            child = spawn(command, log=self.directory / "log" / f"{name}.log", environment=os.environ)
            self.children.setdefault(name, []).append(child)
            return child

        async def ready(running: Running) -> None:
            assert isinstance(running, Child)
            await running.told_ready.wait()

        return Service(name, start, grace, ready)

    def lines(self) -> list[str]:
        """What the programs noted, in order."""
        return self.notes.read_text().splitlines()

    @asynccontextmanager
    async def running(
        self, stages: Sequence[Sequence[Service]], foundation: Sequence[Service] = ()
    ) -> AsyncIterator[None]:
        """Supervise in the background; at the end everything is told to stop, and has to."""
        task = asyncio.create_task(
            supervise(foundation, stages, say=self.said.append, stop=self.stop, hurry=self.hurry, when_up=self.up.set)
        )
        try:
            yield
            self.stop.set()
            await asyncio.wait_for(task, LONGEST)
        finally:
            self.hurry.set()
            self.stop.set()
            await asyncio.wait([task], timeout=LONGEST)
        for child in (child for children in self.children.values() for child in children):
            assert child.process.poll() is not None


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Rig:
    """A rig whose supervisor does not pause for long."""
    monkeypatch.setattr(supervisor, "FIRST_PAUSE", 0.01)
    return Rig(tmp_path)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(LONGEST):
        while not condition():  # noqa: ASYNC110  other processes set no event of ours
            await asyncio.sleep(0.01)


async def test_what_dies_is_started_again(rig: Rig) -> None:
    """A killed process has a successor, and its end is told with the reason."""
    async with rig.running([[rig.service("a")]]):
        await asyncio.wait_for(rig.up.wait(), LONGEST)
        first = rig.children["a"][0]
        os.kill(first.pid, signal.SIGKILL)
        await until(lambda: rig.lines().count("start a") == 2)
    assert rig.children["a"][1].pid != first.pid
    assert any(f"process {first.pid} ended by SIGKILL; starting it again" in line for line in rig.said)


async def test_pauses_double_up_to_a_limit(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that keeps dying is started less and less often, but for ever."""
    monkeypatch.setattr(supervisor, "LONGEST_PAUSE", 0.04)
    async with rig.running([[rig.service("a", SHORT)]]):
        await until(lambda: rig.lines().count("start a") == 6)
    pauses = [line.split(" in ")[1] for line in rig.said if "with status 3; starting it again" in line]
    assert pauses[:5] == ["0.01 s", "0.02 s", "0.04 s", "0.04 s", "0.04 s"]


async def test_a_long_life_forgets_the_deaths_before(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a long life the pause is the first one again."""
    monkeypatch.setattr(supervisor, "LONG_LIFE", 0.0)
    async with rig.running([[rig.service("a", SHORT)]]):
        await until(lambda: rig.lines().count("start a") == 4)
    assert {line.split(" in ")[1] for line in rig.said if "starting it again" in line} == {"0.01 s"}


async def test_the_end_comes_in_order(rig: Rig) -> None:
    """Stages end one after the other, the foundation last; it was up before anything else started."""
    stages = [[rig.service("beat")], [rig.service("w1"), rig.service("w2")], [rig.service("web")]]
    async with rig.running(stages, [rig.service("redis")]):
        await asyncio.wait_for(rig.up.wait(), LONGEST)
    lines = rig.lines()
    assert lines[0] == "start redis"
    ends = [line.removeprefix("end ") for line in lines if line.startswith("end ")]
    assert ends[0] == "beat"
    assert set(ends[1:3]) == {"w1", "w2"}
    assert ends[3:] == ["web", "redis"]


async def test_who_does_not_end_in_time_is_killed(rig: Rig) -> None:
    """A process that ignores SIGTERM is ended by force after its grace, and the order goes on."""
    async with rig.running([[rig.service("a", STUBBORN, 0.2)], [rig.service("b")]]):
        await asyncio.wait_for(rig.up.wait(), LONGEST)
    assert [line for line in rig.lines() if line.startswith("end")] == ["end a", "end b"]
    assert rig.children["a"][0].process.returncode == -signal.SIGKILL


async def test_a_second_signal_ends_everything_at_once(rig: Rig) -> None:
    """While the first stage is still waited for, everybody is killed."""
    async with rig.running([[rig.service("a", STUBBORN)], [rig.service("b")]]):
        await asyncio.wait_for(rig.up.wait(), LONGEST)
        rig.stop.set()
        await until(lambda: "end a" in rig.lines())
        rig.hurry.set()
    assert "end b" not in rig.lines()
    assert all(children[0].process.returncode == -signal.SIGKILL for children in rig.children.values())


async def test_stopping_while_starting_leaves_nothing(rig: Rig) -> None:
    """A stop before everything is up ends what was started, and starts nothing more."""
    never = POLITE.replace("tell_ready()\n", "")
    async with rig.running([[rig.service("b")]], [rig.service("a", never)]):
        await until(lambda: "start a" in rig.lines())
    assert not rig.up.is_set()
    assert rig.lines() == ["start a", "end a"]


def start_owner(notes: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen((sys.executable, "-c", OWNER, str(notes), POLITE), stdout=subprocess.PIPE)


async def test_a_killed_supervisor_leaves_no_orphans(tmp_path: Path) -> None:
    """Kill -9 of the supervisor: its children are told to end by the kernel."""
    notes = tmp_path / "notes"
    owner = start_owner(notes)
    try:
        assert owner.stdout is not None
        pid = int(await asyncio.wait_for(asyncio.to_thread(owner.stdout.readline), LONGEST))
        assert os.getsid(pid) == pid  # Ctrl-C in our terminal does not reach it
    finally:
        owner.kill()
        owner.wait(LONGEST)
        if owner.stdout is not None:
            owner.stdout.close()
    await until(lambda: "end orphan" in notes.read_text())


async def test_output_goes_to_a_closed_log(rig: Rig) -> None:
    """Both streams stand in `log/<name>.log`, the last words too, and only we can read them."""
    program = "import os, sys; print('to out'); print('to err', file=sys.stderr); sys.exit('last words')"
    log = rig.directory / "log" / "a.log"
    child = spawn((sys.executable, "-c", program), log=log, environment=os.environ)
    await asyncio.wait_for(child.wait(), LONGEST)
    assert sorted(log.read_text().split("\n")) == ["", "last words", "to err", "to out"]
    assert stat.S_IMODE(log.stat().st_mode) == 0o600
    assert stat.S_IMODE(log.parent.stat().st_mode) == 0o700


def test_a_log_stays_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A log that has grown too large becomes the one old one; its writer goes on in the emptied file."""
    monkeypatch.setattr(supervisor, "LOG_LIMIT", 100)
    log = tmp_path / "a.log"
    with log.open("ab", buffering=0) as writer:
        for number in range(100):
            writer.write(b"line %d\n" % number)
            bound_log(log)
    old = tmp_path / "a.log.1"
    assert sorted(tmp_path.iterdir()) == [log, old]
    assert (old.read_text() + log.read_text()).endswith("line 98\nline 99\n")
    assert len(log.read_bytes()) < 100
    assert len(old.read_bytes()) < 110
    assert stat.S_IMODE(old.stat().st_mode) == 0o600
