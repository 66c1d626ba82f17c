"""A certificate on its way to many hosts: gathered, in waves, proven at each endpoint, and put right when it drifts."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from pathlib import Path

import pytest

from certfleet.errors import HostUnreachable
from certfleet.install.answer import Answer
from certfleet.install.bundle import Item
from certfleet.install.drivers import local
from certfleet.lifecycle.records import check_member, host_member
from certfleet.models import Fault, Host, Installation, utcnow
from certfleet.overview import State
from certfleet.settings import Settings
from certfleet.store import Store
from tests.lifecycle.farm import Farm, farm


@pytest.fixture
async def four(short_directory: Path, settings: Settings, store: Store) -> AsyncIterator[Farm]:
    """Four hosts on an empty Redis."""
    del store
    async with farm(short_directory, settings, 4) as running:
        yield running


async def overview(farm: Farm, app: str) -> tuple[State, int, str | None]:
    [view] = [view async for view in farm.client.overviews([app])]
    return view.state, view.served_on, view.wave


async def test_a_new_app_goes_everywhere_at_once(four: Farm) -> None:
    """No host has anything to lose: one visit each, and all serve it."""
    await four.add("blog")
    await four.reload()
    new = (await four.issue("blog"))["blog"]
    assert sorted(await four.run()) == [host_member(f"web{number}") for number in (1, 2, 3, 4)]
    assert await overview(four, "blog") == (State.SERVED, 4, None)
    await four.sees("blog", new.serial)
    assert all(one.proven == one.served == one.installed == 1 for one in (await four.state("blog")).values())


async def test_two_hundred_certificates_in_one_session_and_one_reload(four: Farm) -> None:
    """What gathers for a host goes there together: one visit, one test, one reload, counted by nginx itself."""
    names = [f"app{number}" for number in range(200)]
    for name in names:
        await four.add(name, ["web1"])
    await four.reload()
    before = four.servers["web1"].reloads()
    issued = await four.issue(*names)
    assert await four.run() == [host_member("web1")]
    assert four.servers["web1"].reloads() - before == 1
    for name in ("app0", "app99", "app199"):
        assert (await four.seen(name))["web1"] == issued[name].serial
    views = [view async for view in four.client.overviews()]
    assert [view.state for view in views] == [State.SERVED] * 200


async def test_a_bad_one_among_many_is_put_back_alone(four: Farm) -> None:
    """The others of the same visit are live by then; the bad one says why, and when it is tried again."""
    names = [f"app{number}" for number in range(9)]
    for name in names:
        await four.add(name, ["web1"])
    await four.reload()
    await four.issue(*names)
    await four.run()
    before = four.servers["web1"].reloads()
    old = await four.seen("app4")
    await four.issue(*[name for name in names if name != "app4"])
    await four.issue("app4", mismatched=True)
    await four.run()
    assert four.servers["web1"].reloads() - before == 1
    bad = (await four.state("app4"))["web1"]
    assert (bad.fault, bad.installed, bad.served, bad.wanted) == (Fault.REFUSED, 1, 1, 2)
    assert "key values mismatch" in (bad.error or "")
    assert bad.retry_at is not None
    assert await four.seen("app4") == old
    assert [(await overview(four, name))[0] for name in names if name != "app4"] == [State.SERVED] * 8


async def test_a_renewal_goes_in_waves(four: Farm) -> None:
    """One host first, and the others only when it serves the certificate; each host is visited once."""
    await four.add("blog", wave="1, 3")
    await four.reload()
    await four.issue("blog")
    await four.run()
    new = (await four.issue("blog"))["blog"]
    assert await overview(four, "blog") == (State.INSTALLING, 0, "1 of 3, 0 of 4 hosts done")
    order = await four.run()
    assert order[0] == host_member("web1")
    assert sorted(order[1:3]) == [host_member("web2"), host_member("web3")]
    assert order[3:] == [host_member("web4")]
    await four.sees("blog", new.serial)


async def test_a_failure_stops_the_wave_until_it_is_mended(four: Farm) -> None:
    """The canary refuses: all keep the old certificate, the journal says so, and `renew` goes on afterwards."""
    await four.add("blog")
    await four.reload()
    old = (await four.issue("blog"))["blog"]
    await four.run()
    four.servers["web1"].add_site("picky", ["picky.example.test"], _serves_only(four, old.generation))
    await four.issue("blog")
    await four.run()
    await four.sees("blog", old.serial)
    state, served, wave = await overview(four, "blog")
    assert (state, served, wave) == (
        State.FAILING,
        0,
        "stopped by web1: 3 hosts keep the older certificate",
    )
    [stopped] = [line for line in await four.events("blog") if line.startswith("wave stopped")]
    assert "generation 2 failed on web1: 3 hosts keep the certificate they have (web2, web3, web4)" in stopped

    (four.servers["web1"].directory / "sites" / "picky.conf").unlink()
    await four.client.renew(["blog"])
    await four.run("host", "check")
    assert (await overview(four, "blog"))[:2] == (State.SERVED, 4)
    assert any(line.startswith("wave goes on") for line in await four.events("blog"))


def _serves_only(farm: Farm, generation: int) -> str:
    """Lines that break nginx's configuration as soon as another generation is current on web1."""
    directory = Path(farm.hosts["web1"].root) / "blog"
    return (
        f"ssl_certificate {directory}/{generation}/fullchain.pem; ssl_certificate_key {directory}/current/privkey.pem;"
    )


