"""An order that failed is tried before its time, because somebody wants that: it goes on as at its time."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from certfleet.agenda import Claim
from certfleet.client import Client
from certfleet.lifecycle.orders.advance import advance
from certfleet.lifecycle.orders.ordering import LONG_AGO
from certfleet.lifecycle.records import order_member
from certfleet.lifecycle.work import work
from certfleet.models import App, Order, OrderState, dump, utcnow
from tests.lifecycle.simulated import Simulation, sim, where

__all__ = ["sim", "where"]  # fixtures
pytestmark = pytest.mark.asyncio(loop_scope="module")
BLOG = App("blog", ("blog.blog.test",), ("web1",), enabled=True, properties={"challenge-via": "webroot"})


async def look(sim: Simulation) -> None:
    await sim.bench.fleet.agenda.schedule(order_member("blog"), LONG_AGO)
    await work(sim.bench, [Claim(order_member("blog"), 0)], advance)


async def visit(sim: Simulation) -> int:
    """As a host does that writes what it is asked for into its webroot; how much that was."""
    redis, key = sim.bench.fleet.store.redis, sim.bench.fleet.store.key
    tokens = await redis.hkeys(key("publish", "web1"))
    for token in tokens:
        await redis.hset(key("published", "web1"), token, int(utcnow().timestamp()))
        await redis.hdel(key("publish", "web1"), token)
    return len(tokens)


async def test_what_is_written_now_is_believed(sim: Simulation) -> None:
    """Its next try was for tomorrow: what a host has written for this one is there, and is not asked for until then."""
    fleet = sim.bench.fleet
    await fleet.inventory.add_app(BLOG)
    await sim.order("blog")
    await look(sim)
    assert await visit(sim) == 1
    await sim.jump(utcnow() + timedelta(minutes=1))
    order = await fleet.records.order("blog")
    assert order is not None
    failed = replace(order, state=OrderState.RETRY, attempts=4, retry_at=utcnow() + timedelta(days=1), error="no")
    await fleet.store.redis.set(fleet.store.key("order", "blog"), dump(failed))
    await look(sim)
    assert await visit(sim) == 1, "what was there when it failed is not believed"
    await look(sim)
    assert await visit(sim) == 0
    assert (await sim.certificate("blog")).generation == 1


async def in_hand(sim: Simulation) -> tuple[Claim, Order]:
    """An order of `blog`, while a worker has it."""
    await sim.bench.fleet.inventory.add_app(replace(BLOG, properties={}))
    await sim.order("blog")
    claim = await sim.bench.fleet.agenda.claim(order_member("blog"))
    order = await sim.bench.fleet.records.order("blog")
    assert claim is not None
    assert order is not None
    return claim, order


async def test_what_is_asked_while_a_worker_has_it(sim: Simulation) -> None:
    """The worker gives the order up as the person asks for it: it is tried again, in the emergency lane."""
    fleet = sim.bench.fleet
    claim, order = await in_hand(sim)
    await Client(fleet).renew(["blog"], urgent=True)
    await fleet.records.save_order(claim, replace(order, state=OrderState.PARKED, error="nobody is there"))
    await fleet.agenda.finish(claim, None)
    await sim.ca.answer_orders(1, 400, type="malformed", detail="not now")
    await sim.run(timedelta(seconds=1))
    tried = await fleet.records.order("blog")
    assert tried is not None
    assert (tried.state, tried.urgent) == (OrderState.RETRY, True)
    await sim.run(timedelta(hours=1))
    assert (await sim.certificate("blog")).generation == 1
    await sim.order("blog")
    following, asked = await fleet.records.order_asked("blog")
    assert following is not None
    assert (following.urgent, asked) == (False, frozenset())


async def test_an_order_of_an_app_that_is_gone(sim: Simulation) -> None:
    """Made by a check just as the app was removed: it goes with its first step."""
    fleet = sim.bench.fleet
    await fleet.inventory.add_app(BLOG)
    await sim.order("blog")
    await fleet.inventory.remove_app(BLOG)
    await look(sim)
    assert await fleet.records.order("blog") is None
    assert await fleet.agenda.time_of(order_member("blog")) is None


async def test_what_was_asked_ends_with_its_order(sim: Simulation) -> None:
    """The worker succeeds as the person asks: the next order knows nothing of it, nor does a new app of that name."""
    fleet = sim.bench.fleet
    claim, order = await in_hand(sim)
    await Client(fleet).renew(["blog"], urgent=True)
    await fleet.records.remove_order(claim, order)
    assert await fleet.records.order_asked("blog") == (None, frozenset())
    await fleet.records.ask("blog", ["hurried"])
    await Client(fleet).remove_app("blog")
    assert await fleet.records.order_asked("blog") == (None, frozenset())
