"""Looking whether a CA has revoked certificates of ours: one fetch of each list for all apps that share it.

    check ── the certificate names a list ──▶ watched ── within 5 minutes ──▶ crl:<name>
    crl:<name> ── fetched, if it has changed ── verified ── compared, some entries at a time ──▶ ours: renewed at once
        ▲                │ no answer, or not to be believed: 1, 10, 100 minutes, then as ever      (revoked_by_ca.py)
        └── when its CA replaces it, in 4 hours at the latest

The decisions are plain functions. Reading is done in a thread, so that orders under way do not wait for it.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import structlog

from certfleet.acme_ca.crl import RevocationList, distribution_point, issuer_of, read_list, revoked
from certfleet.acme_ca.crl_fetch import Validators, fetch_list
from certfleet.agenda import Claim
from certfleet.errors import CAError, CAMisbehaved
from certfleet.lifecycle.fleet import Fleet
from certfleet.lifecycle.renewals.renewal import BACK_OFF
from certfleet.lifecycle.revocations.crl_book import WatchedList, crl_member
from certfleet.lifecycle.revocations.revoked_by_ca import Hit, note
from certfleet.lifecycle.work import Next, Waiting
from certfleet.lifecycle.workbench import Workbench
from certfleet.models import Certificate, utcnow

log = structlog.get_logger(__name__)

FIRST_LOOK = timedelta(minutes=5)
"""Within this time after the first certificate that names a list: a fleet that was enabled at once names many."""
EVERY = timedelta(hours=4)
"""Between two looks at most. A CA publishes a revocation within a day (CA/Browser Forum, TLS BR §4.9.7)."""
SHORTEST, LONGEST = timedelta(minutes=10), timedelta(days=1)
"""Bounds of what the list, or its server by Retry-After, may make of that."""
JITTER = 0.25
"""Share of EVERY by which looks differ: workers do not all ask in one minute, nor one server for all its lists."""
HELD_UP = timedelta(minutes=2)
HINTED = 100  # checks that workers are told of at once; ticks find the rest within seconds, and no queue overflows
TURN = 60.0  # seconds that a look waits for other looks of this process to end


async def watch(fleet: Fleet, claim: Claim, certificate: Certificate, bundle: str) -> None:
    """Let the app's present certificate be looked for in the list that it names; it may name none. Raises LeaseLost.

    `bundle`: PEM of the roots of a private CA, whose issuer may be among them.
    """
    point = distribution_point(certificate.leaf)
    if point is None or certificate.revoked is not None or certificate.not_after <= utcnow():
        return
    if await fleet.crls.is_watched(point, certificate.serial):
        return
    chain = (await fleet.records.chains([certificate]))[certificate.chain]
    issuer = issuer_of(certificate.leaf, chain + bundle)
    if issuer is None:
        log.info("no revocation list is read: the issuer is not in the chain", app=certificate.app, url=point.url)
        return
    first = utcnow() + FIRST_LOOK * random.random()  # noqa: S311  no secret
    await fleet.agenda.schedule(crl_member(point.name), first)
    known = await fleet.crls.begin(WatchedList(point.name, point.url, issuer, bundle, next_look=first))
    await fleet.crls.watch(claim, known, certificate)


async def look(bench: Workbench, claim: Claim) -> Next:
    """Fetch one list if it has changed, and see to each of our certificates in it. Raises LeaseLost."""
    book, name = bench.fleet.crls, claim.name
    known = await book.get(name)
    if known is None:
        return Next(None)
    if not await book.count(name):
        await book.forget(claim, name)
        return Next(None)
    try:
        async with _in_turn(bench):
            return await _looked(bench, claim, known)
    except Waiting as waiting:
        return Next(waiting.at)


@asynccontextmanager
async def _in_turn(bench: Workbench) -> AsyncIterator[None]:
    """Few lists at once are in a process's memory. Raises Waiting when that takes too long."""
    try:
        async with asyncio.timeout(TURN):
            await bench.lists.acquire()
    except TimeoutError:
        raise Waiting(utcnow() + HELD_UP * random.uniform(0.5, 1)) from None  # noqa: S311  no secret
    try:
        yield
    finally:
        bench.lists.release()


