"""Decisions per second of certfleet's buckets, beside INCR/EXPIRE and PyPI's `limits` on the same Redis; forecasts.

One client and four (processes), each asking as soon as it has its answer; one bucket for each decision and five; on
the embedded Redis's program without persistence, and as it is configured (each answered write is on the disk). Short
rounds of all in turn: a ratio is that of two rounds one after the other. Certfleet takes from all buckets or from
none, in one script call; the peers decide on each bucket by itself. Then the time that a forecast takes.
"""

from __future__ import annotations

import argparse
import platform
import shutil
import statistics
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from bench import BenchFailed, forecasting
from bench.forecasting import SHAPES, Forecasted
from bench.machine import machine
from bench.private_redis import private_redis, socket_of
from bench.rounds import CLIENTS, Case, Sample, Samples, measure, say
from certfleet.cli.output import print_json, print_table

PACKAGES = ("certfleet", "redis", "hiredis", "uvloop", "limits")


@dataclass(frozen=True, slots=True)
class Spread:
    """One figure over all rounds."""

    median: float
    min: float
    max: float

    @classmethod
    def of(cls, figures: Iterable[float], digits: int) -> Spread:
        """Of at least one figure."""
        found = sorted(figures)
        return cls(*(round(figure, digits) for figure in (statistics.median(found), found[0], found[-1])))

    def __str__(self) -> str:
        return f"{self.median:g} ({self.min:g} to {self.max:g})"


@dataclass(frozen=True, slots=True)
class Decisions:
    """What one kind of client did in one case."""

    client: str
    name: str
    all_or_none: bool
    """With several buckets: nothing is taken when one of them says no."""
    server: str
    buckets: int
    clients: int
    per_second: Spread
    cpu_ms_per_1000: Spread
    """Of the clients."""
    server_cpu_ms_per_1000: Spread


@dataclass(frozen=True, slots=True)
class Ratio:
    """Certfleet's figure by a peer's, of rounds one after the other."""

    peer: str
    server: str
    buckets: int
    clients: int
    rate: Spread
    cpu: Spread


@dataclass(frozen=True, slots=True)
class Result:
    """Everything measured; the fields of the JSON output."""

    decisions: list[Decisions]
    ratios: list[Ratio]
    forecast: list[Forecasted]
    machine: dict[str, Any]
    versions: dict[str, str]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What can be chosen."""
    parser.add_argument(
        "--seconds", type=_seconds, default=3.0, metavar="N", help="how long each case is measured (0.1 to 60, 3)"
    )
    parser.add_argument(
        "--apps",
        type=_apps,
        default=100_000,
        metavar="N",
        help="apps in a forecast (10 to 200000, 100000)",
    )
    parser.add_argument("--json", action="store_true", help="the figures as JSON on standard output")


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0.1 <= seconds <= 60:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0.1 to 60")
    return seconds


def _apps(text: str) -> int:
    if not text.isdecimal() or not 10 <= int(text) <= 200_000:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 10 to 200000")
    return int(text)


async def run(given: argparse.Namespace) -> None:
    """Measure and print. Raises BenchFailed and what the server raises when it does not come up."""
    used, about = _versions(), machine()
    # A unix socket's path is short: /tmp, whatever TMPDIR says.
    directory = Path(tempfile.mkdtemp(prefix="certfleet-bench-", dir="/tmp"))
    try:
        samples, used["redis_server"] = await measure(directory, given.seconds)
        forecasts = await _forecasts(directory / "forecast", given.apps)
    finally:
        shutil.rmtree(directory)
    decisions = [_decisions(case, key, found) for (case, key), found in samples.items()]
    result = Result(decisions, list(_ratios(samples)), forecasts, about, used)
    if given.json:
        print_json(**{name: getattr(result, name) for name in result.__dataclass_fields__})
    else:
        _show(result)


async def _forecasts(directory: Path, apps: int) -> list[Forecasted]:
    found = []
    async with private_redis(directory, persistent=False):
        for key, shape in SHAPES.items():
            say(f"forecast of {apps} apps: {shape.name}")
            found.append(await forecasting.measure(socket_of(directory), key, apps))
    return found


def _versions() -> dict[str, str]:
    try:
        found = {name: version(name) for name in PACKAGES}
    except PackageNotFoundError as error:
        raise BenchFailed(f"the package {error.name} is missing; `scripts/setup dev` installs it") from None
    return {"python": platform.python_version(), **found}


def _decisions(case: Case, key: str, samples: Sequence[Sample]) -> Decisions:
    return Decisions(
        client=key,
        name=CLIENTS[key],
        all_or_none=key == "certfleet" or case.buckets == 1,
        **asdict(case),
        per_second=Spread.of((sample.per_second for sample in samples), 0),
        cpu_ms_per_1000=Spread.of((sample.client_ms for sample in samples), 1),
        server_cpu_ms_per_1000=Spread.of((sample.server_ms for sample in samples), 1),
    )


def _ratios(samples: Samples) -> Iterable[Ratio]:
    for (case, peer), theirs in samples.items():
        if peer == "certfleet":
            continue
        pairs = list(zip(samples[case, "certfleet"], theirs, strict=True))
        yield Ratio(
            peer=peer,
            **asdict(case),
            rate=Spread.of((our.per_second / their.per_second for our, their in pairs), 2),
            cpu=Spread.of((our.client_ms / their.client_ms for our, their in pairs), 2),
        )


def _show(result: Result) -> None:
    """Tables on standard output."""
    print_table(
        ("CLIENT", "CASE", "DECISIONS/S", "CPU MS PER 1000", "SERVER'S"),
        [
            (d.client, _case(d), d.per_second, d.cpu_ms_per_1000, d.server_cpu_ms_per_1000.median)
            for d in result.decisions
        ],
    )
    print("\nCertfleet by each peer; with 5 buckets certfleet takes all or none, a peer decides on each by itself")
    print_table(("PEER", "CASE", "RATE", "CPU"), [(r.peer, _case(r), r.rate, r.cpu) for r in result.ratios])
    print(f"\nForecasts of {result.forecast[0].apps} apps")
    print_table(
        ("SHAPE", "COMMAND S", "PEAK MB", "BUCKETS S", "SIMULATION S", "DAYS", "WAITS FOR"),
        [
            (
                *(f.name, f.command_seconds, f.command_peak_mb, f.buckets_seconds, f.simulation_seconds),
                *("-" if f.days is None else f.days, f.binding or "-"),
            )
            for f in result.forecast
        ],
    )
    about, used = result.machine, result.versions
    print(
        f"\n{about['processor']}, {about['cores']} cores, {about['memory_gb']} GB, {about['system']}, "
        f"load before {about['load_before']}\n" + ", ".join(f"{name} {number}" for name, number in used.items())
    )


def _case(figures: Decisions | Ratio) -> Case:
    return Case(figures.server, figures.buckets, figures.clients)
