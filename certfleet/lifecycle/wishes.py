"""What an order is to be, apart from what the CA made of it. Decisions only: no clock, no I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from certfleet.models import App, KeyType, Order, OrderState


def as_wished(order: Order, app: App, properties: Mapping[str, str]) -> Order:
    """The order, begun anew when names, CA, account, key type or profile are not what the app is set to now."""
    key_type, profile = KeyType(properties["key-type"]), properties["profile"]
    wish = (app.identifiers, properties["ca"], properties["email"], key_type, profile)
    if (order.identifiers, order.ca, order.email, order.key_type, order.profile) == wish:
        return order
    identifiers, ca, email, _, _ = wish
    return replace(
        without_url(order),
        identifiers=identifiers,
        ca=ca,
        email=email,
        key_type=key_type,
        profile=profile,
        failing_since=None,
    )


def without_url(order: Order) -> Order:
    """The wish alone: what belonged to the CA's order is forgotten, the next run makes another."""
    return replace(
        order,
        url=None,
        authorizations=(),
        finalize=None,
        answered=(),
        since=None,
        sealed_key=None,
        state=OrderState.NEW,
        replaces="",
        exempt=False,
        ordinary=False,
    )


def may_wait_in_line(order: Order) -> bool:
    """Whether it stands in a waiting room, if it waits: not one that the CA has, nor one that failed and has a time."""
    return order.url is None and order.retry_at is None
