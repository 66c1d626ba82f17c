"""A whole fleet for a test: Pebble behind its front, nginx, and the stack that `certfleet up` runs."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from certfleet.client import Client, open_client
from certfleet.demo.handshake import serials, trusting
from certfleet.demo.nginx import Nginx, private_nginx
from certfleet.demo.pebble import DemoCA, pebble
from certfleet.demo.ports import free_port
from certfleet.demo.story import HOST, furnish, running_fleet
from certfleet.install.snippet import snippet
from certfleet.models import App
from certfleet.overview import Overview, State
from certfleet.settings import Settings
from tests.ca.strict import StrictCA, strict_ca

LIMIT = 60.0  # seconds that a test waits for anything before it has failed


@dataclass(frozen=True)
class Rig:
    """What a test can reach."""

    directory: Path
    ca: DemoCA
    nginx: Nginx
    settings: Settings
    client: Client
    stack: int
    """Process id of the supervisor; 0 when none was started."""

    async def add(self, name: str, domains: Sequence[str] = (), **properties: str) -> App:
        """An app on the one host, with its site in nginx (which has to be reloaded)."""
        app = await self.client.add_app(name, list(domains) or [f"{name}.demo.test"], [HOST], properties)
        host = await self.client.host(HOST)
        lines = snippet(app, host, self.settings.responder_address, self.settings.responder_port)
        self.nginx.add_site(name, app.identifiers, lines)
        return app

    async def view(self, name: str) -> Overview:
        """How an app is."""
        [view] = [view async for view in self.client.overviews([name])]
        return view

    async def until(
        self, what: str, holds: Callable[[Sequence[Overview]], bool], limit: float = LIMIT
    ) -> list[Overview]:
        """Wait until the overviews are as wanted; fails with how they are when they never get there."""
        deadline = time.monotonic() + limit
        while True:
            views = [view async for view in self.client.overviews()]
            if holds(views):
                return views
            assert time.monotonic() < deadline, f"not {what} after {limit} s: {views}\n{self.logs()}"
            await asyncio.sleep(0.25)

    async def all_served(self, limit: float = LIMIT) -> list[Overview]:
        """Wait until every app is served by its host, as certfleet says."""
        return await self.until("all served", lambda views: all(v.state is State.SERVED for v in views), limit)

    async def seen(self, *names: str) -> dict[str, str]:
        """What verified handshakes see: name -> serial."""
        return await serials(trusting(await self.ca.root()), self.nginx.tls_port, names)

    async def sees(self, expected: dict[str, str | None]) -> None:
        """Verified handshakes see these serials. nginx's old processes answer for another moment after a reload."""
        for _ in range(300):
            if (found := await self.seen(*expected)) == expected:
                return
            await asyncio.sleep(0.1)
        assert found == expected

    @property
    def strict(self) -> StrictCA:
        """The CA of a rig with limits."""
        assert isinstance(self.ca, StrictCA)
        return self.ca

    def environment(self) -> dict[str, str]:
        """For commands that talk to this fleet."""
        return os.environ | {"CERTFLEET_HOME": str(self.settings.home)}

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run `certfleet` as a person would."""
        return run_certfleet(*words, environment=self.environment())

    def logs(self) -> str:
        """The ends of all logs, for a failed assertion."""
        files = sorted((self.settings.home / "log").glob("*.log"))
        return "\n".join(f"== {file.name}\n{file.read_text(errors='replace')[-1500:]}" for file in files)

    def run_ps(self) -> list[str]:
        """The command lines of every process on this machine, as anybody may read them."""
        return subprocess.run(
            ["ps", "-ww", "-eo", "args="], capture_output=True, text=True, check=True, timeout=10
        ).stdout.splitlines()

    def children(self) -> dict[str, int]:
        """The stack's processes by what they run."""
        listing = subprocess.run(
            ["ps", "-ww", "-o", "pid=,args=", "--ppid", str(self.stack)],
            capture_output=True,
            text=True,
            check=False,
            timeout=10,
        ).stdout
        found: dict[str, int] = {}
        for line in listing.splitlines():
            pid, _, command = line.strip().partition(" ")
            for name in (
                "-n w1@",
                "-n w2@",
                "-n clock@",
                " beat ",
                "workers.responder",
                "flower",
                "valkey",
                "redis-server",
            ):
                if name in command:
                    found.setdefault(name.strip("-n @").strip(), int(pid))
        return found


def run_certfleet(*words: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own."""
    program = Path(os.sys.executable).with_name("certfleet")  # type: ignore[attr-defined]
    return subprocess.run(
        [str(program), *words], env=environment, capture_output=True, text=True, check=False, timeout=LIMIT
    )


@asynccontextmanager
async def running_rig(
    directory: Path,
    *,
    validity_seconds: int = 90 * 86_400,
    bad_nonce_percent: int = 5,
    authz_reuse_percent: int = 0,
    sleep: bool = False,
    workers: int = 1,
    stack: bool = True,
    limits: Mapping[str, tuple[int, float, int]] | None = None,
    mirrored: bool = True,
    nameservers: Sequence[str] = (),
    flower: bool = False,
    **ca_options: Any,
) -> AsyncIterator[Rig]:
    """Start everything; nothing of it outlives the block.

    `limits` (count, period in seconds, burst) hold at the CA, and the fleet knows them where they are `mirrored`.
    `ca_options` are further ones of certfleet.demo.pebble, such as a `resolver` for CA and fleet.
    `nameservers`: whom the fleet asks instead of the CA's own DNS. `flower`: it costs a second of CPU, few look at it.
    """
    http_port, tls_port, responder = (free_port() for _ in range(3))
    options: dict[str, Any] = {
        "http_port": http_port,
        "validity_seconds": validity_seconds,
        "bad_nonce_percent": bad_nonce_percent,
        "authz_reuse_percent": authz_reuse_percent,
        "sleep": sleep,
        **ca_options,
    }
    start = pebble if limits is None else partial(strict_ca, limits=limits, same_set_exempt=False)
    async with (
        private_nginx(directory / "nginx", http_port=http_port, tls_port=tls_port) as nginx,
        start(directory / "ca", **options) as ca,
    ):
        settings = Settings(
            home=directory / "home",
            responder_port=responder,
            flower_port=free_port() if flower else 0,
            nameservers=list(nameservers) or [ca.dns],
            workers=workers,
        )
        if not stack:
            yield Rig(directory, ca, nginx, settings, None, 0)  # type: ignore[arg-type]  # the test starts its own
            return
        async with running_fleet(settings, directory / "fleet.log") as pid, open_client(settings) as client:
            await furnish(client, settings, ca, nginx, 0)
            if limits and mirrored:
                await client.set_limits(written(limits), ca=ca.directory)
            await ca.reset()
            try:
                yield Rig(directory, ca, nginx, settings, client, pid)
            finally:
                # The first of two signals: the second, with the end of the block, ends everything at once.
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGINT)


def written(limits: Mapping[str, tuple[int, float, int]]) -> dict[str, str]:
    """The limits as `certfleet limits set` takes them."""
    return {name: f"{count}/{round(period * 1000)}ms burst {burst}" for name, (count, period, burst) in limits.items()}


def kill(pid: int) -> None:
    """Kill -9 a process that this test started."""
    os.kill(pid, signal.SIGKILL)
