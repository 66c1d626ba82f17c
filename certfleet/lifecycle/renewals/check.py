"""The expiry check of one app: is an order due, are all hosts as they should be, when to look again."""

from __future__ import annotations

from functools import partial

from certfleet.agenda import Claim
from certfleet.ca_list import cas_of
from certfleet.errors import UnknownName
from certfleet.key_place import key_host, may_have
from certfleet.lifecycle.challenges import watching
from certfleet.lifecycle.hosts import drift
from certfleet.lifecycle.hosts.endpoints import endpoint, look
from certfleet.lifecycle.hosts.waves import parse_waves, rollout
from certfleet.lifecycle.orders.host_key import KEY_LOST
from certfleet.lifecycle.orders.ordering import make_order
from certfleet.lifecycle.orders.urgency import is_emergency
from certfleet.lifecycle.records import host_member, newly_wanted
from certfleet.lifecycle.renewals.renewal import LOOK_AGAIN, Due, decide
from certfleet.lifecycle.renewals.renewal_info import look_at_renewal
from certfleet.lifecycle.revocations import crl_look
from certfleet.lifecycle.work import Next
from certfleet.lifecycle.workbench import Workbench
from certfleet.models import App, Certificate, KeyType, utcnow
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
    told = await look_at_renewal(bench, claim, app, certificate, properties)
    grace = parse_grace(properties["graceperiod"])
    slot = await fleet.spreading.find(claim, certificate, grace, told)
    decision = decide(
        app,
        certificate,
        cas=cas_of(properties),
        key_type=KeyType(properties["key-type"]),
        grace=grace,
        told=told,
        now=utcnow(),
        profile=properties["profile"],
        slot=slot,
        key_on=key_host(app, properties),
    )
    members: list[str] = []
    if isinstance(decision, Due):
        urgent = certificate is not None and (is_emergency(certificate) or certificate.withdrawn == KEY_LOST)
        members += await make_order(fleet, app, properties, decision.reason, now, urgent=urgent)
    if certificate is not None:
        await crl_look.watch(fleet, claim, certificate, properties["ca-bundle"])
        members += await _reconcile(bench, claim, app, properties, certificate)
        if not isinstance(decision, Due):  # an order says itself what it cannot do without
            await watching.watch(bench, claim, app, certificate, properties)
    # An order has its own time on the agenda; the look after it is for what nobody foresaw.
    return Next(now + LOOK_AGAIN if isinstance(decision, Due) else decision.at, tuple(members))


async def _reconcile(
    bench: Workbench, claim: Claim, app: App, properties: dict[str, str], certificate: Certificate
) -> list[str]:
    """Every host of the app wants the newest certificate, and shows it; the hosts that have to be visited."""
    fleet, now, generation = bench.fleet, utcnow(), certificate.generation
    known = await fleet.records.installations(app.name)
    if not all(may_have(certificate, host) for host in app.hosts):
        return []  # the app has moved: the host that it is on now makes a key of its own
    for host in app.hosts:
        if host not in known or known[host].wanted != generation:
            change = partial(newly_wanted, generation=generation)
            known[host] = await fleet.records.amend(app.name, host, change, pending=True)
    to_ask = [host for host in app.hosts if drift.is_to_be_asked(known[host], generation, now)]
    machines = await fleet.inventory.find_hosts(to_ask)
    endpoints = [(endpoint(app, machine, properties), known[machine.name]) for machine in machines.values()]
    for drifted in await look(bench, claim, certificate, endpoints):
        known[drifted.host] = drifted
    standing = rollout(app.hosts, known, generation, parse_waves(properties["wave"]))
    held, members = set(standing.held), list[str]()
    for host in app.hosts:
        installation = known[host]
        if installation.served == installation.installed == generation or host in held:
            continue
        if installation.retry_at is not None and installation.retry_at > now:
            continue
        await fleet.records.pend(host, app.name)
        await fleet.agenda.schedule(host_member(host), now)
        members.append(host_member(host))
    return members
