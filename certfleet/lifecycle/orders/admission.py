"""An order and the CA's limits: its tokens before newOrder, what becomes of them after each answer of the CA.

    enter ── admitted ──▶ turn ── newOrder ──▶ ordered ──▶ issued
      │ no tokens            │ 429: believed, tokens back
      ▼                      ▼
    a waiting room, whose gate puts the order on the agenda again

Everything that a crash could lose is in Redis before the request that makes it matter (limits/rooms.lua).
"""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from certfleet.acme_ca.account_records import account_id
from certfleet.agenda import Claim
from certfleet.errors import AcmeProblem
from certfleet.lifecycle.orders.replacement import exempt_from
from certfleet.lifecycle.orders.urgency import Urgency, urgency
from certfleet.lifecycle.work import InLine, Waiting
from certfleet.lifecycle.workbench import Workbench
from certfleet.limits.buckets import Bucket, Charge
from certfleet.limits.keys import (
    RENEWAL_WINDOW,
    OrderBuckets,
    failure_buckets,
    order_buckets,
    pausing_bucket,
    refused_bucket,
    slow_down_bucket,
)
from certfleet.limits.presets import Limits
from certfleet.limits.refusals import refusing
from certfleet.limits.rooms import Candidate, Sending, Standing
from certfleet.models import CA, Certificate, Order, utcnow
from certfleet.properties import parse_share

LOOK_AGAIN = timedelta(hours=24)
"""A waiting order looks whether it still stands in its room; only a fault of ours could have taken it out."""
UNTOLD = timedelta(hours=1)
"""When the CA says `rateLimited` and not until when."""
BUSY = (0.005, 0.05)  # seconds between two looks whether newOrder's turn has come
TURN_PATIENCE = 30.0  # seconds; beyond it something is wrong, and the agenda waits better


@dataclass(frozen=True, slots=True)
class Admission:
    """One order's dealings with the limits of its CA."""

    bench: Workbench
    claim: Claim
    limits: Limits
    account: str
    identifiers: tuple[str, ...]
    asking: Candidate
    nameable: OrderBuckets
    """Every bucket that a refusal may name, whatever the order is exempt from."""
    ordinary: OrderBuckets
    """What it asks for once the CA does not exempt it for what it replaces."""
    exempt_from: datetime | None = None
    """When its CA will exempt it from limits (replacement.py)."""

    async def enter(self, *, ordered: bool) -> Standing:
        """Get all tokens. Raises Waiting when there are not all; the room's gate calls then.

        `ordered`: newOrder is still to be sent.
        """
        rooms = self.bench.fleet.rooms
        standing = await rooms.enter(self.claim, self.asking, ordered=ordered)
        if standing is Standing.WAITING:
            raise self._in_line()
        if standing is Standing.OUTDATED:
            self.bench.fleet.limits.forget()
            raise Waiting(utcnow())
        if standing is Standing.ADMITTED and not ordered:
            await rooms.ordered(self.asking.app)  # newOrder was answered, and its worker died before it could say so
        return standing

    def _in_line(self) -> InLine:
        """Until its gate calls; it must not stand there any more when it needs no token."""
        at = utcnow() + LOOK_AGAIN * random.uniform(0.8, 1.2)  # noqa: S311  no secret
        return InLine(at if self.exempt_from is None else min(at, self.exempt_from))

    @asynccontextmanager
    async def turn(self, standing: Standing) -> AsyncIterator[None]:
        """The time in which newOrder may be sent. Raises Waiting when the tokens are gone meanwhile."""
        if standing is Standing.FREE:
            yield
            return
        async with self.bench.turns[self.account]:
            await self._go()
            yield

    async def _go(self) -> None:
        """Wait until newOrder may be sent."""
        clock = asyncio.get_running_loop().time
        deadline = clock() + TURN_PATIENCE
        said = await self.bench.fleet.rooms.send(self.asking.app)
        while said is Sending.BUSY and clock() < deadline:
            await asyncio.sleep(random.uniform(*BUSY))  # noqa: S311  no secret
            said = await self.bench.fleet.rooms.send(self.asking.app)
        if said is Sending.WAITING:
            raise self._in_line()
        if said is not Sending.GO:  # too long, or its record is gone (an app removed just now): look again
            raise Waiting(utcnow() + timedelta(seconds=1))

    async def ordered(self, standing: Standing) -> None:
        """NewOrder has been answered and its URL kept."""
        if standing is not Standing.FREE:
            await self.bench.fleet.rooms.ordered(self.asking.app)

    async def counted(self) -> None:
        """The CA has issued the certificate, and it cannot be had yet."""
        await self.bench.fleet.rooms.counted(self.asking.app)

    async def uncounted(self) -> None:
        """The CA would not have this order, and has given back what it had counted."""
        await self.bench.fleet.rooms.refused(self.asking.app, (), utcnow())

    async def refused(self, problem: AcmeProblem) -> bool:
        """NewOrder was answered 429: believe it, for every order that needs the same bucket.

        Whether this one does: not when we took it for exempt from that limit, and the CA does not.
        """
        known = refusing(problem.detail, _asked(self.nameable))
        until = problem.retry_at or utcnow() + UNTOLD
        await self.bench.fleet.rooms.refused(
            self.asking.app, known or refused_bucket(self.limits, self.account), max(until, utcnow())
        )
        return not known or not set(known).isdisjoint(_asked(self.ordinary))

    async def issued(self) -> None:
        """The certificate is there."""
        await self.bench.fleet.rooms.issued(self.asking, self._each(pausing_bucket, self.identifiers))

    async def failed(self, identifiers: Iterable[str]) -> None:
        """The CA looked at these names and did not find what it wanted."""
        buckets = self._each(failure_buckets, identifiers)
        if buckets:
            await self.bench.buckets.count([Charge(bucket) for bucket in buckets])

    def _each(
        self, buckets: Callable[[Limits, str, str], tuple[Bucket, ...]], identifiers: Iterable[str]
    ) -> list[Bucket]:
        found = [bucket for name in identifiers for bucket in buckets(self.limits, self.account, name)]
        return list(dict.fromkeys(found))


