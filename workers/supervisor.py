"""Keeps processes running: starts again what dies, ends everything in order.

A `Service` says how to start one thing; what it starts is a `Running`. `supervise` keeps stages of
services alive until it is told to stop, then ends them stage by stage.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from certfleet.errors import ConfigurationError
from workers.embedded_redis import until_dead

FIRST_PAUSE = 1.0  # seconds before a service that died is started again
LONGEST_PAUSE = 30.0  # seconds; the pause doubles up to here
LONG_LIFE = 60.0  # seconds after which a death is the first one again
LOG_LIMIT = 10_000_000  # bytes after which a log is moved away; one older file is kept
LOG_LOOK = 20.0  # seconds between two looks at its size
READY_FD = "CERTFLEET_READY_FD"
PR_SET_PDEATHSIG = 1  # prctl(2)

_libc = ctypes.CDLL(None, use_errno=True)


class Running(Protocol):
    """Something that runs until it dies or is ended."""

    @property
    def pid(self) -> int:
        """Its process number."""

    async def wait(self) -> None:
        """Return when it is dead."""

    async def stop(self, grace: float) -> None:
        """Ask it to end, wait; use force after `grace` seconds."""

    def kill(self) -> None:
        """End it at once."""


async def _at_once(_: Running) -> None:
    """Ready as soon as it was started."""


@dataclass(frozen=True, slots=True)
class Service:
    """One thing to keep running."""

    name: str
    start: Callable[[], Awaitable[Running]]
    """Raises ConfigurationError when it cannot be started; it is tried again."""
    grace: float
    """Seconds that it may take to end."""
    ready: Callable[[Running], Awaitable[None]] = _at_once
    """Returns when what was started can do its work."""


@dataclass(slots=True)
class Kept:
    """What the supervisor knows of one service."""

    service: Service
    running: Running | None = None
    up: asyncio.Event = field(default_factory=asyncio.Event)
    ending: asyncio.Event = field(default_factory=asyncio.Event)
    keeper: asyncio.Task[None] | None = None


Say = Callable[[str], None]


async def supervise(
    foundation: Sequence[Service],
    stages: Sequence[Sequence[Service]],
    *,
    say: Say,
    stop: asyncio.Event,
    hurry: asyncio.Event,
    when_up: Callable[[], None] = lambda: None,
) -> None:
    """Keep all services running until `stop`, then end the stages in their order, the foundation last.

    All stages are started together, as soon as the foundation is up. `hurry` ends all that is left at once.
    """
    base = [Kept(service) for service in foundation]
    ends = [[Kept(service) for service in stage] for stage in stages]
    others = [one for stage in ends for one in stage]
    async with asyncio.TaskGroup() as group:
        bringing_up = group.create_task(_bring_up(group, base, others, say, when_up))
        hurrying = group.create_task(_kill_when(hurry, [*base, *others]))
        await stop.wait()
        bringing_up.cancel()
        for stage in [*ends, base]:
            for one in stage:
                one.ending.set()
            await asyncio.gather(*(_end(one, hurry, say) for one in stage))
        hurrying.cancel()


async def _bring_up(
    group: asyncio.TaskGroup, base: list[Kept], others: list[Kept], say: Say, when_up: Callable[[], None]
) -> None:
    for together in (base, others):
        for one in together:
            one.keeper = group.create_task(_keep(one, say))
        for one in together:
            await one.up.wait()
    when_up()


async def _keep(one: Kept, say: Say) -> None:
    """Start a service again and again, until it is to end."""
    pause = FIRST_PAUSE
    while not one.ending.is_set():
        began = time.monotonic()
        try:
            one.running = await one.service.start()
        except ConfigurationError as error:
            end = str(error)
        else:
            end = await _live(one, one.running, say)
            one.running = None
        if one.ending.is_set():
            return
        if time.monotonic() - began >= LONG_LIFE:
            pause = FIRST_PAUSE
        say(f"{one.service.name}: {end}; starting it again in {pause:g} s")
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(one.ending.wait(), pause)
        pause = min(2 * pause, LONGEST_PAUSE)


async def _live(one: Kept, running: Running, say: Say) -> str:
    """One life of a service, from its start to its death; answers how it ended."""

    async def announce() -> None:
        await one.service.ready(running)
        one.up.set()
        say(f"{one.service.name}: ready (process {running.pid})")

    announcing = asyncio.create_task(announce())
    try:
        await running.wait()
    finally:
        announcing.cancel()
    return f"process {running.pid} ended{how_it_ended(running)}"


async def _end(one: Kept, hurry: asyncio.Event, say: Say) -> None:
    """Stop one service and wait until its keeper has seen it dead."""
    if one.keeper is None:
        return
    if one.running is None:
        one.keeper.cancel()  # between two lives
    elif hurry.is_set():
        one.running.kill()
    else:
        await one.running.stop(one.service.grace)
    await asyncio.wait([one.keeper])
    say(f"{one.service.name}: stopped")


async def _kill_when(hurry: asyncio.Event, everyone: list[Kept]) -> None:
    await hurry.wait()
    for one in everyone:
        one.ending.set()
        if one.running is not None:
            one.running.kill()


def how_it_ended(running: Running) -> str:
    """` with status 1`, ` by SIGKILL`; empty for a process that is not our child."""
    if not isinstance(running, Child) or running.process.returncode is None:
        return ""
    status = running.process.returncode
    return f" with status {status}" if status >= 0 else f" by {signal.Signals(-status).name}"


@dataclass(slots=True)
class Child:
    """A child process whose output goes to a log file."""

    process: subprocess.Popen[bytes]
    _pidfd: int
    told_ready: asyncio.Event
    """Set when the process called `tell_ready`."""
    _watching: asyncio.Task[None]

    @property
    def pid(self) -> int:
        """Its process number, its group's too."""
        return self.process.pid

    async def wait(self) -> None:
        """Return when it is dead."""
        if self.process.poll() is None:
            await until_dead(self._pidfd)
            self.process.wait()
        self._watching.cancel()

    async def stop(self, grace: float) -> None:
        """SIGTERM, and SIGKILL to its whole group after `grace` seconds."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            async with asyncio.timeout(grace):
                await self.wait()
        except TimeoutError:
            self.kill()
            await self.wait()

    def kill(self) -> None:
        """SIGKILL to its whole group."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)

    def __del__(self) -> None:
        with contextlib.suppress(OSError):
            os.close(self._pidfd)


