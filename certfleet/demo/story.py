"""The demo: a private CA and a real nginx on loopback, and the fleet between them, from order to renewal."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from certfleet.cli.output import overview_table, print_json, print_renderable
from certfleet.client import Client, open_client
from certfleet.demo.handshake import serials, trusting
from certfleet.demo.nginx import Nginx, private_nginx
from certfleet.demo.pebble import DemoCA, pebble
from certfleet.demo.ports import free_port
from certfleet.demo.show import Show
from certfleet.errors import ConfigurationError
from certfleet.install.snippet import snippet
from certfleet.models import Host
from certfleet.overview import Overview, State
from certfleet.settings import Settings, ensure_home

HOST = "web1"
VALIDITY = 30.0  # seconds; half of it is left at renewal, so that nobody waits for long
VALIDITY_PER_APP = 0.2  # seconds more for each app: all should be served before the first is due
PATIENCE = 90.0  # seconds for each half of the story, beyond the validity
READY = 60.0  # seconds for the fleet to start
END = 150.0  # seconds for it to end in order
LOOK = 0.25  # seconds


@dataclass(slots=True)
class Summary:
    """What came of it. `served` and `renewed` are what verified handshakes saw."""

    apps: int
    enabled: int = 0
    issued: int = 0
    installed: int = 0
    served: int = 0
    renewed: int = 0
    failed: int = 0
    ca_requests_per_certificate: float = 0.0
    seconds: float = 0.0

    def complete(self) -> bool:
        """Whether everything came out well for every app."""
        done = (self.enabled, self.issued, self.installed, self.served, self.renewed)
        return self.failed == 0 and all(count == self.apps for count in done)


@dataclass(slots=True)
class Seen:
    """Serial numbers that handshakes saw, by name: the first, and the first that differed from it."""

    first: dict[str, str] = field(default_factory=dict)
    second: dict[str, str] = field(default_factory=dict)

    def take(self, serials_now: dict[str, str]) -> None:
        """Take in one round of handshakes."""
        for name, serial in serials_now.items():
            if self.first.setdefault(name, serial) != serial:
                self.second.setdefault(name, serial)


async def tell(apps: int, *, as_json: bool, keep: bool) -> bool:
    """Run the demo; True when every app was enabled, issued, installed, served and renewed."""
    began = time.monotonic()
    show = Show(apps)
    # A unix socket's path is short: /tmp, whatever TMPDIR says.
    directory = Path(tempfile.mkdtemp(prefix="certfleet-", dir="/tmp"))
    summary = Summary(apps)
    try:
        await _play(directory, summary, show, keep=keep, as_json=as_json)
    finally:
        if summary.complete():
            shutil.rmtree(directory)
        else:
            show.say(f"not complete: the logs are in {directory}")
    summary.seconds = round(time.monotonic() - began, 1)
    _print(summary, as_json=as_json)
    return summary.complete()


async def _play(directory: Path, summary: Summary, show: Show, *, keep: bool, as_json: bool) -> None:
    validity = round(VALIDITY + VALIDITY_PER_APP * summary.apps)
    http_port, tls_port, responder, flower = (free_port() for _ in range(4))
    show.say("starting a Pebble CA, an nginx and the fleet (Redis, workers, beat, responder, Flower)")
    async with (
        private_nginx(directory / "nginx", http_port=http_port, tls_port=tls_port) as nginx,
        pebble(directory / "ca", http_port=http_port, validity_seconds=validity) as ca,
    ):
        settings = Settings(
            home=directory / "fleet", responder_port=responder, flower_port=flower, nameservers=[ca.dns]
        )
        async with running_fleet(settings, directory / "fleet.log"), open_client(settings) as client:
            show.say(f"ready; each certificate is valid for {validity} s and renewed at half of that")
            names = await furnish(client, settings, ca, nginx, summary.apps)
            await ca.reset()
            await _follow(client, ca, nginx, names, summary, show, validity)
            views = [view async for view in client.overviews()]
            if not as_json:
                print_renderable(overview_table(views))
            if keep:
                await _kept(settings, ca, nginx, names, show)


async def furnish(client: Client, settings: Settings, ca: DemoCA, nginx: Nginx, count: int) -> dict[str, str]:
    """Add the host and the apps, give each app its site in nginx; app -> its name."""
    everywhere = {
        "ca": ca.directory,
        "ca-bundle": ca.bundle,
        "email": "ops@example.com",
        "agree-tos": "on",
        "http-port": str(nginx.http_port),
        "port": str(nginx.tls_port),
        "listen": "127.0.0.1",
    }
    for name, value in everywhere.items():
        await client.set_property(name, value)
    host = Host(
        HOST,
        root=str(nginx.directory / "certificates"),
        test_command=nginx.test_command,
        reload_command=nginx.reload_command,
    )
    await client.add_host(host)
    names = {}
    for number in range(1, count + 1):
        shop = f"shop{number:0{len(str(count))}}"
        app = await client.add_app(shop, [f"{shop}.demo.test"], [HOST])
        lines = snippet(app, host, settings.responder_address, settings.responder_port)
        nginx.add_site(app.name, app.identifiers, lines)
        names[app.name] = app.identifiers[0]
    await nginx.reload()
    return names


async def _follow(  # noqa: PLR0917  the whole cast
    client: Client, ca: DemoCA, nginx: Nginx, names: dict[str, str], summary: Summary, show: Show, validity: float
) -> None:
    """Enable every app, then watch until each was renewed, or the time is up."""
    context = trusting(await ca.root())
    seen = Seen()
    with show.live():
        for app in names:
            summary.enabled += (await client.enable(app)).changed
        deadline = time.monotonic() + validity + PATIENCE
        while time.monotonic() < deadline:
            views = [view async for view in client.overviews()]
            seen.take(await serials(context, nginx.tls_port, list(names.values())))
            _count(summary, views, seen)
            ordered = sum(view.state is not State.WAITING for view in views)
            show.update(
                {
                    "ordered": ordered,
                    "issued": summary.issued,
                    "installed": summary.installed,
                    "served": summary.served,
                    "renewed": summary.renewed,
                },
                views,
            )
            if summary.renewed == summary.apps:
                break
            await asyncio.sleep(LOOK)
    counts = await ca.counts()
    certificates = counts["certificate"] or 1
    requests = sum(number for kind, number in counts.items() if kind != "bad_nonce")
    summary.ca_requests_per_certificate = round(requests / certificates, 2)


def _count(summary: Summary, views: list[Overview], seen: Seen) -> None:
    summary.issued = sum(view.generation > 0 for view in views)
    summary.installed = max(summary.installed, sum(view.served_on == len(view.hosts) for view in views))
    summary.served = len(seen.first)
    summary.renewed = len(seen.second)
    summary.failed = sum(view.state in (State.FAILING, State.PARKED) for view in views)


@asynccontextmanager
async def running_fleet(settings: Settings, log: Path) -> AsyncIterator[int]:
    """`certfleet up` with these settings, as a child whose process id is the answer. Raises ConfigurationError."""
    ready, told = os.pipe()
    _configure(settings)
    # A session of its own: a Ctrl-C in the terminal reaches the demo, which ends the fleet in order. A demo that is
    # killed leaves none behind.
    with log.open("ab") as output:
        process = await asyncio.create_subprocess_exec(
            *("setpriv", "--pdeathsig", "TERM", "--", sys.executable, "-m", "workers.stack", "--ready-fd", str(told)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=asyncio.subprocess.STDOUT,
            env=os.environ | {"CERTFLEET_HOME": str(settings.home)},
            pass_fds=[told],
            start_new_session=True,
        )
    os.close(told)
    try:
        await _wait_ready(ready, log)
        yield process.pid
    finally:
        os.close(ready)
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(process.wait(), END)
        except TimeoutError:
            process.kill()
            await process.wait()


def _configure(settings: Settings) -> None:
    """Into the state directory, so that commands find everything by CERTFLEET_HOME alone."""
    ensure_home(settings)
    servers = ", ".join(f'"{server}"' for server in settings.nameservers)
    lines = [
        f"responder_port = {settings.responder_port}",
        f"flower_port = {settings.flower_port}",
        f"workers = {settings.workers}",
        f"nameservers = [{servers}]",
    ]
    (settings.home / "certfleet.toml").write_text("\n".join(lines) + "\n")


async def _wait_ready(descriptor: int, log: Path) -> None:
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    loop.add_reader(descriptor, readable.set)
    try:
        await asyncio.wait_for(readable.wait(), READY)
    except TimeoutError:
        raise ConfigurationError(f"the fleet was not ready after {READY:.0f} s: look at {log}") from None
    finally:
        loop.remove_reader(descriptor)
    if not os.read(descriptor, 16):  # closed without a word: it ended
        raise ConfigurationError(f"the fleet did not start: {log.read_text(errors='replace').strip()[-500:]}")


async def _kept(settings: Settings, ca: DemoCA, nginx: Nginx, names: dict[str, str], show: Show) -> None:
    """Tell where everything is, and wait for Ctrl-C or SIGTERM."""
    password = _password(settings)
    first = next(iter(names.values()))
    show.say("everything goes on until Ctrl-C:")
    for line in (
        f"CA         {ca.directory}",
        f"sites      https://127.0.0.1:{nginx.tls_port}/ by name, such as",
        f"           curl -k --resolve {first}:{nginx.tls_port}:127.0.0.1 https://{first}:{nginx.tls_port}/",
        f"Flower     http://{settings.flower_address}:{settings.flower_port}/ user certfleet, password {password}",
        f"commands   CERTFLEET_HOME={settings.home} certfleet ls",
    ):
        print(f"          {line}", file=sys.stderr, flush=True)
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await stop.wait()


def _password(settings: Settings) -> str:
    return (settings.home / "flower.password").read_text().strip()


def _print(summary: Summary, *, as_json: bool) -> None:
    fields = {name: getattr(summary, name) for name in summary.__dataclass_fields__}
    if as_json:
        print_json(**fields)
        return
    told = ", ".join(f"{name} {fields[name]}" for name in ("enabled", "issued", "installed", "served", "renewed"))
    rest = f"failed {summary.failed}; {summary.ca_requests_per_certificate} requests to the CA per certificate"
    print(f"\n{summary.apps} apps: {told}, {rest}, {summary.seconds} s")
