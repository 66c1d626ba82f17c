"""What is known before newOrder: an order that can only fail costs no token, and no failed authorization."""

from __future__ import annotations

from collections.abc import Mapping

from certfleet.acme_ca.profiles import require_offered
from certfleet.acme_ca.transport import Transport
from certfleet.lifecycle.preflight import preflight
from certfleet.lifecycle.workbench import Workbench
from certfleet.models import App, Order

FRESH = 60.0  # seconds for which a directory without the wanted profile is believed


async def look_ahead(
    bench: Workbench, transport: Transport, app: App, order: Order, properties: Mapping[str, str]
) -> None:
    """Raise OwnerError for what the CA does not offer, or is certain to refuse; CAError when it does not answer."""
    if order.profile:
        await _offered(app, order, transport)
    if properties["preflight"] == "on":
        store, ca = bench.fleet.store, transport.ca
        flight = preflight(store, bench.lookup, transport, ca=ca, email=order.email, properties=properties)
        await flight.check(order.identifiers)


async def _offered(app: App, order: Order, transport: Transport) -> None:
    """Raises OwnerError, with the profiles that there are, for one that the CA does not offer."""
    offered = (await transport.directory()).meta.profiles
    if order.profile not in offered:  # the CA may have it since today
        transport.doubt_directory(fresh=FRESH)
        offered = (await transport.directory()).meta.profiles
    where = f"--app {app.name} " if app.properties.get("profile") else ""
    require_offered(transport.ca.name, offered, order.profile, where=where)
