"""What differs on hosts later is found, and put right: by the endpoints, by what is current there, by hand."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from certfleet.install.answer import State as Said
from certfleet.install.drivers import local
from certfleet.lifecycle.records import check_member
from certfleet.models import Fault, Host, utcnow
from certfleet.overview import State
from certfleet.settings import Settings
from certfleet.store import Store
from tests.lifecycle.farm import Farm, farm
from tests.lifecycle.test_many_hosts import overview, replace_host


@pytest.fixture
async def four(short_directory: Path, settings: Settings, store: Store) -> AsyncIterator[Farm]:
    """Four hosts on an empty Redis."""
    del store
    async with farm(short_directory, settings, 4) as running:
        yield running


@pytest.fixture
async def served_everywhere(four: Farm) -> Farm:
    """Blog and wiki on four hosts, their second generation."""
    for name in ("blog", "wiki"):
        await four.add(name)
    await four.reload()
    for _ in range(2):
        await four.issue("blog", "wiki")
        await four.run()
    assert (await overview(four, "blog"))[:2] == (State.SERVED, 4)
    return four


async def test_a_look_that_finds_nothing_touches_nothing(served_everywhere: Farm) -> None:
    """Endpoints are asked, and no host is visited for it; a second look soon after asks nobody."""
    reloads = {name: server.reloads() for name, server in served_everywhere.servers.items()}
    await served_everywhere.forget_looks("blog")
    await served_everywhere.check("blog")
    asked = {host: one.asked for host, one in (await served_everywhere.state("blog")).items()}
    assert all(asked.values())
    await served_everywhere.check("blog")
    assert {host: one.asked for host, one in (await served_everywhere.state("blog")).items()} == asked
    assert {name: server.reloads() for name, server in served_everywhere.servers.items()} == reloads


async def test_a_reload_that_did_not_take_is_made_up_for(served_everywhere: Farm) -> None:
    """The files are the new ones and the endpoint serves the old: seen by the next look, healed by one reload."""
    farm = served_everywhere
    silent = dataclasses.replace(farm.hosts["web3"], reload_command=("true",))
    new = (await farm.issue("blog"))["blog"]
    await replace_host(farm, silent)
    await farm.run()
    failed = (await farm.state("blog"))["web3"]
    assert failed.fault is Fault.UNSERVED
    assert "expected" in (failed.error or "")
    await replace_host(farm, farm.hosts["web3"])
    await farm.client.renew(["blog"])
    await farm.run("host", "check")
    await farm.sees("blog", new.serial)


async def test_a_visit_whose_end_nobody_heard_of(served_everywhere: Farm) -> None:
    """Its worker died before it asked the endpoint, which does not take the certificate: the old one is put back."""
    farm = served_everywhere
    old = (await farm.state("blog"))["web1"].served
    silent = dataclasses.replace(farm.hosts["web1"], reload_command=("true",))
    await replace_host(farm, silent)
    new = (await farm.issue("blog"))["blog"]
    died = await local.install(silent, [dataclasses.replace(new, listen=silent.address)])
    assert died.apps["blog"].state is Said.INSTALLED
    await farm.run()
    failed = (await farm.state("blog"))["web1"]
    assert (failed.fault, failed.installed, failed.served) == (Fault.UNSERVED, old, old)
    assert "the old one is back" in (failed.error or "")
    assert (Path(silent.root) / "blog" / "current").readlink().name == str(old)
    await replace_host(farm, farm.hosts["web1"])
    await farm.client.renew(["blog"])
    await farm.run("host", "check")
    await farm.sees("blog", new.serial)


async def test_an_endpoint_that_shows_something_else_is_healed(served_everywhere: Farm) -> None:
    """Nginx was started with an older state of its files, and they are right by now: a look, a reload, served."""
    farm, current = served_everywhere, Path(served_everywhere.hosts["web2"].root) / "blog" / "current"
    await relink(current, "1")
    await farm.servers["web2"].reload()
    await relink(current, "2")
    before = await farm.seen("blog")
    assert before["web2"] != before["web1"]
    await farm.forget_looks("blog")
    reloads = farm.servers["web2"].reloads()
    await farm.check("blog")
    assert farm.servers["web2"].reloads() - reloads == 1
    assert (await overview(farm, "blog"))[:2] == (State.SERVED, 4)
    await farm.sees("blog")
    assert any(line.startswith("drift: web2: blog.example.test") for line in await farm.events("blog"))


async def relink(current: Path, generation: str) -> None:
    link = current.with_name("mine")
    link.symlink_to(generation)
    link.rename(current)


async def test_a_host_restored_from_a_backup_is_healed(served_everywhere: Farm) -> None:
    """Everything in its root is as it was a generation ago: one visit puts all its apps right."""
    farm, root = served_everywhere, Path(served_everywhere.hosts["web4"].root)
    for app in ("blog", "wiki"):
        await relink(root / app / "current", "1")
        shutil.rmtree(root / app / "2")
    await farm.servers["web4"].reload()
    reloads = farm.servers["web4"].reloads()
    await farm.forget_looks("blog")
    await farm.forget_looks("wiki")
    agenda = farm.bench.fleet.agenda
    for app in ("blog", "wiki"):
        await agenda.schedule(check_member(app), utcnow())
    await farm.run("check", "host")
    assert farm.servers["web4"].reloads() - reloads == 1
    for app in ("blog", "wiki"):
        assert (await overview(farm, app))[:2] == (State.SERVED, 4)
        await farm.sees(app)


async def test_what_would_be_served_after_a_restart_is_looked_at_too(served_everywhere: Farm) -> None:
    """The endpoint is right, the files are not: the host is asked what is current there, and put right."""
    farm, root = served_everywhere, Path(served_everywhere.hosts["web1"].root)
    await relink(root / "blog" / "current", "1")
    shutil.rmtree(root / "wiki")
    await farm.bench.fleet.records.audit_now(["web1"])
    await farm.visit("web1")
    assert (root / "blog" / "current").readlink() == Path("2")
    assert (root / "wiki" / "current").readlink() == Path("2")
    assert (await overview(farm, "blog"))[:2] == (State.SERVED, 4)
    assert any("generation 1 is current, not 2" in line for line in await farm.events("blog"))
    assert any("is not there any more" in line for line in await farm.events("wiki"))


async def test_another_machine_of_the_same_name(served_everywhere: Farm) -> None:
    """Taken from its apps, removed, and added again with nothing on it: what the host once had is not believed."""
    farm = served_everywhere
    for app in ("blog", "wiki"):
        await farm.client.change_app(app, hosts=["web1", "web3", "web4"])
    await farm.client.remove_host("web2")
    shutil.rmtree(farm.hosts["web2"].root)
    await farm.servers["web2"].reload()
    await farm.client.add_host(farm.hosts["web2"])
    for app in ("blog", "wiki"):
        await farm.client.change_app(app, hosts=list(farm.hosts))
    await farm.run("check", "host")
    for app in ("blog", "wiki"):
        await farm.sees(app)
        assert (await overview(farm, app))[:2] == (State.SERVED, 4)


async def test_a_host_that_was_set_up_anew(served_everywhere: Farm, monkeypatch: pytest.MonkeyPatch) -> None:
    """A person trusts its new key: what it had is looked for at once, and goes there again."""
    farm, again = served_everywhere, served_everywhere.hosts["web2"]
    await replace_host(farm, dataclasses.replace(again, driver="ssh", login="root@web2.example.test"))
    shutil.rmtree(again.root)
    await farm.servers["web2"].reload()

    async def pin(host: Host, approve: object) -> Host:
        del host, approve
        return again

    monkeypatch.setattr(farm.client, "pin", pin)
    await farm.client.trust_host("web2", lambda _login, shown: shown[0])
    await farm.run("check", "host")
    for app in ("blog", "wiki"):
        await farm.sees(app)
        assert (await overview(farm, app))[:2] == (State.SERVED, 4)


@pytest.mark.parametrize("broken", [False, True], ids=["another certificate", "a configuration that fails"])
async def test_files_changed_by_hand_are_put_right(served_everywhere: Farm, *, broken: bool) -> None:
    """Somebody copied other files over ours: they are ours again, even when nginx would not have started with them."""
    farm, root = served_everywhere, Path(served_everywhere.hosts["web2"].root)
    right = (await farm.seen("blog"))["web1"]
    for name in ("fullchain.pem", "privkey.pem"):
        if not (broken and name == "privkey.pem"):
            (root / "blog" / "current" / name).write_bytes((root / "wiki" / "current" / name).read_bytes())
    if not broken:
        await farm.servers["web2"].reload()
        assert (await farm.seen("blog"))["web2"] != right
        await farm.forget_looks("blog")
        await farm.check("blog")
    else:  # the endpoint is still right: seen when something new goes there
        right = (await farm.issue("wiki"))["wiki"].serial
        await farm.bench.fleet.records.pend("web2", "blog")
        await farm.bench.fleet.records.amend("blog", "web2", lambda known: dataclasses.replace(known, served=0))
        await farm.run()
    await farm.sees("wiki" if broken else "blog", right)
    for app in ("blog", "wiki"):
        assert (await overview(farm, app))[:2] == (State.SERVED, 4)
    await farm.servers["web2"].reload()


async def test_a_host_that_does_not_answer_is_told_and_holds_nobody(served_everywhere: Farm) -> None:
    """It is served on 3 of 4, and told which one not, and why; it heals when the server is back."""
    farm = served_everywhere
    sites = farm.servers["web3"].directory / "sites"
    (sites / "blog.conf").rename(sites / "blog.away")
    (sites / "wiki.conf").rename(sites / "wiki.away")
    await farm.servers["web3"].reload()
    await farm.forget_looks("blog")
    await farm.check("blog")
    assert (await overview(farm, "blog"))[:2] == (State.FAILING, 3)
    one = (await farm.state("blog"))["web3"]
    assert "does not answer with TLS" in (one.error or "")
    assert one.retry_at is not None
    (sites / "blog.away").rename(sites / "blog.conf")
    (sites / "wiki.away").rename(sites / "wiki.conf")
    await farm.servers["web3"].reload()
    await farm.client.renew(["blog"])
    await farm.run("check", "host")
    assert (await overview(farm, "blog"))[:2] == (State.SERVED, 4)
