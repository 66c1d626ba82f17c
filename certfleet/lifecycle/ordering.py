"""The wish for a certificate becomes an order on the agenda."""

from __future__ import annotations

import secrets
from datetime import datetime

from certfleet.lifecycle.fleet import Fleet
from certfleet.lifecycle.records import order_member
from certfleet.models import App, KeyType, Order


async def make_order(fleet: Fleet, app: App, properties: dict[str, str], reason: str, now: datetime) -> list[str]:
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
    )
    member = order_member(app.name)
    created = await fleet.records.create_order(wish)
    if created:
        await fleet.journal.write(app.name, "ordered", f"{reason}: {', '.join(app.shown or app.identifiers)}")
    elif await fleet.agenda.time_of(member) is not None:
        return []  # there is one, and it has its time
    await fleet.agenda.schedule(member, now)
    return [member]
