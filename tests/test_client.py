"""What is asked while something is under way: nothing is half done, nothing waits for a back-off that is mended."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import datetime, timedelta
from unittest.mock import AsyncMock

import pytest

from certfleet.client import Client, open_client
from certfleet.errors import LeaseLost, UsageError
from certfleet.lifecycle.fleet import Fleet
from certfleet.lifecycle.orders.ordering import FORGIVEN, ask_order, make_order
from certfleet.lifecycle.records import check_member, order_member
from certfleet.models import Host, Installation, Order, OrderState, utcnow
from certfleet.overview import State
from certfleet.properties import effective
from certfleet.settings import Settings
from certfleet.store import Store

TOMORROW = timedelta(days=1)


@pytest.fixture
async def client(settings: Settings, store: Store) -> AsyncIterator[Client]:
    """A fleet without workers: two hosts and the app `blog`, enabled."""
    del store  # emptied
    async with open_client(settings) as opened:
        for name in ("web1", "web2"):
            await opened.add_host(Host(name))
        await opened.add_app("blog", ["blog.example.com"], ["web1"], {"email": "ops@example.com"})
        await opened.enable("blog")
        yield opened


@pytest.fixture
def fleet(client: Client) -> Fleet:
    """Its books."""
    return client._fleet


async def later(fleet: Fleet, *members: str) -> None:
    """As after a look that found nothing to do: the members' next time is tomorrow."""
    for member in members:
        await fleet.agenda.drop(member)
        await fleet.agenda.schedule(member, utcnow() + TOMORROW)


async def due(fleet: Fleet, member: str) -> bool:
    """Whether a member's time has come."""
    at: datetime | None = await fleet.agenda.time_of(member)
    return at is not None and at <= utcnow()


async def failed_order(fleet: Fleet) -> Order:
    """An order of `blog` that is tried again tomorrow."""
    app = await fleet.inventory.app("blog")
    await make_order(fleet, app, effective(app.properties, {}), "renewal", utcnow())
    claim = await fleet.agenda.claim(order_member("blog"))
    assert claim is not None
    made = await fleet.records.order("blog")
    assert made is not None
    failed = replace(made, state=OrderState.RETRY, attempts=4, retry_at=utcnow() + TOMORROW, error="it points away")
    await fleet.records.save_order(claim, failed)
    await fleet.agenda.finish(claim, utcnow() + TOMORROW)
    await later(fleet, check_member("blog"))
    return failed


async def mended(fleet: Fleet) -> None:
    """The app is looked at now, and its order is tried now."""
    await mended_order(fleet)
    assert await due(fleet, check_member("blog"))


async def mended_order(fleet: Fleet) -> None:
    """The order is tried now, its old error is no news any more, and its count of failures is kept."""
    order = await fleet.records.order("blog")
    assert order is not None
    assert (order.error, order.retry_at, order.attempts) == (None, None, 4)
    assert await due(fleet, order_member("blog"))


async def test_whoever_mends_something_waits_for_no_back_off(client: Client, fleet: Fleet) -> None:
    """A new property, other names, a global property, renew, disable and enable: each tries a failed order now."""
    await failed_order(fleet)
    await client.set_property("http-port", "80", "blog")
    await mended(fleet)
    await failed_order(fleet)
    await client.change_app("blog", domains=["blog.example.com", "www.example.com"])
    await mended(fleet)
    await failed_order(fleet)
    assert await client.set_properties({"key-type": "p384"}) == 1
    await mended(fleet)
    await failed_order(fleet)
    await client.renew(["blog"])
    await mended(fleet)
    await failed_order(fleet)
    await client.renew(["blog"], force=True)
    await mended_order(fleet)
    await failed_order(fleet)
    await client.disable("blog")
    assert await due(fleet, order_member("blog")), "the machine gives it up now, not tomorrow"
    assert await fleet.agenda.time_of(check_member("blog")) is None
    await client.enable("blog")
    await mended(fleet)


async def test_what_became_urgent_hurries_the_order_that_waits(fleet: Fleet) -> None:
    """Its certificate is revoked: an order that failed keeps its time, one in line goes to the emergency lane, once."""
    app, member = await fleet.inventory.app("blog"), order_member("blog")

    async def revoked() -> list[str]:
        return await make_order(fleet, app, effective(app.properties, {}), "revoked", utcnow(), urgent=True)

    await failed_order(fleet)
    assert await revoked() == []
    assert not await due(fleet, member)
    await ask_order(fleet, "blog", FORGIVEN)
    await later(fleet, member)
    assert await revoked() == [member]
    order = await fleet.records.order("blog")
    assert order is not None
    assert order.urgent
    assert await due(fleet, member)
    await later(fleet, member)
    assert await revoked() == []
    assert not await due(fleet, member)


async def test_wait_does_not_believe_an_old_error(client: Client, fleet: Fleet) -> None:
    """After `renew` the failure from yesterday does not end the wait."""
    await failed_order(fleet)
    assert (await client.wait(["blog"], 5))[0].state is State.FAILING
    await client.renew(["blog"])
    assert (await client.wait(["blog"], 0.2))[0].state is State.ORDERING


