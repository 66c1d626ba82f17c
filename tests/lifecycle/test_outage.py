"""A CA that is down for an hour of simulated time, before a fleet of which many certificates fall due meanwhile."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from certfleet.acme_ca import transport
from certfleet.cli.output import note
from certfleet.client import Client
from certfleet.limits.outages import id_of
from certfleet.models import utcnow
from certfleet.overview import State
from tests.ca.limits import LETS_ENCRYPT
from tests.lifecycle.simulated import Simulation, sim, where
from tests.rig import running_rig, written

__all__ = ["sim", "where"]  # fixtures
pytestmark = pytest.mark.asyncio(loop_scope="module")

HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)
FOR_EVER = 1_000_000
DOWN: dict[str, dict[str, Any]] = {
    "connections are cut": {"how": "cut"},
    "503": {"how": "status", "status": 503},
    "500, come again in a minute": {"how": "status", "status": 500, "retry_after": "60"},
    "time-outs": {"how": "hang", "seconds": 0.3},
}


MOST = {"connections are cut": 42, "503": 25, "500, come again in a minute": 25, "time-outs": 25}
"""Requests; aiohttp sends a GET once more whose connection was closed, so a try costs two there."""


def be_patient(sim: Simulation, seconds: float) -> None:
    """How long requests wait for an answer from now on."""
    for one in sim.bench._transports.values():
        one._session._timeout = aiohttp.ClientTimeout(total=seconds)


@pytest.mark.parametrize("way", DOWN)
async def test_an_hour_down(sim: Simulation, way: str) -> None:
    """A handful of requests; afterwards all are issued within minutes, renewals before new names, and no 429."""
    await sim.ca.set_limits(LETS_ENCRYPT)
    await Client(sim.bench.fleet).set_limits(written(LETS_ENCRYPT), ca=sim.ca.directory)
    count = 20 if way == "503" else 5  # of new names; twice as many are renewed
    apps = [f"app{number:02}" for number in range(2 * count)]
    await sim.add(*apps)
    await sim.run(10 * MINUTE)
    assert [(await sim.certificate(app)).generation for app in apps] == [1] * len(apps)

    await sim.ca.fail("*", count=FOR_EVER, **DOWN[way])
    if way == "time-outs":
        be_patient(sim, 0.15)
    await sim.ca.reset()
    began = sim.clock.now()
    for number in range(count):  # spread over the hour, new names first
        await sim.add(f"new{number:02}")
        await sim.run(HOUR / count / 2)
        await sim.order(*apps[2 * number : 2 * number + 2])
        await sim.run(HOUR / count / 2)
    asked = await sim.requests()
    assert asked <= MOST[way], asked

    views = [await sim.view(name) for name in (apps[0], apps[-1], "new00", f"new{count - 1:02}")]
    assert [view.state for view in views] == [State.AWAY] * 4
    assert all(view.away_since and abs(view.away_since - began) < 15 * MINUTE for view in views)
    assert all(view.error is None and view.waits_until for view in views)
    assert all(view.waits_until and view.waits_until <= sim.clock.now() + 5 * MINUTE + MINUTE for view in views)
    assert "the CA does not answer since 20" in note(views[0])
    [outage] = await Client(sim.bench.fleet).outages()
    assert outage.waiting >= 3 * count - 1

    await sim.ca.heal()
    be_patient(sim, transport.TIMEOUT.total or 0.0)
    back = sim.clock.now()
    before = len((await sim.book()).issuances)
    await sim.run(10 * MINUTE)
    certificates = [await sim.certificate(name) for name in apps]
    assert [one.generation for one in certificates] == [2] * len(apps)
    assert [(await sim.certificate(f"new{number:02}")).generation for number in range(count)] == [1] * count
    assert max(one.issued for one in certificates) - back <= 6 * MINUTE
    book = await sim.book()
    assert book.rate_limited_answers == 0
    assert len(book.issuances) == 5 * count, "no second certificate for anybody"
    after = [issuance.identifiers[0] for issuance in book.issuances[before:]]
    if count > 10:  # more than what one message carries
        assert all(name.startswith("app") for name in after[1:20]), "those let go first are renewals"
    assert await Client(sim.bench.fleet).outages() == []
    events = [entry.event for entry in await sim.bench.fleet.journal.latest("")]
    assert (events.count("CA away"), events.count("CA back")) == (1, 1)


async def test_one_order_that_the_ca_cannot_deal_with(sim: Simulation) -> None:
    """Its finalize is answered 500 for ever: nobody else is held up, and it is tried by itself now and then."""
    await sim.ca.fail("finalize", "status", 1, status=500)
    await sim.add("poison")
    await sim.run(timedelta(seconds=1))
    order = await sim.bench.fleet.records.order("poison")
    assert order is not None
    assert order.url is not None
    name = order.url.rpartition("/")[2]
    await sim.ca.fail("finalize", "status", FOR_EVER, status=500, path=name)
    await sim.run(MINUTE)
    assert (await sim.view("poison")).state is State.AWAY, "there is nobody else who could tell"
    for number in range(12):
        await sim.add(f"good{number:02}")
        await sim.run(timedelta(seconds=10))
        assert (await sim.certificate(f"good{number:02}")).generation == 1
        await sim.run(3 * MINUTE)
    tries = sum((await sim.ca.heal()).values())
    assert 12 < tries <= 60
    await sim.run(6 * MINUTE)
    assert (await sim.certificate("poison")).generation == 1
    assert (await sim.ca.counts())["newOrder"] == 13


async def test_an_outage_that_comes_back_is_the_same(sim: Simulation) -> None:
    """Away, back for a minute, away again: since the first time, with the pause that it had; what is known is told."""
    await sim.add("first")
    await sim.run(MINUTE)
    await sim.ca.fail("*", "cut", FOR_EVER)
    await sim.order("first")
    await sim.run(20 * MINUTE)
    [before] = await Client(sim.bench.fleet).outages()
    assert before.likely_back(sim.clock.now()) >= sim.clock.now() + 19 * MINUTE
    await sim.ca.heal()
    await sim.run(6 * MINUTE)
    assert await Client(sim.bench.fleet).outages() == []
    await sim.ca.fail("*", "cut", FOR_EVER)
    await sim.ca.reset()
    await sim.order("first")
    await sim.run(12 * MINUTE)
    [again] = await Client(sim.bench.fleet).outages()
    assert again.since == before.since
    assert await sim.requests() <= 10


async def test_workers_wait_and_come_back(short_directory: Path) -> None:
    """The whole fleet: those that are enabled while the CA is away say so, and are served when it is back."""
    async with running_rig(short_directory, bad_nonce_percent=0, limits={}) as rig:
        await rig.strict.fail("*", "cut", FOR_EVER)
        names = [f"shop{number}" for number in range(5)]
        for name in names:
            await rig.add(name)
        await rig.nginx.reload()
        for name in names:
            await rig.client.enable(name)
        views = await rig.until("away", lambda views: [view.state for view in views] == [State.AWAY] * 5)
        assert all(view.away_since for view in views)
        assert "the CA does not answer since" in rig.run("ls").stdout
        assert "5 orders wait" in rig.run("limits").stdout
        assert "the CA does not answer since" in rig.run("info", "shop0").stdout
        await rig.strict.heal()
        fleet, member = rig.client._fleet, f"outage:{id_of(rig.ca.directory)}"
        await fleet.store.redis.hset(f"certfleet:{member}", "next", 1)  # the pause, which grew meanwhile, is over
        await fleet.agenda.schedule(member, utcnow())
        await rig.all_served()
        assert (await rig.ca.counts())["newOrder"] <= 5 + 3
