"""The simulation keeps every limit, lets no token lie while somebody could use it, and serves in the fleet's order."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from certfleet.limits.buckets import Bucket, Charge, Rate
from certfleet.limits.forecast import HORIZON, Forecast, forecast
from certfleet.limits.keys import order_buckets
from certfleet.limits.presets import limits_of, presets
from certfleet.limits.simulation import Wish
from tests.limits.conftest import SECOND

NOW = 1_800_000_000 * SECOND
DAY = 86_400 * SECOND
LETSENCRYPT = limits_of("letsencrypt", presets()["letsencrypt"].directory)


def orders(account: str = "acc", rate: Rate | None = None) -> Bucket:
    return Bucket("ca", "orders-per-account", account, rate or Rate(3, 30, 3))


def domain(name: str = "example.com", rate: Rate | None = None) -> Bucket:
    return Bucket("ca", "certificates-per-domain", name, rate or Rate(2, 70, 2))


BUCKETS = [
    orders("a"),
    orders("b", Rate(4, 36, 4)),
    domain("x.com"),
    domain("y.com", Rate(1, 25, 3)),
    Bucket("ca", "certificates-per-set", "s", Rate(1, 90, 1)),
    Bucket("ca", "failed-authorizations", "f", Rate(1, 40, 1)),
]
parties = st.sampled_from(["u", "r", "t:one", "t:two", "t:three"])
some_charges = st.lists(st.sampled_from(BUCKETS), unique=True, min_size=1, max_size=3).flatmap(
    lambda chosen: st.tuples(
        *(
            st.builds(
                Charge,
                st.just(bucket),
                st.integers(1, min(2, bucket.rate.burst)),
                st.just(bucket.limit.startswith("failed")),
                st.sampled_from([0, 0, 0, 1, 9]),
            )
            for bucket in chosen
        )
    )
)
wishes_of_many = st.lists(
    st.builds(Wish, st.just("app"), parties, st.integers(0, 5), some_charges, st.integers(NOW - 20, NOW + 120)),
    min_size=1,
    max_size=25,
)
levels_of_many = st.dictionaries(st.sampled_from(BUCKETS), st.integers(NOW, NOW + 200))
THOROUGH = settings(max_examples=100)


def tokens_of(charge: Charge) -> int:
    """What has to be there."""
    return min(charge.cost + charge.keep, charge.bucket.rate.burst)


class Replay:
    """The buckets after what a forecast says was admitted, worked out from the outcomes alone."""

    def __init__(self, levels: Mapping[Bucket, int]) -> None:
        self.tat = defaultdict(int, levels)

    def take(self, wishes: Iterable[Wish], at: int) -> None:
        for wish in wishes:
            for charge in wish.charges:
                if not charge.check:
                    start = max(self.tat[charge.bucket], at)
                    self.tat[charge.bucket] = start + charge.bucket.rate.interval * charge.cost

    def ready(self, wish: Wish) -> int:
        """From when on all its tokens are there."""
        return max(
            self.tat[c.bucket] - c.bucket.rate.interval * (c.bucket.rate.burst - tokens_of(c)) for c in wish.charges
        )


def admitted_at(found: Forecast) -> dict[int, list[int]]:
    """Time -> indexes of those admitted then, in the order of time."""
    times: dict[int, list[int]] = {}
    for index, outcome in enumerate(found.outcomes):
        assert outcome.at is not None, "every bucket fills again, nobody takes for ever"
        times.setdefault(outcome.at, []).append(index)
    return dict(sorted(times.items()))


@THOROUGH
@given(wishes=wishes_of_many, levels=levels_of_many)
def test_no_window_has_more_than_its_limit_allows(wishes: list[Wish], levels: dict[Bucket, int]) -> None:
    """Between any two admissions a bucket gives at most its burst and what came meanwhile; at first what it held."""
    found = forecast(wishes, levels, NOW)
    for bucket in BUCKETS:
        spent = sorted(
            (outcome.at or 0, charge.cost)
            for wish, outcome in zip(wishes, found.outcomes, strict=True)
            for charge in wish.charges
            if charge.bucket == bucket and not charge.check
        )
        interval, burst = bucket.rate.interval, bucket.rate.burst
        for first in range(len(spent)):
            total = 0
            for at, cost in spent[first:]:
                total += cost
                assert total * interval <= at - spent[first][0] + burst * interval
                if first == 0:
                    missing = max(0, levels.get(bucket, 0) - NOW)
                    assert total * interval <= at - NOW + burst * interval - missing


@THOROUGH
@given(wishes=wishes_of_many, levels=levels_of_many)
def test_no_token_lies_while_somebody_it_would_serve_waits(wishes: list[Wish], levels: dict[Bucket, int]) -> None:
    """After each moment, and until the next one, whoever still waits lacks a token."""
    found = forecast(wishes, levels, NOW)
    replay, times = Replay(levels), admitted_at(found)
    for at, following in pairwise([NOW - 1, *times, max(times) + 1]):
        replay.take([wishes[index] for index in times.get(at, [])], at)
        for wish, outcome in zip(wishes, found.outcomes, strict=True):
            if outcome.at is not None and outcome.at > at:
                assert max(replay.ready(wish), wish.at, at, NOW) >= following


@THOROUGH
@given(wishes=wishes_of_many, levels=levels_of_many)
def test_nobody_urgent_is_passed_by_whom_it_could_have_gone_before(
    wishes: list[Wish], levels: dict[Bucket, int]
) -> None:
    """Emergencies, then renewals, each by score; only who lacks a token that they need is passed by."""

    def order(index: int) -> tuple[float, ...]:
        wish = wishes[index]
        return {"u": 0, "r": 1}.get(wish.party, 2), wish.score, wish.at, index

    found = forecast(wishes, levels, NOW)
    replay, times = Replay(levels), admitted_at(found)
    for at, indexes in times.items():
        for index, outcome in enumerate(found.outcomes):
            waits = wishes[index].at <= at < (outcome.at or 0)
            if waits and wishes[index].party in ("u", "r") and any(order(index) < order(other) for other in indexes):
                before = Replay(replay.tat)
                before.take([wishes[other] for other in sorted(indexes, key=order) if order(other) < order(index)], at)
                assert before.ready(wishes[index]) > at
        replay.take([wishes[index] for index in indexes], at)


@THOROUGH
@given(wishes=wishes_of_many, levels=levels_of_many)
def test_the_same_question_gets_the_same_answer(wishes: list[Wish], levels: dict[Bucket, int]) -> None:
    """Whatever the dictionaries' order: every tie has a rule."""
    backwards = dict(reversed(levels.items()))
    assert forecast(wishes, levels, NOW) == forecast(list(wishes), backwards, NOW)


