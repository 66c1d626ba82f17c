"""What an order is to be, apart from what the CA made of it. Decisions only: no clock, no I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from certfleet.acme_ca.presets import resolve_ca
from certfleet.ca_list import asked_ca, cas_of
from certfleet.key_place import key_host
from certfleet.models import App, KeyType, Order, OrderState


def as_wished(order: Order, app: App, properties: Mapping[str, str]) -> Order:
    """The order, begun anew when names, CA, account, key or profile are not what the app is set to now.

    Of a list of CAs its own is the first that was not passed over; with other names it is the first of all.
    """
    email, key_type, profile = properties["email"], KeyType(properties["key-type"]), properties["profile"]
    key_on = key_host(app, properties)
    wish = (app.identifiers, email, key_type, profile, key_on)
    same = (order.identifiers, order.email, order.key_type, order.unoffered or order.profile, order.key_on) == wish
    cas = cas_of(properties)
    named = {ca.name for ca in cas}
    passed = tuple(one for one in order.passed_over if one.ca in named) if same else ()
    asked = asked_ca(cas, passed)
    if asked is None:
        passed, asked = (), cas[0]
    if same and resolve_ca(order.ca).directory == asked.directory:
        return order
    return replace(
        without_url(order),
        identifiers=app.identifiers,
        ca=asked.name,
        email=email,
        key_type=key_type,
        profile=profile,
        key_on=key_on,
        unoffered="",
        failing_since=None,
        passed_over=passed,
        turn_ends=None,
        settled=False,
        unanswered=0,
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
        csr="",
        state=OrderState.NEW,
        replaces="",
        exempt=False,
        ordinary=False,
    )


def may_wait_in_line(order: Order) -> bool:
    """Whether it stands in a waiting room, if it waits: not one that the CA has, nor one that failed and has a time."""
    return order.url is None and order.retry_at is None
