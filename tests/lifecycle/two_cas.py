"""Two real CAs, each behind a door that a test can shut, and a fleet's steps in this process: no workers, no hosts.

A test runs the steps that are due, so that it sees each alone; `later` moves the clock by which CAs have their turns.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from aiohttp import web

from certfleet.acme_ca.challenges.http01 import PATH
from certfleet.agenda import Claim
from certfleet.client import Client
from certfleet.demo.ports import free_port
from certfleet.lifecycle.orders import passing, setback
from certfleet.lifecycle.orders.advance import advance
from certfleet.lifecycle.orders.gate import open_gate
from certfleet.lifecycle.orders.ordering import LONG_AGO
from certfleet.lifecycle.orders.outage import look_at_outage
from certfleet.lifecycle.records import check_member, order_member
from certfleet.lifecycle.renewals.check import check
from certfleet.lifecycle.work import Step, work
from certfleet.lifecycle.workbench import Workbench, open_workbench
from certfleet.limits.outages import id_of
from certfleet.models import App, Certificate, Host, Order, microseconds, utcnow
from certfleet.overview import Overview
from certfleet.settings import Settings
from certfleet.store import Store
from certfleet.vault import ensure_key
from tests.acme_ca.flow import serving
from tests.ca.strict import StrictCA, strict_ca

STEPS: dict[str, Step] = {"check": check, "order": advance, "gate": open_gate, "outage": look_at_outage}
LOOKS = 600
AWAKE = 0.02  # seconds between two looks at what is due


@dataclass
class Door:
    """The way to a CA; shut, a connection is refused."""

    ca: StrictCA
    port: int
    _server: asyncio.Server | None = None
    _open: set[asyncio.StreamWriter] = field(default_factory=set)

    @property
    def directory(self) -> str:
        """Of the CA, through the door."""
        return f"https://127.0.0.1:{self.port}/dir"

    async def open(self) -> None:
        """Let everybody through."""
        if self._server is None:
            self._server = await asyncio.start_server(self._through, "127.0.0.1", self.port)

    async def shut(self) -> None:
        """Let nobody through, and cut whoever is."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in list(self._open):
            writer.transport.abort()
        await asyncio.sleep(0)

    async def _through(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        port = urlsplit(self.ca.directory).port
        inside, out = await asyncio.open_connection("127.0.0.1", port)
        both = {writer, out}
        self._open |= both
        try:
            await asyncio.gather(_copied(reader, out), _copied(inside, writer))
        finally:
            self._open -= both
            for one in both:
                one.close()


async def _copied(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass  # the door was shut
    finally:
        writer.close()


@dataclass
class Challenges:
    """Answers on the CAs' validation port what the fleet of the present test has published."""

    store: Store | None = None

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """The key authorization of a token."""
        assert self.store is not None
        text = await self.store.redis.get(self.store.key("challenge", request.path.removeprefix(PATH)))
        return web.Response(text=text) if text else web.Response(status=404)


@dataclass
class Place:
    """What the tests of a module share."""

    first: Door
    second: Door
    challenges: Challenges
    port: int
    """Where both CAs validate."""


@asynccontextmanager
async def two_cas(directory: Path) -> AsyncIterator[Place]:
    """Two CAs and the responder before which they validate."""
    challenges = Challenges()
    options = {"limits": {}, "bad_nonce_percent": 0}
    async with (
        serving(challenges.answer) as port,
        strict_ca(directory / "first", http_port=port, **options) as first,  # type: ignore[arg-type]
        strict_ca(directory / "second", http_port=port, **options) as second,  # type: ignore[arg-type]
    ):
        doors = Door(first, free_port()), Door(second, free_port())
        yield Place(*doors, challenges, port)
        for door in doors:
            await door.shut()


@dataclass(kw_only=True)
class Steps:
    """A fleet's steps in this process, and the clock of turns."""

    bench: Workbench
    client: Client
    ahead: timedelta = timedelta()

    async def enabled(self, name: str = "blog", domain: str = "blog.example.com", **properties: str) -> App:
        """An enabled app, its first check due."""
        await self.client.add_app(name, [domain], ["web1"], properties)
        await self.client.enable(name)
        return await self.client.app(name)

    async def order(self, app: str = "blog") -> Order:
        """The live order."""
        found = await self.bench.fleet.records.order(app)
        assert found is not None
        return found

    async def certificate(self, app: str = "blog") -> Certificate:
        """The newest certificate."""
        found = await self.bench.fleet.records.certificate(app)
        assert found is not None
        return found

    async def view(self, app: str = "blog") -> Overview:
        """As people see it."""
        [found] = [one async for one in self.client.overviews([app])]
        return found

    async def events(self, app: str = "blog") -> list[str]:
        """The journal: event and detail."""
        return [f"{entry.event}: {entry.detail}" for entry in await self.client.history(app)]

    async def run(self) -> list[str]:
        """Every check, order and gate that is due now (orders by the clock of turns), once; what that was."""
        store, agenda = self.bench.fleet.store, self.bench.fleet.agenda
        for member in await store.redis.zrangebyscore(store.key("agenda"), "-inf", microseconds(self.now())):
            if self.ahead and member.startswith(("order:", "outage:")):
                await agenda.schedule(member, LONG_AGO)
        claims = [claim for claim in await agenda.due(500) if claim.kind in STEPS]
        for kind in {claim.kind for claim in claims}:
            await work(self.bench, [claim for claim in claims if claim.kind == kind], STEPS[kind])
        return [claim.member for claim in claims]

    async def until(self, holds: Callable[[Overview], bool], app: str = "blog") -> Overview:
        """Run what comes due until the app is as wanted."""
        for _ in range(LOOKS):
            if holds(view := await self.view(app)):
                return view
            await self.run()
            await asyncio.sleep(AWAKE)
        raise AssertionError(f"{await self.view(app)}\n{await self.events(app)}")

    async def issued(self, generation: int = 1, app: str = "blog") -> Certificate:
        """Run until there is this one, and no order any more."""
        await self.until(lambda view: view.generation == generation and view.asked_ca is None, app)
        return await self.certificate(app)

    async def look(self, app: str = "blog") -> None:
        """The order's next step, due or not."""
        await self.bench.fleet.agenda.schedule(order_member(app), LONG_AGO)
        await work(self.bench, [Claim(order_member(app), 0)], advance)

    async def try_now(self, directory: str) -> None:
        """As if the pause between two tries of a CA that was away were over: it is by Redis's clock, not by ours."""
        store, member = self.bench.fleet.store, f"outage:{id_of(directory)}"
        if await store.redis.exists(store.key(member)):
            await store.redis.hset(store.key(member), "next", 1)
            await self.bench.fleet.agenda.schedule(member, LONG_AGO)

    async def check(self, app: str = "blog") -> None:
        """The expiry check, due or not."""
        await self.bench.fleet.agenda.schedule(check_member(app), LONG_AGO)
        await work(self.bench, [Claim(check_member(app), 0)], check)

    def later(self, span: timedelta) -> None:
        """From now on it is so much later, for turns and back-offs."""
        self.ahead += span

    def now(self) -> datetime:
        """By that clock."""
        return utcnow() + self.ahead


@dataclass(kw_only=True)
class Two(Steps):
    """A fleet whose apps have both CAs."""

    place: Place

    @property
    def first(self) -> StrictCA:
        """The CA that is asked first."""
        return self.place.first.ca

    @property
    def second(self) -> StrictCA:
        """The one after it."""
        return self.place.second.ca

    @property
    def names(self) -> tuple[str, str]:
        """What the two are called in the fleet's records."""
        return self.place.first.directory, self.place.second.directory


@asynccontextmanager
async def open_steps(settings: Settings, patch: pytest.MonkeyPatch) -> AsyncIterator[Steps]:
    """An empty fleet with one host, which nobody visits."""
    ensure_key(settings)
    async with open_workbench(settings) as bench:
        await bench.fleet.store.redis.flushall()
        steps = Steps(bench=bench, client=Client(bench.fleet))
        for module in (passing, setback):
            patch.setattr(module, "utcnow", steps.now)
        await steps.client.add_host(Host("web1"))
        await steps.client.set_properties({"email": "ops@example.com", "agree-tos": "on", "self-check": "off"})
        yield steps


@asynccontextmanager
async def fleet_of_two(place: Place, settings: Settings, patch: pytest.MonkeyPatch) -> AsyncIterator[Two]:
    """An empty fleet whose apps have both CAs, doors open, books empty."""
    for door in (place.first, place.second):
        await door.open()
        await door.ca.set_limits({}, same_set_exempt=False)
        await door.ca.forget()
        await door.ca.reset()
        await door.ca.offer({})
        await door.ca.identify()
    settings = settings.model_copy(update={"nameservers": [place.first.ca.dns]})
    async with open_steps(settings, patch) as steps:
        place.challenges.store = steps.bench.fleet.store
        two = Two(place=place, bench=steps.bench, client=steps.client)
        for module in (passing, setback):
            patch.setattr(module, "utcnow", two.now)
        await two.client.set_properties(
            {
                "ca": ",".join(two.names),
                "ca-bundle": place.first.ca.bundle + place.second.ca.bundle,
                "http-port": str(place.port),
                "dns-port": place.first.ca.dns.rpartition(":")[2],
            }
        )
        yield two
