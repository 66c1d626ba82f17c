"""Polls that learn."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certfleet.acme_ca.pace import FIRST_GUESS, LONGEST, SHORTEST, Pace, next_delay, poll
from certfleet.models import utcnow


def looks_for(pace: Pace, takes: float) -> int:
    """Looks that one poll needs, on a clock of its own, when the CA takes this long."""
    waited, looks = 0.0, 0
    while waited < takes or looks == 0:
        delay = next_delay(pace.delay, waited, 0.0, 1e9)
        assert delay is not None
        waited, looks = waited + delay, looks + 1
    pace.learn(waited, looks)
    return looks


@pytest.mark.parametrize("typical", [0.001, 0.008, 0.05, 0.4])
def test_a_learned_pace_needs_hardly_more_than_one_look(typical: float) -> None:
    """After a while 1.05 looks a step at most, and no wait out of proportion, however fast the CA is."""
    chance = random.Random(7)  # noqa: S311  a simulation
    pace = Pace()
    takes = [typical * chance.uniform(0.7, 1.3) for _ in range(3_000)]
    for time in takes[:1_000]:
        looks_for(pace, time)
    assert sum(looks_for(pace, time) for time in takes[1_000:]) / 2_000 <= 1.05
    assert pace.delay <= max(3 * typical, SHORTEST)


def test_one_outlier_does_not_spoil_the_pace() -> None:
    """A CA that hangs once is not waited for ever after."""
    pace = Pace(0.01)
    looks_for(pace, 5.0)
    assert pace.delay <= 0.02


@given(st.lists(st.tuples(st.floats(0, 100), st.integers(1, 50))))
def test_a_pace_stays_in_its_bounds(polls: list[tuple[float, int]]) -> None:
    """Whatever happens, the first look comes after 2 ms to 1.8 s."""
    pace = Pace()
    for waited, looks in polls:
        pace.learn(waited, looks)
        assert SHORTEST <= pace.delay <= LONGEST


@given(st.floats(SHORTEST, LONGEST), st.floats(0, 10), st.floats(-10, 1e6), st.floats(0, 10))
def test_a_look_comes_neither_before_the_ca_wants_it_nor_after_the_budget(
    delay: float, waited: float, asked: float, budget: float
) -> None:
    """Retry-After is honoured, the budget is kept, and it goes on."""
    found = next_delay(delay, waited, asked, budget)
    if found is not None:
        assert found > 0
        assert found >= asked
        assert waited + found <= budget


@dataclass
class Seen:
    state: str
    retry_at: datetime | None = None


async def test_a_poll_ends_with_the_answer_it_waits_for() -> None:
    """It looks until done."""
    answers = [Seen("pending"), Seen("pending"), Seen("ready")]

    async def fetch() -> Seen:
        return answers.pop(0)

    assert await poll(fetch, lambda s: s.state == "ready", Pace(0.002)) == Seen("ready")


async def test_a_poll_ends_with_its_budget() -> None:
    """The last look is handed back when time is up, and the pace learned from it."""
    pace = Pace(0.01)

    async def fetch() -> Seen:
        return Seen("pending")

    assert await poll(fetch, lambda s: s.state == "ready", pace, budget=0.05) == Seen("pending")
    assert pace.delay == 0.02


async def test_a_poll_returns_at_once_when_the_ca_wants_to_be_left_alone() -> None:
    """A Retry-After beyond the budget, before the first look or on one, ends the poll there."""
    looks = 0

    async def fetch() -> Seen:
        nonlocal looks
        looks += 1
        return Seen("pending", utcnow() + timedelta(minutes=1))

    assert await poll(fetch, lambda _: False, Pace(), retry_at=utcnow() + timedelta(seconds=3)) is None
    assert looks == 0
    assert await poll(fetch, lambda _: False, Pace()) is not None
    assert looks == 1


async def test_a_short_retry_after_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Within the budget the poll waits as long as the CA asked."""
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    async def fetch() -> Seen:
        return Seen("ready")

    monkeypatch.setattr("certfleet.acme_ca.pace.asyncio.sleep", sleep)
    await poll(fetch, lambda _: True, Pace(), retry_at=utcnow() + timedelta(seconds=1.5))
    assert FIRST_GUESS < slept[0] <= 1.5
