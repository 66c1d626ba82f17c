"""The Dokku driver, against the stand-in behind a real sshd and before a real nginx."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import aiohttp
import pytest
from cryptography import x509

from certfleet.errors import HostUnreachable, InstallError
from certfleet.install.answer import State
from certfleet.install.bundle import Item
from certfleet.install.drivers import dokku as driver_module
from certfleet.install.drivers.dokku import Dokku
from certfleet.install.installer import Installer
from certfleet.install.probe import probe
from certfleet.install.snippet import snippet
from certfleet.install.stamp import read_stamp
from certfleet.models import App, Fault, Host
from certfleet.settings import Settings
from certfleet.store import Store
from tests.hosts.dokku import DokkuHost, as_dokku
from tests.hosts.field import Field, field
from tests.hosts.fleet import Hosts, hosts
from tests.hosts.relay import relay
from tests.hosts.sessions import sessions
from tests.install.certificates import item, name_of

APPS = ("blog", "shop", "wiki")


@dataclasses.dataclass(slots=True)
class Rig:
    """A Dokku host with three apps, and the driver with a key that Dokku knows."""

    fleet: Hosts
    there: DokkuHost
    host: Host
    driver: Dokku

    async def install(self, *items: Item) -> dict[str, State]:
        """Install; what became of each."""
        answer = await self.driver.install(self.host, items)
        return {app: said.state for app, said in answer.apps.items()}

    async def serves(self, *items: Item) -> None:
        """The live endpoint shows each of them."""
        for one in items:
            await probe(self.host.address, 443, name_of(one.app), one.serial)

    def kept(self, app: str) -> bytes:
        """server.crt and server.key, as Dokku has them; the key fits."""
        return self.there.path(app, "tls", "server.crt").read_bytes()


@pytest.fixture
async def rig(short_directory: Path) -> AsyncIterator[Rig]:
    """All of it."""
    async with hosts(short_directory / "hosts", 1) as fleet, sessions(fleet) as connections:
        there = await as_dokku(fleet[0])
        await there.add_key(fleet.public_key)
        for app in APPS:
            await there.create_app(app, [name_of(app)])
        machine = fleet[0]
        host = Host("web1", "dokku", address=machine.address, login=there.login, host_keys=(machine.host_key,))
        yield Rig(fleet, there, host, Dokku(connections))
        assert there.violations() == "", "the driver did what Dokku's documentation does not promise"


async def test_install_and_renew(rig: Rig) -> None:
    """Each app is plain HTTP, then serves the first certificate, then the next; a reload for each."""
    before = rig.fleet[0].reloads()
    for generation in (1, 2):
        items = [item(app, generation) for app in APPS]
        answer = await rig.driver.install(rig.host, items)
        assert {said.state for said in answer.apps.values()} == {State.INSTALLED}
        assert {(said.generation, said.previous) for said in answer.apps.values()} == {(generation, generation - 1)}
        assert answer.reloads == len(APPS)
        await rig.serves(*items)
    again = await rig.driver.install(rig.host, items)
    assert {said.state for said in again.apps.values()} == {State.UNCHANGED}
    assert rig.fleet[0].reloads() - before == 2 * len(APPS)
    anew = [dataclasses.replace(one, again=True) for one in items]
    assert set((await rig.install(*anew)).values()) == {State.INSTALLED}


async def test_status_and_remove(rig: Rig) -> None:
    """What is ours, what is not, and what is none; only ours is taken away, and the app goes on without TLS."""
    ours, theirs = item("blog", 7), item("shop")
    await rig.install(ours)
    await put_by_hand(rig, theirs)
    status = (await rig.driver.status(rig.host)).apps
    assert (status["blog"].state, status["blog"].generation, status["blog"].serial) == (State.CURRENT, 7, ours.serial)
    assert status["shop"].state is State.FOREIGN
    assert "wiki" not in status
    removed = (await rig.driver.remove(rig.host, APPS)).apps
    assert {app: said.state for app, said in removed.items()} == {
        "blog": State.REMOVED,
        "shop": State.FOREIGN,
        "wiki": State.REMOVED,
    }
    assert not rig.there.path("blog", "tls").exists()
    await rig.serves(theirs)


async def put_by_hand(rig: Rig, one: Item) -> None:
    """As an operator does, without us."""
    tls = rig.there.path(one.app, "tls")
    tls.mkdir(exist_ok=True)
    (tls / "server.crt").write_text(one.fullchain)
    (tls / "server.key").write_bytes(one.private_key)
    site = rig.there.path(one.app, "nginx.conf")
    current = f"/home/dokku/{one.app}/tls/server"
    site.write_text(
        f"server {{ listen [::]:443 ssl; listen 443 ssl; server_name {name_of(one.app)};"
        f" ssl_certificate {current}.crt; ssl_certificate_key {current}.key; }}\n"
    )
    await rig.fleet[0].reload_nginx()


async def test_foreign_is_left_alone_until_adopted(rig: Rig) -> None:
    """A certificate of somebody else's stays, until the operator says otherwise; and even then there is a way back."""
    theirs, ours = item("blog"), item("blog", 3)
    await put_by_hand(rig, theirs)
    before = rig.kept("blog")
    assert await rig.install(ours) == {"blog": State.FOREIGN}
    assert rig.kept("blog") == before
    assert await rig.install(dataclasses.replace(ours, adopt=True)) == {"blog": State.INSTALLED}
    await rig.serves(ours)
    back = await rig.driver.rollback(rig.host, {"blog": 0})
    assert back.apps["blog"].state is State.ROLLED_BACK
    assert rig.kept("blog") == before
    await rig.serves(theirs)


