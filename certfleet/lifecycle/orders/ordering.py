"""The wish for a certificate becomes an order on the agenda."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime

from certfleet.agenda import Claim
from certfleet.ca_list import first_ca
from certfleet.key_place import key_host
from certfleet.lifecycle.fleet import Fleet
from certfleet.lifecycle.orders.wishes import may_wait_in_line
from certfleet.lifecycle.records import order_member
from certfleet.models import App, Cause, KeyType, Order, OrderState

LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)  # due at once, before everything that is merely due


async def make_order(
    fleet: Fleet, app: App, properties: dict[str, str], reason: str, now: datetime, *, urgent: bool = False
) -> list[str]:
    """Make the app's order if it has none, and put it on the agenda; what became due.

    `urgent`: one that waits in line goes to the emergency lane, too.
    """
    wish = Order(
        id=secrets.token_hex(8),
        app=app.name,
        ca=first_ca(properties).name,
        email=properties["email"],
        identifiers=app.identifiers,
        key_type=KeyType(properties["key-type"]),
        reason=reason,
        created=now,
        urgent=urgent,
        profile=properties["profile"],
        key_on=key_host(app, properties),
    )
    member = order_member(app.name)
    created = await fleet.records.create_order(wish)
    if created:
        await fleet.journal.write(app.name, "ordered", f"{reason}: {', '.join(app.shown or app.identifiers)}")
    elif urgent and await _may_be_hurried(fleet, app.name):
        await ask_order(fleet, app.name, HURRIED)
    elif await fleet.agenda.time_of(member) is not None:
        return []  # there is one, and it has its time
    await fleet.agenda.schedule(member, now)
    return [member]


async def _may_be_hurried(fleet: Fleet, app: str) -> bool:
    order = await fleet.records.order(app)
    return order is not None and not order.urgent and may_wait_in_line(order)


async def change_order(fleet: Fleet, app: str, change: Callable[[Order], Order]) -> bool:
    """Change the app's order, if it has one, and let it be looked at. False: a worker has it just now, and goes on."""
    if await fleet.records.order(app) is None:
        return True
    member = order_member(app)
    await fleet.agenda.schedule(member, LONG_AGO)  # a parked one has no time
    claim = await fleet.agenda.claim(member)
    if claim is None:
        return False
    order = await fleet.records.order(app)
    if order is not None and change(order) != order:
        await fleet.records.save_order(claim, change(order))
    await fleet.agenda.finish(claim, LONG_AGO)
    return True


async def ask_order(fleet: Fleet, app: str, *words: str) -> None:
    """Change the app's order as a person wants it (ASKED), now or as soon as no worker is at it."""
    if await change_order(fleet, app, lambda order: _asked(order, words)):
        return
    await fleet.records.ask(app, words)
    await fleet.agenda.schedule(order_member(app), LONG_AGO)  # it may have been looked at just before


async def as_asked(fleet: Fleet, claim: Claim, order: Order, words: Iterable[str]) -> Order:
    """The order with what was asked of it while a worker was at it. Raises LeaseLost."""
    order = _asked(order, words)
    await fleet.records.save_order(claim, order, fleet.records.heard(order.app))
    return order


def _asked(order: Order, words: Iterable[str]) -> Order:
    for word in words:
        order = ASKED[word](order)
    return order


def forgiven(order: Order) -> Order:
    """Without its back-off and its error, and not parked any more; of a list of CAs the first is asked again.

    An order that a CA has made goes on there.
    """
    if order.state is OrderState.PARKED:
        order = replace(order, state=OrderState.NEW, attempts=0, rounds=0, failing_since=None)
    if order.url is None:
        order = replace(order, passed_over=(), turn_ends=None, settled=False)
    looked = (replace(one, cause=Cause.REFUSED) if one.cause is Cause.PAUSED else one for one in order.passed_over)
    return replace(order, passed_over=tuple(looked), retry_at=None, error=None, held=None)


def hurried(order: Order) -> Order:
    """In the emergency lane."""
    return replace(order, urgent=True)


FORGIVEN, HURRIED = "forgiven", "hurried"
ASKED: dict[str, Callable[[Order], Order]] = {FORGIVEN: forgiven, HURRIED: hurried}
"""What may be asked of an order; in any sequence it comes to the same."""
