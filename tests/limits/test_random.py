"""Random sequences: the script says what the reference says, and never holds more than the CA's own bucket."""

from __future__ import annotations

from itertools import count

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from certfleet.limits.buckets import Bucket, Buckets, Charge, Decision, Rate
from certfleet.models import from_microseconds
from certfleet.store import Store
from tests.limits.conftest import SECOND, Watch
from tests.limits.reference import Answer, ReferenceBucket, spend_all
from tests.limits.test_known_answers import answer

RATES = [
    Rate(10, 10 * SECOND, 10),
    Rate(5, 604_800 * SECOND, 5),
    Rate(20, SECOND, 10),
    Rate(30_000, SECOND, 30_000),
    Rate(7, SECOND, 1),
    Rate(1, 86_400 * SECOND, 1152),
]
BUCKETS = [Bucket("ca", "limit", f"key{number}", rate) for number, rate in enumerate(RATES)]
QUICK = settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
numbers = count()


def charge_of(bucket: Bucket) -> st.SearchStrategy[Charge]:
    small = st.integers(0, min(3, bucket.rate.burst))
    cost = st.one_of(small, st.integers(0, bucket.rate.burst), st.just(bucket.rate.burst))
    return st.builds(Charge, st.just(bucket), cost, st.booleans(), st.integers(0, 3))


VERBS = ["spend", "reserve", "check", "refund", "release", "settle", "count"]
some = st.lists(st.sampled_from(BUCKETS), unique=True, max_size=4)
charges = some.flatmap(lambda chosen: st.tuples(*[charge_of(bucket) for bucket in chosen]))
waits = st.one_of(st.integers(-3 * SECOND, 30 * SECOND), st.integers(0, 900), st.integers(0, 200_000 * SECOND))
steps = st.one_of(
    st.tuples(
        st.sampled_from(["spend", "reserve", "check", "refund", "release", "settle", "count"]), charges, st.just(0)
    ),
    st.tuples(st.just("reset"), charges, st.just(0)),
    st.tuples(st.just("block"), charges, st.integers(-5 * SECOND, 90_000 * SECOND)),
    st.tuples(st.just("wait"), st.just(()), waits),
)


class Model:
    """The reference's buckets, asked with the script's words."""

    def __init__(self) -> None:
        self.all = {bucket: ReferenceBucket(bucket.rate.interval, bucket.rate.burst) for bucket in BUCKETS}

    def run(self, verb: str, asked: tuple[Charge, ...], now: int, until: int) -> list[Answer] | Answer | None:
        taken = [(self.all[charge.bucket], charge.cost) for charge in asked if not charge.check]
        match verb:
            case "spend" | "reserve" | "check":
                charges = [
                    (self.all[c.bucket], c.cost, min(c.keep, c.bucket.rate.burst - c.cost), c.check) for c in asked
                ]
                return spend_all(charges, now, take=verb != "check", reserve=verb == "reserve")[1]
            case "refund" | "release":
                return [one.refund(now, n) if verb == "refund" else one.release(now, n) for one, n in taken]
            case "count":
                return [one.count(now, cost, reserved=False) for one, cost in taken]
            case "settle":
                for one, cost in taken:
                    one.count(now, cost, reserved=True)
            case "reset":
                for charge in asked:
                    self.all[charge.bucket].reset()
            case "block":
                for charge in asked:
                    self.all[charge.bucket].block(now, until)
        return None


async def run_script(
    buckets: Buckets, verb: str, asked: tuple[Charge, ...], until: int
) -> list[Answer] | Answer | None:
    chosen = [charge.bucket for charge in asked]
    match verb:
        case "spend" | "reserve" | "check":
            ask = {"spend": buckets.spend, "reserve": buckets.reserve, "check": buckets.check}[verb]
            return decisive(await ask(asked))
        case "release":
            return [answer(one) for one in await buckets.release(asked)]
        case "refund":
            return [answer(one) for one in await buckets.refund(asked)]
        case "count":
            return [answer(one) for one in await buckets.count(asked)]
        case "settle":
            await buckets.settle(asked)
        case "reset":
            await buckets.reset(chosen)
        case "block":
            await buckets.block(chosen, from_microseconds(until))
    return None


def decisive(said: Decision) -> Answer | None:
    return None if said.bucket is None else answer(said)


@QUICK
@given(sequence=st.lists(steps, max_size=40))
async def test_the_script_says_what_the_reference_says(
    store: Store, sequence: list[tuple[str, tuple[Charge, ...], int]]
) -> None:
    """Any verbs over any buckets, while the clock goes on, stands still or is set back."""
    watch, model = Watch(), Model()
    buckets = Buckets(Store(store.redis, f"random{next(numbers)}:"), watch)
    for verb, asked, amount in sequence:
        if verb == "wait":
            watch.now += amount
            continue
        until = watch.now + amount
        assert await run_script(buckets, verb, asked, until) == model.run(verb, asked, watch.now, until), verb
        states = [answer(one) for one in await buckets.look(BUCKETS)]
        assert states == [one.decide(watch.now, 0) for one in model.all.values()], f"after {verb}"


class CaBucket:
    """What the CA holds: the same algorithm in nanoseconds, spent only when the CA counts."""

    def __init__(self, rate: Rate) -> None:
        self.interval = rate.period * 1000 // rate.count
        self.burst = rate.burst
        self.tat = 0

    def left(self, now: int) -> int:
        return (now * 1000 - (max(now * 1000, self.tat) - self.interval * self.burst)) // self.interval

    def retry_at(self, now: int) -> int:
        """When there is a token, in microseconds, told in time never too early."""
        return -(-(max(now * 1000, self.tat) + self.interval - self.interval * self.burst) // 1000)

    def count(self, now: int) -> None:
        new = max(now * 1000, self.tat) + self.interval
        if new - self.interval * self.burst <= now * 1000:
            self.tat = new


events = st.one_of(
    st.sampled_from(["admit", "issue", "fail", "exempt", "stolen", "told"]),
    st.integers(0, 4_000_000),
    st.integers(0, 40_000_000),
)


@QUICK
@given(rate=st.sampled_from([Rate(3, 10 * SECOND, 3), Rate(7, SECOND, 4)]), sequence=st.lists(events, max_size=60))
async def test_no_bucket_holds_more_than_the_cas(store: Store, rate: Rate, sequence: list[str | int]) -> None:
    """Orders reserve, are issued late, fail or are exempt; what others stole counts once the CA told us."""
    watch, theirs, reserved, stolen = Watch(), CaBucket(rate), 0, False
    buckets = Buckets(Store(store.redis, f"mirror{next(numbers)}:"), watch)
    bucket = Bucket("ca", "limit", "key", rate)
    for event in sequence:
        match event:
            case int():
                watch.now += event
            case "admit":
                reserved += (await buckets.reserve([Charge(bucket)])).allowed
            case "issue" if reserved:
                theirs.count(watch.now)
                await buckets.settle([Charge(bucket)])
                reserved -= 1
            case "fail" if reserved:
                await buckets.release([Charge(bucket)])
                reserved -= 1
            case "exempt":
                theirs.count(watch.now)
                await buckets.count([Charge(bucket)])
            case "stolen":
                theirs.count(watch.now)
                stolen = True
            case "told" if theirs.left(watch.now) == 0:
                await buckets.block([bucket], from_microseconds(theirs.retry_at(watch.now)))
                stolen = False
        ours = (await buckets.look([bucket]))[0].remaining
        assert ours is not None
        if not stolen:
            # Whatever of the reserved the CA counts in this very moment: what we hold is still there.
            assert ours == 0 or ours + reserved <= theirs.left(watch.now), event
