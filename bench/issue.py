"""Certificates per second, CPU and requests per certificate, beside peers in the same run.

A Pebble CA without sleeps, an nginx and a fleet with its default settings on this machine. Measured are the bare
loop (newOrder to certificate and nothing else), certbot, and the fleet: one app after another on an idle fleet, many
at once without installing, many at once installed and served; and what a worker does, without Celery, by part.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from bench import BenchFailed, bare, certbot, cpu, inside, report
from bench.batch import Batch, run_batch
from bench.ground import ASIDE, HOST, Ground, Measured, common_ground, running
from bench.machine import machine, versions
from bench.peer import Peer
from certfleet.cli.output import print_json
from certfleet.overview import State

IN_FLIGHT = (8, 32)
CERTBOT = 4  # certificates
ALONE = 20  # apps enabled one after another
WARM = 3  # of these before it counts
SERVED = 30.0  # seconds that one of them may take
IDLE = 3.0  # seconds
INSIDE = 150  # certificates for the sampled process at most


@dataclass(slots=True)
class Result:
    """Everything measured; the fields of the JSON output, with those of the batch without installing on top."""

    issued: Batch
    served: Batch
    enable_to_served: dict[str, float]
    idle_cpu_ms_per_second: float
    peers: list[Peer]
    ratios: dict[str, float]
    inside: inside.Inside
    machine: dict[str, Any]
    versions: dict[str, str]
    notes: list[str] = field(default_factory=list)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What can be chosen."""
    parser.add_argument(
        "--certificates", type=_count, default=300, metavar="N", help="how many at once (10 to 2000, default 300)"
    )
    parser.add_argument("--without-certbot", action="store_true", help="do not install or run certbot")
    parser.add_argument("--json", action="store_true", help="the figures as JSON on standard output")


def _count(text: str) -> int:
    if not text.isdecimal() or not 10 <= int(text) <= 2000:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 10 to 2000")
    return int(text)


async def run(given: argparse.Namespace) -> None:
    """Measure and print. Raises BenchFailed and what the parts raise when they do not come up."""
    result = await measure(given.certificates, with_certbot=not given.without_certbot)
    if given.json:
        fields = {name: getattr(result, name) for name in result.__dataclass_fields__ if name != "issued"}
        print_json(**asdict(result.issued), **fields)
    else:
        report.show(result)


async def measure(certificates: int, *, with_certbot: bool) -> Result:
    """Run everything on one CA."""
    about, notes = machine(), []
    async with common_ground() as ground:
        peers = []
        for in_flight in IN_FLIGHT:
            say(f"the bare loop, {certificates} certificates, {in_flight} in flight")
            peers.append(await bare.measure(ground, certificates=certificates, in_flight=in_flight))
        if with_certbot:
            say(f"certbot, {CERTBOT} certificates (installed first if it is not)")
            try:
                peers.insert(0, await certbot.measure(ground, certificates=CERTBOT))
            except BenchFailed as error:
                notes.append(str(error))
        say("the fleet: starting")
        async with running(ground, "fleet") as fleet:
            say(f"the fleet: {ALONE} apps, one after another")
            alone = await _one_after_another(ground, fleet)
            idle = await _idle(fleet)
            say(f"the fleet: {certificates} certificates, not installed")
            issued = await _batch(ground, fleet, "issue", certificates, ASIDE)
            say(f"the fleet: {certificates} certificates, installed and served")
            served = await _batch(ground, fleet, "serve", certificates, HOST)
            server = await fleet.books.store.redis.info("server")
        few = min(certificates, INSIDE)
        say(f"a worker's work without Celery, sampled: {few} certificates, installed and served")
        parts = await inside.measure(ground, _names("inside", few))
    redis = f"{server.get('server_name', 'redis')} {server.get('valkey_version') or server['redis_version']}"
    return Result(
        issued=issued,
        served=served,
        enable_to_served=alone,
        idle_cpu_ms_per_second=idle,
        peers=peers,
        ratios=_ratios(issued, peers),
        inside=parts,
        machine=about,
        versions=versions(redis),
        notes=notes,
    )


def say(line: str) -> None:
    """How far it is, for a person."""
    print(f"bench: {line}", file=sys.stderr, flush=True)


def _names(stem: str, count: int) -> list[str]:
    return [f"{stem}{number:04}" for number in range(count)]


async def _batch(ground: Ground, fleet: Measured, stem: str, count: int, host: str) -> Batch:
    apps = await fleet.add(ground, _names(stem, count), host, enabled=True)
    return await run_batch(ground, fleet, apps, served=host == HOST)


async def _one_after_another(ground: Ground, fleet: Measured) -> dict[str, float]:
    """Seconds from `enable` to served, each app when the one before is done."""
    apps = await fleet.add(ground, _names("alone", WARM + ALONE), HOST, enabled=False)
    seconds = []
    for app in apps:
        began = time.monotonic()
        await fleet.client.enable(app.name)
        [view] = await fleet.client.wait([app.name], SERVED)
        if view.state is not State.SERVED:
            raise BenchFailed(f"{app.name} was not served after {SERVED:.0f} s: it is {view.state}, {view.error}")
        seconds.append(time.monotonic() - began)
    return _distribution(seconds[WARM:])


def _distribution(seconds: Sequence[float]) -> dict[str, float]:
    ordered = sorted(seconds)
    return {
        "runs": len(ordered),
        "p50_seconds": round(statistics.median(ordered), 3),
        "p90_seconds": round(ordered[int(len(ordered) * 0.9)], 3),
        "longest_seconds": round(ordered[-1], 3),
    }


async def _idle(fleet: Measured) -> float:
    """CPU of the fleet, in ms per second, with nothing to do."""
    await asyncio.sleep(1)
    before = cpu.of_stack(fleet.stack)
    await asyncio.sleep(IDLE)
    return round(sum(cpu.between(before, cpu.of_stack(fleet.stack)).values()) / IDLE, 1)


def _ratios(issued: Batch, peers: Sequence[Peer]) -> dict[str, float]:
    """The fleet's figure by each peer's."""
    ratios = {}
    for peer in peers:
        ratios[f"rate_to_{peer.key}"] = round(issued.certificates_per_second / peer.certificates_per_second, 2)
        ratios[f"cpu_to_{peer.key}"] = round(issued.cpu_ms_per_certificate / peer.cpu_ms_per_certificate, 2)
    return ratios