async def test_a_host_that_is_down_holds_nobody_for_long(four: Farm) -> None:
    """The first of the hosts is away: after its second failure the next is the canary; when it is back it is served."""
    await four.add("blog")
    await four.reload()
    await four.issue("blog")
    await four.run()
    away = dataclasses.replace(four.hosts["web1"], driver="nowhere")
    await replace_host(four, away)
    new = (await four.issue("blog"))["blog"]
    assert await four.run() == [host_member("web1")]
    assert (await overview(four, "blog"))[1:] == (0, "1 of 2, 0 of 4 hosts done")
    await due_again(four, "blog", "web1")
    await four.run()
    assert (await overview(four, "blog"))[:2] == (State.FAILING, 3)
    failed = (await four.state("blog"))["web1"]
    assert (failed.attempts, failed.fault) == (2, Fault.UNFIT)
    assert failed.retry_at is not None
    assert failed.retry_at > utcnow() + timedelta(minutes=9)

    await replace_host(four, four.hosts["web1"])
    await due_again(four, "blog", "web1")
    await four.run()
    assert (await overview(four, "blog"))[:2] == (State.SERVED, 4)
    await four.sees("blog", new.serial)


async def replace_host(farm: Farm, host: object) -> None:
    from certfleet.models import Host, dump  # noqa: PLC0415

    assert isinstance(host, Host)
    fleet = farm.bench.fleet
    await fleet.store.redis.hset(fleet.store.key("hosts"), host.name, dump(host))


async def due_again(farm: Farm, app: str, host: str) -> None:
    """The back-off is over."""
    await farm.bench.fleet.records.amend(app, host, lambda known: dataclasses.replace(known, retry_at=utcnow()))
    await farm.bench.fleet.agenda.schedule(host_member(host), utcnow())


async def test_mended_while_it_was_being_tried(four: Farm, monkeypatch: pytest.MonkeyPatch) -> None:
    """`renew` comes while a visit is about to fail again: the next try is now, and not when its back-off is over."""
    await four.add("blog", ["web1"])
    await four.reload()
    await replace_host(four, dataclasses.replace(four.hosts["web1"], driver="nowhere"))
    new = (await four.issue("blog"))["blog"]
    await four.run()
    driver, tries = local.install, list[str]()

    async def mended_meanwhile(host: Host, items: Sequence[Item]) -> Answer:
        tries.append(host.name)
        if len(tries) > 1:
            return await driver(host, items)
        await four.client.renew(["blog"])
        raise HostUnreachable("it does not answer")

    monkeypatch.setattr(local, "install", mended_meanwhile)
    await replace_host(four, four.hosts["web1"])
    await due_again(four, "blog", "web1")
    await four.run()
    assert (await overview(four, "blog"))[:2] == (State.SERVED, 1)
    assert (await four.seen("blog"))["web1"] == new.serial


async def test_issued_while_a_visit_finds_nothing_to_do(four: Farm, monkeypatch: pytest.MonkeyPatch) -> None:
    """The visit has read that all is there, and a newer certificate comes: that one stays on the host's list."""
    await four.add("blog", ["web1"])
    await four.reload()
    issued = await four.issue("blog")
    await four.run()
    records = four.bench.fleet.records
    await records.pend("web1", "blog")  # by a check that did not know yet
    read = records.installations_of

    async def read_just_before(apps: list[str]) -> dict[str, dict[str, Installation]]:
        found = await read(apps)
        monkeypatch.undo()
        issued.update(await four.issue("blog"))
        return found

    monkeypatch.setattr(records, "installations_of", read_just_before)
    await four.visit("web1")
    await four.run()
    assert issued["blog"].generation == 2
    assert (await overview(four, "blog"))[:2] == (State.SERVED, 1)


async def test_a_lost_wake_up_only_delays(four: Farm) -> None:
    """Nobody wakes the second wave: its hosts look by themselves within a minute."""
    await four.add("blog")
    await four.reload()
    await four.issue("blog")
    await four.run()
    await four.issue("blog")
    for name in ("web2", "web3", "web4"):
        at = await four.bench.fleet.agenda.time_of(host_member(name))
        assert at is not None
        assert at <= utcnow() + timedelta(minutes=1)


# --- drift ------------------------------------------------------------------------------------------


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
