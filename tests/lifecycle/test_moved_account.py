"""The address of an account is changed while orders of it are under way; in simulated time."""

from __future__ import annotations

from datetime import timedelta

import pytest

from certfleet.acme_ca.account_records import is_one_account, known_account
from certfleet.acme_ca.presets import resolve_ca
from certfleet.agenda import Claim
from certfleet.client import Client
from certfleet.lifecycle import accounts
from certfleet.lifecycle.orders.advance import advance
from certfleet.lifecycle.orders.ordering import LONG_AGO
from certfleet.lifecycle.records import order_member
from certfleet.lifecycle.work import work
from certfleet.models import App, utcnow
from tests.lifecycle.simulated import Simulation, sim, where

__all__ = ["sim", "where"]  # fixtures
pytestmark = pytest.mark.asyncio(loop_scope="module")
BLOG = App("blog", ("blog.blog.test",), ("web1",), enabled=True, properties={"challenge-via": "webroot"})
OLD, NEW = "ops@example.com", "certs@example.com"


async def look(sim: Simulation) -> None:
    """The order's next step: its host has not written the challenge, and it goes no further."""
    await sim.bench.fleet.agenda.schedule(order_member("blog"), LONG_AGO)
    await work(sim.bench, [Claim(order_member("blog"), 0)], advance)


@pytest.mark.parametrize("held", [False, True])
async def test_an_order_under_way_goes_on(sim: Simulation, *, held: bool) -> None:
    """Whether a worker looks before the property is changed, or has the order in hand: the CA's order is the same."""
    fleet = sim.bench.fleet
    await fleet.inventory.add_app(BLOG)
    await sim.order("blog")
    await look(sim)
    before = await fleet.records.order("blog")
    assert before is not None
    claim = await fleet.agenda.claim(order_member("blog")) if held else None
    await accounts.change_email(fleet, OLD, NEW)
    await accounts.move_orders(fleet, [BLOG], OLD, NEW)
    if claim is not None:
        await fleet.agenda.finish(claim, utcnow() + timedelta(hours=1))
    else:
        await look(sim)
    await Client(fleet).set_property("email", NEW)
    await look(sim)
    after = await fleet.records.order("blog")
    assert after is not None
    assert (after.url, after.email) == (before.url, NEW)
    assert (await sim.ca.counts())["newOrder"] == 1


async def test_the_account_is_found_by_its_old_address(sim: Simulation) -> None:
    """As long as the property has it still: by the doctor, CAA records, and records that stand."""
    fleet = sim.bench.fleet
    await fleet.inventory.add_app(BLOG)
    await sim.order("blog")
    await look(sim)
    [moved] = await accounts.change_email(fleet, OLD, NEW)
    ca = resolve_ca(sim.ca.directory, bundle=sim.ca.bundle)
    assert await known_account(fleet.store, ca, OLD) == moved
    [said] = [one for one in await Client(fleet).doctor("blog") if one.name == "account"]
    assert (said.ok, said.message) == (True, moved.url)
    for email in (OLD, NEW):
        assert await is_one_account(fleet.store, ca, OLD, email)
    assert not await is_one_account(fleet.store, ca, OLD, "third@example.com")
