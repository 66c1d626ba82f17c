"""The fleet's books, opened: what everybody may do who can reach Redis."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from certfleet.agenda import Agenda, Claim
from certfleet.dns.credentials import CredentialsBook
from certfleet.inventory import Inventory
from certfleet.journal import Journal
from certfleet.lifecycle.challenges.written import TXTBook
from certfleet.lifecycle.hosts.errands import Errands
from certfleet.lifecycle.records import Records
from certfleet.lifecycle.renewals.spreading import Spreading
from certfleet.lifecycle.revocations.book import Revocations
from certfleet.lifecycle.revocations.crl_book import CRLBook
from certfleet.limits.outages import Outages
from certfleet.limits.overrides import LimitsBook
from certfleet.limits.rooms import Rooms
from certfleet.settings import Settings
from certfleet.store import PATIENCE, Store, open_store


@dataclass(frozen=True, slots=True)
class Fleet:
    """The books in Redis: enough to ask, to enable, to look; needs no key of the vault."""

    settings: Settings
    store: Store
    agenda: Agenda
    inventory: Inventory
    records: Records
    spreading: Spreading
    journal: Journal
    limits: LimitsBook
    rooms: Rooms
    outages: Outages
    errands: Errands
    revocations: Revocations
    dns: CredentialsBook
    written: TXTBook
    crls: CRLBook

    async def with_zones(self, claims: Iterable[Claim]) -> list[tuple[Claim, str | None]]:
        """Each claim with its host's zone: which queue reaches it."""
        claims = list(claims)
        zones: dict[str, str | None] = {}
        if any(claim.kind == "host" for claim in claims):
            zones = {host.name: host.zone for host in await self.inventory.hosts()}
        return [(claim, zones.get(claim.name) if claim.kind == "host" else None) for claim in claims]


@asynccontextmanager
async def open_fleet(settings: Settings, patience: float = PATIENCE) -> AsyncIterator[Fleet]:
    """Connect. Raises RedisUnavailable when Redis does not answer in `patience` seconds."""
    async with open_store(settings, patience) as store:
        agenda = Agenda(store, settings.lease)
        records = Records(store, agenda)
        yield Fleet(
            settings=settings,
            store=store,
            agenda=agenda,
            inventory=Inventory(store),
            records=records,
            spreading=Spreading(store, records),
            journal=Journal(store),
            limits=LimitsBook(store),
            rooms=Rooms(store, agenda),
            outages=Outages(store, agenda),
            errands=Errands(store),
            revocations=Revocations(store),
            dns=CredentialsBook(store),
            written=TXTBook(store),
            crls=CRLBook(store, records),
        )
