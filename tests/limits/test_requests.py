"""The turnstile before a CA: as fast as the CA takes requests from one address, over all processes, and no faster."""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from itertools import count, pairwise

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from redis.exceptions import ConnectionError as RedisConnectionError

from certfleet.errors import SlowedDown
from certfleet.limits import requests as module
from certfleet.limits.buckets import Buckets, Charge
from certfleet.limits.keys import slow_down_bucket
from certfleet.limits.overrides import LimitsBook
from certfleet.limits.presets import Limits, override
from certfleet.limits.requests import SharedTurnstile
from certfleet.models import CA, utcnow
from certfleet.store import Store

HOME = CA(name="https://ca.internal/directory", directory="https://ca.internal/directory")
ADDRESS = "192.0.2.1"
numbers = count()


class Counted(Buckets):
    """Buckets that count their script runs; `broken` ones fail."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.runs: Counter[str] = Counter()
        self.broken = False

    async def _run(self, verb: str, charges: Sequence[Charge], until: int = 0) -> list[int]:
        self.runs[verb] += 1
        if self.broken:
            raise RedisConnectionError("gone")
        return await super()._run(verb, charges, until)


async def limited(store: Store, **rates: str) -> None:
    """Tell what the CA takes: `new_order="20/1s burst 10"`."""
    told = [override(ca=HOME.name, limit=f"requests-{kind.replace('_', '-')}", rate=r) for kind, r in rates.items()]
    await LimitsBook(store).set(*told)


async def process(store: Store, address: str | None = ADDRESS) -> tuple[SharedTurnstile, Counted]:
    """A turnstile as a process of its own has it, warm."""
    buckets, book = Counted(store), LimitsBook(store)
    await book.of(HOME.name, HOME.directory)
    return SharedTurnstile(buckets, book, HOME, address), buckets


async def passed(turnstile: SharedTurnstile, kind: str = "newOrder", after: float = 0) -> float:
    """When a request that came after so many seconds was let through."""
    await asyncio.sleep(after)
    await turnstile.enter(kind)
    return time.monotonic()


async def sent_away(turnstile: SharedTurnstile, kind: str = "newOrder") -> SlowedDown:
    """What a request hears that would have to wait for long."""
    with pytest.raises(SlowedDown) as caught:
        await turnstile.enter(kind)
    return caught.value


def never_too_many(times: Sequence[float], *, each: float, burst: int) -> None:
    """No span of time sees more than `burst`, and one more `each` so many seconds."""
    ordered = sorted(times)
    for first, start in enumerate(ordered):
        for last in range(first, len(ordered)):
            assert last - first + 1 <= burst + (ordered[last] - start) / each, (first, last)


arrivals = st.lists(st.tuples(st.integers(0, 100), st.integers(0, 3)), min_size=1, max_size=60)
crowd = [(0, number % 4) for number in range(60)]


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(arrivals=arrivals)
@example(arrivals=crowd)
async def test_processes_together_are_never_too_fast(store: Store, arrivals: list[tuple[int, int]]) -> None:
    """However requests come, the published rate and burst hold over all processes of one address."""
    own = Store(store.redis, f"turnstile{next(numbers)}:")
    await limited(own, new_order="100/1s burst 20")
    four = [(await process(own))[0] for _ in range(4)]
    times = await asyncio.gather(*(passed(four[number], after=at / 1000) for at, number in arrivals))
    never_too_many(times, each=0.01, burst=20)


async def test_tokens_that_are_there_are_not_waited_for(store: Store) -> None:
    """Forty requests at 100 a second, with half of a burst of 20: all are through in little more than 0.3 s."""
    await limited(store, new_order="100/1s burst 20")
    turnstile, _ = await process(store)
    start = time.monotonic()
    times = await asyncio.gather(*(passed(turnstile) for _ in range(40)))
    assert 0.28 <= max(times) - start < 0.6
    assert sorted(times) == list(times), "who came first goes first"


async def test_the_next_token_is_taken_though_more_are_wanted(store: Store) -> None:
    """Ten wait where another process has emptied the bucket: the first goes with the first token."""
    await limited(store, new_order="20/1s burst 20")
    (one, _), (other, _) = await process(store), await process(store)
    await asyncio.gather(*(passed(one) for _ in range(10)))
    start = time.monotonic()
    times = await asyncio.gather(*(passed(other) for _ in range(10)))
    assert min(times) - start < 0.3
    assert 0.4 < max(times) - start < 0.9


async def test_requests_that_wait_together_cost_one_script_run(store: Store) -> None:
    """A hundred at one moment; and where there are fewer tokens, one more run takes what is there."""
    await limited(store, new_order="200/1s burst 200", renewal_info="200/1s burst 100")
    turnstile, buckets = await process(store)
    await asyncio.gather(*(turnstile.enter("newOrder") for _ in range(100)))
    assert buckets.runs == {"spend": 1}
    await turnstile.enter("renewalInfo")
    buckets.runs.clear()
    await asyncio.gather(*(turnstile.enter("renewalInfo") for _ in range(100)))
    assert buckets.runs["spend"] < 30, "0.25 s at 200 a second: a run for each token would be more"


async def test_a_ca_without_limits_on_requests_costs_a_look_a_second(store: Store) -> None:
    """And its turns are good for ever."""
    turnstile, buckets = await process(store)
    turns = await asyncio.gather(*(turnstile.enter(kind) for kind in ("newOrder", "order") for _ in range(100)))
    assert set(turns) == {math.inf}
    assert buckets.runs == {"check": 1}


async def test_endpoints_addresses_and_kinds_are_counted_apart(store: Store) -> None:
    """What has no limit of its own shares one; another address has its own; machines without one share theirs."""
    await limited(store, new_order="1/1h burst 2", other="1/1h burst 2")
    turnstile, _ = await process(store)
    await turnstile.enter("newOrder")
    await turnstile.enter("finalize")
    await sent_away(turnstile, "newOrder")
    await sent_away(turnstile, "challenge")
    await turnstile.enter("newNonce")
    await (await process(store, "192.0.2.2"))[0].enter("newOrder")
    await (await process(store, None))[0].enter("newOrder")
    await sent_away((await process(store, None))[0], "newOrder")


async def test_a_ca_that_counts_per_project_counts_all_accounts_and_addresses_as_one(store: Store) -> None:
    """Google's way, for a CA that was given it by hand."""
    await limited(store, new_order="1/1h burst 2")
    await store.redis.hset(store.key("limits"), "x", f'{{"ca": "{HOME.name}", "switch": "per-project", "on": true}}')
    await (await process(store))[0].enter("newOrder")
    await sent_away((await process(store, "192.0.2.2"))[0])


