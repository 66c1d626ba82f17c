"""http-01 when an app's name resolves to several hosts: whichever of them the CA asks, it answers."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest

from certfleet.acme_ca.challenges.http01 import challenge_path
from certfleet.client import Client, open_client
from certfleet.demo.nginx import Nginx, private_nginx
from certfleet.demo.pebble import DemoCA, pebble
from certfleet.demo.ports import free_port
from certfleet.demo.story import running_fleet
from certfleet.errors import OwnerError
from certfleet.install.snippet import snippet
from certfleet.lifecycle.challenges.publishing import AT_ONCE, WEBROOT, Wish, hand_out, visit, wish
from certfleet.lifecycle.fleet import Fleet
from certfleet.lifecycle.work import Waiting
from certfleet.lifecycle.workbench import Workbench, open_workbench
from certfleet.models import App, Host, utcnow
from certfleet.overview import Overview
from certfleet.settings import Settings
from certfleet.store import Store
from certfleet.vault import ensure_key

LIMIT = 60.0  # seconds that a test waits for anything before it has failed
ADDRESSES = {"web1": "127.0.0.2", "web2": "127.0.0.3"}
THUMBPRINT, OTHER = "t" * 43, "o" * 43


@dataclass(frozen=True)
class Two:
    """Two hosts with a web server each, a CA, and a running fleet."""

    client: Client
    ca: DemoCA
    servers: dict[str, Nginx]
    hosts: dict[str, Host]
    settings: Settings
    via: str

    async def add(self, name: str, addresses: Sequence[str]) -> App:
        """An app on both hosts whose name points to these addresses."""
        app = await self.client.add_app(name, [f"{name}.demo.test"], list(self.hosts))
        where = (self.settings.responder_address, self.settings.responder_port)
        for host in self.hosts.values():
            nginx = self.servers[host.name]
            nginx.add_site(name, app.identifiers, snippet(app, host, *where, via=self.via))
            await nginx.reload()
        await self.ca.point(app.identifiers[0], addresses)
        return app

    async def until_served(self, generation: int, on: int = 2) -> list[Overview]:
        """Wait until every app's certificate of this generation is served on so many hosts."""
        views: list[Overview] = []
        for _ in range(round(LIMIT / 0.1)):
            views = [view async for view in self.client.overviews()]
            if all((view.generation, view.served_on) == (generation, on) for view in views):
                return views
            await asyncio.sleep(0.1)
        raise AssertionError(f"not served: {views}")

    def published(self) -> list[str]:
        """Challenges in the hosts' webroots."""
        found: list[str] = []
        for host in self.hosts.values():
            found += [path.name for path in Path(host.webroot).rglob("*") if path.is_file()]
        return found


@asynccontextmanager
async def two_hosts(directory: Path, via: str, **more: Host) -> AsyncIterator[Two]:
    http_port, tls_port, responder, flower = (free_port() for _ in range(4))
    async with (
        private_nginx(directory / "web1", address=ADDRESSES["web1"], http_port=http_port, tls_port=tls_port) as one,
        private_nginx(directory / "web2", address=ADDRESSES["web2"], http_port=http_port, tls_port=tls_port) as two,
        pebble(directory / "ca", http_port=http_port) as ca,
    ):
        settings = Settings(
            home=directory / "home", responder_port=responder, flower_port=flower, nameservers=[ca.dns], workers=2
        )
        async with running_fleet(settings, directory / "fleet.log"), open_client(settings) as client:
            servers = {"web1": one, "web2": two}
            hosts = {
                name: more.get(name)
                or Host(
                    name,
                    address=nginx.address,
                    root=str(nginx.directory / "installed"),
                    webroot=str(nginx.directory / "webroot"),
                    test_command=nginx.test_command,
                    reload_command=nginx.reload_command,
                )
                for name, nginx in servers.items()
            }
            for host in hosts.values():
                await client.add_host(host)
            everywhere = {
                "ca": ca.directory,
                "ca-bundle": ca.bundle,
                "email": "ops@example.com",
                "agree-tos": "on",
                "http-port": str(http_port),
                "port": str(tls_port),
                "listen": "host",
                "challenge-via": via,
            }
            await client.set_properties(everywhere)
            yield Two(client, ca, servers, hosts, settings, via)


