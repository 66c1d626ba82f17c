"""Books, and a CA whose revocation list is served: what looks at lists are tested with, step by step."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from cryptography import x509

from certfleet.acme_ca.crl import distribution_point
from certfleet.agenda import Claim
from certfleet.lifecycle.orders.ordering import LONG_AGO
from certfleet.lifecycle.records import chain_name, check_member
from certfleet.lifecycle.revocations.crl_book import WatchedList, crl_member
from certfleet.lifecycle.revocations.crl_look import look, watch
from certfleet.lifecycle.work import work
from certfleet.lifecycle.workbench import Workbench, open_workbench
from certfleet.models import App, Certificate, dump, utcnow
from certfleet.settings import Settings
from certfleet.vault import ensure_key
from tests.certificate_records import record
from tests.revoking_ca import ListServer, RevokingCA, list_server, part, point


@dataclass
class Desk:
    """Books, and a CA whose list is served."""

    bench: Workbench
    ca: RevokingCA
    served: ListServer

    async def have(self, name: str, generation: int = 1, issued: datetime | None = None) -> Certificate:
        """An enabled app with a certificate that names the list."""
        fleet = self.bench.fleet
        app = App(name, (f"{name}.example.com",), ("web1",), enabled=True)
        if await fleet.inventory.find_apps([name]) == {}:
            await fleet.inventory.add_app(app)
        leaf = self.ca.leaf(app.identifiers[0], points=[point(self.served.url)])
        serial = f"{x509.load_pem_x509_certificate(leaf.encode()).serial_number:x}"
        chain = chain_name(self.ca.certificate)
        found = record(app, issued or utcnow(), generation=generation, serial=serial, leaf=leaf, chain=chain)
        redis, key = fleet.store.redis, fleet.store.key
        await redis.set(key("certificate", name), dump(found))
        await redis.set(key("generation", name), generation)
        await redis.set(key("chain", chain), self.ca.certificate)
        return found

    async def check(self, *certificates: Certificate) -> None:
        """What each app's expiry check does about the list."""
        agenda = self.bench.fleet.agenda
        for certificate in certificates:
            await agenda.schedule(check_member(certificate.app), LONG_AGO)
            claim = await agenda.claim(check_member(certificate.app))
            assert claim is not None
            await watch(self.bench.fleet, claim, certificate, "")
            await agenda.finish(claim, None)

    async def watched(self, *names: str) -> list[Certificate]:
        """Apps whose certificates are watched."""
        found = [await self.have(name) for name in names]
        await self.check(*found)
        return found

    def publish(self, *revoked: Certificate, reason: x509.ReasonFlags | None = None, **parts: Any) -> None:
        """The CA's list from now on."""
        entries = {int(one.serial, 16): reason for one in revoked}
        self.served.content = self.ca.list(entries, extensions=[(part(self.served.url), True)], **parts)

    async def look(self) -> tuple[str, ...]:
        """The look now, due or not; what became due."""
        if await self.bench.fleet.agenda.time_of(crl_member(self.name)) is not None:
            await self.bench.fleet.agenda.schedule(crl_member(self.name), LONG_AGO)
        return await work(self.bench, [Claim(crl_member(self.name), 0)], look)

    @property
    def name(self) -> str:
        """Of the list."""
        found = distribution_point(self.ca.leaf(points=[point(self.served.url)]))
        assert found is not None
        return found.name

    async def known(self) -> WatchedList:
        found = await self.bench.fleet.crls.get(self.name)
        assert found is not None
        return found

    async def now(self, name: str) -> Certificate:
        found = await self.bench.fleet.records.certificate(name)
        assert found is not None
        return found

    async def is_watched(self, certificate: Certificate) -> bool:
        return await self.bench.fleet.crls.apps_of(self.name, [certificate.serial]) != [None]

    async def events(self, app: str) -> list[str]:
        return [f"{one.event}: {one.detail}" for one in await self.bench.fleet.journal.latest(app)]


@asynccontextmanager
async def open_desk(settings: Settings) -> AsyncIterator[Desk]:
    """An empty list is published."""
    ensure_key(settings)
    async with open_workbench(settings) as bench, list_server() as served:
        opened = Desk(bench, RevokingCA(), served)
        opened.publish()
        yield opened


@asynccontextmanager
async def another(desk: Desk) -> AsyncIterator[Desk]:
    """The same books in another process."""
    async with open_workbench(desk.bench.fleet.settings) as bench:
        yield replace(desk, bench=bench)
