"""A host in a zone is visited by workers of that zone, and by no others."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from certfleet.broker import install_queue
from certfleet.client import Client, open_client
from certfleet.demo.ports import free_port
from certfleet.demo.story import running_fleet
from certfleet.models import Host
from certfleet.settings import Settings
from tests.rig import LIMIT

ZONE = "dmz"


async def until(holds: Callable[[], Awaitable[bool]], directory: Path) -> None:
    """Wait for it; fails, with the ends of all logs, when it does not come to pass."""
    limit = time.monotonic() + LIMIT
    while not await holds():
        logs = (f"== {file.name}\n{file.read_text(errors='replace')[-1500:]}" for file in directory.rglob("*.log"))
        assert time.monotonic() < limit, "\n".join(("it did not come to pass", *logs))
        await asyncio.sleep(0.05)


def worker_inside(settings: Settings, log: Path) -> subprocess.Popen[bytes]:
    """The one process that a closed network needs: a worker that takes messages for its zone alone."""
    with log.open("wb") as output:
        return subprocess.Popen(
            (
                *(sys.executable, "-m", "celery", "--quiet", "-A", "workers.app:app", "worker", "--pool", "threads"),
                *("-Q", install_queue(ZONE), "-n", "inside@%h", "--loglevel", "WARNING"),
                *("--without-gossip", "--without-mingle"),
            ),
            env=os.environ | {"CERTFLEET_HOME": str(settings.home), "CERTFLEET_ZONES": ZONE},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )


async def visits(client: Client, name: str) -> int:
    """How often a host was visited to be cleaned up."""
    return sum(entry.event == "cleaned up" for entry in await client.history(name))


async def test_a_zone_has_its_own_workers(short_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers outside never come near a host in the zone; one worker inside is all that it needs.

    What was sent before it was there waits for it: it need not wait for a lease.
    """
    monkeypatch.setenv("CERTFLEET_LEASE", "600")
    settings = Settings(home=short_directory / "home", responder_port=free_port(), flower_port=free_port(), workers=1)
    async with running_fleet(settings, short_directory / "fleet.log"), open_client(settings) as client:
        for name, zone in (("inner", ZONE), ("outer", None)):
            root = str(short_directory / name)
            await client.add_host(Host(name, root=root, test_command=("true",), reload_command=("true",), zone=zone))

        async def visited(name: str, times: int) -> bool:
            return await visits(client, name) == times

        await client.clean_up(["inner"])
        for times in (1, 2, 3):
            await client.clean_up(["outer"])
            await until(partial(visited, "outer", times), short_directory)
        assert await visited("inner", 0)
        with ExitStack() as stack:
            inside = worker_inside(settings, short_directory / "inside.log")
            stack.callback(inside.wait, LIMIT)
            stack.callback(inside.terminate)
            await until(partial(visited, "inner", 1), short_directory)
