"""A fleet whose host makes its keys: Pebble, an nginx, an sshd before the receiver, and the steps in this process."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from cryptography import x509

from certfleet.acme_ca.keys import load_key, spki_digest
from certfleet.client import Client
from certfleet.demo.handshake import serials, trusting
from certfleet.demo.nginx import Nginx, private_nginx
from certfleet.demo.pebble import DemoCA, pebble
from certfleet.demo.ports import free_port
from certfleet.install.drivers.connections import Connections, Finished
from certfleet.install.installer import Installer
from certfleet.install.snippet import snippet
from certfleet.lifecycle.hosts.install import install
from certfleet.lifecycle.orders.advance import advance
from certfleet.lifecycle.renewals.check import check
from certfleet.lifecycle.revocations.revocation import revoke
from certfleet.lifecycle.work import Step, work
from certfleet.lifecycle.workbench import Workbench, open_workbench
from certfleet.models import Certificate, Host
from certfleet.overview import Overview, State
from certfleet.settings import Settings
from certfleet.vault import ensure_key
from tests.install.sshd import Sshd, running_sshd

LIMIT = 60.0  # seconds that a test waits for anything before it has failed
STEPS: Mapping[str, Step] = {"check": check, "order": advance, "host": install, "revoke": revoke}
PEM_LINE = re.compile(r"[A-Za-z0-9+/=]{40,}")


@dataclass
class Wire:
    """All that goes to hosts by SSH and comes back, as it is before it is encrypted."""

    texts: list[bytes] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)

    def listen(self, monkeypatch: pytest.MonkeyPatch) -> None:
        run = Connections.run

        async def overheard(kept: Connections, host: Host, command: str, data: bytes = b"") -> Finished:
            self.commands.append(command)
            self.texts += [command.encode(), data]
            finished = await run(kept, host, command, data)
            self.texts += [finished.output, finished.complaints]
            return finished

        monkeypatch.setattr(Connections, "run", overheard)


@dataclass
class Keyed:
    """What a test can reach."""

    bench: Workbench
    client: Client
    ca: DemoCA
    nginx: Nginx
    sshd: Sshd
    hosts: dict[str, Host]
    """As they are on the machine itself."""
    roots: dict[str, Path]

    async def add(self, name: str, host: str = "web1", **properties: str) -> None:
        """An app with its site in nginx, whose key is made on its host if nothing else is said."""
        await self.client.add_app(name, [f"{name}.demo.test"], [host], {"key-on-host": "on"} | properties)
        await self.site(name, host)

    async def site(self, name: str, host: str) -> None:
        """The app's site as this host's snippet has it."""
        app = await self.client.app(name)
        lines = snippet(app, self.hosts[host], "127.0.0.1", 8402, via="webroot")
        self.nginx.add_site(name, app.identifiers, lines)
        await self.nginx.reload()

    async def until(self, what: str, holds: Callable[[Overview], bool], app: str = "blog") -> Overview:
        """Run whatever is due until the app is as wanted."""
        deadline = time.monotonic() + LIMIT
        while True:
            [view] = [view async for view in self.client.overviews([app])]
            if holds(view):
                return view
            assert time.monotonic() < deadline, f"not {what}: {view}\n{await self.events(app)}"
            if not await self.run_due():
                await asyncio.sleep(0.02)

    async def step_until(self, holds: Callable[[], Awaitable[bool]]) -> None:
        """Run what is due, one member after the other, until this is so: nothing comes after it."""
        deadline = time.monotonic() + LIMIT
        while not await holds():
            assert time.monotonic() < deadline, await self.events("blog")
            if not await self.run_due(1):
                await asyncio.sleep(0.02)

    async def wish(self, host: str = "web1") -> dict[str, object]:
        """What the host is asked for blog; empty: nothing."""
        store = self.bench.fleet.store
        found: dict[str, object] = json.loads(await store.redis.hget(store.key("unmade", host), "blog") or "{}")
        return found

    async def run_due(self, most: int = 100) -> int:
        """Run all that is due now (so many at most), once; how many members that were."""
        claims = [claim for claim in await self.bench.fleet.agenda.due(most) if claim.kind in STEPS]
        for kind in dict.fromkeys(claim.kind for claim in claims):
            await work(self.bench, [claim for claim in claims if claim.kind == kind], STEPS[kind])
        return len(claims)

    async def served(self, generation: int = 1, app: str = "blog") -> Certificate:
        """Wait until this generation is served, by nginx too; its certificate."""
        await self.until("served", lambda view: view.state is State.SERVED and view.generation == generation, app)
        found = await self.certificate(app)
        name, context = f"{app}.demo.test", trusting(await self.ca.root())
        for _ in range(300):
            if (seen := (await serials(context, self.nginx.tls_port, [name])).get(name)) == found.serial:
                return found
            await asyncio.sleep(0.1)
        raise AssertionError(f"{seen} is served, not {found.serial}")

    async def certificate(self, app: str = "blog") -> Certificate:
        found = await self.bench.fleet.records.certificate(app)
        assert found is not None
        return found

    async def events(self, app: str = "blog") -> list[str]:
        """The app's journal: event and detail."""
        return [f"{entry.event}: {entry.detail}" for entry in await self.client.history(app)]

    def keys(self) -> dict[str, bytes]:
        """Every key on the hosts, by its path below their roots."""
        found = {}
        for name, root in self.roots.items():
            for path in sorted([*root.glob(".keys/*/*"), *root.glob("[a-z]*/[1-9]*/privkey.pem")]):
                found[f"{name}/{path.relative_to(root)}"] = path.read_bytes()
        return found


