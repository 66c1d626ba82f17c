"""Requests that change nothing but limits: how apps are, what is in their way, when it will be done."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from certfleet.acme_ca.account_records import AccountRecords
from certfleet.acme_ca.presets import presets, resolve_ca
from certfleet.errors import UsageError
from certfleet.journal import Entry
from certfleet.lifecycle.forecasts.estimate import Estimate
from certfleet.lifecycle.forecasts.forecast import estimate
from certfleet.lifecycle.forecasts.whatif import what_if
from certfleet.lifecycle.limiting import Publication, Rule, rules, set_limits
from certfleet.limits.line import Lines
from certfleet.limits.outages import Outage
from certfleet.limits.view import BucketInUse, buckets_in_use
from certfleet.models import App, Installation, Order, OrderState, utcnow
from certfleet.overview import Overview, State, overview
from certfleet.plan import Planned
from certfleet.properties import effective

if TYPE_CHECKING:
    from certfleet.lifecycle.challenges.standing import StandingRecord
    from certfleet.lifecycle.doctor import Finding

from certfleet.client.apps import AppRequests
from certfleet.client.desk import Done

LOOK = 0.05  # seconds between two looks of `wait`


class Looks(AppRequests):
    """Overviews, limits, forecasts, histories."""

    async def overviews(self, names: Sequence[str] = ()) -> AsyncIterator[Overview]:
        """The named apps, or all by name. Raises UnknownName."""
        lines = Lines(self._fleet.store)
        async for page in self._pages(names):
            for view in await self._views(page, lines):
                yield view

    async def _views(self, apps: Sequence[App], lines: Lines | None = None) -> list[Overview]:
        """How these apps are; `lines` are waiting rooms that were read for a page before."""
        names = [app.name for app in apps]
        everywhere = await self._fleet.inventory.properties()
        certificates = await self._fleet.records.certificates(names)
        orders = await self._fleet.records.orders(names)
        renewals = await self._fleet.records.renewals(names)
        slots = await self._fleet.spreading.slots(names)
        installations = await self._fleet.records.installations_of(names)
        warned = await self._fleet.records.warnings(names)
        places = await (lines or Lines(self._fleet.store)).places(list(orders))
        outages = await self._outages_of(orders.values())
        return [
            overview(
                app,
                effective(app.properties, everywhere),
                certificates.get(app.name),
                orders.get(app.name),
                installations[app.name],
                place=places.get(app.name),
                outage=outages.get(app.name),
                told=renewals.get(app.name),
                warning=warned.get(app.name),
                slot=slots.get(app.name),
            )
            for app in apps
        ]

    async def _outages_of(self, orders: Iterable[Order]) -> dict[str, Outage | None]:
        """By app, what the orders wait for that wait for a CA to answer."""
        away = {order.app: resolve_ca(order.ca).directory for order in orders if order.state is OrderState.AWAY}
        found = {directory: await self._fleet.outages.of(directory) for directory in set(away.values())}
        return {app: found[directory] for app, directory in away.items()}

    async def installations(self, name: str) -> list[Installation]:
        """What is wanted, installed and served on each host of an app. Raises UnknownName."""
        app = await self._fleet.inventory.app(name)
        known = await self._fleet.records.installations(name)
        return [known.get(host, Installation(name, host)) for host in app.hosts]

    async def doctor(self, name: str) -> list[Finding]:
        """What is in the way of an app's certificate, point by point; nothing is ordered.

        Asks from here, which needs the vault's key. Raises UnknownName, ConfigurationError.
        """
        from certfleet.lifecycle.doctor import diagnose  # noqa: PLC0415  late as above

        return await diagnose(self._fleet, await self.app(name))

    async def standing_records(self, name: str) -> list[StandingRecord]:
        """The TXT records by which an app's names are proven with dns-persist-01, and whether they stand.

        Asks from here, which needs the vault's key. Raises UnknownName, OwnerError, CAError, ConfigurationError.
        """
        from certfleet.lifecycle.challenges.standing import standing_records  # noqa: PLC0415  late as above

        return await standing_records(self._fleet, await self.app(name))

    async def history(self, name: str) -> list[Entry]:
        """The newest entries of an app's journal, oldest first."""
        return await self._fleet.journal.latest(name)

    async def forecast(
        self,
        plan: Sequence[Planned] | None = None,
        *,
        ca: str | None = None,
        email: str | None = None,
        limits: Mapping[str, str] | None = None,
        lifetimes: Mapping[str, str] | None = None,
        names_per_certificate: int | None = None,
    ) -> Estimate:
        """When the apps of a plan (plan.read_plan) would be done; without one, the orders that wait now.

        The rest is what if: other rates of limits, other lifetimes by profile (45d; under no name that of the CA's
        default); of a plan only, the CA and e-mail of apps that name none, and up to so many names of one domain on a
        certificate. Raises UsageError.
        """
        assumed = what_if(
            ca=ca, email=email, limits=limits, lifetimes=lifetimes, names_per_certificate=names_per_certificate
        )
        if plan is None:
            _refuse_without_plan(ca=ca, email=email, names_per_certificate=names_per_certificate)
        return await estimate(self._fleet, assumed, plan)

    async def wait(
        self, names: Sequence[str], timeout: float, newer_than: Mapping[str, int] | None = None
    ) -> list[Overview]:
        """Wait until each app is served by all its hosts, or is failing; at most `timeout` seconds.

        `newer_than`: generations by app that do not count any more. The answer may hold apps that are
        neither, when the time is up.
        """
        deadline = asyncio.get_running_loop().time() + timeout
        old = newer_than or {}

        def settled(view: Overview) -> bool:
            if view.state is State.SERVED:
                return view.generation > old.get(view.name, 0)
            return view.state in (State.FAILING, State.PARKED, State.DISABLED)

        while True:
            views = [view async for view in self.overviews(names)]
            if all(settled(view) for view in views) or asyncio.get_running_loop().time() > deadline:
                return views
            await asyncio.sleep(LOOK)

    async def set_limits(
        self, values: Mapping[str, str], *, ca: str | None = None, account: str | None = None, domain: str | None = None
    ) -> Done:
        """Set limits of a CA, all or none; an empty value takes one away. Raises UsageError.

        `ca`: name or directory; None: the one that is set for all apps. `account` (its e-mail address) or `domain`:
        for that one alone.
        """
        at, changed = await set_limits(self._fleet, values, ca=ca, account=account, domain=domain)
        if changed:
            await self._fleet.rooms.open_all(utcnow())
        return Done(changed=changed, sentence=f"{at.name}: " + ("set" if changed else "it is like that already"))

    async def buckets(self) -> list[BucketInUse]:
        """The CA's limits as they stand: each bucket that is not full, or that somebody waits for."""
        directories = {name: preset.directory for name, preset in presets().items()}
        known = AccountRecords(self._fleet.store).all()
        emails = {account.id: account.email async for account in known}
        return await buckets_in_use(self._fleet.store, self._fleet.limits, directories, emails)

    async def outages(self) -> list[Outage]:
        """Each CA that does not answer, the longest first; one order at a time tries it."""
        return await self._fleet.outages.all()

    async def limits(self, ca: str | None = None) -> tuple[Publication, list[Rule]]:
        """The limits that hold at a CA, and where they come from. Raises UsageError."""
        return await rules(self._fleet, ca)


def _refuse_without_plan(**given: str | int | None) -> None:
    """Raise UsageError for what says something of a plan only: without one it would change nothing."""
    for name, value in given.items():
        if value is not None:
            raise UsageError(name.replace("_", "-"), value, "is for a plan: give --plan too")
