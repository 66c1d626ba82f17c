"""The expiry check of one app: is an order due, are all hosts as they should be, when to look again."""

from __future__ import annotations

from datetime import datetime

from certfleet.acme_ca.presets import resolve_ca
from certfleet.agenda import Claim
from certfleet.errors import UnknownName
from certfleet.lifecycle.fleet import Fleet
from certfleet.lifecycle.ordering import make_order
from certfleet.lifecycle.records import host_member
from certfleet.lifecycle.renewal import LOOK_AGAIN, Due, decide
from certfleet.lifecycle.work import Next
from certfleet.lifecycle.workbench import Workbench
from certfleet.models import App, Certificate, Installation, KeyType, utcnow
from certfleet.properties import effective, parse_grace


async def check(bench: Workbench, claim: Claim) -> Next:
    """Look at one app; afterwards its order or its installations are on the agenda if they have to be."""
    fleet, now = bench.fleet, utcnow()
    try:
        app = await fleet.inventory.app(claim.name)
    except UnknownName:
        return Next(None)
    if not app.enabled:
        return Next(None)
    properties = effective(app.properties, await fleet.inventory.properties())
    certificate = await fleet.records.certificate(app.name)
    decision = decide(
        app,
        certificate,
        ca=resolve_ca(properties["ca"]).directory,
        key_type=KeyType(properties["key-type"]),
        grace=parse_grace(properties["graceperiod"]),
        now=now,
    )
    members = await _reconcile(fleet, app, certificate, now)
    if isinstance(decision, Due):
        members += await make_order(fleet, app, properties, decision.reason, now)
        # The order has its own time on the agenda; this look is for what nobody foresaw.
        return Next(now + LOOK_AGAIN, tuple(members))
    return Next(decision.at, tuple(members))


async def _reconcile(fleet: Fleet, app: App, certificate: Certificate | None, now: datetime) -> list[str]:
    """Every host of the app wants the newest certificate; the hosts that have to be visited."""
    if certificate is None:
        return []
    known = await fleet.records.installations(app.name)
    members = []
    for host in app.hosts:
        installation = known.get(host, Installation(app.name, host))
        if installation.served == certificate.generation:
            continue
        if installation.wanted != certificate.generation:
            installation = Installation(app.name, host, wanted=certificate.generation, installed=installation.installed)
            await fleet.records.want(installation)
        elif installation.retry_at is not None and installation.retry_at > now:
            continue
        await fleet.agenda.schedule(host_member(host), now)
        members.append(host_member(host))
    return members
