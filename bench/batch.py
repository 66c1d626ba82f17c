"""N certificates at once: the checks of N apps come due together, as renewals do, and the fleet does the rest.

Nothing is sent by the benchmark: the next tick finds what is due. Time counts from the due moment on.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from bench import BenchFailed, cpu
from bench.ground import Ground, Measured
from certfleet.lifecycle.records import check_member
from certfleet.models import App, utcnow

AHEAD = 2.0  # seconds, and 1 ms for each app, to put the checks on the agenda before they are due
LOOK = 0.1  # seconds between two looks at how far it is
STALL = 30.0  # seconds without a further certificate after which the run has failed
SETTLE = 0.3  # seconds after the last certificate: what was begun with it belongs to it


@dataclass(frozen=True, slots=True)
class Reading:
    """Counters at one moment."""

    cpu: dict[str, float]
    others: dict[str, float]
    requests: dict[str, int]
    messages: int
    commands: dict[str, int]


@dataclass(frozen=True, slots=True)
class Progress:
    """Seconds from due to all issued, and to all served; and how often was looked."""

    issued_after: float
    served_after: float
    looks: int


@dataclass(slots=True)
class Batch:
    """What N certificates took; everything per certificate but the rates."""

    certificates: int
    seconds: float
    """From due to issued, all of them."""
    seconds_served: float | None
    certificates_per_second: float
    served_per_second: float | None
    cpu_ms_per_certificate: float
    requests_per_certificate: float
    celery_hops_per_certificate: float
    redis_commands_per_certificate: float
    cpu_ms_by_process: dict[str, float] = field(default_factory=dict)
    others_cpu_ms: dict[str, float] = field(default_factory=dict)
    """The CA, its front and nginx."""
    redis_commands: dict[str, float] = field(default_factory=dict)
    requests: dict[str, float] = field(default_factory=dict)
    """To the CA, by kind."""


async def read(ground: Ground, fleet: Measured) -> Reading:
    """All counters, now."""
    others = {**ground.ca.pids, "nginx": ground.nginx.pid}
    counts = await ground.ca.counts()
    redis = fleet.books.store.redis
    statistics = await redis.info("commandstats")
    meta = await redis.hget(fleet.books.store.key("beat", "tick"), "meta")
    commands = {name.removeprefix("cmdstat_"): int(value["calls"]) for name, value in statistics.items()}
    ticks = int(json.loads(meta)["total_run_count"]) if meta else 0
    return Reading(
        cpu=cpu.of_stack(fleet.stack),
        others=cpu.of_others(others),
        requests={kind: count for kind, count in counts.items() if kind != "bad_nonce"},
        # A message to a queue is one LPUSH (kombu's Redis transport), and beat sends nothing but ticks.
        messages=commands.get("lpush", 0) - ticks,
        commands=commands,
    )


async def run_batch(ground: Ground, fleet: Measured, apps: Sequence[App], *, served: bool) -> Batch:
    """Let all apps come due, wait until all are issued (and `served`). Raises BenchFailed when it stalls."""
    await come_due(fleet, apps)
    before = await read(ground, fleet)
    progress = await follow(fleet, apps, time.monotonic(), served=served)
    await asyncio.sleep(SETTLE)
    after = await read(ground, fleet)
    await _verify(fleet, apps, served=served)
    return _figures(before, after, len(apps), progress, served=served)


async def come_due(fleet: Measured, apps: Sequence[App]) -> None:
    """Put every check on the agenda for one moment, and return at that moment."""
    moment = utcnow() + timedelta(seconds=AHEAD + len(apps) / 1000)
    await asyncio.gather(*(fleet.books.agenda.schedule(check_member(app.name), moment) for app in apps))
    left = (moment - utcnow()).total_seconds()
    if left < 0:
        raise BenchFailed(f"{len(apps)} checks could not be put on the agenda in time: the machine is too busy")
    await asyncio.sleep(left)


async def follow(fleet: Measured, apps: Sequence[App], began: float, *, served: bool) -> Progress:
    """Look until all are issued (and `served`). Raises BenchFailed when nothing moves any more."""
    issued_after, last, moved, looks = 0.0, (0, 0), time.monotonic(), 0
    while True:
        now, looks = await _stand(fleet, apps), looks + 1
        elapsed = time.monotonic() - began
        if now != last:
            last, moved = now, time.monotonic()
        if not issued_after and now[0] == len(apps):
            issued_after = elapsed
        if issued_after and (not served or now[1] == len(apps)):
            return Progress(issued_after, elapsed, looks)
        if time.monotonic() - moved > STALL:
            raise BenchFailed(
                f"no progress in {STALL:.0f} s: of {len(apps)} certificates {now[0]} are issued, {now[1]} installed; "
                f"the logs are in {fleet.settings.home}/log"
            )
        await asyncio.sleep(LOOK)


async def _stand(fleet: Measured, apps: Sequence[App]) -> tuple[int, int]:
    """How many are issued, and how many of these are served."""
    store = fleet.books.store
    pipe = store.redis.pipeline()
    pipe.exists(*(store.key("certificate", app.name) for app in apps))
    pipe.scard(store.key("pending", apps[0].hosts[0]))  # issued and stored together; out of it when served
    issued, pending = await pipe.execute()
    return int(issued), int(issued) - int(pending)


async def _verify(fleet: Measured, apps: Sequence[App], *, served: bool) -> None:
    """What was counted is what `certfleet ls` says."""
    views = [view async for view in fleet.client.overviews([app.name for app in apps])]
    wrong = [v for v in views if v.generation != 1 or (served and v.served_on != 1)]
    if wrong:
        raise BenchFailed(f"{len(wrong)} apps did not get exactly one certificate, such as {wrong[0]}")


def _figures(before: Reading, after: Reading, count: int, progress: Progress, *, served: bool) -> Batch:
    def each(values: dict[str, float]) -> dict[str, float]:
        return {name: round(value / count, 3) for name, value in sorted(values.items(), key=lambda e: -e[1])}

    spent = cpu.between(before.cpu, after.cpu)
    ours = dict.fromkeys(("exists", "scard", "multi", "exec"), progress.looks) | {"info": 1, "hget": 1}
    commands = {
        name: calls - before.commands.get(name, 0) - ours.get(name, 0) for name, calls in after.commands.items()
    }
    requests = {kind: float(now - before.requests[kind]) for kind, now in after.requests.items()}
    return Batch(
        certificates=count,
        seconds=round(progress.issued_after, 2),
        seconds_served=round(progress.served_after, 2) if served else None,
        certificates_per_second=round(count / progress.issued_after, 1),
        served_per_second=round(count / progress.served_after, 1) if served else None,
        cpu_ms_per_certificate=round(sum(spent.values()) / count, 2),
        requests_per_certificate=round(sum(requests.values()) / count, 2),
        celery_hops_per_certificate=round((after.messages - before.messages) / count, 3),
        redis_commands_per_certificate=round(sum(commands.values()) / count, 1),
        cpu_ms_by_process=each(spent),
        others_cpu_ms=each(cpu.between(before.others, after.others)),
        redis_commands=each({name: float(calls) for name, calls in commands.items() if calls > 0}),
        requests=each({kind: number for kind, number in requests.items() if number}),
    )
