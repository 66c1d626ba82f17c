"""A fleet that proves its names by records that stand: BIND and Knot, a CA that looks there, and the fleet's steps.

No workers: the test runs the steps that are due, so that it sees each alone. The one host is never visited.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest_asyncio

from certfleet.agenda import Claim
from certfleet.client import Client
from certfleet.demo.ports import free_port
from certfleet.dns.authority import Zones
from certfleet.dns.rfc2136 import RFC2136, Keys
from certfleet.lifecycle.orders.advance import advance
from certfleet.lifecycle.orders.ordering import LONG_AGO
from certfleet.lifecycle.records import check_member
from certfleet.lifecycle.renewals.check import check
from certfleet.lifecycle.work import Step, work
from certfleet.lifecycle.workbench import Workbench, open_workbench
from certfleet.models import Host
from certfleet.overview import Overview, State
from certfleet.settings import Settings
from certfleet.vault import ensure_key
from tests.ca.strict import StrictCA, strict_ca
from tests.dns.bind import SECONDARY, Bind, bind

CA_NAME = "ca.example.net"
MORE = {"corp.test": "_validation-persist.shop CNAME shop.delegated.test.\n"}
STEPS: dict[str, Step] = {"check": check, "order": advance}
PATIENCE = 20.0  # seconds for an order to come to its end, or to fail


@dataclass(frozen=True)
class Parts:
    """What the tests of a module share."""

    servers: Bind
    ca: StrictCA


@dataclass(frozen=True)
class Shop:
    """One test's fleet."""

    bench: Workbench
    client: Client
    servers: Bind
    ca: StrictCA

    async def enable(self, name: str, *domains: str, **properties: str) -> Overview:
        """Add an app, enable it, and let its order go as far as it goes."""
        named = {key.replace("_", "-"): value for key, value in properties.items()}
        await self.client.add_app(name, list(domains) or [f"{name}.corp.test"], ["web1"], named)
        await self.client.enable(name)
        return await self.settled(name)

    async def renew(self, name: str, *, force: bool = False) -> Overview:
        """What `certfleet renew` does, and what comes of it."""
        await self.client.renew([name], force=force)
        return await self.settled(name)

    async def settled(self, name: str) -> Overview:
        """How the app is when its order has failed or is done, with everything run that is due."""
        for _ in range(round(PATIENCE * 20)):
            await self._run()
            view = await self.view(name)
            if view.error or view.state is State.INSTALLING:
                return view
            await asyncio.sleep(0.05)
        raise AssertionError(f"{view} after {PATIENCE} s")

    async def _run(self) -> None:
        claims = await self.bench.fleet.agenda.due(500)
        for kind, step in STEPS.items():
            await work(self.bench, [claim for claim in claims if claim.kind == kind], step)

    async def check(self, name: str) -> Overview:
        """The expiry check now, and how the app is afterwards."""
        await self.bench.fleet.agenda.schedule(check_member(name), LONG_AGO)
        await work(self.bench, [Claim(check_member(name), 0)], check)
        return await self.view(name)

    async def view(self, name: str) -> Overview:
        """How an app is."""
        [view] = [view async for view in self.client.overviews([name])]
        return view

    async def make(self, name: str, value: str, *, everywhere: bool = True) -> None:
        """What a person does at the DNS host; the secondary has it too, or (not `everywhere`) does not hear of it."""
        await self._provider().present(await self._zones().place(name, value))
        if everywhere:
            await self.spread(name)

    async def take_away(self, name: str, value: str) -> None:
        """The same."""
        await self._provider().cleanup(await self._zones().place(name, value))
        await self.spread(name)

    async def spread(self, name: str) -> None:
        """Let the secondary have what the primary has at a name."""
        place = await self._zones().follow(name)
        for _ in range(600):
            await self.servers.notify(place.zone)
            if await self.servers.values(place.name) == await self.servers.values(place.name, SECONDARY):
                return
            await asyncio.sleep(0.1)
        raise AssertionError(self.servers.log())

    def _provider(self) -> RFC2136:
        return RFC2136(Keys.model_validate(self.servers.keys()), self._zones())

    def _zones(self) -> Zones:
        return Zones([self.servers.resolver], port=self.servers.port)

    async def events(self, name: str) -> list[str]:
        """The app's journal: event and detail."""
        return [f"{entry.event}: {entry.detail}" for entry in await self.client.history(name)]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def common() -> AsyncIterator[Parts]:
    """DNS and the CA, for the tests of a module."""
    directory = Path(tempfile.mkdtemp(prefix="certfleet-", dir="/tmp"))
    async with (
        bind(directory / "bind", notify=False, more=MORE) as servers,
        strict_ca(directory / "ca", http_port=free_port(), limits={}, bad_nonce_percent=0) as ca,
    ):
        yield Parts(servers, ca)
    shutil.rmtree(directory)


@asynccontextmanager
async def shop(settings: Settings, common: Parts, *, prefix: str = "") -> AsyncIterator[Shop]:
    """A fleet whose CA offers dns-persist-01; with a `prefix` by version 02 of the draft."""
    await common.ca.identify(CA_NAME)
    await common.ca.offer_persist(common.servers.resolver, CA_NAME, prefix=prefix)
    await common.ca.reset()
    own = settings.model_copy(update={"nameservers": [common.servers.resolver]})
    ensure_key(own)
    async with open_workbench(own) as bench:
        client = Client(bench.fleet)
        await client.add_host(Host("web1"))
        everywhere = {
            "ca": common.ca.directory,
            "ca-bundle": common.ca.bundle,
            "email": "ops@example.com",
            "agree-tos": "on",
            "challenge": "dns-persist-01",
            "dns-port": str(common.servers.port),
        }
        await client.set_properties(everywhere)
        yield Shop(bench, client, common.servers, common.ca)