async def test_an_older_one_that_comes_late(rig: Rig) -> None:
    """Never replaces a newer one; nor does another certificate of the same number."""
    new = item("blog", 5)
    await rig.install(new)
    assert await rig.install(item("blog", 4)) == {"blog": State.STALE}
    assert await rig.install(item("blog", 5)) == {"blog": State.STALE}
    await rig.serves(new)


async def test_a_key_that_does_not_fit_is_never_sent(rig: Rig) -> None:
    """Dokku would put it where nginx stumbles over it at its next reload; the others of the batch go live."""
    old, good = item("blog", 1), item("shop", 2)
    await rig.install(old)
    assert await rig.install(item("blog", 2, mismatched=True), good) == {
        "blog": State.FAILED,
        "shop": State.INSTALLED,
    }
    await rig.serves(old, good)


async def test_what_nginx_refuses_is_put_back(rig: Rig) -> None:
    """Dokku has replaced the files when its nginx says no: the old ones are back before the next reload."""
    old, other = item("blog", 1), item("shop", 1)
    await rig.install(old, other)
    before = rig.kept("blog")
    # The leaf is well and fits its key; what follows is no certificate, which only nginx looks at.
    good = item("blog", 2)
    chain = good.fullchain.index("-----BEGIN", 10)
    nonsense = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
    broken = dataclasses.replace(good, fullchain=good.fullchain[:chain] + nonsense)
    answer = await rig.driver.install(rig.host, [broken])
    said = answer.apps["blog"]
    assert (said.state, said.generation, said.serial) == (State.FAILED, 1, old.serial)
    assert "nginx" in (said.message or "")
    assert rig.kept("blog") == before
    await rig.fleet[0].reload_nginx()
    await rig.serves(old, other)


async def test_rollback(rig: Rig) -> None:
    """To the certificate and key of before, or to none; what is not at hand any more is said, and nothing changes."""
    first, second, shop = item("blog", 1), item("blog", 2), item("shop", 1)
    await rig.install(first)
    await rig.install(second, shop)
    answer = await rig.driver.rollback(rig.host, {"blog": 1, "shop": 0, "wiki": 4})
    assert answer.apps["blog"].state is State.ROLLED_BACK
    assert (answer.apps["blog"].generation, answer.apps["blog"].serial) == (1, first.serial)
    assert (answer.apps["shop"].state, answer.apps["shop"].generation) == (State.ROLLED_BACK, 0)
    assert answer.apps["wiki"].state is State.FAILED
    await rig.serves(first)
    assert not rig.there.path("shop", "tls").exists()
    assert await rig.install(second, shop) == {"blog": State.INSTALLED, "shop": State.INSTALLED}
    await rig.serves(second, shop)


