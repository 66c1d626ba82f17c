"""The embedded Redis: one server per directory, no answered write lost, closed to other users."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from certfleet.errors import ConfigurationError
from certfleet.settings import Settings
from certfleet.store import open_store
from workers import embedded_redis
from workers.embedded_redis import EmbeddedRedis

NOBODY = 65534
LONGEST = 60.0  # seconds that anything here may take
OWNER = """
import asyncio, sys
from certfleet.settings import Settings
from workers import embedded_redis

async def main():
    server = await embedded_redis.start(Settings(home=sys.argv[1]))
    print(server.pid, server.adopted, flush=True)
    await server.wait()

asyncio.run(main())
"""


@pytest.fixture
def settings() -> Iterator[Settings]:
    """Settings with a home of their own, whose path is short enough for a socket."""
    with tempfile.TemporaryDirectory(prefix="certfleet-") as directory:
        yield Settings(home=Path(directory))


@pytest.fixture
async def ended(settings: Settings) -> AsyncIterator[None]:
    """Whatever server is left in the home is ended with the test."""
    yield
    if settings.redis_socket.exists():
        server = await embedded_redis.start(settings)
        await server.stop(LONGEST)


def owner(settings: Settings) -> subprocess.Popen[str]:
    """Another process that starts (or takes over) the server and waits for its end."""
    return subprocess.Popen([sys.executable, "-c", OWNER, str(settings.home)], stdout=subprocess.PIPE, text=True)


async def word(process: subprocess.Popen[str]) -> tuple[int, bool]:
    """The owner's line: the server's pid, and whether it was taken over."""
    assert process.stdout is not None
    line = await asyncio.wait_for(asyncio.to_thread(process.stdout.readline), LONGEST)
    pid, adopted = line.split()
    return int(pid), adopted == "True"


def end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait(LONGEST)
    assert process.stdout is not None
    process.stdout.close()


def servers(settings: Settings) -> set[int]:
    """Processes that hold the lock's file open: by that, every server of this directory."""
    lock = str(settings.redis_directory / "lock")
    found = set()
    for descriptor in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if str(descriptor.readlink()) == lock:
                found.add(int(descriptor.parts[2]))
        except OSError:
            continue
    return found


async def write(settings: Settings, value: str) -> None:
    async with open_store(settings) as store:
        await store.redis.set(store.key("test"), value)


async def read(settings: Settings) -> str | None:
    async with open_store(settings) as store:
        value: str | None = await store.redis.get(store.key("test"))
        return value


async def dead(server: EmbeddedRedis) -> None:
    await asyncio.wait_for(server.wait(), LONGEST)


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(LONGEST):
        while not condition():  # noqa: ASYNC110  other processes set no event of ours
            await asyncio.sleep(0.001)


def as_another_user(program: str, argument: str) -> list[str]:
    """The words that a program prints as an unprivileged user; as ourselves when we are one."""
    other = [] if os.geteuid() else ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
    command = [*other, "/usr/bin/python3", "-c", program, argument]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=LONGEST).stdout.split()


@pytest.mark.usefixtures("ended")
async def test_an_owner_killed_leaves_the_server_to_the_next(settings: Settings) -> None:
    """Kill -9 of the owner: the next start takes over the same server with its data."""
    first = owner(settings)
    pid, adopted = await word(first)
    await write(settings, "kept")
    end(first)
    server = await embedded_redis.start(settings)
    assert not adopted
    assert server.adopted
    assert server.pid == pid
    assert await read(settings) == "kept"
    assert servers(settings) == {pid}


@pytest.mark.usefixtures("ended")
async def test_a_killed_server_loses_nothing_it_answered(settings: Settings) -> None:
    """Kill -9 of the server: its owner sees it die, the next start has every answered write."""
    server = await embedded_redis.start(settings)
    async with open_store(settings) as store:
        for number in range(200):
            await store.redis.set(store.key("test"), str(number))
    server.kill()
    await dead(server)
    again = await embedded_redis.start(settings)
    assert again.pid != server.pid
    assert not again.adopted
    assert await read(settings) == "199"


@pytest.mark.usefixtures("ended")
async def test_an_adopted_server_that_dies_is_noticed(settings: Settings) -> None:
    """A server that another process started is watched and ended like our own."""
    first = owner(settings)
    await word(first)
    end(first)
    server = await embedded_redis.start(settings)
    os.kill(server.pid, signal.SIGKILL)
    await dead(server)
    again = await embedded_redis.start(settings)
    await again.stop(LONGEST)
    assert servers(settings) == set()


@pytest.mark.usefixtures("ended")
async def test_owners_at_once_share_one_server(settings: Settings) -> None:
    """Six owners that start together on one directory end up with one server."""
    owners = [owner(settings) for _ in range(6)]
    try:
        words = await asyncio.gather(*(word(process) for process in owners))
        assert len({pid for pid, _ in words}) == 1
        assert [adopted for _, adopted in words].count(False) == 1
        assert servers(settings) == {words[0][0]}
    finally:
        for process in owners:
            end(process)


