"""What people see of an app: one state word, one sentence, the times. Decisions only: no I/O."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from certfleet.acme_ca.presets import name_of
from certfleet.lifecycle.hosts.waves import hosts_named, parse_waves, rollout
from certfleet.lifecycle.renewals.renewal import Slot, current, due_time, renewal_time
from certfleet.limits.line import Place
from certfleet.limits.outages import Outage
from certfleet.limits.words import meaning
from certfleet.models import App, Certificate, Installation, Order, OrderState, Passed, Renewal
from certfleet.properties import parse_grace

TOLD = 3  # hosts whose errors stand in one line; `certfleet info` has all


class State(StrEnum):
    """The state of an app, worst news first when several hold."""

    DISABLED = "disabled"
    PARKED = "parked"
    FAILING = "failing"
    LIMITED = "limited"
    AWAY = "away"
    ORDERING = "ordering"
    INSTALLING = "installing"
    SERVED = "served"
    WAITING = "waiting"


@dataclass(frozen=True, slots=True)
class Overview:
    """One app as `ls` and `info` show it."""

    name: str
    state: State
    domains: tuple[str, ...]
    hosts: tuple[str, ...]
    served_on: int
    """Hosts whose live endpoint showed the newest certificate when it was last asked."""
    ca: str
    generation: int
    serial: str | None
    not_after: datetime | None
    renew_at: datetime | None
    spread_from: datetime | None
    """Its own time of renewal, when it is renewed earlier because many are due then; None: it is renewed at that."""
    window_start: datetime | None
    """When the CA's suggested renewal window begins (ARI, RFC 9773)."""
    window_end: datetime | None
    explanation: str | None
    """A page of the CA's about why the window is as it is."""
    next_try: datetime | None
    reason: str | None
    """Why the present order was made."""
    error: str | None
    wave: str | None
    """What the hosts wait for that are to keep their older certificate for now."""
    waits_for: str | None
    """What it waits for: a limit of the CA's and for what, in words."""
    waits_until: datetime | None
    """When its turn comes, if nobody more urgent does."""
    place: int | None
    """Its place in the waiting room; 1 is next."""
    places: int | None
    """How many wait there."""
    away_since: datetime | None
    """Since when its CA has not answered, for which it waits; `waits_until` is when that is tried again."""
    profile: str | None
    """The profile that the newest certificate was asked for by; None: the CA's default, or there is none."""
    warning: str | None
    """What will be in the way of the next renewal, while nothing is wrong yet: its standing records."""
    revoked: datetime | None
    """When the newest certificate was revoked; None: it is not, as far as is known."""
    revoked_for: str | None
    """Why, as RFC 5280 spells it."""
    issued_by: str | None
    """The CA that issued the newest certificate; None: there is none."""
    asked_ca: str | None
    """The CA that the present order is at; None: there is no order."""
    passed_over: tuple[Passed, ...]
    """The CAs of the app's list that were asked before that one; without an order, before the one that issued."""
    key_on: str | None
    """The host that made the newest certificate's key, and has the only copy; None: it was made here."""


