"""What happens to a certificate the moment it is issued."""

from __future__ import annotations

from datetime import datetime, timedelta

from certfleet.acme_ca.presets import resolve_ca
from certfleet.acme_ca.protocol import Issued
from certfleet.agenda import Claim
from certfleet.lifecycle.fleet import Fleet
from certfleet.lifecycle.hosts.waves import first_looks, parse_waves, rollout
from certfleet.lifecycle.records import chain_name, check_member, host_member
from certfleet.models import App, Certificate, Installation, Order, utcnow
from certfleet.properties import effective


async def store(
    fleet: Fleet, claim: Claim, app: App, order: Order, issued: Issued, *, account: str, served: Certificate | None
) -> Certificate:
    """Keep the certificate, want it on every host of the app, and end its order: one write. Raises LeaseLost.

    `account` is the URL of the one that it was issued to, `served` the certificate that it takes the place of.
    """
    on_hosts = await fleet.records.installations(app.name)
    chain = "".join(issued.chain)
    if order.sealed_key is None and not order.csr:
        raise ValueError("a certificate without its key cannot be stored")
    certificate = Certificate(
        app=app.name,
        generation=await fleet.records.last_generation(app.name, on_hosts.values()) + 1,
        ca=resolve_ca(order.ca).directory,
        identifiers=order.identifiers,
        key_type=order.key_type,
        serial=issued.serial,
        not_before=issued.not_before,
        not_after=issued.not_after,
        issued=utcnow(),
        leaf=issued.leaf,
        chain=chain_name(chain),
        sealed_key=order.sealed_key or "",
        profile=order.profile,
        email=order.email,
        account=account,
        passed_over=order.passed_over,
        unoffered=order.unoffered,
        key_on=order.key_on,
    )
    known = [on_hosts.get(host, Installation(app.name, host)) for host in app.hosts]
    told = f"generation {certificate.generation}, until {issued.not_after:%Y-%m-%d %H:%M} UTC"
    told += f", profile {order.profile}" if order.profile else ""
    if order.passed_over:
        told += f", by {order.ca} instead of {' and '.join(one.ca for one in order.passed_over)}"
    entry = fleet.journal.entry(app.name, "issued", f"{told} (ordered: {order.reason})")
    unwatched = fleet.crls.unwatched(served) if served is not None else []
    await fleet.records.complete(claim, order, certificate, chain, known, entry, *unwatched)
    return certificate


async def afterwards(fleet: Fleet, app: App, look: datetime) -> tuple[str, ...]:
    """Put the app's hosts on the agenda, and its next check no later than `look`; what became due. Safe to repeat."""
    held = await _held(fleet, app) if len(app.hosts) > 1 else ()
    now, looks = utcnow(), first_looks(held)
    for host in app.hosts:
        await fleet.agenda.schedule(host_member(host), now + looks.get(host, timedelta(0)))
    await fleet.agenda.schedule(check_member(app.name), look)
    return tuple(host_member(host) for host in app.hosts if host not in looks)


async def _held(fleet: Fleet, app: App) -> tuple[str, ...]:
    """The hosts whose turn comes later."""
    properties = effective(app.properties, await fleet.inventory.properties())
    known = await fleet.records.installations(app.name)
    newest = max((installation.wanted for installation in known.values()), default=0)
    return rollout(app.hosts, known, newest, parse_waves(properties["wave"])).held
