"""A fleet's steps in simulated time, before a real CA: days pass in the time that the requests of those days take.

One clock for everything that is ours (agenda, limits, `utcnow`) and for the CA's front. It runs on as clocks do, and
jumps to the next time on the agenda when nothing is due. No hosts and no workers; Pebble validates over real HTTP.
"""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web

from certfleet import models
from certfleet.acme_ca.accounts import Accounts
from certfleet.acme_ca.challenges.http01 import PATH
from certfleet.agenda import Agenda
from certfleet.client import Client
from certfleet.lifecycle.orders.advance import advance
from certfleet.lifecycle.orders.gate import open_gate
from certfleet.lifecycle.orders.ordering import make_order
from certfleet.lifecycle.orders.outage import look_at_outage
from certfleet.lifecycle.records import Records, check_member
from certfleet.lifecycle.renewals.check import check
from certfleet.lifecycle.work import Step, work
from certfleet.lifecycle.workbench import Workbench, open_workbench
from certfleet.limits.buckets import Buckets
from certfleet.limits.outages import Outages
from certfleet.limits.registrations import Registrations
from certfleet.limits.rooms import Rooms
from certfleet.models import App, Certificate, from_microseconds, microseconds, utcnow
from certfleet.overview import Overview
from certfleet.properties import effective
from certfleet.settings import Settings
from certfleet.vault import ensure_key
from tests.acme_ca.flow import serving
from tests.ca.conftest import NATIVE
from tests.ca.report import Report
from tests.ca.strict import StrictCA, strict_ca

STEPS: dict[str, Step] = {"check": check, "order": advance, "gate": open_gate, "outage": look_at_outage}
TOO_MANY = 5_000  # steps of one run: something goes round in circles


@dataclass
class Clock:
    """The machine's clock, set forward."""

    ahead: timedelta = timedelta()

    def now(self) -> datetime:
        """As `models.utcnow` has it."""
        return datetime.now(UTC) + self.ahead

    def __call__(self) -> int:
        """As scripts have it."""
        return microseconds(self.now())


@dataclass
class Place:
    """A CA that several simulations use one after the other, and where it looks for challenges."""

    ca: StrictCA
    redis: Any = None

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """As the responder does."""
        found = await self.redis.get("certfleet:challenge:" + request.path.removeprefix(PATH))
        return web.Response(text=found) if found else web.Response(status=404)


@dataclass
class Simulation:
    """What a test can reach."""

    bench: Workbench
    ca: StrictCA
    clock: Clock
    steps: Counter[str] = field(default_factory=Counter)
    """By kind of member."""

    async def add(self, *names: str, **properties: str) -> None:
        """Enabled apps, each with one name, due for their first check."""
        for name in names:
            domain = f"{name}.{name.partition('-')[0]}.test"
            app = App(name, (domain,), (), enabled=True, properties=properties)
            await self.bench.fleet.inventory.add_app(app)
            await self.bench.fleet.agenda.schedule(check_member(name), utcnow())

    async def order(self, *names: str) -> None:
        """Another certificate for each, as a person may ask for it."""
        fleet = self.bench.fleet
        everywhere = await fleet.inventory.properties()
        for name in names:
            app = await fleet.inventory.app(name)
            await make_order(fleet, app, effective(app.properties, everywhere), "forced", utcnow())

    async def run(self, span: timedelta) -> None:
        """Let so much time pass; whatever is due in it is done at its time, a message's members at once."""
        end, done = utcnow() + span, 0
        while True:
            done += await self._due()
            assert done < TOO_MANY, f"it does not end: {self.steps}"
            [(member, at)] = await self._next() or [("", microseconds(end) + 1)]
            if at > microseconds(end):
                return await self.jump(end)
            if from_microseconds(at) > utcnow():
                await self.jump(from_microseconds(at))
            del member

    async def _due(self) -> int:
        done, batch = 0, self.bench.fleet.settings.batch
        while claims := await self.bench.fleet.agenda.due(500):
            for kind, step in STEPS.items():
                mine = [claim for claim in claims if claim.kind == kind]
                self.steps[kind] += len(mine)
                for start in range(0, len(mine), batch):
                    await work(self.bench, mine[start : start + batch], step)
            done += len(claims)
            assert done < TOO_MANY, f"it does not end: {self.steps}"
        return done

    async def _next(self) -> list[tuple[str, int]]:
        found = await self.bench.fleet.store.redis.zrange(self.bench.fleet.agenda.keys[0], 0, 0, withscores=True)
        return [(member, int(score)) for member, score in found]

    async def jump(self, to: datetime) -> None:
        """It is so late now, and nothing was done meanwhile."""
        by = to - utcnow()
        if by > timedelta():
            self.clock.ahead += by
            if by > timedelta(seconds=1):
                await self.ca.set_clock(self.clock.ahead.total_seconds())

    async def certificate(self, name: str) -> Certificate:
        """The app's newest."""
        found = await self.bench.fleet.records.certificate(name)
        assert found is not None, (await self.view(name)).error
        return found

    async def view(self, name: str) -> Overview:
        """How an app is."""
        [view] = [view async for view in Client(self.bench.fleet).overviews([name])]
        return view

    async def requests(self) -> int:
        """How many the CA has had since the last reset, refused and failed ones included."""
        return sum(count for kind, count in (await self.ca.counts()).items() if kind in ASKED)

    async def book(self) -> Report:
        """What the CA noted."""
        return await self.ca.book()


