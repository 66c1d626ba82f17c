"""Certificates of ours that a CA has revoked of its own accord: noted, and another one is ordered at once.

Whoever connects may refuse them from now on, so they count as ended when they were revoked: among the orders that wait
for a limit they come before every renewal (urgency.py). What the CA revoked at our word is no news.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace

from certfleet.acme_ca.crl import Revoked
from certfleet.acme_ca.reasons import Reason
from certfleet.agenda import Claim
from certfleet.lifecycle.fleet import Fleet
from certfleet.lifecycle.orders.wishes import may_wait_in_line
from certfleet.lifecycle.records import Command, check_member, order_member
from certfleet.lifecycle.revocations.crl_book import WatchedList
from certfleet.lifecycle.revocations.withdrawal import SAFETY
from certfleet.models import Certificate, dump, load, utcnow

PAGE = 100  # certificates noted in one write
AT_ONCE = 50  # questions to Redis under way; below the store's connections


@dataclass(frozen=True, slots=True)
class Hit:
    """An entry of a list that is a certificate we watch."""

    app: str
    said: Revoked


async def note(
    fleet: Fleet, claim: Claim, known: WatchedList, hits: Sequence[Hit]
) -> tuple[tuple[str, ...], list[str]]:
    """Mark these certificates, and let their apps be checked; what became due, and the serials that are left to do.

    Raises LeaseLost. A certificate that was replaced meanwhile is not watched any more.
    """
    members: list[str] = []
    left: list[str] = []
    for start in range(0, len(hits), PAGE):
        page = hits[start : start + PAGE]
        told = await _noted(fleet, claim, known, page)
        still = await fleet.crls.apps_of(known.name, [hit.said.serial for hit in page])
        left += [hit.said.serial for hit, app in zip(page, still, strict=True) if app is not None]
        members += told
    return tuple(members), left


async def _noted(fleet: Fleet, claim: Claim, known: WatchedList, hits: Sequence[Hit]) -> list[str]:
    apps = [hit.app for hit in hits]
    texts = await fleet.records.certificate_texts(apps)
    certificates = [load(Certificate, text) if text else None for text in texts]
    at_our_word = await fleet.revocations.asked_for([(hit.app, hit.said.serial) for hit in hits])
    drops: list[Command] = []
    writes: list[Command] = []
    news: list[str] = []
    for hit, text, certificate, ours in zip(hits, texts, certificates, at_our_word, strict=True):
        drop = fleet.crls.dropped(known.name, hit.said.serial)
        if text is None or certificate is None or not _is_news(certificate, hit.said) or ours:
            drops.append(drop)
            continue
        told = f"serial {hit.said.serial} on {hit.said.at:%Y-%m-%d %H:%M} UTC, {hit.said.reason} ({known.url})"
        entry = fleet.journal.entry(hit.app, "revoked by the CA", told)
        after = dump(marked(certificate, hit.said))
        writes += [*fleet.records.certificate_changed(hit.app, text, after), drop, entry]
        news.append(hit.app)
    await _wake(fleet, news)
    await fleet.records.write(claim, [*drops, *writes])
    return [check_member(app) for app in news]


def _is_news(certificate: Certificate, said: Revoked) -> bool:
    return certificate.serial == said.serial and certificate.revoked is None


def marked(certificate: Certificate, said: Revoked) -> Certificate:
    """The certificate as it is known now; a key that was compromised is never used again (key_reuse.py)."""
    leaked = certificate.leaked or said.reason == Reason.KEY_COMPROMISE
    return replace(certificate, revoked=said.at, revoked_for=said.reason, unasked=True, leaked=leaked)


async def _wake(fleet: Fleet, apps: Sequence[str]) -> None:
    """Let apps be checked, and orders that stand in a waiting room take their new place there, after the write.

    Before it: should we die in between, they come all the same. An order that failed keeps its own time.
    """
    at, orders = utcnow() + SAFETY, await fleet.records.orders(apps)
    members = [
        *map(check_member, apps),
        *(order_member(app) for app, order in orders.items() if may_wait_in_line(order)),
    ]
    for start in range(0, len(members), AT_ONCE):
        await asyncio.gather(*(fleet.agenda.schedule(one, at) for one in members[start : start + AT_ONCE]))