@given(counts=st.lists(st.integers(1, 8), min_size=2, max_size=5), keep=st.integers(0, 1))
def test_tenants_are_served_in_turn(counts: list[int], keep: int) -> None:
    """At any moment no tenant that still waits is more than one behind another; each one's are first come, first."""
    bucket = orders(rate=Rate(1, 10, 2))
    wishes = [
        Wish(f"{tenant}-{number}", f"t:{tenant}", number, (Charge(bucket, keep=keep),), NOW)
        for tenant, count in enumerate(counts)
        for number in range(count)
    ]
    found = forecast(wishes, {bucket: NOW + 20}, NOW)
    served: Counter[str] = Counter()
    left = Counter(wish.party for wish in wishes)
    for wish, outcome in sorted(zip(wishes, found.outcomes, strict=True), key=lambda pair: pair[1].at or 0):
        assert wish.score == served[wish.party], "in their order"
        served[wish.party] += 1
        left[wish.party] -= 1
        waiting = [served[party] for party in left if left[party]]
        assert not waiting or max(served[wish.party], *waiting) - min(waiting) <= 1
        assert outcome.at is not None


def test_a_tenant_that_comes_late_waits_its_turn() -> None:
    """Behind those that have waited for theirs, not behind all their orders."""
    bucket = orders(rate=Rate(1, 10, 1))
    early = [Wish(f"e{n}", f"t:{'ab'[n % 2]}", n, (Charge(bucket),), NOW) for n in range(8)]
    late = Wish("late", "t:late", 0, (Charge(bucket),), NOW + 25)
    found = forecast([*early, late], {bucket: NOW + 10}, NOW)
    assert found.outcomes[-1].at == NOW + 50
    assert found.finish == NOW + 90


