"""What becomes of an order when a step failed: tried again, waiting for a limit, or left to a person."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import datetime, timedelta

from certfleet.agenda import Claim
from certfleet.lifecycle.challenges import txt
from certfleet.lifecycle.fleet import Fleet
from certfleet.lifecycle.orders.issued import afterwards
from certfleet.lifecycle.orders.parking import is_hopeless, parked_sentence
from certfleet.lifecycle.orders.trouble import SOON, Parked, Unanswered, is_owners, may_have_issued, sort
from certfleet.lifecycle.orders.wishes import without_url
from certfleet.lifecycle.renewals.renewal import longest_back_off, retry_after
from certfleet.lifecycle.work import Next
from certfleet.lifecycle.workbench import Workbench
from certfleet.models import App, Order, OrderState, utcnow
from certfleet.properties import effective, parse_park_after

LOOK_AGAIN = timedelta(hours=1)
"""An order that waits for its CA looks whether it is still waited for; only a fault of ours could keep it."""
PATIENCE = (timedelta(seconds=3), timedelta(minutes=10))  # shortest and longest wait between looks on the agenda


async def tried_now(fleet: Fleet, claim: Claim, order: Order) -> Order:
    """The order at the beginning of a try, before its time perhaps, because somebody wants that. Raises LeaseLost.

    Then that time is over: what is written for this try must not be taken for what the last one left.
    """
    if order.retry_at is None or order.retry_at <= utcnow():
        return order
    order = replace(order, retry_at=utcnow())
    await fleet.records.save_order(claim, order)
    return order


async def troubled(
    bench: Workbench,
    claim: Claim,
    app: App,
    error: Exception,
    *,
    order: Order | None = None,
    by: datetime | None = None,
) -> Next:
    """Keep what went wrong on the order, and when it is tried again: `by` then at the latest.

    `order`: as it is to be kept; None: as it is.
    """
    order = order or await bench.fleet.records.order(claim.name)
    if order is None:
        return Next(None, await afterwards(bench.fleet, app, utcnow()))
    if isinstance(error, Parked):
        told = "the CA has paused a name: `certfleet info` says what to do"
        await _park(bench, claim, replace(order, error=str(error)), told)
        return Next(None, await txt.settled(bench.fleet, app))
    longest = longest_back_off(await bench.fleet.records.certificate(app.name))
    if isinstance(error, Unanswered):
        return await _unanswered(bench, claim, order, error, longest=longest, by=by)
    trouble = sort(error, order.attempts + 1, utcnow(), longest)
    if is_owners(error) and await _given_up(bench, claim, app, order, trouble.sentence):
        return Next(None, await txt.settled(bench.fleet, app))
    finalized = order.sealed_key is not None or bool(order.csr)
    if finalized and trouble.new_order and may_have_issued(error):
        await bench.fleet.rooms.counted(app.name)
    at = min(trouble.at, by) if by else trouble.at
    if trouble.new_order:
        order = without_url(order)
    if trouble.held:
        order = replace(order, state=OrderState.LIMITED, retry_at=at, held=trouble.sentence, error=None)
        await bench.fleet.records.save_order(claim, order)
    else:
        order = replace(
            order,
            state=OrderState.RETRY,
            attempts=order.attempts + 1,
            unanswered=0,
            failing_since=order.failing_since or (utcnow() if is_owners(error) else None),
            retry_at=at,
            error=trouble.sentence,
            held=None,
            turn_ends=None if is_owners(error) else order.turn_ends,
        )
        entry = bench.fleet.journal.entry(app.name, "order failed", trouble.sentence)
        await bench.fleet.records.save_order(claim, order, entry)
    if order.url is None or (at - utcnow() > PATIENCE[1] and not finalized):
        await bench.fleet.rooms.leave(app.name)  # nobody else has to wait for tokens that it does not use now
    return Next(at, await txt.settled(bench.fleet, app) if order.url is None else ())


async def _unanswered(
    bench: Workbench, claim: Claim, order: Order, error: Unanswered, *, longest: timedelta, by: datetime | None
) -> Next:
    """Nothing is wrong with the order: it waits with all others, and keeps what it has at the CA.

    `by`: its CA's turn ends then, for an app with a list of CAs.
    """
    now, entries = utcnow(), []
    if error.outage is not None:
        order = replace(order, state=OrderState.AWAY, unanswered=0, retry_at=None, error=None, held=None)
        at = now + LOOK_AGAIN * random.uniform(0.8, 1.2)  # noqa: S311  no secret
    else:
        own = order.unanswered + 1
        # Others were answered since it first failed: the CA's trouble is with this order.
        wait = SOON if error.failures >= own else retry_after(own - 1, longest)
        at = max(now + wait, error.retry_at or now)
        order = replace(order, state=OrderState.RETRY, unanswered=own, retry_at=at, error=str(error), held=None)
        entries = [bench.fleet.journal.entry(order.app, "order failed", str(error))]
    await bench.fleet.records.save_order(claim, order, *entries)
    if order.url is None:
        await bench.fleet.rooms.leave(order.app)
    return Next(min(at, by) if by else at)


async def _given_up(bench: Workbench, claim: Claim, app: App, order: Order, evidence: str) -> bool:
    """Park the order when it has failed for as long as the app's `park-after` says; whether it was."""
    properties = effective(app.properties, await bench.fleet.inventory.properties())
    certificate = await bench.fleet.records.certificate(app.name)
    if not is_hopeless(order, certificate, parse_park_after(properties["park-after"]), utcnow()):
        return False
    order = replace(order, attempts=order.attempts + 1)
    sentence = parked_sentence(order, evidence)
    await _park(bench, claim, replace(order, error=sentence), sentence)
    return True


async def _park(bench: Workbench, claim: Claim, order: Order, told: str) -> None:
    """Leave the order to a person; the journal (`told`) does not hold a CA's link, which carries a token."""
    parked = replace(without_url(order), state=OrderState.PARKED, retry_at=None, held=None)
    entry = bench.fleet.journal.entry(order.app, "parked", told)
    await bench.fleet.records.save_order(claim, parked, entry)
    await bench.fleet.rooms.leave(order.app)