async def test_old_keys_are_forgotten(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was replaced is not kept for ever; then there is no way back any more, and the answer says so."""
    monkeypatch.setattr(driver_module, "HELD", 0.05)
    await rig.install(item("blog", 1))
    second = item("blog", 2)
    await rig.install(second)
    await asyncio.sleep(0.2)
    answer = await rig.driver.rollback(rig.host, {"blog": 1})
    assert (answer.apps["blog"].state, answer.apps["blog"].generation) == (State.FAILED, 2)
    assert "not at hand any more" in (answer.apps["blog"].message or "")
    await rig.serves(second)


async def test_broken_before(rig: Rig) -> None:
    """When nginx refuses its configuration before we came, nothing is touched, and the answer has its words."""
    old = item("blog", 1)
    await rig.install(old)
    before = rig.kept("blog")
    rig.fleet[0].break_nginx()
    answer = await rig.driver.install(rig.host, [item("blog", 2), item("shop", 1)])
    assert {said.state for said in answer.apps.values()} == {State.BROKEN_BEFORE}
    assert "no_such_directive" in (answer.apps["shop"].message or "")
    assert rig.kept("blog") == before
    rig.fleet[0].mend_nginx()
    await rig.serves(old)


async def test_no_such_app(rig: Rig) -> None:
    """The answer says what to type."""
    answer = await rig.driver.install(rig.host, [item("forum"), item("blog")])
    assert answer.apps["forum"].state is State.FAILED
    assert "dokku apps:create forum" in (answer.apps["forum"].message or "")
    assert answer.apps["blog"].state is State.INSTALLED


async def test_without_a_way_back(rig: Rig) -> None:
    """Where certs:show is not allowed, nobody knows whose certificate is there: nothing is replaced."""
    old = item("blog", 1)
    await rig.install(old)
    rig.fleet[0].path("/home/dokku/no-certs-show").touch()
    with pytest.raises(InstallError, match="certs:show blog crt` failed"):
        await rig.driver.install(rig.host, [item("blog", 2)])
    await rig.serves(old)


async def test_cut_in_the_middle_of_the_tar(rig: Rig) -> None:
    """Half an archive is no archive for Dokku; afterwards the same thing is sent again, and comes through."""
    old, new = item("blog", 1), item("blog", 2)
    await rig.install(old)
    before = rig.kept("blog")
    async with relay(rig.host.address, 22) as wire:
        far = dataclasses.replace(rig.host, login=f"dokku@127.0.0.1:{wire.port}")
        await rig.driver.status(far)  # the connection is there and kept
        for room in (100, 1500, 3000):
            wire.cut_after = room
            with pytest.raises(HostUnreachable):
                await rig.driver.install(far, [new])
            assert rig.kept("blog") == before
            wire.cut_after = None
            await rig.driver.status(far)
        await rig.fleet[0].reload_nginx()
        await rig.serves(old)
        assert (await rig.driver.install(far, [new])).apps["blog"].state is State.INSTALLED
    await rig.serves(new)


async def test_the_stamp(rig: Rig) -> None:
    """Our line before the certificate is passed over by OpenSSL and by nginx, and tells of this certificate only."""
    ours, theirs = item("blog", 9), item("blog", 9)
    await rig.install(ours)
    stamp = read_stamp(rig.kept("blog"))
    assert stamp is not None
    assert (stamp.generation, stamp.serial) == (9, ours.serial)
    assert f"{x509.load_pem_x509_certificate(rig.kept('blog')).serial_number:x}" == ours.serial
    line = rig.kept("blog").partition(b"\n")[0]
    assert read_stamp(line + b"\n" + theirs.fullchain.encode()) is None
    assert read_stamp(theirs.fullchain.encode()) is None


async def test_check(rig: Rig) -> None:
    """Point by point."""
    report = await rig.driver.check(rig.host)
    assert all(point.ok for point in report.points), report.points
    assert report.points[0].message.startswith("dokku version")
    rig.fleet[0].break_nginx()
    report = await rig.driver.check(rig.host)
    assert [point.name for point in report.points if not point.ok] == ["configuration test"]


@pytest.mark.parametrize("redirect", [False, True])
async def test_challenges(rig: Rig, redirect: bool) -> None:  # noqa: FBT001
    """The snippet's file answers challenges before and after the first certificate, by proxy or by redirection."""
    seen: list[str] = []
    gateway = rig.fleet[0].gateway

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append((await reader.readline()).decode().split()[1])
        writer.write(b"HTTP/1.0 200 OK\r\nContent-Length: 4\r\n\r\nyes\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, gateway, 0)
    port = server.sockets[0].getsockname()[1]
    app = App("blog", (name_of("blog"),), ("web1",))
    passed_to = f"http://{gateway}:{port}" if redirect else ""
    text = snippet(app, rig.host, gateway, port, passed_to=passed_to)
    rig.there.path("blog", "nginx.conf.d", "certfleet.conf").write_text(text)
    await rig.fleet[0].reload_nginx()
    path = "/.well-known/acme-challenge/token"
    async with server, aiohttp.ClientSession() as session:
        for _ in range(2):
            headers = {"Host": name_of("blog")}
            async with session.get(f"http://{rig.host.address}{path}", headers=headers) as response:
                assert await response.text() == "yes\n"
            await rig.install(item("blog"))
    assert seen == [path, path]
    for via in ("webroot", "stateless"):
        with pytest.raises(InstallError, match="challenge-via of blog to responder"):
            snippet(app, rig.host, gateway, port, via=via)


async def test_no_secret_is_told(rig: Rig, capsys: pytest.CaptureFixture[str]) -> None:
    """Neither in what the driver says nor on the host's command lines is there any of a key."""
    items: Sequence[Item] = [item("blog"), item("shop")]
    commands: list[str] = []

    async def look() -> None:
        while True:
            commands.append(await rig.fleet[0].run("ps", "-ww", "-eo", "args="))

    looking = asyncio.create_task(look())
    answer = await rig.driver.install(rig.host, items)
    looking.cancel()
    await asyncio.gather(looking, return_exceptions=True)
    told = repr(answer) + repr(rig.driver._held) + "".join(commands) + "".join(capsys.readouterr())
    for one in items:
        for line in one.private_key.decode().splitlines()[1:-1]:
            assert line not in told


@pytest.fixture
async def plot(short_directory: Path, settings: Settings, store: Store) -> AsyncIterator[tuple[Field, DokkuHost]]:
    """A Dokku host as the fleet's steps see it, with one app."""
    del store
    async with field(short_directory, settings, 1) as running:
        there = await as_dokku(running.fleet[0])
        await there.add_key(await Installer(running.bench.fleet.store, running.bench.vault).public_key())
        await there.create_app("blog", [name_of("blog")])
        await running.change_host("web1", driver="dokku", login=there.login)
        await running.client.add_app("blog", [name_of("blog")], ["web1"], {"email": "ops@example.com"})
        await running.client.enable("blog")
        yield running, there
        assert there.violations() == ""


async def test_what_is_not_served_is_put_back(plot: tuple[Field, DokkuHost]) -> None:
    """The endpoint is what counts: Dokku says that all is well and shows the old one, so the old one is put back."""
    running, there = plot
    first = (await running.issue("blog"))["blog"]
    await running.run()
    known = await running.one("blog", "web1")
    assert (known.served, known.error) == (1, None)
    await running.proven("blog", "web1", first.serial)
    there.machine.path("/home/dokku/no-reload").touch()
    second = (await running.issue("blog"))["blog"]
    await running.run()
    known = await running.one("blog", "web1")
    assert (known.wanted, known.installed, known.served, known.fault) == (2, 1, 1, Fault.UNSERVED)
    assert "the old one is back" in (known.error or "")
    stamp = read_stamp(there.path("blog", "tls", "server.crt").read_bytes())
    assert stamp is not None
    assert (stamp.generation, stamp.serial) == (1, first.serial)
    there.machine.path("/home/dokku/no-reload").unlink()
    known = await running.again("blog", "web1")
    assert (known.served, known.error) == (2, None)
    await running.proven("blog", "web1", second.serial)
