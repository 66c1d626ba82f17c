"""Real web servers behind one face: what a test asks of each of them."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Protocol

import aiohttp

from certfleet.demo.nginx import Nginx, private_nginx
from certfleet.demo.ports import free_port
from certfleet.install.probe import probe
from certfleet.install.snippet import lines
from certfleet.models import App, Host
from tests.install.apache import Apache, private_apache
from tests.install.certificates import name_of
from tests.install.haproxy import Haproxy, private_haproxy

RESPONDER = "127.0.0.1:8402"


def app_of(name: str) -> App:
    return App(name=name, identifiers=(name_of(name),), hosts=("web",))


class Server(Protocol):
    """A running web server and the host that it is on."""

    host: Host
    http_port: int
    tls_port: int

    async def sites(self, *apps: str, via: str = "responder", target: str = RESPONDER) -> None:
        """Sites for the apps with the lines of the snippet in them, as an operator would put them there."""

    def spoil(self) -> None:
        """Leave a mistake in its configuration."""

    def reloads(self) -> int:
        """How often it took up a configuration, by its own log."""


class NginxServer:
    def __init__(self, nginx: Nginx, host: Host) -> None:
        self.nginx, self.host = nginx, host
        self.http_port, self.tls_port = nginx.http_port, nginx.tls_port
        self.reloads = nginx.reloads

    async def sites(self, *apps: str, via: str = "responder", target: str = RESPONDER) -> None:
        for app in map(app_of, apps):
            found = lines(app, self.host, target, via)
            # A rule that many sites have, to keep .git and the like from being served.
            rest = "location ~ /\\. { return 403; }"
            self.nginx.add_site(app.name, app.identifiers, f"{rest}\n{found.challenge}{found.certificate}")
        await self.nginx.reload()

    def spoil(self) -> None:
        self.nginx.add_site("broken", ["broken.example.test"], "no_such_directive;")


class ApacheServer:
    def __init__(self, apache: Apache, host: Host) -> None:
        self.apache, self.host = apache, host
        self.http_port, self.tls_port = apache.http_port, apache.tls_port
        self.reloads = apache.reloads

    async def sites(self, *apps: str, via: str = "responder", target: str = RESPONDER) -> None:
        for app in map(app_of, apps):
            found = lines(app, self.host, target, via)
            self.apache.add_site(name_of(app.name), challenge=found.challenge, certificate=found.certificate)
        await self.apache.reload()

    def spoil(self) -> None:
        self.apache.add_site("broken.example.test", challenge="NoSuchDirective on")


class HaproxyServer:
    def __init__(self, haproxy: Haproxy, host: Host) -> None:
        self.haproxy, self.host = haproxy, host
        self.http_port, self.tls_port = haproxy.http_port, haproxy.tls_port
        self.reloads = haproxy.reloads

    async def sites(self, *apps: str, via: str = "responder", target: str = RESPONDER) -> None:
        found = lines(app_of(apps[0]), self.host, target, via)
        self.haproxy.configure(challenge=found.challenge, certificate=found.certificate, beside=found.beside)
        for directory in ("haproxy.d", "challenges.d"):  # the receiver makes them when it comes for the first time
            (Path(self.host.root) / directory).mkdir(parents=True, exist_ok=True)
        (Path(self.host.root) / "challenges.d" / "haproxy.map").touch()
        await self.haproxy.reload()

    def spoil(self) -> None:
        self.haproxy.configure(challenge="    no-such-keyword")


@asynccontextmanager
async def running(kind: str, directory: Path, **more: str) -> AsyncIterator[Server]:
    """A server of this kind with a host; `more`: further fields of the host."""
    http_port, tls_port = free_port(), free_port()
    root = str(directory / "installed")
    match kind:
        case "nginx":
            async with private_nginx(directory / kind, http_port=http_port, tls_port=tls_port) as nginx:
                commands = {"test_command": nginx.test_command, "reload_command": nginx.reload_command}
                yield NginxServer(nginx, Host("web", preset=kind, root=root, **commands, **more))  # type: ignore[arg-type]  # fields by name
        case "apache":
            async with private_apache(directory / kind, http_port=http_port, tls_port=tls_port) as apache:
                commands = {"test_command": apache.test_command, "reload_command": apache.reload_command}
                yield ApacheServer(apache, Host("web", preset=kind, root=root, **commands, **more))  # type: ignore[arg-type]  # fields by name
        case _:
            async with private_haproxy(
                directory / kind, http_port=http_port, tls_port=tls_port, idle_port=free_port()
            ) as haproxy:
                commands = {"test_command": haproxy.test_command, "reload_command": haproxy.reload_command}
                yield HaproxyServer(haproxy, Host("web", preset=kind, root=root, **commands, **more))  # type: ignore[arg-type]  # fields by name


async def serves(server: Server, app: str, serial: str) -> None:
    """The endpoint shows this certificate."""
    await probe("127.0.0.1", server.tls_port, name_of(app), serial, patience=30)


async def fetch(server: Server, app: str, path: str) -> tuple[int, str, Mapping[str, str]]:
    """What the app's site answers on its port for HTTP: status, text, headers. Redirects are not followed."""
    async with (
        aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as session,
        session.get(
            f"http://127.0.0.1:{server.http_port}{path}",
            headers={"Host": f"{name_of(app)}:{server.http_port}"},
            allow_redirects=False,
        ) as answer,
    ):
        return answer.status, await answer.text(), answer.headers


def open_directory() -> Path:
    """A directory that a web server's account can get to, as pytest's own is not."""
    directory = Path(tempfile.mkdtemp(prefix="certfleet-", dir="/tmp"))
    directory.chmod(0o755)
    return directory
