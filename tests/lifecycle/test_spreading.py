"""Renewals that would come in one heap: each finds its hour, earlier than its own and never later."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import settings as trials
from hypothesis import strategies as st

from certfleet.agenda import Claim
from certfleet.client import Client
from certfleet.errors import LeaseLost
from certfleet.lifecycle.fleet import Fleet, open_fleet
from certfleet.lifecycle.orders.ordering import LONG_AGO
from certfleet.lifecycle.records import check_member, order_member
from certfleet.lifecycle.renewals.check import check
from certfleet.lifecycle.renewals.renewal import Slot, due_time, renewal_time
from certfleet.lifecycle.renewals.spreading import FEW, FULL, HOUR, LONGEST, MOST_SWEPT, choose, earliest, hour_of
from certfleet.lifecycle.work import work
from certfleet.lifecycle.workbench import Workbench, open_workbench
from certfleet.models import App, Certificate, Host, Order, Renewal, from_microseconds, microseconds, utcnow
from certfleet.settings import Settings
from certfleet.store import Store
from certfleet.vault import ensure_key
from tests.lifecycle.test_renewal import APP, START, certificate

CHANCE = st.floats(0, 1, exclude_max=True)
VALIDITY = st.timedeltas(timedelta(seconds=30), timedelta(days=4000))
NOWHERE = "https://127.0.0.1:1/directory"
MANY = 50
"""Renewals in an hour that is full."""


@given(st.integers(0, 800), st.timedeltas(timedelta(), timedelta(hours=1)), st.data(), CHANCE)
def test_earlier_and_never_later(hours: int, within: timedelta, data: st.DataObject, chance: float) -> None:
    """From the first instant to its own time; in an hour that is not full, or in its own."""
    first = START + timedelta(minutes=17)
    due = max(first, from_microseconds((hour_of(first) + hours) * HOUR) + within * 0.999)
    length = hour_of(due) - hour_of(first) + 1
    planned = data.draw(st.lists(st.integers(0, 3 * FEW), min_size=length, max_size=length))
    at = choose(first, due, planned, chance)
    assert first <= at <= due
    full = max(FEW, FULL * sum(planned) / len(planned))
    if planned[-1] < full:
        assert at == due
    else:
        assert planned[hour_of(at) - hour_of(first)] < full


@given(VALIDITY, st.floats(0, 1), st.floats(0, 1))
def test_how_much_earlier_at_most(validity: timedelta, share: float, age: float) -> None:
    """Not in the first half of the time until its own, not more than thirty days, not in the past, never after it."""
    found = certificate(validity)
    due, now = START + validity * share, START + validity * age
    first = earliest(found, due, now)
    assert first <= due
    assert first >= START + (due - START) / 2 - timedelta(microseconds=1)  # halves are rounded
    assert due - first <= LONGEST
    assert first >= min(now, due)


@trials(max_examples=40)
@given(st.integers(1, 40), st.integers(1, 48), st.integers(FEW, 40), st.integers())
def test_a_heap_becomes_a_plain(wide: int, room: int, each: int, seed: int) -> None:
    """Whatever is due within a few hours: at the end no hour has many more than the mean of those there are."""
    first = START
    chance = random.Random(seed)  # noqa: S311  no secret
    hours, number = wide + room, each * (wide + room)
    planned = [0] * hours
    for index in range(number):
        due = first + timedelta(hours=room + index % wide, minutes=30)
        at = choose(first, due, planned[: room + index % wide + 1], chance.random())
        planned[hour_of(at) - hour_of(first)] += 1
    assert sum(planned) == number
    # Whoever is due first sees fewer hours than there are: room for theirs.
    assert max(planned) <= max(FEW, FULL * number / (room + 1)) + 1


def test_a_few_renewals_are_left_alone() -> None:
    """No hour is full with fewer than a handful: each keeps the time that the CA suggests."""
    due = START + timedelta(days=60, minutes=30)
    assert choose(START + timedelta(days=30), due, [0] * 720 + [FEW - 1], 0.5) == due
    assert choose(START + timedelta(days=30), due, [0] * 720 + [FEW], 0.5) < due


@pytest.mark.parametrize(
    ("slot", "holds"),
    [
        (Slot(1, START + timedelta(days=60), START + timedelta(days=50)), True),
        (Slot(2, START + timedelta(days=60), START + timedelta(days=50)), False),
        (Slot(1, START + timedelta(days=61), START + timedelta(days=50)), False),
        (None, False),
    ],
)
def test_a_slot_counts_for_what_it_was_chosen_by(slot: Slot | None, holds: bool) -> None:  # noqa: FBT001
    """Another certificate, another window or graceperiod: its own time, until it has another slot."""
    told = Renewal(1, START, START, START + timedelta(days=80), at=START + timedelta(days=60))
    assert renewal_time(certificate(), None, told, slot) == START + timedelta(days=50 if holds else 60)


# --- in Redis --------------------------------------------------------------------------------------


@pytest.fixture
async def fleet(store: Store, settings: Settings) -> AsyncIterator[Fleet]:
    """On an empty Redis."""
    del store
    async with open_fleet(settings) as opened:
        yield opened


def young(name: str, generation: int = 1) -> Certificate:
    """Issued two days ago for 90 days; its own time is in 56 to 58 days."""
    issued = utcnow() - timedelta(days=2)
    return replace(
        certificate(serial=f"{hash(name):x}"),
        app=name,
        generation=generation,
        not_before=issued,
        issued=issued,
        not_after=issued + timedelta(days=90),
    )


async def store_certificate(fleet: Fleet, found: Certificate) -> None:
    """As the order machine ends."""
    await fleet.agenda.schedule(order_member(found.app), LONG_AGO)
    claim = await fleet.agenda.claim(order_member(found.app))
    assert claim is not None
    order = Order("1", found.app, "", "", found.identifiers, found.key_type, "forced", utcnow())
    await fleet.records.complete(claim, order, found, "", [])
    await fleet.agenda.finish(claim, None)


async def claimed(fleet: Fleet, app: str) -> Claim:
    await fleet.agenda.schedule(check_member(app), LONG_AGO)
    claim = await fleet.agenda.claim(check_member(app))
    assert claim is not None
    return claim


async def find(
    fleet: Fleet, found: Certificate, grace: timedelta | None = None, told: Renewal | None = None
) -> Slot | None:
    claim = await claimed(fleet, found.app)
    try:
        return await fleet.spreading.find(claim, found, grace, told)
    finally:
        await fleet.agenda.finish(claim, None)


async def planned(fleet: Fleet) -> Counter[int]:
    """Hour -> renewals."""
    kept = await fleet.store.redis.hgetall(fleet.store.key("renewals"))
    kept.pop("swept", None)
    return Counter({int(hour): int(count) for hour, count in kept.items() if int(count)})


async def test_many_choose_at_once(fleet: Fleet) -> None:
    """All are due in one hour, and fifty look at the same moment: each is counted where it is, none is late."""
    due = utcnow() + timedelta(days=50)
    certificates = [young(f"app{number}") for number in range(300)]
    for found in certificates:
        await store_certificate(fleet, found)
    told = Renewal(1, due, START, due + timedelta(days=1), at=due)
    slots = []
    for at in range(0, len(certificates), MANY):
        slots += await asyncio.gather(*(find(fleet, found, None, told) for found in certificates[at : at + MANY]))
    hours = Counter(hour_of(slot.at) for slot in slots if slot)
    assert hours == await planned(fleet)
    assert sum(hours.values()) == len(certificates)
    for found, slot in zip(certificates, slots, strict=True):
        assert slot is not None
        assert found.issued + (due - found.issued) / 2 <= slot.at <= due
    # The first fifty may have seen an empty hour; after them nobody goes there.
    assert FEW <= hours.pop(hour_of(due)) <= MANY
    assert max(hours.values()) < MANY
    assert await fleet.spreading.slots([f"app{number}" for number in range(300)]) == {
        found.app: slot for found, slot in zip(certificates, slots, strict=True)
    }


async def test_a_slot_is_kept_as_long_as_it_holds(fleet: Fleet) -> None:
    """Looked at again: the same. Another own time or certificate: another slot, and the first is not counted."""
    first = young("blog")
    await store_certificate(fleet, first)
    slot = await find(fleet, first)
    assert slot == Slot(1, due_time(first, None, None), due_time(first, None, None))
    assert await find(fleet, first) == slot
    assert await planned(fleet) == {hour_of(slot.at): 1}
    grace = timedelta(days=40)
    sooner = await find(fleet, first, grace)
    assert sooner is not None
    assert sooner.due == due_time(first, grace, None)
    assert await planned(fleet) == {hour_of(sooner.at): 1}
    second = replace(young("blog", 2), serial="2")
    await store_certificate(fleet, second)
    newest = await find(fleet, second)
    assert newest is not None
    assert await planned(fleet) == {hour_of(newest.at): 1}
    await fleet.spreading.forget("blog")
    assert await fleet.spreading.slots(["blog"]) == {}


async def test_what_is_due_has_no_slot(fleet: Fleet) -> None:
    """A window that moved into the past is not put off or spread: at once."""
    first = young("blog")
    await store_certificate(fleet, first)
    await find(fleet, first)
    past = Renewal(1, utcnow(), START, START + timedelta(hours=1), at=START)
    assert await find(fleet, first, None, past) is None
    assert await fleet.spreading.find(Claim("check:blog", 0), None, None, None) is None


async def test_whoever_has_lost_the_app_writes_nothing(fleet: Fleet) -> None:
    """A worker whose lease has ended, and one whose certificate was replaced meanwhile."""
    first = young("blog")
    await store_certificate(fleet, first)
    with pytest.raises(LeaseLost):
        await fleet.spreading.find(Claim("check:blog", 99), first, None, None)
    await store_certificate(fleet, replace(young("blog", 2), serial="2"))
    await find(fleet, first)
    assert await planned(fleet) == {}
    assert await fleet.spreading.slots(["blog"]) == {}


async def test_hours_that_are_over_go(fleet: Fleet) -> None:
    """Redis keeps no more of them than there are hours ahead, also when nothing was planned for months."""
    key, present = fleet.store.key("renewals"), hour_of(utcnow())
    old = present - 2 * MOST_SWEPT - 500
    await fleet.store.redis.hset(key, mapping={str(hour): 7 for hour in range(old, present)} | {"swept": old})
    for number in range(3):
        await store_certificate(fleet, young(f"app{number}"))
        await find(fleet, young(f"app{number}"))
    assert all(hour >= present for hour in await planned(fleet))


async def test_a_full_hour_brings_the_renewal_forward(store: Store, settings: Settings) -> None:
    """The check takes an earlier time, `info` tells from which, and at that time the order is made."""
    del store
    ensure_key(settings)
    async with open_workbench(settings) as bench:
        fleet, client = bench.fleet, Client(bench.fleet)
        await client.add_host(Host("web1"))
        # A CA that nobody ever reaches: it has no answer about renewal.
        app = await client.add_app("blog", list(APP.identifiers), ["web1"], {"email": "ops@example.com", "ca": NOWHERE})
        await client.enable(app.name)
        found = replace(young("blog"), ca=NOWHERE)
        due = due_time(found, None, None)
        await store_certificate(fleet, found)
        full = {str(hour): MANY for hour in range(hour_of(due) - 100, hour_of(due) + 1)}
        await fleet.store.redis.hset(fleet.store.key("renewals"), mapping=full)
        await run_check(bench, app)
        [view] = [view async for view in client.overviews(["blog"])]
        assert view.spread_from == due
        assert view.renew_at is not None
        assert view.renew_at < due - timedelta(hours=100)
        assert await fleet.records.order("blog") is None
        # As if that time had come.
        slot = f"1 {microseconds(due)} {microseconds(utcnow() - timedelta(seconds=1))}"
        await fleet.store.redis.hset(fleet.store.key("slots"), "blog", slot)
        await run_check(bench, app)
        order = await fleet.records.order("blog")
        assert order is not None
        assert order.reason == "renewal"
        await client.remove_app("blog")
        assert await fleet.spreading.slots(["blog"]) == {}


async def run_check(bench: Workbench, app: App) -> None:
    await bench.fleet.agenda.schedule(check_member(app.name), LONG_AGO)
    await work(bench, [Claim(check_member(app.name), 0)], check)