def overview(
    app: App,
    properties: dict[str, str],
    certificate: Certificate | None,
    order: Order | None,
    installations: dict[str, Installation],
    *,
    place: Place | None = None,
    outage: Outage | None = None,
    told: Renewal | None = None,
    warning: str | None = None,
    slot: Slot | None = None,
) -> Overview:
    """Put an app's records together.

    `place`: where its order waits for tokens; `outage`: that of its order's CA; `told`: what that said of renewal.
    `warning`: what was found at its standing records, if these are how its names are proven. `slot`: the time that its
    renewal was given among all others.
    """
    said = current(certificate, told) if certificate else None
    generation = certificate.generation if certificate else 0
    grace = parse_grace(properties["graceperiod"])
    due = due_time(certificate, grace, said) if certificate else None
    renew_at = renewal_time(certificate, grace, said, slot) if certificate else None
    served_on = sum(1 for i in installations.values() if generation and i.host in app.hosts and i.served == generation)
    on_hosts = [installations[host] for host in app.hosts if host in installations]
    failing = [f"{i.host}: {i.error}" for i in on_hosts if i.error]
    tries = [i.retry_at for i in on_hosts if i.retry_at]
    if order and order.retry_at and not order.held:
        tries.append(order.retry_at)
    held = order if order and order.held and order.retry_at and not place else None
    away = outage if order and order.state is OrderState.AWAY else None
    return Overview(
        name=app.name,
        state=_state(
            app, order, bool(failing), generation, served_on, limited=bool(place or held), away=away is not None
        ),
        domains=app.shown or app.identifiers,
        hosts=app.hosts,
        served_on=served_on,
        ca=properties["ca"],
        generation=generation,
        serial=certificate.serial if certificate else None,
        not_after=certificate.not_after if certificate else None,
        renew_at=renew_at,
        spread_from=due if due != renew_at else None,
        window_start=said.start if said else None,
        window_end=said.end if said else None,
        explanation=said.explanation if said else None,
        next_try=min(tries, default=None),
        reason=order.reason if order else None,
        error=(order.error if order and order.error else None) or _first_few(failing),
        wave=_wave(app, properties, generation, installations),
        waits_for=_bucket(order, place) if order and place else held.held if held else None,
        waits_until=place.at if place else held.retry_at if held else away.next_try if away else None,
        place=place.place if place else None,
        places=place.waiting if place else None,
        away_since=away.since if away else None,
        profile=(certificate.profile or None) if certificate else None,
        warning=warning if properties["challenge"] == "dns-persist-01" else None,
        revoked=certificate.revoked if certificate else None,
        revoked_for=(certificate.revoked_for or None) if certificate else None,
        issued_by=name_of(certificate.ca) if certificate else None,
        asked_ca=order.ca if order else None,
        passed_over=order.passed_over if order else certificate.passed_over if certificate else (),
        key_on=(certificate.key_on or None) if certificate else None,
    )


def _first_few(failing: list[str]) -> str | None:
    more = [f"{len(failing) - TOLD} more hosts are failing"] if len(failing) > TOLD else []
    return "; ".join(failing[:TOLD] + more) or None


def _bucket(order: Order, place: Place) -> str:
    return meaning(place.bucket, {place.bucket.key: order.email})


def _wave(app: App, properties: dict[str, str], generation: int, installations: dict[str, Installation]) -> str | None:
    if not generation or not app.enabled:
        return None
    found = rollout(app.hosts, installations, generation, parse_waves(properties["wave"]))
    if not found.held:
        return None
    if found.stopped_by:
        return f"stopped by {hosts_named(found.stopped_by)}: {len(found.held)} hosts keep the older certificate"
    return f"{found.wave} of {found.waves}, {found.proven} of {len(app.hosts)} hosts done"


def _state(  # noqa: PLR0911  one line per state reads best
    app: App,
    order: Order | None,
    failing: bool,  # noqa: FBT001
    generation: int,
    served_on: int,
    *,
    limited: bool,
    away: bool,
) -> State:
    if not app.enabled:
        return State.DISABLED
    if order and order.state is OrderState.PARKED:
        return State.PARKED
    if failing or (order and order.error):
        return State.FAILING
    if limited:
        return State.LIMITED
    if away:
        return State.AWAY
    if order:
        return State.ORDERING
    if generation and served_on < len(app.hosts):
        return State.INSTALLING
    return State.SERVED if generation else State.WAITING


def standing(view: Overview) -> str:
    """How an app is, as the end of a sentence."""
    if view.error:
        return f"it is {view.state}: {view.error}"
    if view.renew_at and view.state is State.SERVED:
        return f"its certificate is served and is renewed on {view.renew_at:%Y-%m-%d %H:%M} UTC"
    return f"it is {view.state}"