@dataclass(slots=True)
class Compared:
    """What a list had of ours."""

    members: tuple[str, ...] = ()
    """Agenda members that became due by it."""
    left: list[str] = field(default_factory=list)
    """Serials of which it could not be noted just now: somebody else wrote to the certificate."""


async def _looked(bench: Workbench, claim: Claim, known: WatchedList) -> Next:
    book, compared = bench.fleet.crls, Compared()
    unread = await book.unread(known.name)
    after = known
    try:
        asked = Validators(known.etag, known.modified) if unread is None else Validators()
        fetched = await fetch_list(known.url, asked, nameservers=bench.fleet.settings.nameservers, bundle=known.bundle)
        if fetched.body is not None:
            read = await asyncio.to_thread(read_list, fetched.body, url=known.url, issuer=known.issuer, now=utcnow())
            require_no_older(known, read)
            compared = await _compare(bench, claim, known, read)
            after = replace(known, this_update=read.this_update, next_update=read.next_update)
            if not compared.left:
                after = replace(after, etag=fetched.validators.etag, modified=fetched.validators.modified)
        require_in_date(after, utcnow())
    except CAError as error:
        after = missed(after, error, utcnow(), random.random())  # noqa: S311  no secret
        log.warning("revocation list", url=known.url, error=after.error, failures=after.failures)
        unread = None  # the mark stays
    else:
        after = found(after, utcnow(), random.random())  # noqa: S311  no secret
        if compared.left:  # in a moment, and in full
            after, unread = replace(after, etag="", modified="", next_look=utcnow() + BACK_OFF[0]), None
    await book.save(claim, after, unread=unread)
    return Next(after.next_look, compared.members[:HINTED])


async def _compare(bench: Workbench, claim: Claim, known: WatchedList, read: RevocationList) -> Compared:
    """Look each entry up among the watched certificates: that costs what the list has, not what the fleet has."""
    compared, pages = Compared(), read.pages()
    while page := await asyncio.to_thread(next, pages, None):
        apps = await bench.fleet.crls.apps_of(known.name, [serial for serial, _ in page])
        ours = [(app, revoked(*entry)) for app, entry in zip(apps, page, strict=True) if app is not None]
        hits = [Hit(app, said) for app, said in ours if said is not None]
        if hits:
            members, left = await note(bench.fleet, claim, known, hits)
            compared.members += members
            compared.left += left
    return compared


def require_no_older(known: WatchedList, read: RevocationList) -> None:
    """Raise CAMisbehaved for a list that is older than what was read before: it would hide what came since."""
    if known.this_update is not None and read.this_update < known.this_update:
        raise CAMisbehaved(
            f"it is of {read.this_update:%Y-%m-%d %H:%M} UTC, and one of {known.this_update:%Y-%m-%d %H:%M} was here "
            "before: does a cache, or somebody in between, give out old ones?"
        )


def require_in_date(known: WatchedList, now: datetime) -> None:
    """Raise CAMisbehaved for a list that its CA should have replaced (RFC 5280 §6.3.3): it says nothing of today."""
    if known.next_update is not None and known.next_update <= now:
        raise CAMisbehaved(f"the CA should have replaced it on {known.next_update:%Y-%m-%d %H:%M} UTC, and has not")


def found(known: WatchedList, now: datetime, chance: float) -> WatchedList:
    """After a look that brought a list to be believed, or the word that it is as it was."""
    return replace(known, read=now, next_look=next_look(known.next_update, now, chance), failures=0, error="")


def next_look(next_update: datetime | None, now: datetime, chance: float) -> datetime:
    """When the CA replaces the list, and in EVERY at the latest; `chance`, from 0 to below 1, spreads the looks."""
    at = now + EVERY * (1 - JITTER * chance)
    if next_update is None:
        return at
    return max(min(at, next_update + SHORTEST * chance), now + SHORTEST)


def missed(known: WatchedList, error: CAError, now: datetime, chance: float) -> WatchedList:
    """After a look that brought nothing: again after 1, 10, 100 minutes, then as ever, and when its server says."""
    at = now + EVERY * (1 - JITTER * chance)
    if known.failures < len(BACK_OFF):
        at = min(at, now + BACK_OFF[known.failures])
    if error.retry_at is not None:
        at = max(at, min(error.retry_at, now + LONGEST))
    return replace(known, next_look=at, failures=known.failures + 1, error=f"the revocation list {known.url}: {error}")