async def test_an_installation_that_failed_is_tried_now(client: Client, fleet: Fleet) -> None:
    """--adopt and every other property reach an installation that waits for its back-off."""
    failed = Installation("blog", "web1", wanted=1, error="foreign", attempts=3, retry_at=utcnow() + TOMORROW)
    await fleet.records.amend("blog", "web1", lambda _: failed, pending=True)
    await client.set_property("adopt", "on", "blog")
    found = (await client.installations("blog"))[0]
    assert (found.error, found.retry_at, found.attempts) == (None, None, 3)
    assert await fleet.records.pending("web1") == ["blog"]


async def test_force_forgets_what_failed_before(client: Client, fleet: Fleet) -> None:
    """`renew --force --wait` waits for the new certificate, not for yesterday's failure on a host."""
    failed = Installation("blog", "web1", wanted=1, error="stale", attempts=3, retry_at=utcnow() + TOMORROW)
    await fleet.records.amend("blog", "web1", lambda _: failed, pending=True)
    await client.renew(["blog"], force=True)
    assert (await client.wait(["blog"], 0.2))[0].state is State.ORDERING
    assert await due(fleet, order_member("blog"))


async def test_an_order_under_way_is_left_to_its_worker(client: Client, fleet: Fleet) -> None:
    """While a worker holds the order nothing of it is written; it comes due again when the worker ends."""
    await failed_order(fleet)
    claim = await fleet.agenda.claim(order_member("blog"))
    assert claim is not None
    before = await fleet.records.order("blog")
    assert before is not None
    await client.change_app("blog", domains=["other.example.com"])
    await client.set_property("key-type", "p384", "blog")
    await client.renew(["blog"], force=True)
    assert await fleet.records.order("blog") == before
    await fleet.records.save_order(claim, replace(before, attempts=5))
    assert await fleet.agenda.finish(claim, utcnow() + TOMORROW)
    assert await due(fleet, order_member("blog"))


async def test_a_removed_app_is_not_written_to(client: Client, fleet: Fleet) -> None:
    """The worker that was at it can save nothing more, and the app leaves nothing behind."""
    order = await failed_order(fleet)
    claim = await fleet.agenda.claim(order_member("blog"))
    assert claim is not None
    await fleet.records.amend("blog", "web1", lambda new: replace(new, wanted=1), pending=True)
    await client.remove_app("blog")
    with pytest.raises(LeaseLost):
        await fleet.records.save_order(claim, order)
    assert not await fleet.agenda.finish(claim, utcnow())
    assert await fleet.agenda.size() == 0
    left = [key async for key in fleet.store.redis.scan_iter() if "blog" in key]
    assert left == []
    assert await fleet.records.pending("web1") == []


async def test_a_removal_that_broke_off_is_done_again(
    client: Client, fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever removes an app dies in between: it is there, and disabled; removed again, it leaves nothing behind."""
    await failed_order(fleet)
    await fleet.records.amend("blog", "web1", lambda new: replace(new, wanted=1), pending=True)
    for step in ("app_forgotten", "last_generation", "order"):
        with monkeypatch.context() as broken:
            broken.setattr(fleet.records, step, AsyncMock(side_effect=ConnectionError))
            with pytest.raises(ConnectionError):
                await client.remove_app("blog")
        assert not (await client.app("blog")).enabled
    await client.remove_app("blog")
    assert [key async for key in fleet.store.redis.scan_iter() if "blog" in key] == []
    assert await fleet.agenda.size() == 0


async def test_a_global_property_reaches_the_apps_it_is_for(client: Client, fleet: Fleet) -> None:
    """Enabled apps without a value of their own are looked at now; the others are left alone."""
    for name in ("own", "off"):
        await client.add_app(name, [f"{name}.example.com"], ["web2"], {"email": "ops@example.com"})
    await client.set_property("graceperiod", "20d", "own")
    await client.enable("own")
    await later(fleet, check_member("blog"), check_member("own"))
    assert await client.set_properties({"graceperiod": "30d"}) == 1
    assert await due(fleet, check_member("blog"))
    assert not await due(fleet, check_member("own"))
    assert await fleet.agenda.time_of(check_member("off")) is None
    await later(fleet, check_member("blog"))
    assert await client.set_properties({"graceperiod": "30d"}) == 0, "it is like that already"
    assert not await due(fleet, check_member("blog"))


async def test_a_global_property_that_enabled_apps_cannot_bear(client: Client, fleet: Fleet) -> None:
    """Refused with the app's name, and nothing of the command is kept; apps that are not enabled do not count."""
    await client.add_app("db", ["db.example.com"], ["web1"], {"email": "ops@example.com"})
    await client.set_property("email", "all@example.com")
    await client.set_property("email", "", "blog")
    with pytest.raises(UsageError, match="enabled app blog could not go on: email"):
        await client.set_properties({"key-type": "p384", "email": ""})
    with pytest.raises(UsageError, match="enabled app blog could not go on: http-port: '8080' is for private CAs"):
        await client.set_property("http-port", "8080")
    assert await fleet.inventory.properties() == {"email": "all@example.com"}
    await client.disable("blog")
    await client.set_property("http-port", "8080")
    with pytest.raises(UsageError, match="private CAs"):
        await client.enable("blog")


async def test_adopt_leaves_nothing_half_done(client: Client, fleet: Fleet) -> None:
    """On an app that cannot be enabled the property is not kept either."""
    await client.disable("blog")
    await client.set_property("http-port", "8080")
    before = await fleet.inventory.app("blog")
    with pytest.raises(UsageError, match="private CAs"):
        await client.set_property("adopt", "on", "blog")
    assert await fleet.inventory.app("blog") == before
