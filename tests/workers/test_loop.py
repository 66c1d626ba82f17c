"""The event loop of a worker process waits for Redis, shares its connections, and bounds what it runs."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from certfleet.errors import ConfigurationError
from certfleet.lifecycle.workbench import Workbench
from certfleet.settings import Settings
from certfleet.vault import ensure_key
from workers import embedded_redis
from workers.loop import FleetLoop


@pytest.fixture
def home(short_directory: Path) -> Settings:
    """A home with a vault key and no Redis yet."""
    settings = Settings(home=short_directory)
    ensure_key(settings)
    return settings


@pytest.fixture
def loop(home: Settings) -> Iterator[FleetLoop]:
    """A loop that was started before Redis."""
    started = FleetLoop(home)
    yield started
    started.close()


async def size(bench: Workbench) -> int:
    return await bench.fleet.agenda.size()


async def test_a_worker_that_starts_before_redis_waits_for_it(home: Settings, loop: FleetLoop) -> None:
    """Redis comes later: the step that waited runs, and nothing had to be restarted."""
    waiting = asyncio.create_task(asyncio.to_thread(loop.run, size, 30))
    await asyncio.sleep(0.3)
    assert not waiting.done()
    server = await embedded_redis.start(home)
    try:
        assert await waiting == 0
    finally:
        await server.stop(10)


async def test_a_step_that_hangs_is_cancelled_in_time(home: Settings, loop: FleetLoop) -> None:
    """The thread pool has no time limits; the loop has."""
    server = await embedded_redis.start(home)
    cancelled = asyncio.Event()
    here = asyncio.get_running_loop()

    async def hang(_: Workbench) -> None:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            here.call_soon_threadsafe(cancelled.set)
            raise

    try:
        await asyncio.to_thread(loop.run, size, 30)
        with pytest.raises(TimeoutError):
            await asyncio.to_thread(loop.run, hang, 0.2)
        await asyncio.wait_for(cancelled.wait(), 10)
    finally:
        await server.stop(10)


def test_without_a_vault_key_it_says_so(short_directory: Path) -> None:
    """A worker on a machine without the fleet's key cannot open anything: one sentence, at its first task."""
    started = FleetLoop(Settings(home=short_directory))
    with pytest.raises(ConfigurationError, match="vault"):
        started.run(size, 10)
