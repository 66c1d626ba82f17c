"""A step runs under a claim that is kept alive; each member of a message stands alone."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import timedelta

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from certfleet.agenda import Agenda, Claim
from certfleet.errors import VaultError
from certfleet.lifecycle.work import REDIS_RETRY, UNEXPECTED_RETRY, Next, work
from certfleet.models import utcnow
from certfleet.store import Store

LEASE = 0.6  # seconds


@dataclass
class Books:
    """What `work` needs of a fleet."""

    agenda: Agenda


@dataclass
class Bench:
    """What `work` needs of a workbench."""

    fleet: Books


@pytest.fixture
def agenda(store: Store) -> Agenda:
    return Agenda(store, LEASE)


@pytest.fixture
def bench(agenda: Agenda) -> Bench:
    return Bench(Books(agenda))


async def due(agenda: Agenda, *members: str) -> list[Claim]:
    for member in members:
        await agenda.schedule(member, utcnow())
    return [Claim(member, 0) for member in members]


async def test_a_step_that_outlasts_its_lease_keeps_its_member(agenda: Agenda, bench: Bench) -> None:
    """The claim is extended while the step runs: nobody else gets the member."""
    claims = await due(agenda, "check:slow")
    runs = 0

    async def slow(_: object, __: Claim) -> Next:
        nonlocal runs
        runs += 1
        await asyncio.sleep(3 * LEASE)
        return Next(None)

    first = asyncio.create_task(work(bench, claims, slow))  # type: ignore[arg-type]
    await asyncio.sleep(2 * LEASE)
    assert await agenda.due(10) == []
    await work(bench, claims, slow)  # type: ignore[arg-type]
    await first
    assert runs == 1
    assert await agenda.size() == 0


async def test_a_hint_that_comes_late_tries_nothing_twice(agenda: Agenda, bench: Bench) -> None:
    """The tick's message was quicker, and the step failed: its back-off holds against the hint, not a person's wish."""
    hints, tries = await due(agenda, "order:blog"), 0

    async def failing(_: object, __: Claim) -> Next:
        nonlocal tries
        tries += 1
        return Next(utcnow() + timedelta(minutes=1))

    await work(bench, await agenda.due(1), failing)  # type: ignore[arg-type]
    await work(bench, hints, failing)  # type: ignore[arg-type]
    assert tries == 1
    await work(bench, await due(agenda, "order:blog"), failing)  # type: ignore[arg-type]
    assert tries == 2


async def test_a_step_that_lost_its_member_is_cancelled(agenda: Agenda, bench: Bench) -> None:
    """Its app was removed, say: it stops at its next breath, and writes nothing on the agenda."""
    claims = await due(agenda, "check:gone")
    cancelled = asyncio.Event()

    async def slow(_: object, claim: Claim) -> Next:
        await agenda.drop(claim.member)
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.set()
            raise
        return Next(None)

    assert await work(bench, claims, slow) == ()  # type: ignore[arg-type]
    assert cancelled.is_set()
    assert await agenda.size() == 0


@pytest.mark.parametrize(
    ("error", "wait"),
    [
        (RuntimeError("a fault of ours"), UNEXPECTED_RETRY),
        (VaultError("no key opens it"), UNEXPECTED_RETRY),
        (RedisConnectionError("gone"), REDIS_RETRY),
    ],
)
async def test_one_member_that_fails_does_not_hinder_another(
    agenda: Agenda, bench: Bench, error: Exception, wait: timedelta
) -> None:
    """The others end as ever; the failed one comes again after a while."""
    claims = await due(agenda, "check:bad", "check:good", "check:better")

    async def step(_: object, claim: Claim) -> Next:
        if claim.name == "bad":
            raise error
        return Next(None, (f"order:{claim.name}",))

    before = utcnow()
    assert set(await work(bench, claims, step)) == {"order:good", "order:better"}  # type: ignore[arg-type]
    assert await agenda.time_of("check:good") is None
    again = await agenda.time_of("check:bad")
    assert again is not None
    assert before + wait <= again <= utcnow() + wait