@pytest.mark.parametrize("via", ["responder", "stateless", "webroot"])
async def test_a_name_on_several_hosts(short_directory: Path, via: str) -> None:
    """The CA asks the one host, the other, or whichever it likes: every name is proven, and served on both."""
    async with two_hosts(short_directory, via) as fleet:
        await fleet.add("first", [ADDRESSES["web1"]])
        await fleet.add("second", [ADDRESSES["web2"]])
        await fleet.add("both", list(ADDRESSES.values()))
        for name in ("first", "second", "both"):
            await fleet.client.enable(name)
        await fleet.until_served(1)
        for _ in range(600):
            if not fleet.published():
                break
            await asyncio.sleep(0.1)
        assert fleet.published() == [], "what was published is taken away"
        # Another account has another key: hosts that answer by themselves have to learn of it.
        await fleet.client.set_property("email", "other@example.com")
        await fleet.client.renew(["first", "second", "both"], force=True)
        await fleet.until_served(2)


async def test_a_host_that_cannot_take_the_challenge(short_directory: Path) -> None:
    """It does not hold up the others: the certificate is issued, and the journal has the reason."""
    bad = Host(
        "web2",
        address=ADDRESSES["web2"],
        root=str(short_directory / "web2-installed"),
        webroot=str(short_directory / "taken"),
        test_command=("true",),
        reload_command=("true",),
    )
    (short_directory / "taken").touch()
    async with two_hosts(short_directory, "webroot", web2=bad) as fleet:
        await fleet.add("blog", [ADDRESSES["web1"]])
        await fleet.client.enable("blog")
        await fleet.until_served(1, on=1)
        events = {entry.event: entry.detail for entry in await fleet.client.history("blog")}
        assert events["challenge not everywhere"].startswith(f"web2: {bad.webroot} cannot be made")


# ------------------------------------------------------------------------- the steps, one at a time


@pytest.fixture
async def bench(settings: Settings, store: Store) -> AsyncIterator[Workbench]:
    del store  # emptied
    ensure_key(settings)
    async with open_workbench(settings) as opened:
        yield opened


@pytest.fixture
async def host(bench: Workbench, tmp_path: Path) -> Host:
    """A host whose web server takes everything."""
    found = Host(
        "web1",
        root=str(tmp_path / "installed"),
        webroot=str(tmp_path / "webroot"),
        test_command=("true",),
        reload_command=("sh", "-c", f"echo reload >>{tmp_path}/reloads"),
    )
    await bench.fleet.inventory.add_host(found)
    return found


APP = App("blog", ("blog.example.test", "www.example.test"), ("web1",), enabled=True)


def reloads(tmp_path: Path) -> int:
    note = tmp_path / "reloads"
    return len(note.read_text().splitlines()) if note.exists() else 0


def challenges(host: Host) -> list[str]:
    directory = Path(host.webroot + challenge_path(""))
    return sorted(path.name for path in directory.iterdir()) if directory.exists() else []


async def wait_for(fleet: Fleet, wanted: Wish, app: App = APP) -> tuple[str, ...]:
    """The order's side: what it waits for; nothing when the hosts have it."""
    try:
        await hand_out(fleet, app, wanted, None)
    except Waiting as waiting:
        return waiting.members
    return ()


async def published(bench: Workbench, token: str) -> None:
    """As an order keeps what a token is answered with."""
    await bench.fleet.store.redis.set(bench.fleet.store.key("challenge", token), f"{token}.{THUMBPRINT}", ex=3600)


async def test_a_worker_that_died_leaves_nothing(bench: Workbench, host: Host) -> None:
    """Whether the order ended, or nobody ever came back to it: the host's next look takes its challenge away."""
    await published(bench, "one")
    await published(bench, "two")
    wanted = wish(APP, WEBROOT, ["one", "two"], THUMBPRINT)
    assert await wait_for(bench.fleet, wanted) == ("host:web1",)
    again, members = await visit(bench, host)
    assert members == ("order:blog",)
    assert again is not None
    assert again > utcnow()
    assert await wait_for(bench.fleet, wanted) == ()
    assert challenges(host) == ["one", "two"]
    await bench.fleet.store.redis.delete(bench.fleet.store.key("challenge", "one"))  # its time is over
    await visit(bench, host)
    assert challenges(host) == ["two"]
    await bench.fleet.store.redis.delete(bench.fleet.store.key("challenge", "two"))
    assert (await visit(bench, host), challenges(host)) == ((None, ()), [])


