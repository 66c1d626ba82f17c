"""Twenty hosts with thirty apps each: all of it served, and one reload for everything that comes together."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from certfleet.client import Client
from certfleet.demo.handshake import trusting
from certfleet.demo.pebble import DemoCA, pebble
from certfleet.demo.ports import free_port
from certfleet.demo.story import running_fleet
from certfleet.install.installer import Installer
from certfleet.install.probe import served
from certfleet.install.snippet import snippet
from certfleet.lifecycle.records import host_member
from certfleet.lifecycle.workbench import open_workbench
from certfleet.models import Host
from certfleet.overview import State
from certfleet.settings import Settings
from certfleet.store import Store
from tests.hosts.field import field, ssh_host
from tests.hosts.fleet import Hosts, hosts
from tests.hosts.receiving import asked, receive
from tests.install.certificates import name_of

HOSTS, APPS = 20, 30
ADDRESSES = 5  # of each name
NAMES = [f"app{number}" for number in range(1, APPS + 1)]
LIMIT = 150.0  # seconds for everything to be served
pytestmark = pytest.mark.timeout(480)


async def serials(known: Mapping[str, Host], port: int, names: Mapping[str, str]) -> dict[tuple[str, str], str | None]:
    """What every host shows for every app: (host, app) -> serial."""
    at_once = asyncio.Semaphore(50)

    async def look(host: Host, domain: str) -> str | None:
        async with at_once:
            return await served(host.address, port, domain)

    keys = [(host, app) for host in known for app in names]
    found = await asyncio.gather(*(look(known[host], names[app]) for host, app in keys))
    return dict(zip(keys, found, strict=True))


async def test_one_session_and_one_reload_for_each_host(
    short_directory: Path, settings: Settings, store: Store
) -> None:
    """Thirty certificates for twenty hosts, twice: each time one visit, one archive and one reload of each nginx."""
    del store
    async with field(short_directory, settings, HOSTS) as many:
        for name in NAMES:
            await many.add(name)
        await many.reload()
        for generation in (1, 2):
            before = [(machine.reloads(), asked(machine, "install")) for machine in many.fleet.machines]
            new = await many.issue(*NAMES)
            visits = await many.run()
            assert Counter(visits) == {host_member(name): 1 for name in many.hosts}
            after = [(machine.reloads(), asked(machine, "install")) for machine in many.fleet.machines]
            assert after == [(reloads + 1, sessions + 1) for reloads, sessions in before]
            domains = {name: name_of(name) for name in NAMES}
            await asyncio.gather(*(machine.settled() for machine in many.fleet.machines))
            wanted = {(host, name): new[name].serial for host in many.hosts for name in NAMES}
            assert await serials(many.hosts, many.port, domains) == wanted
            for name in NAMES:
                assert {one.served for one in (await many.state(name)).values()} == {generation}
        assert all(machine.sessions() == 1 for machine in many.fleet.machines), "one connection, kept"


@dataclass(slots=True)
class World:
    """A running fleet, a CA, and hosts all over."""

    ca: DemoCA
    client: Client
    fleet: Hosts
    hosts: dict[str, Host]
    settings: Settings

    async def add(self, names: Sequence[str]) -> dict[str, str]:
        """Apps on every host, each name pointing to several of them; not enabled yet. App -> name."""
        domains = {name: f"{name}.many.test" for name in names}
        addresses = [machine.address for machine in self.fleet.machines]
        for number, (name, domain) in enumerate(domains.items()):
            # Pebble takes DNS answers of 512 bytes, and the DNS server beside it does not shorten longer ones.
            await self.ca.point(domain, [addresses[(number + step) % HOSTS] for step in range(ADDRESSES)])
            app = await self.client.add_app(name, [domain], list(self.hosts))
            for machine in self.fleet.machines:
                lines = snippet(app, self.hosts[machine.name], machine.gateway, self.settings.responder_port)
                machine.add_site(name, app.identifiers, lines)
        for machine in self.fleet.machines:
            await machine.reload_nginx()
        return domains

    async def all_served(self, generation: int) -> None:
        """Wait until certfleet says that every host serves every app in this generation."""
        deadline = time.monotonic() + LIMIT
        while True:
            views = [view async for view in self.client.overviews()]
            if all(v.state is State.SERVED and v.served_on == HOSTS and v.generation == generation for v in views):
                return
            assert time.monotonic() < deadline, f"not served in time: {views}\n{self.logs()}"
            await asyncio.sleep(0.2)

    def logs(self) -> str:
        """The ends of all logs, for a failed assertion."""
        files = sorted((self.settings.home / "log").glob("*.log"))
        return "\n".join(f"== {file.name}\n{file.read_text(errors='replace')[-1500:]}" for file in files)


@asynccontextmanager
async def world(directory: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    """Start it all; nothing of it outlives the block."""
    async with AsyncExitStack() as stack:
        fleet = await stack.enter_async_context(hosts(directory / "hosts", HOSTS))
        ca = await stack.enter_async_context(pebble(directory / "ca", http_port=fleet.http_port))
        # The hosts' nginx passes challenges to the responder from outside.
        monkeypatch.setenv("CERTFLEET_RESPONDER_ADDRESS", fleet.gateway)
        settings = Settings(
            home=directory / "home", responder_port=free_port(), flower_port=free_port(), nameservers=[ca.dns]
        )
        await stack.enter_async_context(running_fleet(settings, directory / "fleet.log"))
        bench = await stack.enter_async_context(open_workbench(settings))
        client = Client(bench.fleet)
        public_key = await Installer(bench.fleet.store, bench.vault).public_key()
        known = {}
        for machine in fleet.machines:
            receive(machine, public_key)
            known[machine.name] = ssh_host(machine)
            await client.add_host(known[machine.name])
        everywhere = {"ca": ca.directory, "ca-bundle": ca.bundle, "email": "ops@example.com", "agree-tos": "on"}
        everywhere |= {"listen": "host"}
        ports = {"http-port": str(fleet.http_port), "port": str(fleet[0].tls_port)}
        await client.set_properties(everywhere | ports)
        yield World(ca, client, fleet, known, settings)


async def test_everything_enabled_at_once(short_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From `enable` to six hundred endpoints: challenges at any of several addresses, and one reload for each batch.

    Then all are renewed, in waves from the first host on.
    """
    async with world(short_directory, monkeypatch) as running:
        domains = await running.add(NAMES)
        before = [machine.reloads() for machine in running.fleet.machines]
        for name in NAMES:
            await running.client.enable(name)
        await running.all_served(1)
        first = await serials(running.hosts, running.fleet[0].tls_port, domains)
        assert None not in first.values()
        assert len(set(first.values())) == APPS, "one certificate for each app, the same on every host"
        await running.client.renew(NAMES, force=True)
        await running.all_served(2)
        for machine, reloads in zip(running.fleet.machines, before, strict=True):
            assert machine.reloads() - reloads == asked(machine, "install") < 2 * APPS
        await asyncio.gather(*(machine.settled() for machine in running.fleet.machines))
        second = await serials(running.hosts, running.fleet[0].tls_port, domains)
        assert all(second[key] not in {None, first[key]} for key in first)
        trusted = trusting(await running.ca.root())
        for machine in (running.fleet[0], running.fleet[-1]):
            address, port = machine.address, machine.tls_port
            _, writer = await asyncio.open_connection(address, port, ssl=trusted, server_hostname=domains["app1"])
            writer.close()  # the chain is whole, and the key belongs to it
