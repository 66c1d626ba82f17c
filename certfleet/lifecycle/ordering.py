"""The wish for a certificate becomes an order on the agenda."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

from certfleet.lifecycle.fleet import Fleet
from certfleet.lifecycle.records import order_member
from certfleet.models import App, KeyType, Order, OrderState

LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)  # due at once, before everything that is merely due


async def make_order(
    fleet: Fleet, app: App, properties: dict[str, str], reason: str, now: datetime, *, urgent: bool = False
) -> list[str]:
    """Make the app's order if it has none, and put it on the agenda; what became due."""
    wish = Order(
        id=secrets.token_hex(8),
        app=app.name,
        ca=properties["ca"],
        email=properties["email"],
        identifiers=app.identifiers,
        key_type=KeyType(properties["key-type"]),
        reason=reason,
        created=now,
        urgent=urgent,
        profile=properties["profile"],
    )
    member = order_member(app.name)
    created = await fleet.records.create_order(wish)
    if created:
        await fleet.journal.write(app.name, "ordered", f"{reason}: {', '.join(app.shown or app.identifiers)}")
    elif await fleet.agenda.time_of(member) is not None:
        return []  # there is one, and it has its time
    await fleet.agenda.schedule(member, now)
    return [member]


async def change_order(fleet: Fleet, app: str, change: Callable[[Order], Order]) -> None:
    """Change the app's order, if it has one, and let it be looked at; a worker that is at it just now goes on."""
    if await fleet.records.order(app) is None:
        return
    member = order_member(app)
    await fleet.agenda.schedule(member, LONG_AGO)  # a parked one has no time
    claim = await fleet.agenda.claim(member)
    if claim is None:
        return
    order = await fleet.records.order(app)
    if order is not None and change(order) != order:
        await fleet.records.save_order(claim, change(order))
    await fleet.agenda.finish(claim, LONG_AGO)


def forgiven(order: Order) -> Order:
    """Without its back-off and its error, and not parked any more."""
    if order.state is OrderState.PARKED:
        order = replace(order, state=OrderState.NEW, attempts=0, failing_since=None)
    return replace(order, retry_at=None, error=None, held=None)


def hurried(order: Order) -> Order:
    """In the emergency lane."""
    return replace(order, urgent=True)