async def test_a_host_that_failed_is_asked_again(bench: Workbench, host: Host, tmp_path: Path) -> None:
    """The order fails with the reason; the next try does not go by what was there before, and finds it mended."""
    await published(bench, "one")
    wanted = wish(APP, WEBROOT, ["one"], THUMBPRINT)
    (tmp_path / "webroot").touch()
    assert await wait_for(bench.fleet, wanted)
    _, members = await visit(bench, host)
    assert members == ("order:blog",)
    with pytest.raises(OwnerError, match=r"web1: .*webroot cannot be made"):
        await hand_out(bench.fleet, APP, wanted, None)
    (tmp_path / "webroot").unlink()
    await asyncio.sleep(1.1)  # times are whole seconds: a failure of this one would count
    assert await wait_for(bench.fleet, wanted) == ("host:web1",)
    await visit(bench, host)
    assert await wait_for(bench.fleet, wanted) == ()


async def test_what_no_order_asks_for_any_more_is_forgotten(bench: Workbench, host: Host) -> None:
    """The order was given up while its host was out of reach: nobody goes on knocking there for its sake."""
    away = dataclasses.replace(host, driver="nowhere")
    assert await wait_for(bench.fleet, wish(APP, "stateless", [], THUMBPRINT))
    again, _ = await visit(bench, away)
    assert again is not None, "the order may wait for it still"
    key = bench.fleet.store.key("unwritten", "web1")
    [text] = await bench.fleet.store.redis.hvals(key)
    since, _, rest = text.partition(" ")
    await bench.fleet.store.redis.hset(key, "blog", f"{int(since) - 2 * 3600} {rest}")
    assert await visit(bench, away) == (None, ())
    assert await bench.fleet.store.redis.hgetall(key) == {}


async def test_many_orders_one_session_and_one_reload(bench: Workbench, host: Host, tmp_path: Path) -> None:
    """What waits for a host is written together; the same again costs nothing, a new key one reload more."""
    apps = [App(f"app{number}", (f"app{number}.example.test",), ("web1",), enabled=True) for number in range(50)]
    for thumbprint, count in ((THUMBPRINT, 1), (THUMBPRINT, 1), (OTHER, 2)):
        for app in apps:
            await wait_for(bench.fleet, wish(app, "stateless", [], thumbprint), app)
        await visit(bench, host)
        for app in apps:
            assert await wait_for(bench.fleet, wish(app, "stateless", [], thumbprint), app) == ()
        assert reloads(tmp_path) == count
    assert len(apps) < AT_ONCE


async def test_more_than_one_session_takes(bench: Workbench, host: Host) -> None:
    """Apps with long lists of names, more than the receiver reads at once: the rest follows without a pause."""
    names = tuple(f"{'a' * 60}.{'b' * 60}.{number}.example.test" for number in range(100))
    apps = [App(f"app{number}", names, ("web1",), enabled=True) for number in range(100)]
    for app in apps:
        await wait_for(bench.fleet, wish(app, "stateless", [], THUMBPRINT), app)
    again, _ = await visit(bench, host)
    assert again is not None
    assert again <= utcnow(), "the others do not wait"
    await visit(bench, host)
    for app in apps:
        assert await wait_for(bench.fleet, wish(app, "stateless", [], THUMBPRINT), app) == ()


async def test_after_a_failure_the_book_is_not_believed(bench: Workbench, host: Host, tmp_path: Path) -> None:
    """A host that was restored from a backup has lost what is on record: the next try writes it again."""
    wanted = wish(APP, "stateless", [], THUMBPRINT)
    await wait_for(bench.fleet, wanted)
    await visit(bench, host)
    lost = tmp_path / "installed" / "challenges.d" / "blog.conf"
    lost.unlink()
    assert await wait_for(bench.fleet, wanted) == ()
    with pytest.raises(Waiting):
        await hand_out(bench.fleet, APP, wanted, utcnow() + timedelta(seconds=1))
    await visit(bench, host)
    assert lost.exists()


async def test_one_apps_snippet_is_refused_alone(bench: Workbench, tmp_path: Path) -> None:
    """The web server does not take it: that app's order hears why, the others go on."""
    picky = Host(
        "web1",
        root=str(tmp_path / "installed"),
        test_command=("sh", "-c", f"[ ! -e {tmp_path}/installed/challenges.d/shop.conf ] || {{ echo no; exit 1; }}"),
        reload_command=("true",),
    )
    shop = App("shop", ("shop.example.test",), ("web1",), enabled=True)
    for app in (APP, shop):
        await wait_for(bench.fleet, wish(app, "stateless", [], THUMBPRINT), app)
    _, members = await visit(bench, picky)
    assert set(members) == {"order:blog", "order:shop"}
    assert await wait_for(bench.fleet, wish(APP, "stateless", [], THUMBPRINT)) == ()
    with pytest.raises(OwnerError, match="does not take the challenge snippet: no"):
        await hand_out(bench.fleet, shop, wish(shop, "stateless", [], THUMBPRINT), None)