def key_of(found: Certificate) -> bytes:
    return spki_digest(x509.load_pem_x509_certificate(found.leaf.encode()))


def public(pem: bytes) -> bytes:
    return spki_digest(load_key(pem))


def secrets_of(pem: bytes) -> list[str]:
    """The key in every form that somebody may have written down."""
    key = load_key(pem)
    number = key.private_numbers()
    value = getattr(number, "private_value", None) or getattr(number, "d")  # noqa: B009  one of the two has it
    return [*PEM_LINE.findall(pem.decode()), f"{value:x}", str(value)]


@asynccontextmanager
async def keyed(directory: Path, settings: Settings) -> AsyncIterator[Keyed]:
    """web1 behind sshd, and web2 which is this machine; both are the same nginx. Nothing of it outlives the block."""
    http_port, tls_port = free_port(), free_port()
    async with AsyncExitStack() as stack:
        nginx = await stack.enter_async_context(
            private_nginx(directory / "nginx", http_port=http_port, tls_port=tls_port)
        )
        ca = await stack.enter_async_context(pebble(directory / "ca", http_port=http_port, bad_nonce_percent=0))
        sshd = await stack.enter_async_context(running_sshd(directory / "sshd"))
        settings = settings.model_copy(update={"nameservers": [ca.dns]})
        ensure_key(settings)
        bench = await stack.enter_async_context(open_workbench(settings))
        client = Client(bench.fleet)
        roots = {name: directory / name for name in ("web1", "web2")}
        hosts = {
            name: Host(
                name,
                root=str(root),
                webroot=str(directory / "webroot"),
                test_command=nginx.test_command,
                reload_command=nginx.reload_command,
            )
            for name, root in roots.items()
        }
        public_key = await Installer(bench.fleet.store, bench.vault).public_key()
        for host in (sshd.serve(hosts["web1"], public_key), hosts["web2"]):
            await client.add_host(host)
        everywhere = {
            "ca": ca.directory,
            "ca-bundle": ca.bundle,
            "email": "ops@example.com",
            "agree-tos": "on",
            "http-port": str(http_port),
            "port": str(tls_port),
            "listen": "127.0.0.1",
            "challenge-via": "webroot",
        }
        await client.set_properties(everywhere)
        yield Keyed(bench, client, ca, nginx, sshd, hosts, roots)
