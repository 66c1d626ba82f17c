"""A certificate on its way to many hosts: gathered, in waves, and proven at each endpoint."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from pathlib import Path

import pytest

from certfleet.errors import HostUnreachable
from certfleet.install.answer import Answer
from certfleet.install.bundle import Item
from certfleet.install.drivers import local
from certfleet.lifecycle.records import host_member
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
    """Nobody wakes the second wave: its hosts look by themselves after a minute, one each second."""
    await four.add("blog")
    await four.reload()
    await four.issue("blog")
    await four.run()
    await four.issue("blog")
    for name in ("web2", "web3", "web4"):
        at = await four.bench.fleet.agenda.time_of(host_member(name))
        assert at is not None
        assert at <= utcnow() + timedelta(seconds=62)


# --- drift ------------------------------------------------------------------------------------------
