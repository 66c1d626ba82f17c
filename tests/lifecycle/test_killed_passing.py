"""A worker that dies while it passes an order on: whenever that is, one order lives, and one certificate comes.

It dies in this process: the step is cancelled before or after one of its writes, as when its worker is killed there,
its claim runs out, and the next worker finds what Redis has.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from certfleet.acme_ca import protocol
from certfleet.agenda import Agenda, Claim
from certfleet.errors import CAUnreachable
from certfleet.lifecycle.orders.advance import advance
from certfleet.lifecycle.records import Records, order_member
from certfleet.lifecycle.work import work
from certfleet.limits.rooms import Rooms
from certfleet.models import OrderState
from certfleet.settings import Settings
from tests.lifecycle.two_cas import Place, Two, fleet_of_two, two_cas

pytestmark = pytest.mark.asyncio(loop_scope="module")

LEASE = 0.5  # seconds
LIMITS = {"certificates-per-domain": (5, 3600.0, 5), "orders-per-account": (5, 3600.0, 5)}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def place() -> AsyncIterator[Place]:
    """The CAs of the module."""
    directory = Path(tempfile.mkdtemp(prefix="certfleet-", dir="/tmp"))
    async with two_cas(directory) as running:
        yield running
    shutil.rmtree(directory)


@pytest_asyncio.fixture(loop_scope="module")
async def two(place: Place, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Two]:
    """An empty fleet with short claims, limits at both CAs."""
    async with fleet_of_two(place, settings.model_copy(update={"lease": LEASE}), monkeypatch) as fleet:
        for ca, name in zip((fleet.first, fleet.second), fleet.names, strict=True):
            await ca.set_limits(LIMITS, same_set_exempt=False)
            limits = {limit: f"{count}/1h" for limit, (count, _, _) in LIMITS.items()}
            await fleet.client.set_limits(limits, ca=name)
        yield fleet


@dataclass
class Death:
    """Cancels whoever makes the next call of a function, before or after it is done."""

    when: str
    called: int = 0

    def at(self, inner: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        """The function, deadly once."""

        async def wrapped(*args: Any, **kwargs: Any) -> Any:
            self.called += 1
            if self.called > 1:
                return await inner(*args, **kwargs)
            if self.when == "after":
                await inner(*args, **kwargs)
            raise asyncio.CancelledError

        return wrapped


async def held_at_the_first(two: Two, *, finalized: bool) -> None:
    """An order that the first CA has made (and has the CSR of), before its door is shut and its turn is over."""
    await two.enabled()
    last = "finalize" if finalized else "get_authorization"
    inner = getattr(protocol, last)

    async def cut(*args: Any, **kwargs: Any) -> Any:
        await inner(*args, **kwargs)
        await two.place.first.shut()
        raise CAUnreachable("the door was shut")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(protocol, last, cut)
        await two.until(lambda view: view.error is not None)
    order = await two.order()
    assert order.url is not None
    assert (order.sealed_key is not None) is finalized
    two.later(timedelta(hours=1))


async def killed(two: Two) -> None:
    """The step that passes it on, in a worker that dies in it."""
    member = order_member("blog")
    await two.bench.fleet.agenda.schedule(member, two.now() - timedelta(days=1))
    with pytest.raises(asyncio.CancelledError):
        await work(two.bench, [Claim(member, 0)], advance)


@pytest.mark.parametrize("finalized", [False, True], ids=["ordered", "finalized"])
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("call", ["write", "tokens", "finish"])
async def test_one_order_lives_and_one_certificate_comes(
    two: Two, monkeypatch: pytest.MonkeyPatch, call: str, when: str, *, finalized: bool
) -> None:
    """Before and after each write of the step: the order, its tokens, its time."""
    await held_at_the_first(two, finalized=finalized)
    before = await two.order()
    death = Death(when)
    tokens = "completed" if finalized else "leave"
    owner, name = {"write": (Records, "write"), "tokens": (Rooms, tokens), "finish": (Agenda, "finish")}[call]
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, death.at(getattr(owner, name)))
        await killed(two)
    assert death.called == 1

    order = await two.order()  # as a worker finds it that comes now
    if (call, when) == ("write", "before") or (call == "tokens" and finalized):
        assert order == before
    else:
        assert (order.id != before.id, order.ca, order.state) == (True, two.names[1], OrderState.NEW)
        assert (order.url, order.sealed_key, order.replaces) == (None, None, "")
    fleet = two.bench.fleet
    assert await fleet.agenda.time_of(order_member("blog")) is not None, "it has a time"
    await asyncio.sleep(LEASE)  # the dead worker's claim runs out
    found = await two.issued()
    assert found.ca == two.names[1]
    assert [one.ca for one in found.passed_over] == [two.names[0]]
    assert ((await two.first.counts())["newOrder"], (await two.second.counts())["newOrder"]) == (1, 1)
    assert len((await two.second.book()).issuances) == 1
    assert (await two.events()).count(f"passed on: from {two.names[0]} to {two.names[1]}: {found.passed_over[0].why}")
    # No token is forgotten as reserved, and none is given back that a CA has counted.
    assert await fleet.store.redis.keys("certfleet:admission:*") == []
    left = {(one.ca, one.limit): one.left for one in await two.client.buckets()}
    for ca, name_ in zip((two.first, two.second), two.names, strict=True):
        for limit, buckets in (await ca.book()).buckets.items():
            for bucket in buckets.values():
                assert left.get((name_, limit), 5) <= bucket.remaining, (name_, limit)


async def test_the_late_write_of_a_dead_worker_is_refused(two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two workers pass it on, one of them too late: its write changes nothing, and there is one order."""
    await held_at_the_first(two, finalized=False)
    member, inner, late = order_member("blog"), Records.write, asyncio.Event()

    async def slow(self: Records, claim: Claim, commands: Any) -> None:
        if not late.is_set():
            late.set()
            await asyncio.sleep(2 * LEASE)
        await inner(self, claim, commands)

    with monkeypatch.context() as patch:
        patch.setattr(Records, "write", slow)
        patch.setattr(Agenda, "extend", lambda *_: asyncio.sleep(0))  # it does not even notice
        await two.bench.fleet.agenda.schedule(member, two.now() - timedelta(days=1))
        first = asyncio.create_task(work(two.bench, [Claim(member, 0)], advance))
        await late.wait()
        await asyncio.sleep(1.2 * LEASE)
        await work(
            two.bench, [claim for claim in await two.bench.fleet.agenda.due(9) if claim.member == member], advance
        )
        passed = await two.order()
        assert passed.ca == two.names[1]
        await first
    order = await two.order()
    assert order.id == passed.id
    assert (await two.issued()).ca == two.names[1]
    assert ((await two.first.counts())["newOrder"], (await two.second.counts())["newOrder"]) == (1, 1)
