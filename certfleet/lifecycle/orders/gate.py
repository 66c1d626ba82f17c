"""The gate of a waiting room: opened when its bucket's next token is there."""

from __future__ import annotations

from certfleet.acme_ca.presets import resolve_ca
from certfleet.agenda import Claim
from certfleet.errors import UsageError
from certfleet.lifecycle.records import order_member
from certfleet.lifecycle.work import Next
from certfleet.lifecycle.workbench import Workbench
from certfleet.limits.keys import today
from certfleet.models import utcnow

RUNS = 20  # openings of one gate in a step; what is left comes with the next tick


async def open_gate(bench: Workbench, claim: Claim) -> Next:
    """Let in whoever is first and finds all tokens; come again with the next token while anybody waits."""
    fleet, orders = bench.fleet, list[str]()
    again = utcnow()
    for _ in range(RUNS):
        bucket = await fleet.rooms.bucket(claim.name)
        if bucket is None:
            return Next(None, tuple(orders))
        known = await fleet.limits.of(bucket.ca, _directory(bucket.ca))
        opened = await fleet.rooms.open(claim.name, known.version, today(known.limits, bucket))
        if opened is None:  # by what this process knew a moment ago it would sleep past what was set just now
            fleet.limits.forget()
            continue
        orders += [order_member(app) for app in opened.apps]
        if opened.again is None or opened.again > utcnow():
            return Next(opened.again, tuple(orders))
        again = opened.again
    return Next(again, tuple(orders))


def _directory(ca: str) -> str:
    try:
        return resolve_ca(ca).directory
    except UsageError:  # a preset that there was in an earlier version
        return ca
