"""What every kind of request needs: the fleet, and how work is made due."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace

from certfleet.hint import send_hint
from certfleet.lifecycle.fleet import Fleet
from certfleet.lifecycle.hosts.unmade import ask_again
from certfleet.lifecycle.orders.ordering import FORGIVEN, LONG_AGO, ask_order, make_order
from certfleet.lifecycle.records import host_member
from certfleet.models import App, Installation, utcnow
from certfleet.properties import effective

PAGE = 500  # apps put together at once
AT_ONCE = 50  # questions to Redis under way; below the store's connections
HINTED = 100  # members that workers are told of at once; a tick finds more within a second


@dataclass(frozen=True, slots=True)
class Done:
    """What a request did: `changed` is False when there was nothing to do; the sentence says why."""

    changed: bool
    sentence: str


class Desk:
    """The fleet, and what requests have in common."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    async def _look_again(self, apps: Sequence[App]) -> int:
        """Check the enabled ones of these apps now, and try now what failed; how many these are."""
        names = [app.name for app in apps if app.enabled]
        orders = await self._fleet.records.orders(names)
        for installations in (await self._fleet.records.installations_of(names)).values():
            for installation in installations.values():
                if installation.retry_at is not None:
                    await self._fleet.records.amend(installation.app, installation.host, _tried_now, pending=True)
        for name, order in orders.items():
            await ask_again(self._fleet.store, order)
            await ask_order(self._fleet, name, FORGIVEN)
        await self._due("check", names)
        await self._due("order", list(orders))
        return len(names)

    async def _look_at_hosts(self, apps: Sequence[App]) -> None:
        """Ask the endpoints of these apps with the next check, and their hosts what is current there, now."""
        names = [app.name for app in apps if app.enabled]
        for installations in (await self._fleet.records.installations_of(names)).values():
            for installation in installations.values():
                if installation.asked is not None:
                    await self._fleet.records.amend(installation.app, installation.host, asked_now)
        hosts = list(dict.fromkeys(host for app in apps if app.enabled for host in app.hosts))
        await self._fleet.records.audit_now(hosts)
        await self._visit(hosts)

    async def _order_now(self, app: App, reason: str, *, urgent: bool) -> None:
        properties = effective(app.properties, await self._fleet.inventory.properties())
        await make_order(self._fleet, app, properties, reason, utcnow(), urgent=urgent)

    async def _due(self, kind: str, names: Sequence[str]) -> None:
        """Put members on the agenda as due, and send workers a hint so that nobody waits for the next tick."""
        for start in range(0, len(names), AT_ONCE):
            members = [f"{kind}:{name}" for name in names[start : start + AT_ONCE]]
            await asyncio.gather(*(self._fleet.agenda.schedule(member, LONG_AGO) for member in members))
        if 0 < len(names) <= HINTED:
            await asyncio.to_thread(send_hint, self._fleet.settings, kind, list(names))

    async def _errand(self, hosts: Sequence[str], errand: str) -> None:
        """Have something done on hosts, as soon as each can be reached."""
        for host in hosts:
            await self._fleet.errands.ask(host, errand)
        await self._visit(hosts)

    async def _visit(self, hosts: Sequence[str]) -> None:
        """Put hosts on the agenda as due. No hint: the next tick knows which zone's workers reach each."""
        for host in hosts:
            await self._fleet.agenda.schedule(host_member(host), LONG_AGO)

    async def _pages(self, names: Sequence[str] = ()) -> AsyncIterator[list[App]]:
        """The named apps at once, or all by name, a page at a time. Raises UnknownName."""
        page: list[App] = [await self._fleet.inventory.app(name) for name in names]
        if not names:
            async for app in self._fleet.inventory.apps():
                page.append(app)
                if len(page) == PAGE:
                    yield page
                    page = []
        if page:
            yield page


def _tried_now(known: Installation) -> Installation:
    """No back-off is waited for; what failed is forgotten, but for how often."""
    return replace(known, retry_at=None, error=None, fault=None) if known.retry_at else known


def asked_now(known: Installation) -> Installation:
    """The endpoint is asked with the next check."""
    return replace(known, asked=None)
