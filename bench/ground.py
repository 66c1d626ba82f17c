"""What every measured client stands on: a Pebble without sleeps and refusals, an nginx, and fleets between them."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench import ROOT
from certfleet.client import Client, open_client
from certfleet.demo.nginx import Nginx, private_nginx
from certfleet.demo.pebble import DemoCA, pebble
from certfleet.demo.ports import free_port
from certfleet.demo.story import HOST, furnish, running_fleet
from certfleet.install.snippet import snippet
from certfleet.lifecycle.fleet import Fleet, open_fleet
from certfleet.models import App, Host
from certfleet.settings import Settings

ASIDE = "aside"
"""A host in a zone that no worker serves: what is issued for it is never installed."""


@dataclass(frozen=True, slots=True)
class Ground:
    """One CA and one nginx for a whole run."""

    directory: Path
    ca: DemoCA
    nginx: Nginx

    async def site(self, name: str, domain: str, lines: str) -> None:
        """Let nginx answer for `domain` (`*.x.test`) with these lines, from now on."""
        self.nginx.add_site(name, [domain], lines)
        await self.nginx.reload()


@dataclass(frozen=True, slots=True)
class Measured:
    """A running fleet; `books` are its Redis, opened by the benchmark."""

    settings: Settings
    client: Client
    books: Fleet
    stack: int
    """Process id of the supervisor."""

    async def add(self, ground: Ground, names: Sequence[str], host: str, *, enabled: bool) -> list[App]:
        """Apps in the books, as `app add` and `enable` leave them, but nothing is due. Sites come with them."""
        apps = [App(name, (f"{name}.fleet.test",), (host,), enabled=enabled) for name in names]
        where = await self.client.host(host)
        for app in apps:
            await self.books.inventory.add_app(app)
            lines = snippet(app, where, self.settings.responder_address, self.settings.responder_port)
            ground.nginx.add_site(app.name, app.identifiers, lines)
        await ground.nginx.reload()
        return apps


@asynccontextmanager
async def common_ground() -> AsyncIterator[Ground]:
    """Start CA and nginx; their files are gone afterwards unless something failed."""
    # A unix socket's path is short: /tmp, whatever TMPDIR says.
    directory = Path(tempfile.mkdtemp(prefix="certfleet-bench-", dir="/tmp"))
    http_port, tls_port = free_port(), free_port()
    async with (
        private_nginx(directory / "nginx", http_port=http_port, tls_port=tls_port) as nginx,
        pebble(directory / "ca", http_port=http_port, bad_nonce_percent=0) as ca,
    ):
        yield Ground(directory, ca, nginx)
    shutil.rmtree(directory)


@asynccontextmanager
async def running(ground: Ground, name: str, environment: Mapping[str, str] | None = None) -> AsyncIterator[Measured]:
    """A fleet with its default settings, as `certfleet up` runs it; `environment` is added for its processes."""
    settings = Settings(
        home=ground.directory / name,
        responder_port=free_port(),
        flower_port=free_port(),
        nameservers=[ground.ca.dns],
    )
    with _environment(environment or {}):
        async with (
            running_fleet(settings, ground.directory / f"{name}.log") as stack,
            open_client(settings) as client,
            open_fleet(settings) as books,
        ):
            await furnish(client, settings, ground.ca, ground.nginx, 0)
            await client.add_host(Host(ASIDE, zone=ASIDE))
            yield Measured(settings, client, books, stack)


@contextmanager
def _environment(more: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(more)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


__all__ = ["ASIDE", "HOST", "ROOT", "Ground", "Measured", "common_ground", "running"]