ASKED = frozenset(
    {
        *("directory", "newNonce", "newAccount", "newOrder", "authorization", "challenge", "order", "finalize"),
        *("certificate", "other"),
    }
)


@asynccontextmanager
async def place(directory: Path) -> AsyncIterator[Place]:
    """A CA without limits for the tests of a module."""
    found = Place(None)  # type: ignore[arg-type]  # there in a moment
    async with (
        serving(found.answer) as port,
        strict_ca(directory / "ca", http_port=port, limits={}, settings=NATIVE, bad_nonce_percent=0) as ca,
    ):
        found.ca = ca
        yield found


@asynccontextmanager
async def simulation(where: Place, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Simulation]:
    """A fleet with empty books; its clock is the machine's to begin with."""
    clock, ca = Clock(), where.ca
    ensure_key(settings)
    await ca.set_limits({})
    await ca.forget()
    await ca.plain()
    await ca.reset()
    async with open_workbench(settings) as plain:
        store, known = plain.fleet.store, plain.fleet.limits
        await store.redis.flushall()
        where.redis = store.redis
        agenda = Agenda(store, settings.lease, clock)
        fleet = replace(
            plain.fleet,
            agenda=agenda,
            records=Records(store, agenda),
            rooms=Rooms(store, agenda, clock),
            outages=Outages(store, agenda, clock),
        )
        buckets = Buckets(store, clock)
        accounts = Accounts(store, plain.vault, Registrations(buckets, known, settings.egress_address))
        monkeypatch.setattr(models, "_now", clock.now)
        await fleet.inventory.set_properties(
            {
                "ca": ca.directory,
                "ca-bundle": ca.bundle,
                "email": "ops@example.com",
                "agree-tos": "on",
                "http-port": str(ca.http_port),
                "self-check": "off",
                "preflight": "off",
            }
        )
        yield Simulation(replace(plain, fleet=fleet, buckets=buckets, accounts=accounts), ca, clock)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def where() -> AsyncIterator[Place]:
    """The CA of the module."""
    directory = Path(tempfile.mkdtemp(prefix="certfleet-", dir="/tmp"))
    async with place(directory) as found:
        yield found
    shutil.rmtree(directory)


@pytest_asyncio.fixture(loop_scope="module")
async def sim(where: Place, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Simulation]:
    """A fleet of its own for each test."""
    async with simulation(where, settings, monkeypatch) as found:
        yield found
