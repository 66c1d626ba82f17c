"""The shells, a private nginx, an sshd, and hosts that use them."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from certfleet.demo.nginx import Nginx, private_nginx
from certfleet.demo.ports import free_port
from certfleet.install.drivers.connections import Connections
from certfleet.install.drivers.ssh import SSH
from certfleet.install.installer import Installer
from certfleet.install.snippet import snippet
from certfleet.models import App, Host
from certfleet.settings import Settings
from certfleet.store import Store
from certfleet.vault import Vault, ensure_key
from tests.install.certificates import name_of
from tests.install.sshd import Sshd, running_sshd


def program(name: str) -> str:
    """Where a program is; the tests cannot do without it."""
    found = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/sbin:/usr/bin:/bin")
    assert found is not None, f"{name} is not installed; scripts/test does that"
    return found


def every_program() -> dict[str, str]:
    """The environment of a server that runs beside the receiver, whatever the receiver finds."""
    return {"PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin:/usr/bin:/bin"}


@pytest.fixture(scope="session")
def shells(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A PATH for each shell: dash with GNU tools, and busybox with nothing but its own (no flock among them)."""
    dash = tmp_path_factory.mktemp("dash")
    (dash / "sh").symlink_to(program("dash"))
    alone = tmp_path_factory.mktemp("busybox")
    busybox = program("busybox")
    applets = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True, timeout=10).stdout
    for applet in applets.split():
        if applet not in {"flock", "setpriv"}:  # the receiver must do without the one, nginx needs the real other
            (alone / applet).symlink_to(busybox)
    (alone / "openssl").symlink_to(program("openssl"))  # what Apache's own test leaves out
    return {"dash": f"{dash}:/usr/bin:/bin", "busybox": str(alone)}


@pytest.fixture(params=["dash", "busybox"])
def shell(request: pytest.FixtureRequest, shells: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> str:
    """The shell and tools that the receiver finds."""
    name: str = request.param
    monkeypatch.setenv("PATH", shells[name])
    return name


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Where a host keeps its certificates; not there yet."""
    return tmp_path / "installed"


@pytest.fixture
def plain(root: Path) -> Host:
    """A host whose web server takes everything."""
    return Host(name="plain", root=str(root), test_command=("true",), reload_command=("true",))


@pytest.fixture
async def nginx(tmp_path: Path) -> AsyncIterator[Nginx]:
    """A running nginx without sites."""
    async with private_nginx(tmp_path / "nginx", http_port=free_port(), tls_port=free_port()) as running:
        yield running


@pytest.fixture
def web(nginx: Nginx, root: Path) -> Host:
    """The host behind that nginx."""
    return Host(name="web", root=str(root), test_command=nginx.test_command, reload_command=nginx.reload_command)


async def reloaded(nginx: Nginx, times: int) -> bool:
    """Whether it took up a configuration so often; waits a while, because nginx notes the last in its own time."""
    for _ in range(600):
        if nginx.reloads() >= times:
            break
        await asyncio.sleep(0.05)
    return nginx.reloads() == times


async def add_sites(nginx: Nginx, web: Host, *apps: str) -> None:
    """A site for each app, as an operator would set it up, and a reload."""
    for name in apps:
        app = App(name=name, identifiers=(name_of(name),), hosts=(web.name,))
        nginx.add_site(name, app.identifiers, snippet(app, web, "127.0.0.1", 8402))
    await nginx.reload()


@pytest.fixture
def installer(store: Store, settings: Settings) -> Installer:
    """The fleet's SSH key."""
    ensure_key(settings)
    return Installer(store, Vault(settings))


@pytest.fixture
async def sshd(tmp_path: Path) -> AsyncIterator[Sshd]:
    """An sshd that lets nobody in yet."""
    async with running_sshd(tmp_path / "sshd") as running:
        yield running


@pytest.fixture
async def far(sshd: Sshd, plain: Host, installer: Installer) -> Host:
    """A host at the other end of SSH, whose web server takes everything."""
    return sshd.serve(plain, await installer.public_key())


@pytest.fixture
async def kept(installer: Installer) -> AsyncIterator[Connections]:
    """A process's connections."""
    opened = Connections(installer)
    yield opened
    await opened.close()


@pytest.fixture
def ssh(kept: Connections) -> SSH:
    """The driver on them."""
    return SSH(kept)
