"""Certificates on a real nginx, looked at by real TLS handshakes."""

from __future__ import annotations

import asyncio
import dataclasses
import ssl
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from certfleet.demo.nginx import Nginx, private_nginx
from certfleet.demo.ports import free_port
from certfleet.errors import ConfigurationError, HostUnreachable, InstallError
from certfleet.install.answer import State
from certfleet.install.bundle import Item
from certfleet.install.drivers import local
from certfleet.install.probe import probe, served
from certfleet.models import Host
from tests.install.certificates import item, name_of, pem
from tests.install.conftest import add_sites

pytestmark = pytest.mark.usefixtures("shell")


async def serves(nginx: Nginx, wanted: Item) -> None:
    await probe("127.0.0.1", nginx.tls_port, name_of(wanted.app), wanted.serial, patience=30)


async def put(nginx: Nginx, web: Host, *items: Item) -> None:
    """Install and wait until it is served: nginx takes up a reload in its own time."""
    await local.install(web, items)
    for one in items:
        await serves(nginx, one)


async def test_install_and_serve(nginx: Nginx, web: Host) -> None:
    """A site is plain HTTP before its first certificate, then serves it, then serves the next generation."""
    await add_sites(nginx, web, "blog")
    assert await served("127.0.0.1", nginx.tls_port, name_of("blog")) is None
    for generation in (1, 2):
        new = item("blog", generation, port=nginx.tls_port)
        answer = await local.install(web, [new])
        blog = answer.apps["blog"]
        assert (blog.state, blog.generation, blog.previous) == (State.INSTALLED, generation, generation - 1)
        assert blog.serial == new.serial
        await serves(nginx, new)
    await nginx.reload()  # the operator's own test and reload still pass


async def test_a_batch_needs_one_reload(nginx: Nginx, web: Host) -> None:
    """Twenty apps that come together cost nginx one reload, by its own log."""
    apps = [f"app{number}" for number in range(20)]
    await add_sites(nginx, web, *apps)
    before = nginx.reloads()
    items = [item(app, port=nginx.tls_port) for app in apps]
    answer = await local.install(web, items)
    assert {app.state for app in answer.apps.values()} == {State.INSTALLED}
    for one in items:
        await serves(nginx, one)
    assert (answer.reloads, nginx.reloads() - before) == (1, 1)


async def test_a_bad_one_is_put_back_alone(nginx: Nginx, web: Host) -> None:
    """Two of seven apps come with the wrong key: these two keep what they had, the five go live, with one reload."""
    apps = [f"app{number}" for number in range(7)]
    await add_sites(nginx, web, *apps)
    old = item("app2", 1, port=nginx.tls_port)
    await put(nginx, web, old)
    before = nginx.reloads()
    items = [item(app, 2, port=nginx.tls_port, mismatched=app in {"app2", "app5"}) for app in apps]
    answer = await local.install(web, items)
    for one in items:
        said = answer.apps[one.app]
        if one.app in {"app2", "app5"}:
            assert said.state is State.FAILED
            assert "key values mismatch" in (said.message or "")
        else:
            assert said.state is State.INSTALLED
            await serves(nginx, one)
    assert answer.apps["app2"].generation == 1
    assert answer.apps["app5"].generation == 0
    await serves(nginx, old)
    assert nginx.reloads() - before == 1
    await nginx.reload()


async def test_broken_before(nginx: Nginx, web: Host, root: Path) -> None:
    """When the configuration is broken already, nothing is touched and the answer has nginx's words."""
    await add_sites(nginx, web, "blog")
    old = item("blog", 1, port=nginx.tls_port)
    await put(nginx, web, old)
    nginx.add_site("broken", ["broken.example.test"], "no_such_directive;")
    before = sorted(root.rglob("*"))
    answer = await local.install(web, [item("blog", 2), item("shop", 1)])
    assert {app.state for app in answer.apps.values()} == {State.BROKEN_BEFORE}
    assert "no_such_directive" in (answer.apps["shop"].message or "")
    assert (answer.apps["blog"].generation, answer.reloads) == (1, 0)
    assert sorted(root.rglob("*")) == before
    await serves(nginx, old)


