"""An order that says which certificate it replaces (RFC 9773 §5), and whether the CA exempts it from its limits.

The CA has at most one order that replaces a certificate, pending ones included. It exempts it when the account is the
same, an identifier is shared, and now lies in the suggested window (letsencrypt.org/docs/rate-limits, "exemptions").
A revoked one's window is in the past, whatever the CA said before it was revoked.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from http import HTTPStatus

from certfleet.acme_ca.ari import certificate_id
from certfleet.acme_ca.transport import Transport
from certfleet.errors import AcmeProblem
from certfleet.journal import Journal
from certfleet.lifecycle.renewals.renewal import current
from certfleet.lifecycle.workbench import Workbench
from certfleet.models import Certificate, Order, Renewal, utcnow

REFUSED = frozenset({"alreadyReplaced", "malformed", "unauthorized"})
"""By these types a CA refuses `replaces` itself; newer Pebbles say `malformed` (409) for `alreadyReplaced`."""


async def as_replacement(
    bench: Workbench, transport: Transport, order: Order, served: Certificate | None, *, agree_tos: bool
) -> Order:
    """The order with the certificate that newOrder will name; as it is when the CA has an order already.

    Raises CAError when directory or account cannot be had.
    """
    if order.url is not None or order.ordinary:
        return order
    if served is None or not _fits(order, served, transport):
        return replace(order, replaces="", exempt=False)
    _, signer = await bench.accounts.account_for(transport, order.email, agree_tos=agree_tos)
    if signer.kid != served.account or (await transport.directory()).renewal_info is None:
        return replace(order, replaces="", exempt=False)
    told = (await bench.fleet.records.renewals([order.app])).get(order.app)
    name = certificate_id(served.leaf) or ""
    exempt = bool(name) and served.revoked is None and in_window(current(served, told), utcnow())
    return replace(order, replaces=name, exempt=exempt)


def _fits(order: Order, served: Certificate, transport: Transport) -> bool:
    """Same CA, perhaps the same account, one name shared; not expired, for then nothing is replaced in time."""
    return (
        bool(served.account)
        and served.ca == transport.ca.directory
        and not set(served.identifiers).isdisjoint(order.identifiers)
        and utcnow() < served.not_after
    )


def in_window(told: Renewal | None, now: datetime) -> bool:
    """Whether now lies in the suggested window, [start, end)."""
    return told is not None and told.start is not None and told.end is not None and told.start <= now < told.end


def exempt_from(order: Order, served: Certificate | None, told: Renewal | None, now: datetime) -> datetime | None:
    """When an order that has to wait for tokens now begins to need none: its window opens. None: it never does."""
    if served is None or not order.replaces or order.exempt or served.revoked is not None:
        return None
    said = current(served, told)
    return said.start if said is not None and said.start is not None and said.start > now else None


def not_replacing(problem: AcmeProblem) -> bool:
    """Whether newOrder may have been refused because of `replaces`: then it is sent once more without."""
    return problem.status in (HTTPStatus.CONFLICT, HTTPStatus.NOT_FOUND) or (
        problem.status < HTTPStatus.INTERNAL_SERVER_ERROR and problem.type in REFUSED
    )


async def note_refusal(journal: Journal, app: str, problem: AcmeProblem) -> None:
    """Keep why `replaces` was refused, in the CA's own words."""
    if problem.status == HTTPStatus.CONFLICT or problem.type == "alreadyReplaced":
        detail = f"the CA has an order that replaces the certificate, which is asked for again: {problem}"
        await journal.write(app, "already replaced", detail)
    else:
        detail = f"the CA does not take it as one, it is ordered as any other: {problem}"
        await journal.write(app, "not a replacement", detail)
