"""Certificates on a real Apache and a real haproxy, looked at by real TLS handshakes, as on nginx."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from certfleet.errors import InstallError
from certfleet.install.answer import State
from certfleet.install.csr import Wanted, checked_csr
from certfleet.install.drivers import local
from certfleet.install.probe import served
from certfleet.models import Host, KeyType
from tests.install.certificates import item, item_for, name_of
from tests.install.servers import Server, running, serves
from tests.install.test_archives import member, send, tampered

pytestmark = pytest.mark.usefixtures("shell")


@pytest.fixture(params=["apache", "haproxy"])
async def server(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Server]:
    """A running server without certificates."""
    async with running(request.param, tmp_path) as found:
        yield found


async def test_install_serve_and_replace(server: Server) -> None:
    """A site waits for its first certificate, serves it, then serves the next one; each costs one reload."""
    await server.sites("blog")
    assert await served("127.0.0.1", server.tls_port, name_of("blog")) is None
    for generation in (1, 2):
        before = server.reloads()
        new = item("blog", generation)
        answer = await local.install(server.host, [new])
        assert (answer.apps["blog"].state, answer.reloads) == (State.INSTALLED, 1)
        await serves(server, "blog", new.serial)
        assert server.reloads() - before == 1
    again = await local.install(server.host, [new])
    assert (again.apps["blog"].state, again.reloads) == (State.UNCHANGED, 0)


async def test_a_key_that_the_host_made(server: Server) -> None:
    """It is served with its certificate, a later one in its place, and the earlier again after a rollback."""
    await server.sites("blog")
    serials = []
    for generation in (1, 2):
        wanted = Wanted("blog", str(generation), KeyType.P256, (name_of("blog"),))
        said = (await local.request(server.host, [wanted])).apps["blog"]
        assert said.state is State.REQUESTED, said.message
        new = item_for(checked_csr(said.csr, wanted), "blog", generation)
        answer = await local.install(server.host, [new])
        assert (answer.apps["blog"].state, answer.reloads) == (State.INSTALLED, 1), answer.apps["blog"].message
        await serves(server, "blog", new.serial)
        serials.append(new.serial)
    await local.rollback(server.host, {"blog": 1})
    await serves(server, "blog", serials[0])


async def test_a_bad_one_is_put_back_alone(server: Server) -> None:
    """Two of seven come with the wrong key, which would end Apache: they keep what they had, five go live at once."""
    apps = [f"app{number}" for number in range(7)]
    await server.sites(*apps)
    old = item("app2")
    await local.install(server.host, [old])
    await serves(server, "app2", old.serial)
    before = server.reloads()
    items = [item(app, 2, mismatched=app in {"app2", "app5"}) for app in apps]
    answer = await local.install(server.host, items)
    for one in items:
        said = answer.apps[one.app]
        if one.app in {"app2", "app5"}:
            assert said.state is State.FAILED
            assert "key" in (said.message or "")
        else:
            assert said.state is State.INSTALLED
            await serves(server, one.app, one.serial)
    assert (answer.apps["app2"].generation, answer.apps["app5"].generation) == (1, 0)
    await serves(server, "app2", old.serial)
    assert server.reloads() - before == 1
    bad = {one.serial for one in items if one.app in {"app2", "app5"}}
    assert await served("127.0.0.1", server.tls_port, name_of("app5")) not in bad


async def test_broken_before(server: Server, tmp_path: Path) -> None:
    """A configuration that somebody broke before we came: its words in the answer, and nothing is touched."""
    await server.sites("blog")
    old = item("blog")
    await local.install(server.host, [old])
    await serves(server, "blog", old.serial)
    server.spoil()
    before = sorted((tmp_path / "installed").rglob("*"))
    answer = await local.install(server.host, [item("blog", 2), item("shop")])
    assert {app.state for app in answer.apps.values()} == {State.BROKEN_BEFORE}
    assert (answer.apps["blog"].message or "").strip()
    assert (answer.apps["blog"].generation, answer.reloads) == (1, 0)
    assert sorted((tmp_path / "installed").rglob("*")) == before
    await serves(server, "blog", old.serial)


async def test_rollback(server: Server) -> None:
    """Back to the generation before, and to none at all."""
    await server.sites("blog", "shop")
    first, second = item("blog"), item("blog", 2)
    await local.install(server.host, [first])
    await local.install(server.host, [second, item("shop")])
    await serves(server, "blog", second.serial)
    answer = await local.rollback(server.host, {"blog": 1, "shop": 0})
    assert {app.state for app in answer.apps.values()} == {State.ROLLED_BACK}
    await serves(server, "blog", first.serial)
    answer = await local.rollback(server.host, {"blog": 0})
    assert (answer.apps["blog"].generation, answer.reloads) == (0, 1)


async def test_the_first_install_makes_what_haproxy_needs(tmp_path: Path) -> None:
    """The lines of the snippet stand in haproxy's file before anything is installed: our first run passes its test."""
    async with running("haproxy", tmp_path) as server:
        root = Path(server.host.root)
        await server.sites("blog", via="stateless")
        for path in (root / "challenges.d" / "haproxy.map",):
            path.unlink()
        for directory in (root / "challenges.d", root / "haproxy.d"):
            directory.rmdir()
        new = item("blog")
        assert (await local.install(server.host, [new])).apps["blog"].state is State.INSTALLED
        await serves(server, "blog", new.serial)