def test_tenants_that_wait_already_keep_their_turns() -> None:
    """By name a would be next; whoever only comes now goes behind all of them, under another rate too."""
    bucket = orders(rate=Rate(1, 10, 1))
    wishes = [Wish(f"{name}{n}", f"t:{name}", n, (Charge(bucket),), NOW) for n in range(2) for name in "abcd"]
    turns = {orders(rate=Rate(1, 20, 1)): ("t:c", "t:b", "t:d")}
    found = forecast(wishes, {bucket: NOW + 10}, NOW, turns=turns)
    served = sorted(zip(found.outcomes, wishes, strict=True), key=lambda pair: pair[0].at or 0)
    assert [wish.app for _, wish in served] == ["c0", "b0", "d0", "a0", "c1", "b1", "d1", "a1"]


def test_what_is_kept_for_renewals_is_theirs() -> None:
    """New names stop at the share; a renewal that comes then goes at once."""
    bucket = orders(rate=Rate(4, 40, 4))
    names = [Wish(f"n{n}", "t:", n, (Charge(bucket, keep=2),), NOW) for n in range(4)]
    renewal = Wish("r", "r", 0, (Charge(bucket),), NOW + 5)
    found = forecast([*names, renewal], {}, NOW)
    assert [outcome.at for outcome in found.outcomes] == [NOW, NOW, NOW + 20, NOW + 30, NOW + 5]
    assert found.outcomes[-1].bucket is None


def test_who_needs_more_tokens_goes_first_all_the_same_when_more_urgent() -> None:
    """Both could go now, but not the emergency after the other: it has to leave one."""
    bucket = orders(rate=Rate(4, 40, 4))
    new = Wish("new", "t:", 0, (Charge(bucket),), NOW)
    urgent = Wish("urgent", "u", 0, (Charge(bucket, keep=1),), NOW)
    found = forecast([new, urgent], {bucket: NOW + 20}, NOW)
    assert [outcome.at for outcome in found.outcomes] == [NOW, NOW]


def test_one_that_its_own_bucket_denies_holds_up_nobody() -> None:
    """The exact set of the first is used up; the second behind it needs no more than both share."""
    used = Bucket("ca", "certificates-per-set", "used", Rate(1, 500, 1))
    fresh = Bucket("ca", "certificates-per-set", "fresh", Rate(1, 500, 1))
    wishes = [Wish("a", "t:", 0, (Charge(orders()), Charge(used)), NOW)]
    wishes += [Wish("b", "t:", 1, (Charge(orders()), Charge(fresh)), NOW)]
    found = forecast(wishes, {used: NOW + 300}, NOW)
    assert [outcome.at for outcome in found.outcomes] == [NOW + 300, NOW]
    assert found.outcomes[0].bucket == used
    assert found.binding == used


def test_a_checked_bucket_bars_and_loses_nothing() -> None:
    """All who wait for it go together when it has a token again."""
    closed = Bucket("ca", "refused", "acc", Rate(1, SECOND, 1))
    wishes = [Wish(f"a{n}", "t:", n, (Charge(orders()), Charge(closed, check=True)), NOW) for n in range(3)]
    found = forecast(wishes, {closed: NOW + 600}, NOW)
    assert {outcome.at for outcome in found.outcomes} == {NOW + 600}
    assert [(wait.bucket, wait.waited, wait.until) for wait in found.waits] == [(closed, 3, NOW + 600)]


def test_the_limit_that_binds_is_the_one_the_last_waits_for_longest() -> None:
    """60 names of one domain at Let's Encrypt: 50 at once, one each 12,096 s; orders pass by the way."""
    wishes = [wish_of(number, f"a{number}.example.com") for number in range(60)]
    found = forecast(wishes, {}, NOW)
    assert found.finish == NOW + 10 * 12_096 * SECOND
    [wait] = found.waits
    assert (wait.bucket.limit, wait.bucket.key, wait.waited) == ("certificates-per-domain", "example.com", 10)
    assert wait.until == found.finish
    assert [outcome.bucket for outcome in found.outcomes[:50]] == [None] * 50


def test_each_order_counts_its_own_waiting() -> None:
    """The first waits 100 for its account and 20 for the domain; the second comes late and waits 10 and 45."""
    account, name = orders(rate=Rate(1, 1, 1)), domain(rate=Rate(1, 25, 1))
    both = (Charge(account), Charge(name))
    wishes = [Wish("first", "t:", 0, both, NOW), Wish("second", "t:", 1, both, NOW + 90)]
    other = Wish("other", "t:", 2, (Charge(name),), NOW + 95)
    found = forecast(wishes, {account: NOW + 100}, NOW, background=[other])
    assert [outcome.at for outcome in found.outcomes] == [NOW + 120, NOW + 145]
    assert [outcome.bucket for outcome in found.outcomes] == [account, name]


