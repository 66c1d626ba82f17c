"""All or none, whoever asks; named by its key; gone from Redis when it is full again."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from certfleet.limits.buckets import Bucket, Buckets, Charge, Rate
from certfleet.models import from_microseconds, utcnow
from certfleet.settings import Settings
from certfleet.store import Store, open_store
from tests.limits.conftest import SECOND, Watch, bucket_of

DAY = 86_400.0


async def left(buckets: Buckets, *asked: Bucket) -> list[int | None]:
    return [one.remaining for one in await buckets.look(asked)]


async def test_one_bucket_that_lacks_a_token_saves_all_the_others(buckets: Buckets) -> None:
    """A denied order has spent nothing anywhere."""
    account, domain = bucket_of("account"), bucket_of("example.com", count=1)
    assert (await buckets.spend([Charge(account), Charge(domain)])).allowed
    said = await buckets.spend([Charge(account), Charge(domain)])
    assert not said.allowed
    assert said.bucket == domain
    assert await left(buckets, account, domain) == [9, 0]


async def test_a_denial_names_the_bucket_that_frees_last(buckets: Buckets) -> None:
    """Nobody comes back to find the next bucket empty, not even for one that was allowed and is slower."""
    minute, week = bucket_of("minute", count=1, period=60), bucket_of("week", count=1, period=7 * DAY)
    slowest = bucket_of("slowest", count=2, period=60 * DAY)
    await buckets.spend([Charge(minute), Charge(week)])
    said = await buckets.spend([Charge(slowest), Charge(week), Charge(minute)])
    assert (said.allowed, said.bucket, said.remaining) == (False, week, 0)
    assert said.retry_at - said.now == timedelta(days=7)
    assert said.retry_in == 7 * DAY


async def test_a_spend_that_is_allowed_says_which_bucket_binds_next(buckets: Buckets) -> None:
    """Of the buckets of an order, the one that would let the next one wait longest."""
    wide, narrow = bucket_of("wide"), bucket_of("narrow", count=1, period=DAY)
    said = await buckets.spend([Charge(wide), Charge(narrow)])
    assert (said.allowed, said.bucket, said.remaining) == (True, narrow, 0)
    assert said.retry_at == said.reset_at == said.now + timedelta(days=1)


async def test_a_bucket_that_is_only_checked_has_to_have_the_token_and_keeps_it(buckets: Buckets) -> None:
    """Failed validations bar an order; an order does not count as one."""
    orders, failures = bucket_of("orders"), bucket_of("failures", count=2)
    charges = [Charge(orders), Charge(failures, check=True)]
    for _ in range(5):
        assert (await buckets.spend(charges)).allowed
    assert await left(buckets, orders, failures) == [5, 2]
    await buckets.count([Charge(failures)])
    await buckets.count([Charge(failures)])
    said = await buckets.spend(charges)
    assert (said.allowed, said.bucket) == (False, failures)
    assert await left(buckets, orders, failures) == [5, 0]


async def test_check_answers_as_spend_would_and_takes_nothing(buckets: Buckets) -> None:
    """The same decision, the same tokens afterwards."""
    charges = [Charge(bucket_of("a"), 4), Charge(bucket_of("b"), 10)]
    asked = await buckets.check(charges)
    assert await left(buckets, *(charge.bucket for charge in charges)) == [10, 10]
    assert await buckets.spend(charges) == asked
    assert not (await buckets.check(charges)).allowed


async def test_refund_leaves_what_was_only_checked(buckets: Buckets) -> None:
    """The charges of an order go into refund as they went into spend."""
    orders, failures = bucket_of("orders"), bucket_of("failures")
    charges = [Charge(orders), Charge(failures, check=True)]
    await buckets.count([Charge(failures)])
    await buckets.spend(charges)
    assert [one.allowed for one in await buckets.refund(charges)] == [True]
    assert await left(buckets, orders, failures) == [10, 9]


async def test_settling_is_the_later_of_ours_and_one_interval_from_issue(buckets: Buckets, watch: Watch) -> None:
    """A token that was reserved an hour ago and counted now comes back one interval from now."""
    domain = bucket_of("example.com", count=50, period=7 * DAY)
    await buckets.reserve([Charge(domain)])
    watch.move(3600)
    await buckets.settle([Charge(domain)])
    state = (await buckets.look([domain]))[0]
    assert state.reset_at - state.now == timedelta(seconds=12_096)


async def test_settling_many_does_not_let_them_come_back_sooner_than_at_the_ca(buckets: Buckets, watch: Watch) -> None:
    """Ten reserved at once and issued an hour later fill again from the issue on, not from the reservation."""
    domain = bucket_of("example.com", count=50, period=7 * DAY)
    for _ in range(10):
        await buckets.reserve([Charge(domain)])
    watch.move(3600)
    for _ in range(10):
        await buckets.settle([Charge(domain)])
    state = (await buckets.look([domain]))[0]
    assert state.reset_at - state.now == timedelta(seconds=120_960)
    assert state.remaining == 40


async def test_what_is_reserved_does_not_come_back_while_the_ca_has_not_counted_it(
    buckets: Buckets, watch: Watch
) -> None:
    """It may be counted a day from now, all ten at once: nobody may have had an eleventh by then."""
    domain = bucket_of("example.com")
    assert (await buckets.reserve([Charge(domain, 10)])).allowed
    watch.move(DAY)
    assert await left(buckets, domain) == [0]
    await buckets.settle([Charge(domain, 3)])
    assert await left(buckets, domain) == [0]
    watch.move(1)
    assert await left(buckets, domain) == [1]


async def test_what_the_ca_counted_cannot_be_given_back(buckets: Buckets) -> None:
    """What is given back twice, or after the certificate, gives nothing."""
    domain = bucket_of("example.com")
    await buckets.reserve([Charge(domain, 2)])
    await buckets.settle([Charge(domain)])
    given = [(await buckets.release([Charge(domain)]))[0].allowed for _ in range(2)]
    assert given == [True, False]
    assert await left(buckets, domain) == [9]


async def test_tokens_to_be_kept_are_there_for_others(buckets: Buckets) -> None:
    """Whoever has to leave three of ten takes seven."""
    orders = bucket_of("orders")
    said = [await buckets.spend([Charge(orders, keep=3)]) for _ in range(8)]
    assert [one.allowed for one in said] == [True] * 7 + [False]
    assert said[-1].retry_in == 1
    assert (await buckets.spend([Charge(orders, 3)])).allowed


async def test_the_ca_said_when(buckets: Buckets, watch: Watch) -> None:
    """No token before the time that a 429 names, whatever is given back; one then, and one each interval after."""
    domain = bucket_of("example.com", count=50, period=7 * DAY)
    await buckets.reserve([Charge(domain)])
    await buckets.block([domain], from_microseconds(watch.now + 600 * SECOND))
    await buckets.release([Charge(domain)])
    said = await buckets.spend([Charge(domain)])
    assert (said.allowed, said.remaining, said.retry_in) == (False, 0, 600)
    watch.move(599.999999)
    assert not (await buckets.spend([Charge(domain)])).allowed
    watch.move(0.000001)
    assert (await buckets.spend([Charge(domain)])).allowed
    said = await buckets.spend([Charge(domain)])
    assert (said.allowed, said.retry_in) == (False, 12_096)


async def test_a_block_that_is_sooner_than_our_own_count_changes_nothing(buckets: Buckets, watch: Watch) -> None:
    """The later of what we know and what the CA said."""
    week = bucket_of("example.com", count=1, period=7 * DAY)
    await buckets.spend([Charge(week)])
    await buckets.block([week], from_microseconds(watch.now + 60 * SECOND))
    assert (await buckets.check([Charge(week)])).retry_in == 7 * DAY


async def test_counting_beyond_the_burst_is_dropped_as_at_the_ca(buckets: Buckets) -> None:
    """The sixth failure within the hour does not make the wait longer."""
    failures = bucket_of("failures", count=5, period=3600)
    said = [(await buckets.count([Charge(failures)]))[0].allowed for _ in range(7)]
    assert said == [True] * 5 + [False] * 2
    assert (await buckets.check([Charge(failures)])).retry_in == 720


async def test_reset_fills_the_bucket(buckets: Buckets) -> None:
    """One valid authorization ends the count of consecutive failures."""
    pausing = bucket_of("pausing", count=1, period=DAY, burst=1152)
    await buckets.count([Charge(pausing, 1152)])
    assert not (await buckets.check([Charge(pausing)])).allowed
    await buckets.reset([pausing])
    assert await left(buckets, pausing) == [1152]


async def test_without_buckets_everything_is_allowed(buckets: Buckets, watch: Watch) -> None:
    """A CA whose limits nobody knows lets every order pass."""
    said = await buckets.spend([])
    assert (said.allowed, said.bucket, said.remaining) == (True, None, None)
    assert said.retry_at == said.now == from_microseconds(watch.now)


async def test_a_bucket_is_a_key_under_the_prefix_until_it_is_full(buckets: Buckets, store: Store) -> None:
    """CA, limit and key can be read in it, and a CA may be a URL."""
    bucket = replace(bucket_of("2001:db8::/64"), ca="https://ca.internal/directory")
    await buckets.spend([Charge(bucket)])
    name = "limit:https://ca.internal/directory:certificates-per-domain:2001:db8::/64"
    assert await store.redis.keys("*") == [store.key(name)] == [buckets.redis_key(bucket)]
    await buckets.refund([Charge(bucket)])
    assert await store.redis.keys("*") == []


async def test_redis_forgets_a_bucket_that_has_filled(store: Store) -> None:
    """By Redis's clock a key lives exactly until its bucket is full, so that memory does not grow."""
    buckets = Buckets(store)
    short, long = bucket_of("short", count=1, period=0.05), bucket_of("long", count=1, period=3600)
    said = await buckets.spend([Charge(short), Charge(long)])
    assert said.allowed
    assert abs((said.now - utcnow()).total_seconds()) < 60
    expiry = await store.redis.pexpiretime(buckets.redis_key(long))
    assert from_microseconds(expiry * 1000) - said.reset_at < timedelta(milliseconds=1)
    assert from_microseconds(expiry * 1000) >= said.reset_at
    for _ in range(200):
        if not await store.redis.exists(buckets.redis_key(short)):
            break
        await asyncio.sleep(0.02)
    assert await store.redis.keys("*") == [buckets.redis_key(long)]