@pytest.mark.usefixtures("ended")
async def test_a_start_waits_for_a_server_that_is_ending(settings: Settings) -> None:
    """Starts and stops that overlap never leave two servers, and never none."""
    server = await embedded_redis.start(settings)
    for number in range(5):
        await write(settings, str(number))
        server.signal(signal.SIGTERM)
        following = await embedded_redis.start(settings)
        if following.pid == server.pid:  # taken over in its last moment
            await dead(following)
            following = await embedded_redis.start(settings)
        await dead(server)
        assert await read(settings) == str(number)
        assert servers(settings) == {following.pid}
        server = following


@pytest.mark.usefixtures("ended")
async def test_a_torn_file_is_read_up_to_the_tear(settings: Settings) -> None:
    """A power cut in the middle of a write costs that write, not the start."""
    server = await embedded_redis.start(settings)
    await write(settings, "whole")
    server.kill()
    await dead(server)
    file = max(settings.redis_directory.glob("appendonlydir/*.incr.aof"))
    with file.open("ab") as log:
        log.write(b"*3\r\n$3\r\nSET\r\n$9\r\ncertfl")
    await embedded_redis.start(settings)
    assert await read(settings) == "whole"


@pytest.mark.usefixtures("ended")
async def test_a_stale_socket_is_no_server(settings: Settings) -> None:
    """A socket file, lock file and pid file that a crash left do not keep a server from starting."""
    server = await embedded_redis.start(settings)
    server.kill()
    await dead(server)
    assert settings.redis_socket.exists()
    assert not (await embedded_redis.start(settings)).adopted


@pytest.mark.usefixtures("ended")
async def test_a_cancelled_start_leaves_no_server(settings: Settings) -> None:
    """Ctrl-C while the server starts does not leave one behind."""
    starting = asyncio.create_task(embedded_redis.start(settings))
    await until(lambda: starting.done() or servers(settings) - {os.getpid()})
    starting.cancel()
    await asyncio.wait([starting], timeout=LONGEST)
    if starting.cancelled():
        await until(lambda: not servers(settings))


async def test_a_server_that_cannot_start_says_why(settings: Settings) -> None:
    """Spoilt data: one sentence with the server's own last line and where to read on."""
    server = await embedded_redis.start(settings)
    await write(settings, "x")
    await server.stop(LONGEST)
    for file in settings.redis_directory.glob("appendonlydir/*.incr.aof"):
        file.write_bytes(b"this is no append-only file\n" * 20)
    with pytest.raises(ConfigurationError, match=r"ended at its start with status 1: .* \(more in .*redis\.log\)"):
        await embedded_redis.start(settings)


async def test_a_path_too_long_for_a_socket_is_refused(tmp_path: Path) -> None:
    """unix(7) takes 107 bytes: said in one sentence, and nothing is made."""
    home = tmp_path / ("x" * 107)
    with pytest.raises(ConfigurationError, match="set CERTFLEET_HOME to a shorter directory"):
        await embedded_redis.start(Settings(home=home))
    assert not home.exists()


@pytest.mark.usefixtures("ended")
async def test_files_are_closed_to_other_users(settings: Settings) -> None:
    """Directories 0700, files and socket 0600, and another user can neither connect nor read."""
    await embedded_redis.start(settings)
    await write(settings, "secret")
    directory = settings.redis_directory
    for path in (directory, *directory.rglob("*")):
        mode = stat.S_IMODE(path.lstat().st_mode)
        assert mode == (0o700 if path.is_dir() else 0o600), path
    settings.home.chmod(0o755)  # as if an operator had opened it
    look = (
        "import os, socket, sys; d = sys.argv[1]\ntry: os.listdir(d); print('listed')\nexcept PermissionError: pass\n"
    )
    look += "try: socket.socket(socket.AF_UNIX).connect(d + '/redis.sock'); print('connected')\n"
    look += "except PermissionError: print('refused')\n"
    expected = ["listed", "connected"] if os.geteuid() else ["refused"]
    assert as_another_user(look, str(directory)) == expected


@pytest.mark.usefixtures("ended")
async def test_the_server_is_set_up_for_durability(settings: Settings) -> None:
    """Every write is on the disk before its answer, nothing is evicted, nothing listens on TCP."""
    await embedded_redis.start(settings)
    async with open_store(settings) as store:
        found = await store.redis.config_get("appendonly", "appendfsync", "maxmemory-policy", "port", "save")
    assert found == {
        "appendonly": "yes", "appendfsync": "always", "maxmemory-policy": "noeviction", "port": "0", "save": ""
    }  # fmt: skip