def test_nothing_asked_is_done_and_without_limits_everything_is() -> None:
    """No wish has no end; a wish without charges is admitted when it comes."""
    assert forecast([], {}, NOW) == Forecast((), None, (), NOW)
    found = forecast([Wish("a", "t:", 0, (), NOW - 5), Wish("b", "r", 0, (), NOW + 5)], {}, NOW)
    assert [outcome.at for outcome in found.outcomes] == [NOW, NOW + 5]
    assert found.binding is None


def renewing(period: int) -> Callable[[Wish, int], Wish]:
    """Every certificate is renewed after so long, and each renewal again."""
    return lambda wish, at: Wish(
        wish.app, "r", at + 2 * period, tuple(Charge(c.bucket) for c in wish.charges), at + period
    )


def test_renewals_that_fall_due_take_part() -> None:
    """Without exemptions they go before new names, those of certificates that were issued in the meantime, too."""
    bucket = domain(rate=Rate(1, 10, 1))
    wishes = [Wish(f"n{n}", "t:", n, (Charge(bucket),), NOW + at) for n, at in enumerate((0, 0, 51))]
    existing = [Wish(f"e{at}", "r", at, (Charge(bucket),), NOW + at) for at in (5, 15)]

    def times(**more: Any) -> list[int]:
        return [(outcome.at or 0) - NOW for outcome in forecast(wishes, {}, NOW, **more).outcomes]

    assert times() == [0, 10, 51]
    assert times(background=existing) == [0, 30, 51]
    assert times(background=existing, follow=renewing(50)) == [0, 30, 90], "four renewals, one every ten"


def test_new_names_that_renewals_leave_no_room_for_are_never_done() -> None:
    """Two certificates, renewed each 20, use up one token each 10; the third never gets one, and that has an end."""
    bucket = domain(rate=Rate(1, 10 * DAY, 1))
    wishes = [Wish(f"n{n}", "t:", n, (Charge(bucket),), NOW) for n in range(3)]
    found = forecast(wishes, {}, NOW, follow=renewing(20 * DAY))
    assert [outcome.at for outcome in found.outcomes] == [NOW, NOW + 10 * DAY, None]
    assert (found.finish, found.binding) == (None, bucket)
    assert found.waits[0].until is None
    assert NOW + HORIZON - 20 * DAY < found.seen <= NOW + HORIZON


def test_another_rate_is_the_same_bucket() -> None:
    """What is missing from it now is missing under the rate of a what-if, too."""
    held = domain(rate=Rate(1, 100, 1))
    found = forecast([Wish("a", "t:", 0, (Charge(domain(rate=Rate(1, 50, 1))),), NOW)], {held: NOW + 30}, NOW)
    assert found.finish == NOW + 30


def wish_of(number: int, name: str, account: str = "acc") -> Wish:
    """A new name at Let's Encrypt."""
    buckets = order_buckets(LETSENCRYPT, account=account, identifiers=[name])
    return Wish(name, "t:", number, tuple(Charge(b) for b in buckets.ordered + buckets.issued), NOW)


@pytest.mark.parametrize(
    ("apps", "domains", "limit", "days"),
    [
        (100_000, 2000, "orders-per-account", 13.76),
        (10_000, 1, "certificates-per-domain", 1393),
        (10_000, 10_000, "orders-per-account", 1.264),
    ],
)
def test_a_hundred_thousand_apps(
    apps: int, domains: int, limit: str, days: float, record_property: Callable[[str, object], None]
) -> None:
    """At Let's Encrypt with three accounts; the durations are printed, not judged."""
    wishes = [wish_of(n, f"app{n}.example{n % domains}.com", f"acc{n % 3}") for n in range(apps)]
    began = time.perf_counter()
    found = forecast(wishes, {}, NOW)
    seconds = time.perf_counter() - began
    record_property("seconds", round(seconds, 2))
    print(f"{apps:,} apps under {domains} domains: {seconds:.1f} s")  # noqa: T201
    assert found.finish is not None
    assert (found.finish - NOW) / DAY == pytest.approx(days, rel=0.001)
    assert found.binding is not None
    assert found.binding.limit == limit
    assert all(outcome.at is not None for outcome in found.outcomes)