async def test_a_failing_reload_is_rolled_back(nginx: Nginx, web: Host, root: Path) -> None:
    """A reload that fails puts everything back, and the next run makes up for the reload that is owed."""
    await add_sites(nginx, web, "blog")
    old = item("blog", 1, port=nginx.tls_port)
    await put(nginx, web, old)
    refusing = dataclasses.replace(web, reload_command=("sh", "-c", "echo the reload says no; exit 3"))
    new = item("blog", 2, port=nginx.tls_port)
    answer = await local.install(refusing, [new])
    assert answer.apps["blog"].state is State.FAILED
    assert answer.apps["blog"].message == "the reload says no"
    assert (answer.apps["blog"].generation, answer.pending) == (1, True)
    assert (root / "blog" / "current").readlink() == Path("1")
    await serves(nginx, old)
    answer = await local.install(web, [new])
    assert (answer.apps["blog"].state, answer.pending) == (State.INSTALLED, False)
    await serves(nginx, new)


async def test_rollback(nginx: Nginx, web: Host) -> None:
    """Each app goes back to the generation named (0: none) with one reload, and can be installed again."""
    await add_sites(nginx, web, "blog", "shop")
    first = item("blog", 1, port=nginx.tls_port)
    second = item("blog", 2, port=nginx.tls_port)
    shop = item("shop", 1, port=nginx.tls_port)
    await put(nginx, web, first)
    await put(nginx, web, second, shop)
    before = nginx.reloads()
    answer = await local.rollback(web, {"blog": 1, "shop": 0, "wiki": 4})
    assert answer.apps["blog"].state is State.ROLLED_BACK
    assert (answer.apps["blog"].generation, answer.apps["shop"].generation) == (1, 0)
    assert answer.apps["wiki"].state is State.FAILED
    await serves(nginx, first)
    async with asyncio.timeout(10):
        while nginx.reloads() == before:  # noqa: ASYNC110  a process of the first one may have answered once more
            await asyncio.sleep(0.01)
    assert nginx.reloads() - before == 1
    again = await local.install(web, [second, shop])
    assert {app.state for app in again.apps.values()} == {State.INSTALLED}
    await serves(nginx, second)
    await serves(nginx, shop)


async def test_foreign_is_left_alone_until_adopted(nginx: Nginx, web: Host, root: Path) -> None:
    """A directory that certfleet did not make stays in use; --adopt moves it aside, whole."""
    theirs = item("blog", 7, port=nginx.tls_port)
    place = root / "blog"
    place.mkdir(parents=True)
    (place / "site.crt").write_text(theirs.fullchain)
    (place / "site.key").write_bytes(theirs.private_key)
    await add_sites(nginx, web, "blog")
    ours = item("blog", 1, port=nginx.tls_port)
    answer = await local.install(web, [ours, item("shop")])
    assert answer.apps["blog"].state is State.FOREIGN
    assert "--adopt" in (answer.apps["blog"].message or "")
    assert answer.apps["shop"].state is State.INSTALLED
    assert sorted(file.name for file in place.iterdir()) == ["site.crt", "site.key"]

    answer = await local.install(web, [dataclasses.replace(ours, adopt=True)])
    assert answer.apps["blog"].state is State.INSTALLED
    await serves(nginx, ours)
    (aside,) = root.glob("blog.before-certfleet.*")
    assert (aside / "site.key").read_bytes() == theirs.private_key


async def test_a_bad_adoption_brings_the_foreign_one_back(nginx: Nginx, web: Host, root: Path) -> None:
    """When the certificate that was to replace it is refused, the foreign directory has its place again."""
    (root / "blog").mkdir(parents=True)
    (root / "blog" / "theirs").write_text("theirs")
    await add_sites(nginx, web, "blog")
    answer = await local.install(web, [item("blog", adopt=True, port=nginx.tls_port, mismatched=True)])
    assert answer.apps["blog"].state is State.FAILED
    assert [entry.name for entry in root.iterdir() if not entry.name.startswith(".")] == ["blog"]
    assert [entry.name for entry in (root / "blog").iterdir()] == ["theirs"]


async def test_probe_tells_another_certificate(nginx: Nginx, web: Host) -> None:
    """The probe names the serial that it found and the one it looked for; without TLS the host is unreachable."""
    await add_sites(nginx, web, "blog")
    old = item("blog", 1, port=nginx.tls_port)
    await put(nginx, web, old)
    await serves(nginx, old)
    with pytest.raises(InstallError, match=f"serves serial {old.serial} \\(expected abc\\)"):
        await probe("127.0.0.1", nginx.tls_port, name_of("blog"), "abc", patience=0.1)
    with pytest.raises(HostUnreachable):
        await probe("127.0.0.1", free_port(), name_of("blog"), old.serial, patience=0.1)
    with pytest.raises(HostUnreachable):
        await probe("127.0.0.1", nginx.http_port, name_of("blog"), old.serial, patience=0.1)
    assert await served("127.0.0.1", nginx.tls_port, "127.0.0.1") == old.serial