async def test_haproxy_reads_one_file_with_everything(tmp_path: Path) -> None:
    """Chain and key are in one file, 0600; a lost link is made again, and a deleted generation does not block."""
    async with running("haproxy", tmp_path) as server:
        await server.sites("blog")
        new = item("blog")
        await local.install(server.host, [new])
        shown = tmp_path / "installed" / "haproxy.d" / "blog.pem"
        assert shown.read_text().replace("\n\n", "\n") == new.fullchain + new.private_key.decode()
        assert shown.stat().st_mode & 0o777 == 0o600
        shown.unlink()
        assert (await local.install(server.host, [new])).apps["blog"].state is State.INSTALLED
        assert shown.is_symlink()
        for file in (tmp_path / "installed" / "blog" / "1").iterdir():
            file.unlink()
        assert (await local.install(server.host, [new])).apps["blog"].state is State.INSTALLED
        await serves(server, "blog", new.serial)


async def test_apache_needs_openssl_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it nobody would see a wrong key before the reload that ends Apache: nothing is installed."""
    path = tmp_path / "bin"
    path.mkdir()
    for directory in os.environ["PATH"].split(":"):
        for tool in Path(directory).iterdir():
            if tool.name != "openssl" and not (path / tool.name).is_symlink():
                (path / tool.name).symlink_to(tool)
    async with running("apache", tmp_path) as server:
        monkeypatch.setenv("PATH", str(path))
        with pytest.raises(InstallError, match="openssl"):
            await local.install(server.host, [item("blog")])
        points = {point.name: point for point in (await local.check(server.host)).points}
        assert not points["openssl"].ok
        assert points["web server"].ok


@pytest.mark.parametrize(
    ("kind", "name", "line"),
    [
        ("apache", "blog/1/apache.conf", "LoadModule evil /tmp/evil.so"),
        ("apache", "blog/1/apache.conf", "SSLCertificateFile /etc/ssl/other.pem"),
        ("apache", "blog/1/apache.conf", "SSLEngine on\\"),
        ("apache", "blog/1/apache.conf", "ssl_certificate /tmp/x;"),
        ("apache", "blog/1/nginx.conf", "listen 443 ssl;"),
        ("apache", "blog/1/apache-2.conf", "SSLEngine on"),
        ("haproxy", "blog/1/combined.pem", "-----BEGIN CERTIFICATE-----"),
        ("haproxy", "blog/1/nginx.conf", "listen 443 ssl;"),
        ("haproxy", "blog/1/apache.conf", "SSLEngine on"),
        ("files", "blog/1/apache.conf", "SSLEngine on"),
        ("files", "blog/1/combined.pem", "anything"),
        ("nginx", "blog/1/apache.conf", "SSLEngine on"),
    ],
)
async def test_names_and_lines_of_each_server(tmp_path: Path, kind: str, name: str, line: str) -> None:
    """Who may send certificates sends what this server's preset has, and no directives."""
    root = tmp_path / "installed"
    host = Host("web", preset=kind, root=str(root), test_command=("true",), reload_command=("true",))
    assert "archive" in await send(host, tampered(root, (member(name), line.encode() + b"\n"), server=kind))
    assert not (root / "blog").exists()
