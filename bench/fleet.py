"""A fleet that has to wait: thousands of apps, few tokens, and a CA that counts for itself and answers 429.

Renewals of all urgencies and new names of two tenants come due in the same moment, on several accounts and registered
domains. Every limit of Let's Encrypt holds at the CA, scaled so that most orders have to wait. With `--stolen-tokens`
another client spends some of the tokens behind the fleet's back.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from bench import BenchFailed, cpu
from bench.idle import Idle, observed
from bench.limited import Limited, Member, come_due, crowd, limited, limits_for
from bench.machine import machine, versions
from certfleet.cli.output import print_json, print_table
from certfleet.models import utcnow
from certfleet.properties import PROPERTIES, parse_share
from tests.ca.report import Report

OF_DOMAINS = 0.8  # of what is stolen; the rest is orders of accounts
STALL = 60.0  # seconds without a further certificate after which the run has failed
TELL = 10.0  # seconds between two words to whoever waits
LOOK = 1.0  # seconds between two looks at how far it is
SPREAD = 110.0  # seconds in which the buckets let everybody through, at least
PER_CERTIFICATE = 0.045  # seconds: two cores, the CA among them, issue about as many


@dataclass(slots=True)
class Result:
    """Everything measured; the fields of the JSON output."""

    apps: int
    domains: int
    accounts: int
    workers: int
    seed: int
    issued: int
    """Apps that have a certificate by the CA's own book."""
    issued_twice: int
    rate_limited_answers: int
    """429s, as the CA counts them."""
    most_rate_limited_answers_per_bucket_and_refill: int
    slow_downs: int
    """503s."""
    stolen_tokens: int
    longest_idle_token_seconds: float
    longest_idle_token: str
    admission_attempts_per_certificate: float
    waited: int
    """Orders that were not admitted at once."""
    urgency_inversions: int
    """Orders that were admitted before a more urgent one which waited for the same tokens."""
    overshoots: int
    """Certificates for which the CA's bucket had no token left at issuance."""
    seconds: float
    """From due to the last certificate."""
    seconds_the_buckets_need: float
    """For the last token that was needed, if none lies idle and issuing takes no time."""
    cpu_ms_per_certificate: float
    machine: dict[str, Any]
    versions: dict[str, str]
    notes: list[str] = field(default_factory=list)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What can be chosen."""
    for name, default, most, meaning in (
        ("apps", 2000, 10_000, "how many apps"),
        ("domains", 40, 1_000, "under how many registered domains"),
        ("accounts", 3, 100, "on how many accounts"),
        ("workers", 4, 16, "worker processes"),
    ):
        parser.add_argument(
            f"--{name}", type=counted(most), default=default, metavar="N", help=f"{meaning} (1 to {most}, {default})"
        )
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="of urgencies and thefts (1)")
    parser.add_argument(
        "--stolen-tokens", type=counted(10_000, 0), default=0, metavar="N", help="that another client spends (0)"
    )
    parser.add_argument("--json", action="store_true", help="the figures as JSON on standard output")


def counted(most: int, least: int = 1) -> Callable[[str], int]:
    """A whole number within bounds, for argparse."""

    def count(text: str) -> int:
        if not text.isdecimal() or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number from {least} to {most}")
        return int(text)

    return count


async def run(given: argparse.Namespace) -> None:
    """Measure and print. Raises BenchFailed when it stalls, and what the parts raise when they do not come up."""
    result = await measure(
        apps=given.apps,
        domains=given.domains,
        accounts=given.accounts,
        workers=given.workers,
        seed=given.seed,
        stolen=given.stolen_tokens,
    )
    if given.json:
        print_json(**asdict(result))
    else:
        rows = [(name.replace("_", " "), value) for name, value in asdict(result).items() if value not in ("", [])]
        print_table(("", ""), [row for row in rows if not isinstance(row[1], dict)])


async def measure(*, apps: int, domains: int, accounts: int, workers: int, seed: int, stolen: int) -> Result:
    """Run the whole crowd through."""
    about = machine()
    limits = limits_for(apps, domains, accounts, max(SPREAD, apps * PER_CERTIFICATE) if apps > STALL else SPREAD / 4)
    say(f"starting a CA with limits, an nginx and a fleet of {workers} workers")
    async with limited(limits, workers=workers) as ground:
        members = await crowd(ground, apps=apps, domains=domains, accounts=accounts, seed=seed)
        await ground.ca.reset()
        keep = parse_share(PROPERTIES["reserved-for-renewals"].default)
        before = cpu.of_stack(ground.stack)
        async with observed(ground.books.store, keep) as idle:
            began = time.monotonic()
            await come_due(ground, members)
            thief = asyncio.create_task(_steal(ground, stolen, seed, domains))
            try:
                await _all_issued(ground, apps)
            finally:
                thief.cancel()
                await asyncio.gather(thief, return_exceptions=True)
            seconds = time.monotonic() - began
        spent = cpu.between(before, cpu.of_stack(ground.stack))
        report = await ground.ca.book()
        admissions = await _admissions(ground)
        server = await ground.books.store.redis.info("server")
        taken = thief.result() if thief.done() and not thief.cancelled() else stolen
    domain = limits["certificates-per-domain"]
    each = -(-apps // domains)
    redis = f"{server.get('server_name', 'redis')} {server.get('valkey_version') or server['redis_version']}"
    return Result(
        apps=apps,
        domains=domains,
        accounts=accounts,
        workers=workers,
        seed=seed,
        issued=len({i.identifiers for i in report.issuances}),
        issued_twice=len(report.issuances) - len({i.identifiers for i in report.issuances}),
        rate_limited_answers=report.rate_limited_answers,
        most_rate_limited_answers_per_bucket_and_refill=max(report.refusals_within_refill().values(), default=0),
        slow_downs=report.slow_downs,
        stolen_tokens=taken,
        longest_idle_token_seconds=round(idle.longest, 2),
        longest_idle_token=idle.where,
        admission_attempts_per_certificate=round(sum(a.tries for a in admissions) / max(1, len(admissions)), 2),
        waited=sum(a.admitted > a.entered for a in admissions),
        urgency_inversions=inversions(members, admissions),
        overshoots=len(report.overshoots),
        seconds=round(seconds, 1),
        seconds_the_buckets_need=round((each - domain.burst) * domain.period / domain.tokens, 1),
        cpu_ms_per_certificate=round(sum(spent.values()) / apps, 1),
        machine=about,
        versions=versions(redis),
        notes=_notes(idle, report),
    )


def say(line: str) -> None:
    """How far it is, for a person."""
    print(f"bench: {line}", file=sys.stderr, flush=True)


def _notes(idle: Idle, report: Report) -> list[str]:
    notes = [f"{idle.looks} looks for idle tokens, in up to {idle.rooms} waiting rooms at once"]
    refused: defaultdict[str, int] = defaultdict(int)
    for refusal in report.refusals:
        refused[f"{refusal.status} {refusal.limit}"] += 1
    return notes + [f"{count} answers of {what}" for what, count in refused.items()]


async def _all_issued(ground: Limited, apps: int) -> None:
    """Return when no order is left. Raises BenchFailed when nothing moves any more."""
    last, moved, key = -1, time.monotonic(), ground.books.store.key("admissions")
    told = 0.0
    while True:
        done = int(await ground.books.store.redis.xlen(key))
        if done != last:
            last, moved = done, time.monotonic()
        if done >= apps:
            return
        if time.monotonic() - told > TELL:
            told = time.monotonic()
            say(f"{done} of {apps} issued")
        if time.monotonic() - moved > STALL:
            raise BenchFailed(
                f"no further certificate in {STALL:.0f} s: {done} of {apps}; the logs are in {ground.settings.home}/log"
            )
        await asyncio.sleep(LOOK)


async def _steal(ground: Limited, count: int, seed: int, domains: int) -> int:
    """Let another client spend tokens, spread over the run, of all domains and accounts; how many it got."""
    chance, taken = random.Random(seed), 0  # noqa: S311  the same thefts for the same seed
    pause = SPREAD * 0.6 / max(1, count)
    for _ in range(count):
        await asyncio.sleep(chance.uniform(0, 2 * pause))
        if chance.random() < OF_DOMAINS:
            taken += await ground.ca.steal("certificates-per-domain", f"d{chance.randrange(domains):03}.test", 1)
        else:
            accounts = sorted({one.account for one in (await ground.ca.book()).accepted})
            if accounts:
                taken += await ground.ca.steal("orders-per-account", chance.choice(accounts), 1)
    return taken


@dataclass(frozen=True, slots=True)
class Admitted:
    """How one order came through; microseconds."""

    app: str
    rank: float
    """By which new names of one tenant come one after the other."""
    tries: int
    entered: int
    admitted: int


async def _admissions(ground: Limited) -> list[Admitted]:
    entries = await ground.books.store.redis.xrange(ground.books.store.key("admissions"))
    return [
        Admitted(e["app"], float(e["rank"]), int(e["tries"]), int(e["entered"]), int(e["admitted"])) for _, e in entries
    ]


def inversions(members: Sequence[Member], admissions: Sequence[Admitted]) -> int:
    """How many were admitted while a more urgent one waited for the very same tokens."""
    who = {member.app: member for member in members}
    groups: defaultdict[tuple[str, str], list[Admitted]] = defaultdict(list)
    for one in admissions:
        groups[who[one.app].compared_with].append(one)
    return sum(_inverted(one, group, who) for group in groups.values() for one in group)


def _inverted(one: Admitted, group: Sequence[Admitted], who: dict[str, Member]) -> bool:
    mine, now = who[one.app], utcnow()
    for other in group:
        theirs = who[other.app]
        if theirs.new_name or mine.new_name:
            first = not theirs.new_name if theirs.new_name != mine.new_name else other.rank < one.rank
            first = first and (theirs.tenant == mine.tenant or not theirs.new_name)
        else:
            first = (theirs.expires or now) < (mine.expires or now)
        if first and other.entered < one.admitted < other.admitted:
            return True
    return False
