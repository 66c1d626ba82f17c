"""Several hosts on this machine, each a real nginx with its own loopback address and root, and the fleet's steps.

No workers and no CA: the test issues certificates and runs the steps that are due, so that it sees each alone.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from certfleet.agenda import Claim
from certfleet.client import Client
from certfleet.demo.nginx import Nginx, private_nginx
from certfleet.demo.ports import free_port
from certfleet.install.bundle import Item
from certfleet.install.probe import served
from certfleet.install.snippet import snippet
from certfleet.lifecycle.hosts.install import install
from certfleet.lifecycle.orders.issued import afterwards
from certfleet.lifecycle.orders.ordering import LONG_AGO
from certfleet.lifecycle.records import chain_name, check_member, host_member, order_member
from certfleet.lifecycle.renewals.check import check
from certfleet.lifecycle.work import Step, work
from certfleet.lifecycle.workbench import Workbench, open_workbench
from certfleet.models import App, Certificate, Host, Installation, KeyType, Order, utcnow
from certfleet.settings import Settings
from certfleet.vault import ensure_key
from tests.install.certificates import item, name_of

CA = "https://ca.example.test/directory"
ROUNDS = 50  # more than any rollout of a test takes
STEPS: dict[str, Step] = {"check": check, "host": install}


@dataclass
class Farm:
    """What a test can reach."""

    bench: Workbench
    client: Client
    servers: dict[str, Nginx]
    hosts: dict[str, Host]
    port: int

    async def add(self, name: str, hosts: Sequence[str] = (), **properties: str) -> App:
        """An enabled app with its sites in every nginx; the web servers have to be reloaded."""
        on = list(hosts or self.hosts)
        app = await self.client.add_app(name, [name_of(name)], on, {"email": "ops@example.com"} | properties)
        for host in on:
            self.servers[host].add_site(name, app.identifiers, snippet(app, self.hosts[host], "127.0.0.1", 8402))
        await self.client.enable(name)
        await self.bench.fleet.agenda.drop(check_member(name))  # no CA here: nothing is ordered
        return await self.client.app(name)

    async def reload(self) -> None:
        """All web servers take up their sites."""
        for server in self.servers.values():
            await server.reload()

    async def issue(self, *names: str, mismatched: bool = False) -> dict[str, Item]:
        """As the order machine ends: a new certificate for each app, wanted on its hosts, which are due."""
        issued = {}
        for name in names:
            app = await self.client.app(name)
            records, known = self.bench.fleet.records, await self.bench.fleet.records.installations(name)
            generation = await records.last_generation(name, known.values()) + 1
            new = item(name, generation, port=self.port, mismatched=mismatched)
            await self._store(app, new, known)
            await afterwards(self.bench.fleet, app, utcnow() + timedelta(days=60))
            issued[name] = new
        return issued

    async def _store(self, app: App, new: Item, known: dict[str, Installation]) -> None:
        leaf, _, rest = new.fullchain.partition("-----END CERTIFICATE-----\n")
        now = utcnow()
        certificate = Certificate(
            app=app.name,
            generation=new.generation,
            ca=CA,
            identifiers=app.identifiers,
            key_type=KeyType.P256,
            serial=new.serial,
            not_before=now,
            not_after=now + timedelta(days=90),
            issued=now,
            leaf=f"{leaf}-----END CERTIFICATE-----\n",
            chain=chain_name(rest),
            sealed_key=self.bench.vault.seal(new.private_key),
        )
        agenda = self.bench.fleet.agenda
        await agenda.schedule(order_member(app.name), now)
        claim = await agenda.claim(order_member(app.name))
        assert claim is not None
        order = Order("1", app.name, "letsencrypt", "", app.identifiers, KeyType.P256, "forced", now)
        hosts = [known.get(host, Installation(app.name, host)) for host in app.hosts]
        await self.bench.fleet.records.complete(claim, order, certificate, rest, hosts)
        await agenda.finish(claim, None)

    async def run(self, *kinds: str) -> list[str]:
        """Run everything of these kinds that is due (none named: hosts), until nothing is; what was run, in order."""
        done: list[str] = []
        for _ in range(ROUNDS):
            claims = [claim for claim in await self.bench.fleet.agenda.due(500) if claim.kind in (kinds or ("host",))]
            if not claims:
                return done
            done += [claim.member for claim in claims]
            for kind in {claim.kind for claim in claims}:
                await work(self.bench, [claim for claim in claims if claim.kind == kind], STEPS[kind])
        raise AssertionError(f"it does not end: {done}")

    async def visit(self, host: str) -> None:
        """One visit now, due or not."""
        await self.bench.fleet.agenda.schedule(host_member(host), LONG_AGO)
        await work(self.bench, [Claim(host_member(host), 0)], install)

    async def check(self, app: str) -> None:
        """The expiry check now, and what follows from it."""
        await self.bench.fleet.agenda.schedule(check_member(app), LONG_AGO)
        await self.run("check", "host")

    async def forget_looks(self, app: str) -> None:
        """As if the endpoints were asked long ago."""
        for one in await self.client.installations(app):
            await self.bench.fleet.records.amend(app, one.host, lambda known: dataclasses.replace(known, asked=None))

    async def state(self, app: str) -> dict[str, Installation]:
        """The app's installations by host."""
        return {one.host: one for one in await self.client.installations(app)}

    async def seen(self, app: str) -> dict[str, str | None]:
        """The serials that handshakes with each host see."""
        return {name: await served(host.address, self.port, name_of(app)) for name, host in self.hosts.items()}

    async def sees(self, app: str, serial: str | None = None) -> None:
        """Every host serves this certificate (None: all the same). nginx's old processes answer for another moment."""
        for _ in range(300):
            found = set((await self.seen(app)).values())
            if len(found) == 1 and (serial is None or found == {serial}):
                return
            await asyncio.sleep(0.1)
        raise AssertionError(f"{app}: {await self.seen(app)}, expected {serial or 'one for all'}")

    async def events(self, app: str) -> list[str]:
        """The app's journal: event and detail."""
        return [f"{entry.event}: {entry.detail}" for entry in await self.client.history(app)]


@asynccontextmanager
async def farm(directory: Path, settings: Settings, count: int) -> AsyncIterator[Farm]:
    """Hosts web1, web2, … at 127.0.0.11, 127.0.0.12, …; nothing of it outlives the block."""
    ensure_key(settings)
    port, servers, hosts = free_port(), dict[str, Nginx](), dict[str, Host]()
    async with AsyncExitStack() as stack:
        bench = await stack.enter_async_context(open_workbench(settings))
        client = Client(bench.fleet)
        for number in range(1, count + 1):
            name = f"web{number}"
            place = directory / name
            nginx = await stack.enter_async_context(private_nginx(place, http_port=free_port(), tls_port=port))
            servers[name] = nginx
            hosts[name] = Host(
                name,
                address=f"127.0.0.{10 + number}",
                root=str(place / "installed"),
                test_command=nginx.test_command,
                reload_command=nginx.reload_command,
            )
            await client.add_host(hosts[name])
        roots = item("any").fullchain  # of a CA that nobody ever asks
        await client.set_properties({"listen": "host", "port": str(port), "ca": CA, "ca-bundle": roots})
        yield Farm(bench, client, servers, hosts, port)