async def test_probe_meets_a_certificate_that_cannot_be_read(tmp_path: Path) -> None:
    """An appliance's own, not quite in DER, which TLS takes all the same: it is another one than expected."""
    key = ec.generate_private_key(ec.SECP256R1())
    name, now = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "appliance")]), datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 7, now, now + timedelta(days=1))
    constraints = x509.BasicConstraints(ca=False, path_length=None)
    made = builder.add_extension(constraints, critical=True).sign(key, hashes.SHA256())
    der = made.public_bytes(Encoding.DER).replace(b"\x55\x1d\x13\x01\x01\xff", b"\x55\x1d\x13\x01\x01\x00")
    (tmp_path / "both.pem").write_bytes(pem(key) + ssl.DER_cert_to_PEM_cert(der).encode())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "both.pem")
    async with await asyncio.start_server(lambda *_: None, "127.0.0.1", 0, ssl=context) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(InstallError, match="serves serial unreadable"):
            await probe("127.0.0.1", port, "appliance", "abc", patience=0.1)


async def test_probe_waits_for_a_reload(nginx: Nginx, web: Host) -> None:
    """A probe that starts before the install sees the new certificate as soon as nginx serves it."""
    await add_sites(nginx, web, "blog")
    new = item("blog", 1, port=nginx.tls_port)
    looking = asyncio.create_task(probe("127.0.0.1", nginx.tls_port, name_of("blog"), new.serial, patience=20))
    await local.install(web, [new])
    await looking


async def test_explicit_lines_of_the_snippet(nginx: Nginx, web: Host) -> None:
    """The lines that the snippet offers as a comment work in a server block of one's own after the first install."""
    new = item("blog", 1, port=nginx.tls_port)
    await local.install(web, [new])
    current = f"{web.root}/blog/current"
    nginx.add_site(
        "blog",
        [name_of("blog")],
        f"listen 127.0.0.1:{nginx.tls_port} ssl;"
        f"ssl_certificate {current}/fullchain.pem; ssl_certificate_key {current}/privkey.pem;",
    )
    await nginx.reload()
    await serves(nginx, new)


async def test_private_nginx_says_why_it_does_not_start(tmp_path: Path, nginx: Nginx) -> None:
    """A port that is taken is named."""
    with pytest.raises(ConfigurationError, match=str(nginx.http_port)):
        async with private_nginx(tmp_path / "other", http_port=nginx.http_port, tls_port=free_port()):
            pass


async def test_the_files_for_operators(nginx: Nginx) -> None:
    """Both files in deploy/nginx are taken by nginx; only their ports are changed for the test."""
    deploy = Path(__file__).parents[2] / "deploy" / "nginx"
    nginx.add_site("blog", [name_of("blog")], (deploy / "challenge-location.conf").read_text())
    catch_all = (deploy / "challenges.conf").read_text()
    catch_all = catch_all.replace("listen [::]:80", "listen 127.0.0.1:80").replace(":80 ", f":{free_port()} ")
    catch_all = catch_all.replace("listen 80", f"listen 127.0.0.1:{free_port()}")
    (nginx.directory / "sites" / "catch-all.conf").write_text(catch_all)
    await nginx.reload()


_OWNER = """
import asyncio, os, pathlib, signal, sys
from certfleet.demo.nginx import private_nginx
async def main():
    async with private_nginx(pathlib.Path(sys.argv[1]), http_port=int(sys.argv[2]), tls_port=1) as nginx:
        print(nginx.pid, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""


async def test_private_nginx_dies_with_its_owner(tmp_path: Path) -> None:
    """Even an owner that is killed leaves no nginx behind."""
    arguments = ("-c", _OWNER, str(tmp_path / "nginx"), str(free_port()))
    owner = await asyncio.create_subprocess_exec(sys.executable, *arguments, stdout=asyncio.subprocess.PIPE)
    output, _ = await asyncio.wait_for(owner.communicate(), 30)
    status = Path(f"/proc/{int(output)}/status")
    async with asyncio.timeout(20):
        while status.exists() and "State:\tZ" not in status.read_text():  # noqa: ASYNC110  not our child
            await asyncio.sleep(0.02)