async def admission(
    bench: Workbench, claim: Claim, order: Order, properties: Mapping[str, str], *, ca: CA, served: Certificate | None
) -> Admission:
    """What the order has to ask for by the limits of today; `served` is the app's present certificate."""
    fleet = bench.fleet
    known = await fleet.limits.of(ca.name, ca.directory)
    limits, account = known.limits, account_id(ca, order.email)
    same_set = is_same_set(order, served, ca.directory, utcnow())
    nameable = order_buckets(limits, account=account, identifiers=order.identifiers)
    ordinary = order_buckets(limits, account=account, identifiers=order.identifiers, same_set=same_set)
    buckets = ordinary
    if order.exempt:
        buckets = order_buckets(limits, account=account, identifiers=order.identifiers, same_set=same_set, ari=True)
    closed = (*slow_down_bucket(limits, fleet.settings.egress_address), *refused_bucket(limits, account))
    where = urgency(order, served, properties)
    asking = Candidate(
        app=order.app,
        order=order.id,
        wish=_wish(order),
        version=known.version,
        party=where.party,
        rank=where.rank,
        buckets=replace(buckets, checked=(*closed, *buckets.checked)),
        keep=_keep(where, buckets, properties),
    )
    told = (await fleet.records.renewals([order.app])).get(order.app) if order.replaces and not order.exempt else None
    opens = exempt_from(order, served, told, utcnow())
    return Admission(bench, claim, limits, account, order.identifiers, asking, nameable, ordinary, opens)


def is_same_set(order: Order, served: Certificate | None, directory: str, now: datetime) -> bool:
    """Whether the CA takes it for a renewal: the exact set was issued there lately."""
    return (
        served is not None
        and served.ca == directory
        and set(served.identifiers) == set(order.identifiers)
        and now - served.issued < RENEWAL_WINDOW
    )


def _asked(buckets: OrderBuckets) -> tuple[Bucket, ...]:
    return (*buckets.ordered, *buckets.issued, *buckets.checked)


def _wish(order: Order) -> str:
    text = "\n".join((order.ca, order.email, *sorted(order.identifiers), *(["exempt"] if order.exempt else [])))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _keep(where: Urgency, buckets: OrderBuckets, properties: Mapping[str, str]) -> int:
    if not where.new_names or not buckets.ordered:
        return 0
    return int(buckets.ordered[0].rate.burst * parse_share(properties["reserved-for-renewals"]))
