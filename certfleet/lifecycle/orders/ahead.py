"""What is known before newOrder: an order that can only fail costs no token, and no failed authorization."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from certfleet.acme_ca.profiles import require_offered
from certfleet.acme_ca.transport import Transport
from certfleet.lifecycle.orders.preflight import preflight
from certfleet.lifecycle.workbench import Workbench
from certfleet.models import App, Order

FRESH = 60.0  # seconds for which a directory without the wanted profile is believed


async def look_ahead(
    bench: Workbench, transport: Transport, app: App, order: Order, properties: Mapping[str, str]
) -> Order:
    """The order as this CA takes it. Raises CARefuses for what the CA does not offer, or is certain to refuse.

    OwnerError for what every CA refuses, CAError when it does not answer.
    """
    if order.profile or order.unoffered:
        order = await _by_profile(app, order, transport)
    if properties["preflight"] == "on":
        store, ca = bench.fleet.store, transport.ca
        flight = preflight(store, bench.lookup, transport, ca=ca, email=order.email, properties=properties)
        await flight.check(order.identifiers)
    return order


async def _by_profile(app: App, order: Order, transport: Transport) -> Order:
    """The order by the profile that is wished for; by the default of a CA that stands in for one and lacks it.

    Raises CARefuses, with the profiles that there are, where the CA is the app's first.
    """
    wished = order.unoffered or order.profile
    offered = (await transport.directory()).meta.profiles
    if wished not in offered:  # the CA may have it since today
        transport.doubt_directory(fresh=FRESH)
        offered = (await transport.directory()).meta.profiles
    if wished not in offered and order.passed_over:
        return replace(order, profile="", unoffered=wished)
    where = f"--app {app.name} " if app.properties.get("profile") else ""
    require_offered(transport.ca.name, offered, wished, where=where)
    return replace(order, profile=wished, unoffered="")