def spawn(command: Sequence[str], *, log: Path, environment: Mapping[str, str]) -> Child:
    """Start a program in a session of its own, so that Ctrl-C in the terminal reaches only us.

    It gets SIGTERM when we die, whatever way (PR_SET_PDEATHSIG). Both its streams are the file `log`, not a
    pipe to us: Celery takes a broken pipe in its SIGTERM handler for a lost connection, and would live on.
    Raises ConfigurationError when it cannot be started.
    """
    try:
        output = _open_log(log)
    except OSError as error:
        raise ConfigurationError(f"the log {log} cannot be opened: {error.strerror}") from error
    ready_read, ready_write = os.pipe()
    try:
        process = subprocess.Popen(
            list(command),
            env={**environment, READY_FD: str(ready_write)},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=(ready_write,),
            start_new_session=True,
            preexec_fn=_end_with(os.getpid()),  # noqa: PLW1509  this process has one thread
        )
    except (OSError, subprocess.SubprocessError) as error:
        os.close(ready_read)
        raise ConfigurationError(f"{command[0]} cannot be started: {error}") from error
    finally:
        os.close(output)
        os.close(ready_write)
    told_ready = asyncio.Event()
    watching = asyncio.create_task(_watch(ready_read, told_ready, log))
    return Child(process, os.pidfd_open(process.pid), told_ready, watching)


def tell_ready() -> None:
    """Called in a supervised process when it can do its work; does nothing elsewhere."""
    if descriptor := os.environ.pop(READY_FD, None):
        with contextlib.suppress(OSError):
            os.write(int(descriptor), b"ready\n")
            os.close(int(descriptor))


def _end_with(parent: int) -> Callable[[], None]:
    def before_exec() -> None:
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent:  # it died in between, no signal will come
            os._exit(1)

    return before_exec


async def _watch(ready_read: int, told_ready: asyncio.Event, log: Path) -> None:
    """See the child's word that it is ready, and keep its log bounded."""
    loop = asyncio.get_running_loop()

    def word() -> None:
        if os.read(ready_read, 16):
            told_ready.set()
        loop.remove_reader(ready_read)

    loop.add_reader(ready_read, word)
    try:
        while True:
            bound_log(log)
            await asyncio.sleep(LOG_LOOK)
    finally:
        loop.remove_reader(ready_read)
        os.close(ready_read)


def _open_log(path: Path) -> int:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)


def bound_log(path: Path) -> None:
    """Move what a log holds to `<name>.1` when it has grown too large; its writers go on in the emptied file."""
    try:
        if path.stat().st_size < LOG_LIMIT:
            return
        older = path.with_name(path.name + ".1")
        older.unlink(missing_ok=True)
        with path.open("rb") as source, open(_open_log(older), "wb") as copy:
            shutil.copyfileobj(source, copy)
        os.truncate(path, 0)
    except OSError as error:
        sys.stderr.write(f"the log {path} cannot be rotated: {error.strerror}\n")