async def test_many_clients_together_never_overspend(store: Store, settings: Settings) -> None:
    """Four connections ask for more than there is: exactly the burst is given, and every bucket agrees."""
    orders = bucket_of("orders", count=60, period=7 * DAY)
    domains = [bucket_of(f"domain{number}", count=25, period=7 * DAY) for number in range(4)]

    async def client(number: int) -> list[Bucket]:
        got = []
        async with open_store(settings) as own:
            buckets = Buckets(own)
            for turn in range(40):
                domain = domains[(number + turn) % 4]
                if (await buckets.spend([Charge(orders), Charge(domain)])).allowed:
                    got.append(domain)
        return got

    got = [domain for part in await asyncio.gather(*(client(number) for number in range(4))) for domain in part]
    assert len(got) == 60
    remaining = await left(Buckets(store), orders, *domains)
    assert remaining == [0, *(25 - got.count(domain) for domain in domains)]


async def test_a_redis_that_forgot_the_script_gets_it_again(buckets: Buckets, store: Store) -> None:
    """A restart of Redis costs nothing but the script's text."""
    bucket = bucket_of("example.com")
    await buckets.spend([Charge(bucket)])
    await store.redis.script_flush()
    assert (await buckets.spend([Charge(bucket)])).remaining == 8


def test_an_interval_that_is_no_whole_number_is_never_shorter_than_the_cas() -> None:
    """A third of a second is 333,334 microseconds: ours fills later, never earlier."""
    assert Rate(3, SECOND, 3).interval == 333_334
    assert Rate(50, 604_800 * SECOND, 50).interval == 12_096 * SECOND


@pytest.mark.parametrize(("count", "period", "burst"), [(0, 1, 1), (1, 0, 1), (1, 1, 0), (1, 400_000_000_000_000, 1)])
def test_a_rate_that_makes_no_bucket_is_refused(count: int, period: int, burst: int) -> None:
    """No count, no period, no burst, or more than a double holds."""
    with pytest.raises(ValueError, match="burst"):
        Rate(count, period, burst)


@pytest.mark.parametrize("cost", [-1, 11])
def test_a_cost_that_never_fits_is_refused(cost: int) -> None:
    """It would wait for ever."""
    with pytest.raises(ValueError, match="never fits"):
        Charge(bucket_of("example.com"), cost)


async def test_a_bucket_that_is_named_twice_is_refused(buckets: Buckets) -> None:
    """Both would be decided from the same tokens."""
    with pytest.raises(ValueError, match="once"):
        await buckets.spend([Charge(bucket_of("example.com")), Charge(bucket_of("example.com"))])
