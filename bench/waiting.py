"""What it costs to wait: tens of thousands of orders in one waiting room, and a token every ten seconds.

An idle fleet is measured first, then the same fleet while all these orders wait; both in one run.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import Any

from bench import cpu
from bench.fleet import counted, say
from bench.limited import LOCATION, Limited, limited
from bench.machine import machine
from certfleet.acme_ca.presets import resolve_ca
from certfleet.cli.output import print_json, print_table
from certfleet.lifecycle.orders.admission import admission
from certfleet.lifecycle.orders.ordering import make_order
from certfleet.lifecycle.records import order_member
from certfleet.lifecycle.work import Waiting
from certfleet.lifecycle.workbench import Workbench, open_workbench
from certfleet.limits.rooms import Standing
from certfleet.models import App, utcnow
from certfleet.properties import effective
from tests.ca.limits import Limit

TOKEN = 10.0  # seconds between two tokens
LATER = timedelta(minutes=10)
AT_ONCE = 100  # orders that enter at once
OWN = 2  # Redis commands of a reading
DOMAIN = "crowd.test"


@dataclass(frozen=True, slots=True)
class Load:
    """What the fleet took, per second."""

    redis_commands_per_second: float
    cpu_ms_per_second: float
    cpu_ms_per_second_by_process: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Result:
    """Everything measured; the fields of the JSON output."""

    orders: int
    seconds: float
    """That each of the two was measured for."""
    idle: Load
    waiting: Load
    issued_meanwhile: int
    waiting_at_the_end: int
    megabytes_for_the_orders: float
    """Of Redis's memory: apps, orders and places."""
    machine: Mapping[str, Any]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What can be chosen."""
    parser.add_argument(
        "--orders", type=counted(200_000), default=50_000, metavar="N", help="how many wait (1 to 200000, 50000)"
    )
    parser.add_argument(
        "--seconds", type=counted(600, 10), default=60, metavar="N", help="of each measurement (10 to 600, 60)"
    )
    parser.add_argument("--json", action="store_true", help="the figures as JSON on standard output")


async def run(given: argparse.Namespace) -> None:
    """Measure and print."""
    result = await measure(given.orders, given.seconds)
    if given.json:
        print_json(**asdict(result))
        return
    rows = [
        ("Redis commands per second", result.idle.redis_commands_per_second, result.waiting.redis_commands_per_second),
        ("CPU ms per second", result.idle.cpu_ms_per_second, result.waiting.cpu_ms_per_second),
    ]
    print_table(("", "IDLE", f"{result.orders} WAIT"), rows)


async def measure(orders: int, seconds: int) -> Result:
    """An idle fleet, then the same with the orders."""
    about = machine()
    async with limited({"certificates-per-domain": Limit(1, TOKEN, 1)}, workers=2) as ground:
        ground.nginx.add_site("crowd", [f"*.{DOMAIN}"], LOCATION.format(port=ground.settings.responder_port))
        await ground.nginx.reload()
        say(f"an idle fleet, {seconds} s")
        idle = await _load(ground, seconds)
        say(f"{orders} orders enter one waiting room")
        before = await _memory(ground)
        async with open_workbench(ground.settings) as bench:
            await _enter(ground, bench, orders)
        taken = (await _memory(ground) - before) / 1e6
        admissions = ground.books.store.key("admissions")
        issued = int(await ground.books.store.redis.xlen(admissions))
        say(f"they wait, {seconds} s")
        waiting = await _load(ground, seconds)
        issued = int(await ground.books.store.redis.xlen(admissions)) - issued
        [bucket] = [one for one in await ground.client.buckets() if one.waiting]
    return Result(orders, seconds, idle, waiting, issued, bucket.waiting, round(taken, 1), about)


async def _enter(ground: Limited, bench: Workbench, orders: int) -> None:
    """What a worker does with each order, without Celery."""
    everywhere = await ground.books.inventory.properties()
    turns = asyncio.Semaphore(AT_ONCE)

    async def one(number: int) -> None:
        name = f"crowd{number:06}"
        app = App(name, (f"{name}.{DOMAIN}",), ("aside",), enabled=True)
        properties = effective(app.properties, everywhere)
        async with turns:
            await bench.fleet.inventory.add_app(app)
            # Not due yet: the fleet's own workers leave it to us.
            await make_order(bench.fleet, app, properties, "first issue", utcnow() + LATER)
            claim = await bench.fleet.agenda.claim(order_member(name))
            order = await bench.fleet.records.order(name)
            assert claim is not None
            assert order is not None
            ca = resolve_ca(order.ca, bundle=properties["ca-bundle"])
            asked = await admission(bench, claim, order, properties, ca=ca, served=None)
            again = utcnow()
            try:
                standing = await asked.enter(ordered=True)
                assert standing is Standing.ADMITTED
            except Waiting as waiting:
                again = waiting.at
            await bench.fleet.agenda.finish(claim, again)

    await asyncio.gather(*(one(number) for number in range(orders)))


async def _memory(ground: Limited) -> int:
    return int((await ground.books.store.redis.info("memory"))["used_memory"])


async def _load(ground: Limited, seconds: int) -> Load:
    redis = ground.books.store.redis
    before, spent = await redis.info("stats"), cpu.of_stack(ground.stack)
    await asyncio.sleep(seconds)
    after, now = await redis.info("stats"), cpu.of_stack(ground.stack)
    took = {name: round(ms / seconds, 1) for name, ms in cpu.between(spent, now).items()}
    commands = after["total_commands_processed"] - before["total_commands_processed"] - OWN
    return Load(round(commands / seconds, 1), round(sum(took.values()), 1), took)
