"""What people see of an app: one state word, one sentence, the times. Decisions only: no I/O."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from certfleet.lifecycle.renewal import renew_at
from certfleet.models import App, Certificate, Installation, Order, OrderState
from certfleet.properties import parse_grace


class State(StrEnum):
    """The state of an app, worst news first when several hold."""

    DISABLED = "disabled"
    PARKED = "parked"
    FAILING = "failing"
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
    next_try: datetime | None
    reason: str | None
    """Why the present order was made."""
    error: str | None


def overview(
    app: App,
    properties: dict[str, str],
    certificate: Certificate | None,
    order: Order | None,
    installations: dict[str, Installation],
) -> Overview:
    """Put an app's records together."""
    generation = certificate.generation if certificate else 0
    served_on = sum(1 for i in installations.values() if generation and i.host in app.hosts and i.served == generation)
    failing = [f"{i.host}: {i.error}" for i in installations.values() if i.error and i.host in app.hosts]
    tries = [i.retry_at for i in installations.values() if i.retry_at and i.host in app.hosts]
    if order and order.retry_at:
        tries.append(order.retry_at)
    return Overview(
        name=app.name,
        state=_state(app, order, bool(failing), generation, served_on),
        domains=app.shown or app.identifiers,
        hosts=app.hosts,
        served_on=served_on,
        ca=properties["ca"],
        generation=generation,
        serial=certificate.serial if certificate else None,
        not_after=certificate.not_after if certificate else None,
        renew_at=renew_at(certificate, parse_grace(properties["graceperiod"])) if certificate else None,
        next_try=min(tries, default=None),
        reason=order.reason if order else None,
        error=(order.error if order and order.error else None) or ("; ".join(failing) or None),
    )


def _state(app: App, order: Order | None, failing: bool, generation: int, served_on: int) -> State:  # noqa: FBT001
    if not app.enabled:
        return State.DISABLED
    if order and order.state is OrderState.PARKED:
        return State.PARKED
    if failing or (order and order.error):
        return State.FAILING
    if order:
        return State.ORDERING
    if generation and served_on < len(app.hosts):
        return State.INSTALLING
    return State.SERVED if generation else State.WAITING
