"""The CA's renewal information (ARI, RFC 9773): asked for, kept, and turned into one instant.

    issued ── 5 s ──▶ asked ──▶ window kept, instant chosen ── Retry-After ──▶ asked ──▶ the same window: nothing
                        │ no answer                                              │ another window: another instant
                        ▼                                                        ▼
        1, 10, 100 minutes, then every 6 hours                     in the past: renewed with this very check

The decisions are plain functions; `look_at_renewal` is what a check does.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from datetime import datetime, timedelta
from http import HTTPStatus

import structlog

from certfleet.acme_ca.ari import RenewalInfo, certificate_id, renewal_info
from certfleet.acme_ca.transport import Transport
from certfleet.agenda import Claim
from certfleet.ca_list import cas_of
from certfleet.errors import AcmeProblem, CAError, CAMisbehaved, CAUnreachable
from certfleet.lifecycle.orders.wishes import may_wait_in_line
from certfleet.lifecycle.records import order_member
from certfleet.lifecycle.renewals.renewal import BACK_OFF, current
from certfleet.lifecycle.workbench import Workbench
from certfleet.models import App, Certificate, Renewal, utcnow

log = structlog.get_logger(__name__)

FIRST_LOOK = timedelta(seconds=5)
"""After a certificate was issued: its hosts get it first."""
SHORTEST, LONGEST = timedelta(minutes=1), timedelta(days=1)
"""Bounds of what the CA may ask for by Retry-After (RFC 9773 §4.3.2)."""
WITHOUT_ANSWER = timedelta(hours=6)
"""Between two looks when the CA did not say, and when it goes on failing (RFC 9773 §4.3.3)."""
WHILE_AWAY = timedelta(minutes=10)
"""Between two looks while the CA is known not to answer: nobody asks it then."""
JUST_ISSUED = timedelta(hours=1)
"""No certificate younger than this is renewed for what the CA said first of it."""
MICROSECOND = timedelta(microseconds=1)
TIMEOUT = 10.0  # seconds that a check waits for the answer: its order and its hosts come after it


async def look_at_renewal(
    bench: Workbench, claim: Claim, app: App, certificate: Certificate | None, properties: dict[str, str]
) -> Renewal | None:
    """What the CA said of the app's certificate, asked anew when it is time; None: nothing. Raises LeaseLost.

    Asked is the CA that issued it, whichever of the app's list would be asked for another one.
    """
    ca = next((ca for ca in cas_of(properties) if certificate and ca.directory == certificate.ca), None)
    if certificate is None or ca is None:
        return None
    records = bench.fleet.records
    known = current(certificate, (await records.renewals([app.name])).get(app.name))
    if not is_to_be_asked(certificate, known, utcnow()):
        return known
    if await bench.fleet.outages.of(ca.directory) is not None:
        found = replace(known or Renewal(certificate.generation, next_look=utcnow()), next_look=utcnow() + WHILE_AWAY)
        await records.save_renewal(claim, app.name, found)
        return found
    try:
        info = await _ask(bench.transport(ca), certificate)
    except CAError as error:
        log.info("no renewal information", app=app.name, error=str(error))
        found = unanswered(certificate, known, error, utcnow())
    else:
        if info is None:
            if known is not None:
                await records.forget_renewal(claim, app.name)
            return None
        found = answered(certificate, known, info, utcnow(), random.random())  # noqa: S311  no secret
    more = [bench.fleet.journal.entry(app.name, "window moved", told)] if (told := moved(known, found)) else []
    await records.save_renewal(claim, app.name, found, *more)
    if found.start is not None and (known is None or (known.start, known.end) != (found.start, found.end)):
        await _tell_order(bench, app.name, found)
    return found


async def _tell_order(bench: Workbench, app: str, told: Renewal) -> None:
    """An order that waits in line for tokens is looked at when the new window opens: it may need none from then on."""
    order = await bench.fleet.records.order(app)
    if order is not None and may_wait_in_line(order) and told.start is not None:
        await bench.fleet.agenda.schedule(order_member(app), max(told.start, utcnow()))


async def _ask(transport: Transport, certificate: Certificate) -> RenewalInfo | None:
    name = certificate_id(certificate.leaf)
    if name is None:
        return None
    try:
        async with asyncio.timeout(TIMEOUT):
            return await renewal_info(transport, name)
    except TimeoutError:
        raise CAUnreachable(f"the CA {transport.ca.name} gave no renewal information in {TIMEOUT:.0f} s") from None


def is_to_be_asked(certificate: Certificate, known: Renewal | None, now: datetime) -> bool:
    """Whether it is time; not for a certificate that has expired (RFC 9773 §4.3)."""
    return now < certificate.not_after and (known is None or known.next_look <= now)


def answered(
    certificate: Certificate, known: Renewal | None, info: RenewalInfo, now: datetime, chance: float
) -> Renewal:
    """After an answer: the window, and the instant (`chance`, from 0 to below 1, says where) unless it has one already.

    A window that begins when the certificate has ended is no answer, nor is one that was over when it was just issued:
    a CA that says so of each would be asked for another for ever. What lies outside of its life is not chosen.
    """
    if info.start >= certificate.not_after:
        return unanswered(certificate, known, CAMisbehaved("the window is after the certificate's end"), now)
    if (known is None or known.start is None) and info.end <= now < certificate.issued + JUST_ISSUED:
        return unanswered(certificate, known, CAMisbehaved("the window was over when it was issued"), now)
    same = known is not None and (known.start, known.end) == (info.start, info.end)
    return Renewal(
        generation=certificate.generation,
        next_look=_clamped(info.retry_at, now),
        start=info.start,
        end=info.end,
        at=known.at if same and known is not None else _instant(certificate, info, chance),
        explanation=info.explanation,
    )


def _instant(certificate: Certificate, info: RenewalInfo, chance: float) -> datetime:
    start, end = max(info.start, certificate.issued), min(info.end, certificate.not_after)
    if start >= end:  # it was over before: at once
        start, end = info.start, info.end
    return start + MICROSECOND * int((end - start) // MICROSECOND * chance)


def unanswered(certificate: Certificate, known: Renewal | None, error: CAError, now: datetime) -> Renewal:
    """After a look without an answer: what is known stays, and it is asked again soon, at last every six hours."""
    before = known or Renewal(certificate.generation, next_look=now)
    wait = WITHOUT_ANSWER
    if _may_pass(error) and before.failures < len(BACK_OFF):
        wait = min(BACK_OFF[before.failures], WITHOUT_ANSWER)
    at = now + wait
    if error.retry_at is not None:
        at = max(at, _clamped(error.retry_at, now))
    return replace(before, next_look=at, failures=before.failures + 1)


def _may_pass(error: CAError) -> bool:
    """Whether it is worth asking again within minutes (RFC 9773 §4.3.3): no answer, or the CA's own trouble."""
    if isinstance(error, AcmeProblem):
        return error.status >= HTTPStatus.INTERNAL_SERVER_ERROR or error.status == HTTPStatus.TOO_MANY_REQUESTS
    return not isinstance(error, CAMisbehaved)


def _clamped(asked: datetime | None, now: datetime) -> datetime:
    return now + WITHOUT_ANSWER if asked is None else min(max(asked, now + SHORTEST), now + LONGEST)


def moved(known: Renewal | None, found: Renewal) -> str | None:
    """What people read when the CA has changed its mind; None: it has not."""
    if known is None or known.start is None or found.at is None or (known.start, known.end) == (found.start, found.end):
        return None
    told = f"the CA wants it renewed between {found.start:%Y-%m-%d %H:%M} and {found.end:%Y-%m-%d %H:%M} UTC"
    return f"{told}: {found.explanation}" if found.explanation else told