async def test_a_long_wait_is_for_the_agenda(store: Store) -> None:
    """At once: an error with the time, and a sentence that says what is waited for."""
    await limited(store, new_order="1/10s")
    turnstile, _ = await process(store)
    await turnstile.enter("newOrder")
    start = time.monotonic()
    error = await sent_away(turnstile)
    assert time.monotonic() - start < 0.5
    assert error.retry_at is not None
    assert timedelta(seconds=9) < error.retry_at - utcnow() <= timedelta(seconds=10)
    assert str(error).startswith(
        f"waiting for requests (new-order) from the IP address {ADDRESS} at {HOME.name}, until "
    )


async def test_a_crowd_is_told_different_times(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those who would wait too long hear at once when their turn would be; the others get through meanwhile."""
    monkeypatch.setattr(module, "PATIENCE", 0.5)
    await limited(store, new_order="20/1s burst 2")
    turnstile, buckets = await process(store)
    answers = await asyncio.gather(*(passed(turnstile) for _ in range(300)), return_exceptions=True)
    times = [answer for answer in answers if isinstance(answer, float)]
    told = [answer.retry_at for answer in answers if isinstance(answer, SlowedDown) and answer.retry_at]
    assert 8 <= len(times) <= 12
    assert len(times) + len(told) == 300
    assert len(set(told)) == len(told)
    assert max(told) - min(told) > timedelta(seconds=13), "their share of 20 a second"
    never_too_many(times, each=0.05, burst=2)
    assert buckets.runs["spend"] < 40


async def test_no_time_is_told_twice_though_others_take_tokens(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process's requests move a queue back by whole tokens, onto times that were told before."""
    monkeypatch.setattr(module, "PATIENCE", 0.5)
    await limited(store, new_order="20/1s burst 2")
    one, _ = await process(store)
    other, _ = await process(store)
    others = [asyncio.create_task(passed(other, after=0.1 * number)) for number in range(1, 4)]
    answers = await asyncio.gather(*(passed(one) for _ in range(40)), return_exceptions=True)
    await asyncio.gather(*others)
    told = sorted(answer.retry_at for answer in answers if isinstance(answer, SlowedDown) and answer.retry_at)
    assert len(told) > 28
    assert min(after - before for before, after in pairwise(told)) > timedelta(seconds=0.01)


@pytest.mark.parametrize("rates", [{"new_order": "100/1s"}, {}], ids=["limited", "unlimited"])
async def test_what_one_process_was_told_the_others_hear(
    store: Store, rates: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A CA that wants a pause gets it from every process of this address, and only of this one."""
    monkeypatch.setattr(module, "LOOK", 0.05)
    await limited(store, **rates)
    one, _ = await process(store)
    other, _ = await process(store)
    elsewhere, _ = await process(store, "192.0.2.2")
    for turnstile in (one, other, elsewhere):
        await turnstile.enter("newOrder")
    await one.slow_down(utcnow() + timedelta(seconds=30))
    await asyncio.sleep(0.06)
    for turnstile in (one, other):
        error = await sent_away(turnstile)
        assert error.retry_at is not None
        assert timedelta(seconds=28) < error.retry_at - utcnow() <= timedelta(seconds=30)
        assert "the CA named (503)" in str(error)
    await elsewhere.enter("newOrder")
    [closed] = slow_down_bucket(Limits(HOME.name), ADDRESS)
    assert not (await Buckets(store).check([Charge(closed, check=True)])).allowed, "admission sees it too"


@pytest.mark.parametrize("rates", [{"new_order": "100/1s"}, {}], ids=["limited", "unlimited"])
async def test_a_short_pause_is_waited_out(store: Store, rates: dict[str, str]) -> None:
    """By whoever was told, and by a process that was not; afterwards all is as before."""
    await limited(store, **rates)
    one, _ = await process(store)
    other, _ = await process(store)
    start = time.monotonic()
    await one.slow_down(utcnow() + timedelta(seconds=0.4))
    times = await asyncio.gather(passed(one), passed(other), passed(other))
    assert all(0.35 < at - start < 0.9 for at in times)
    start = time.monotonic()
    await asyncio.gather(passed(one), passed(other))
    assert time.monotonic() - start < 0.2


async def test_no_pause_is_longer_than_an_hour_for_those_who_were_not_told(store: Store) -> None:
    """A CA's mistake does not stop a fleet for a year; whoever was told obeys it by its own error."""
    turnstile, _ = await process(store)
    await turnstile.slow_down(utcnow() + timedelta(days=300))
    error = await sent_away(turnstile)
    assert error.retry_at is not None
    assert error.retry_at - utcnow() <= module.LONGEST_SLOW_DOWN


async def test_without_redis_nobody_passes(store: Store) -> None:
    """Everybody who waits hears it; when Redis is back it goes on."""
    await limited(store, new_order="100/1s")
    turnstile, buckets = await process(store)
    buckets.broken = True
    answers = await asyncio.gather(*(turnstile.enter("newOrder") for _ in range(3)), return_exceptions=True)
    assert [type(answer) for answer in answers] == [RedisConnectionError] * 3
    with pytest.raises(RedisConnectionError):
        await turnstile.enter("directory")
    buckets.broken = False
    await turnstile.enter("newOrder")


async def test_whoever_gives_up_holds_up_nobody(store: Store) -> None:
    """A cancelled request leaves the queue; those behind it move up."""
    await limited(store, new_order="10/1s burst 2")
    turnstile, _ = await process(store)
    await turnstile.enter("newOrder")
    waiting = [asyncio.create_task(passed(turnstile)) for _ in range(21)]
    await asyncio.sleep(0.01)
    for task in waiting[:20]:
        task.cancel()
    start = time.monotonic()
    assert await waiting[20] - start < 0.5
    assert all(task.cancelled() for task in waiting[:20])


async def test_changed_limits_hold_within_a_second(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where there were none before."""
    monkeypatch.setattr("certfleet.limits.overrides.KEPT", 0.05)
    turnstile, _ = await process(store)
    await turnstile.enter("newOrder")
    await limited(store, new_order="1/1h")
    await asyncio.sleep(0.06)
    await turnstile.enter("newOrder")
    await sent_away(turnstile)
