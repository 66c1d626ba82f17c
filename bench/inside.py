"""The work of a worker process without Celery, in one thread that can be looked at: where its CPU goes.

`python -m bench.inside` is that process: it claims what is due from the agenda and runs the same steps, with as many
at once as one worker has (`threads` messages of `batch` members). What Celery adds is the difference to a worker.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

import uvloop

from bench import BenchFailed
from bench.batch import come_due, follow
from bench.ground import HOST, ROOT, Ground, Measured
from bench.sampler import STEP, Seen, sampling
from certfleet.agenda import Claim
from certfleet.client import open_client
from certfleet.demo.pebble import child
from certfleet.demo.ports import free_port
from certfleet.demo.story import furnish
from certfleet.lifecycle.fleet import open_fleet
from certfleet.lifecycle.hosts.install import install
from certfleet.lifecycle.orders.advance import advance
from certfleet.lifecycle.renewals.check import check
from certfleet.lifecycle.work import Next, Step, work
from certfleet.lifecycle.workbench import Workbench, open_workbench
from certfleet.settings import Settings, load_settings
from certfleet.vault import ensure_key
from workers import embedded_redis

STEPS = {"check": check, "order": advance, "host": install}
LOOK = 0.05  # seconds between two looks for what is due; a fleet's tick comes once a second
END = 30.0  # seconds for the process to tell what it saw
START = 20.0  # seconds for it to open everything
WARM = 20  # certificates before it counts


@dataclass(frozen=True, slots=True)
class Part:
    """One kind of work."""

    step: str
    """What it was done for: check, order, host; empty where the event loop does not tell."""
    part: str
    cpu_ms_per_certificate: float


@dataclass(frozen=True, slots=True)
class Inside:
    """A worker's work without Celery; `parts` add up to the whole."""

    cpu_ms_per_certificate: float
    looks: int
    parts: list[Part]


async def measure(ground: Ground, names: Sequence[str]) -> Inside:
    """Issue, install and serve these apps with one such process. Raises BenchFailed."""
    settings = Settings(home=ground.directory / "inside", responder_port=free_port(), nameservers=[ground.ca.dns])
    ensure_key(settings)
    environment = {
        "CERTFLEET_HOME": str(settings.home),
        "CERTFLEET_RESPONDER_PORT": str(settings.responder_port),
        "CERTFLEET_NAMESERVERS": json.dumps(settings.nameservers),
        "PYTHONPATH": str(ROOT),
    }
    async with AsyncExitStack() as stack:
        redis = await embedded_redis.start(settings)
        stack.push_async_callback(redis.stop, END)
        log = ground.directory / "inside.log"
        responder = (sys.executable, "-m", "workers.responder")
        await stack.enter_async_context(child(responder, log, environment))
        client = await stack.enter_async_context(open_client(settings))
        books = await stack.enter_async_context(open_fleet(settings))
        await furnish(client, settings, ground.ca, ground.nginx, 0)
        fleet = Measured(settings, client, books, 0)
        warm = await fleet.add(ground, [f"{name}-warm" for name in names[:WARM]], HOST, enabled=True)
        apps = await fleet.add(ground, names, HOST, enabled=True)
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "bench.inside"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=os.environ | environment,
        )
        try:
            await _told(process, START)
            for together in (warm, apps):
                await come_due(fleet, together)
                await _say(process)
                await follow(fleet, together, time.monotonic(), served=True)
                await _say(process)
                told = await _told(process, END)
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()
    return _figures(told, len(apps))


async def _say(process: asyncio.subprocess.Process) -> None:
    assert process.stdin is not None
    process.stdin.write(b"\n")
    await process.stdin.drain()


async def _told(process: asyncio.subprocess.Process, limit: float) -> dict[str, object]:
    assert process.stdout is not None
    try:
        async with asyncio.timeout(limit):
            told: dict[str, object] = json.loads(await process.stdout.readline() or b"{}")
    except TimeoutError:
        told = {}
    if not told:
        raise BenchFailed("the process that works without Celery told nothing; its message is above")
    return told


def _figures(told: dict[str, object], count: int) -> Inside:
    rows, cpu_ms = told["rows"], told["cpu_ms"]
    assert isinstance(rows, list)
    assert isinstance(cpu_ms, float)
    looks = sum(number for _, _, number in rows) or 1
    parts = [Part(step, part, round(cpu_ms * number / looks / count, 3)) for step, part, number in rows]
    return Inside(
        cpu_ms_per_certificate=round(cpu_ms / count, 2),
        looks=looks,
        parts=sorted(parts, key=lambda part: -part.cpu_ms_per_certificate),
    )


# --- the process -----------------------------------------------------------------------------------


async def _main() -> None:
    settings = load_settings()
    async with open_workbench(settings) as bench:
        working = asyncio.create_task(_work(bench, settings))
        _tell(Seen(), 0.0)
        for _ in range(2):  # the first is the warm-up
            await asyncio.to_thread(sys.stdin.readline)
            began = time.process_time()
            with sampling() as seen:
                await asyncio.to_thread(sys.stdin.readline)
            _tell(seen, time.process_time() - began)
        working.cancel()


def _tell(seen: Seen, cpu_seconds: float) -> None:
    rows = [[step, part, number] for (step, part), number in seen.items()]
    print(json.dumps({"rows": rows, "cpu_ms": cpu_seconds * 1000}), flush=True)


async def _work(bench: Workbench, settings: Settings) -> None:
    """Claim what is due and run its steps, until cancelled."""
    turns = asyncio.Semaphore(settings.threads)

    async def message(kind: str, claims: Sequence[Claim]) -> None:
        async with turns:
            members = await work(bench, claims, _named(kind))
        send([Claim(member, 0) for member in members])

    def send(claims: Sequence[Claim]) -> None:
        by_kind: defaultdict[str, list[Claim]] = defaultdict(list)
        for claim in claims:
            by_kind[claim.kind].append(claim)
        for kind, together in by_kind.items():
            for start in range(0, len(together), settings.batch):
                group.create_task(message(kind, together[start : start + settings.batch]))

    async with asyncio.TaskGroup() as group:
        while True:
            send(await bench.fleet.agenda.due(1000))
            await asyncio.sleep(LOOK)


def _named(kind: str) -> Step:
    async def step(bench: Workbench, claim: Claim) -> Next:
        STEP.set(kind)
        return await STEPS[kind](bench, claim)

    return step


if __name__ == "__main__":
    uvloop.run(_main())
