"""What a look at a CA's revocation list costs: a long list, and a fleet whose certificates all name it.

One list is fetched from a server on this machine, verified and compared, by the very step that workers run; then again,
as it has not changed. None of the fleet's certificates stands in it, but for a few in the last look.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from bench import BenchFailed
from bench.fleet import counted, say
from bench.machine import machine
from bench.private_redis import cpu_ms, private_redis, socket_of
from certfleet.acme_ca.crl import distribution_point
from certfleet.agenda import Claim
from certfleet.cli.output import print_json, print_table
from certfleet.lifecycle.orders.ordering import LONG_AGO
from certfleet.lifecycle.revocations.crl_book import WatchedList, crl_member
from certfleet.lifecycle.revocations.crl_look import look
from certfleet.lifecycle.work import work
from certfleet.lifecycle.workbench import Workbench, open_workbench
from certfleet.models import App, dump, utcnow
from certfleet.settings import Settings
from certfleet.store import Store
from certfleet.vault import ensure_key
from tests.certificate_records import record
from tests.revoking_ca import ListServer, RevokingCA, list_server, part, point

PAGE = 5_000  # records written at once
FIRST = 1 << 127  # serials of the list; the fleet's are above
FLEET = 1 << 150


@dataclass(frozen=True, slots=True)
class Look:
    """One look."""

    what: str
    seconds: float
    cpu_ms: float
    """Of the process that looks, its server for the list among it."""
    redis_cpu_ms: float
    peak_mb: float
    """The most memory that the process had until then."""


@dataclass(frozen=True, slots=True)
class Result:
    """Everything measured; the fields of the JSON output."""

    apps: int
    entries: int
    list_mb: float
    looks: Sequence[Look]
    machine: Mapping[str, Any]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What can be chosen."""
    parser.add_argument("--apps", type=counted(1_000_000), default=50_000, metavar="N", help="in the fleet (50000)")
    parser.add_argument("--entries", type=counted(1_000_000), default=200_000, metavar="N", help="of the list (200000)")
    parser.add_argument("--revoked", type=counted(1_000_000), default=1_000, metavar="N", help="in the end (1000)")
    parser.add_argument("--json", action="store_true", help="JSON on standard output")


async def run(given: argparse.Namespace) -> None:
    """Measure and print."""
    about = machine()
    with tempfile.TemporaryDirectory(prefix="certfleet-bench-", dir="/tmp") as place:
        async with private_redis(Path(place) / "redis", persistent=True) as store, list_server() as served:
            settings = Settings(home=Path(place), redis_url=SecretStr(f"unix://{socket_of(Path(place) / 'redis')}"))
            ensure_key(settings)
            async with open_workbench(settings) as bench:
                result = await _measured(bench, store, served, given, about)
    if given.json:
        print_json(**asdict(result))
        return
    print(f"{result.entries} entries, {result.list_mb} MB; {result.apps} apps that name it")
    rows = [(one.what, one.seconds, one.cpu_ms, one.redis_cpu_ms, one.peak_mb) for one in result.looks]
    print_table(("LOOK", "SECONDS", "CPU MS", "REDIS CPU MS", "PEAK MB"), rows)


async def _measured(
    bench: Workbench, store: Store, served: ListServer, given: argparse.Namespace, about: dict[str, Any]
) -> Result:
    ca = RevokingCA()
    say(f"making a list of {given.entries}, and {given.apps} apps")
    entries = list(range(FIRST, FIRST + given.entries))
    served.content = ca.list(dict.fromkeys(entries), extensions=[(part(served.url), True)])
    size = round(len(served.content) / 1e6, 1)
    name = await _watched(bench, store, ca, served, given.apps)
    looks = [
        await _look(bench, store, name, "nobody of ours in it"),
        await _look(bench, store, name, "it is as it was"),
    ]
    ours = list(range(FLEET, FLEET + min(given.revoked, given.apps)))
    served.content = ca.list(dict.fromkeys([*entries, *ours]), extensions=[(part(served.url), True)])
    looks.append(await _look(bench, store, name, f"{len(ours)} of ours in it"))
    if await bench.fleet.crls.count(name) != given.apps - len(ours):
        raise BenchFailed("not all that were revoked were noted")
    return Result(given.apps, given.entries, size, looks, about)


async def _watched(bench: Workbench, store: Store, ca: RevokingCA, served: ListServer, apps: int) -> str:
    """A fleet as its checks leave it: each app's certificate is watched. One leaf stands for all."""
    leaf = ca.leaf(points=[point(served.url)])
    place = distribution_point(leaf)
    if place is None:
        raise BenchFailed("the certificate names no list")
    plain = record(App("a", ("a.example.com",), ("web1",)), utcnow(), leaf=leaf, sealed_key="x" * 500)
    for start in range(0, apps, PAGE):
        pipe = store.redis.pipeline(transaction=False)
        for number in range(start, min(start + PAGE, apps)):
            app, serial = f"a{number}", f"{FLEET + number:x}"
            pipe.set(store.key("certificate", app), dump(replace(plain, app=app, serial=serial)))
            pipe.hset(store.key("watched", place.name), serial, app)
        await pipe.execute()
    await bench.fleet.crls.begin(WatchedList(place.name, place.url, ca.certificate))
    return place.name


async def _look(bench: Workbench, store: Store, name: str, what: str) -> Look:
    await bench.fleet.agenda.schedule(crl_member(name), LONG_AGO)
    await asyncio.sleep(0)
    wall, cpu, redis = time.perf_counter(), time.process_time(), await cpu_ms(store)
    await work(bench, [Claim(crl_member(name), 0)], look)
    known = await bench.fleet.crls.get(name)
    if known is None or known.error:
        raise BenchFailed(f"the list was not read: {known and known.error}")
    spent = (time.process_time() - cpu) * 1000, await cpu_ms(store) - redis
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    return Look(what, round(time.perf_counter() - wall, 2), round(spent[0]), round(spent[1]), round(peak))
