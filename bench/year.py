"""A simulated year: 10,000 apps that were onboarded at once, while Let's Encrypt goes from 90 to 64 to 45 days.

A tenth of them has certificates for 160 hours. Lived through twice: as certfleet spreads renewals, and with each
renewal at its own time. Told is how many renewals an hour, six hours and a day bring at most, beside what the
certificates need that there are; whether one expires; and whether the CA would have refused an order.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from itertools import accumulate
from pathlib import Path
from typing import Any

from bench.fleet import counted, say
from bench.machine import machine
from bench.plot import plot
from bench.simulated import CLASSIC, END, HOURS, START, Lived, Year
from certfleet.cli.output import print_json, print_table

WINDOWS = (1, 6, 24)  # hours


@dataclass(frozen=True, slots=True)
class Peak:
    """The busiest time of one length, by what the certificates need that there are."""

    hours: int
    renewals: int
    of_need: float
    began: datetime


@dataclass(frozen=True, slots=True)
class Case:
    """One way to live through it."""

    expired: int
    refused: int
    """Answers of 429, as the CA counts."""
    renewals: int
    exempt: int
    """In the CA's window, as replacements."""
    early: int
    """Before their own time."""
    mean_days_earlier: float
    """Of those."""
    peaks: tuple[Peak, ...]
    cpu_seconds: float


@dataclass(frozen=True, slots=True)
class Result:
    """Everything found; the fields of the JSON output."""

    apps: int
    seed: int
    began: datetime
    ended: datetime
    settled: datetime
    """When the last app had its first certificate: counted from then on."""
    spread: Case
    """As certfleet does it."""
    unspread: Case
    """With each renewal at its own time."""
    more_certificates: float
    """Share of certificates that spreading takes more."""
    machine: Mapping[str, Any]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What can be chosen."""
    parser.add_argument(
        "--apps", type=counted(30_000, 10), default=10_000, metavar="N", help="how many (10 to 30000, 10000)"
    )
    parser.add_argument("--seed", type=counted(1_000_000), default=1, metavar="N", help="of all chance (1)")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the renewals of each day into this SVG file")
    parser.add_argument("--json", action="store_true", help="the figures as JSON on standard output")


async def run(given: argparse.Namespace) -> None:
    """Simulate and print."""
    about = machine()
    say(f"{given.apps} apps, spread")
    spread, spread_seconds = _lived(given.apps, given.seed, spread=True)
    say("the same, each renewal at its own time")
    unspread, unspread_seconds = _lived(given.apps, given.seed, spread=False)
    result = Result(
        apps=given.apps,
        seed=given.seed,
        began=START,
        ended=END,
        settled=START + timedelta(hours=spread.settled),
        spread=_case(spread, spread_seconds),
        unspread=_case(unspread, unspread_seconds),
        more_certificates=round(sum(spread.renewals) / sum(unspread.renewals) - 1, 4),
        machine=about,
    )
    if given.plot is not None:
        lines = [("spread", spread.renewals), ("each at its own time", unspread.renewals)]
        marks = [(since, f"{lifetime.days} days") for since, lifetime in CLASSIC[1:]]
        drawn = plot(START, lines, spread.need, marks)
        await asyncio.to_thread(given.plot.write_text, drawn, encoding="utf-8")
    if given.json:
        print_json(**asdict(result))
    else:
        _show(result)


def _lived(apps: int, seed: int, *, spread: bool) -> tuple[Lived, float]:
    began = time.process_time()
    lived = Year(apps, seed, spread=spread).live()
    return lived, round(time.process_time() - began, 1)


def _case(lived: Lived, seconds: float) -> Case:
    return Case(
        expired=lived.expired,
        refused=lived.refused,
        renewals=sum(lived.renewals),
        exempt=lived.exempt,
        early=lived.early,
        mean_days_earlier=round(lived.earlier / timedelta(days=1) / max(1, lived.early), 1),
        peaks=tuple(_peak(lived, hours) for hours in WINDOWS),
        cpu_seconds=seconds,
    )


def _peak(lived: Lived, hours: int) -> Peak:
    renewals, need = ([0, *accumulate(each)] for each in (lived.renewals, lived.need))

    def between(sums: list[Any], at: int) -> Any:
        return sums[at + hours] - sums[at]

    begins = range(lived.settled, HOURS - hours + 1)
    at = max(begins, key=lambda begin: between(renewals, begin) / between(need, begin))
    found = between(renewals, at)
    return Peak(hours, found, round(found / between(need, at), 2), START + timedelta(hours=at))


def _show(result: Result) -> None:
    cases = (result.spread, result.unspread)
    rows: list[tuple[object, ...]] = [
        ("expired", *(case.expired for case in cases)),
        ("answers of 429", *(case.refused for case in cases)),
        ("renewals", *(case.renewals for case in cases)),
        ("of them in the CA's window", *(case.exempt for case in cases)),
        ("of them before their own time", *(case.early for case in cases)),
        ("days before it, mean", *(case.mean_days_earlier for case in cases)),
    ]
    for number, hours in enumerate(WINDOWS):
        peaks = [case.peaks[number] for case in cases]
        told = (f"{peak.of_need:.2f} ({peak.renewals}, {peak.began:%Y-%m-%d})" for peak in peaks)
        rows.append((f"most in {hours} h, of what is needed", *told))
    rows.append(("CPU s", *(case.cpu_seconds for case in cases)))
    print_table((f"{result.apps} apps, seed {result.seed}", "SPREAD", "AT THEIR OWN TIME"), rows)
    print(f"\nspreading takes {result.more_certificates:.1%} more certificates")
