"""Token buckets in Redis that mirror what a CA counts, decided by one script for the whole fleet.

The arithmetic is that of Boulder (github.com/letsencrypt/boulder, package ratelimits): the generic cell rate
algorithm in whole numbers. A bucket is one number, its theoretical arrival time (TAT): when it is full again.

The CA counts certificates when they are issued, but asks whether there are tokens when they are ordered. So
tokens are reserved at admission (`reserve`), made good when the CA has counted them (`settle`), and given back
when an order ends without having cost any (`release`). The TAT is what the CA is known to have counted; what is
reserved is kept beside it and weighs as if the CA counted it now, so a bucket never holds more than the CA's own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from certfleet.agenda import CLOCK, Clock, redis_clock
from certfleet.models import from_microseconds, microseconds
from certfleet.store import Store

GCRA = Path(__file__).with_name("gcra.lua")

LONGEST = 4000 * 86_400_000_000  # microseconds in which a bucket fills at most: keeps every sum exact in a double


@dataclass(frozen=True, slots=True)
class Rate:
    """`count` tokens in each `period` (microseconds), and at most `burst` at once. Raises ValueError."""

    count: int
    period: int
    burst: int

    def __post_init__(self) -> None:
        if min(self.count, self.period, self.burst) < 1:
            raise ValueError("count, period and burst of a rate have to be at least 1")
        if self.interval * self.burst > LONGEST:
            raise ValueError("a rate's burst has to fill again within 4000 days")

    @property
    def interval(self) -> int:
        """Microseconds for one token; rounded up, so that ours never fills faster than the CA's in nanoseconds."""
        return -(-self.period // self.count)


@dataclass(frozen=True, slots=True)
class Bucket:
    """One limit of one CA for one key, for example the certificates for `example.com`."""

    ca: str
    limit: str
    key: str
    rate: Rate

    @property
    def name(self) -> str:
        """Its key in Redis, without the prefix."""
        return f"limit:{self.ca}:{self.limit}:{self.key}"


@dataclass(frozen=True, slots=True)
class Charge:
    """What is asked of one bucket: tokens to take, or (`check`) only to have. Raises ValueError."""

    bucket: Bucket
    cost: int = 1
    check: bool = False
    keep: int = 0
    """Tokens that have to be left in the bucket afterwards."""

    def __post_init__(self) -> None:
        if not 0 <= self.cost <= self.bucket.rate.burst:
            raise ValueError(
                f"{self.bucket.limit}: a cost of {self.cost} never fits a burst of {self.bucket.rate.burst}"
            )


@dataclass(frozen=True, slots=True)
class Decision:
    """What the buckets answer, and which of them decided."""

    allowed: bool
    bucket: Bucket | None
    """Denied: the bucket that frees last. Allowed: the one that would be free again last. None: nothing was asked."""
    remaining: int | None
    """Whole tokens left in it; None without a bucket."""
    now: datetime
    """By Redis's clock; so are the other times."""
    retry_at: datetime
    """When the same would be allowed (again), provided that nobody else takes the tokens."""
    reset_at: datetime
    """When the bucket is full again."""

    @property
    def retry_in(self) -> float:
        """Seconds until `retry_at`."""
        return (self.retry_at - self.now).total_seconds()


class Buckets:
    """Every verb is one script run, all buckets at once; `clock` is handed in by simulations only."""

    def __init__(self, store: Store, clock: Clock = redis_clock) -> None:
        """Keys are `limit:<ca>:<limit>:<key>` under the store's prefix."""
        self._store = store
        self._script = store.script(CLOCK, GCRA, Path(__file__).with_name("buckets.lua"))
        self._clock = clock

    def redis_key(self, bucket: Bucket) -> str:
        """Where Redis keeps the bucket while it is not full."""
        return self._store.key(bucket.name)

    async def spend(self, charges: Sequence[Charge]) -> Decision:
        """Take every cost or, where one bucket lacks it, none. Checked buckets only have to have theirs."""
        return _decisive(charges, await self._run("spend", charges))

    async def check(self, charges: Sequence[Charge]) -> Decision:
        """What `spend` would answer now; takes nothing."""
        return _decisive(charges, await self._run("check", charges))

    async def look(self, buckets: Sequence[Bucket]) -> list[Decision]:
        """The state of each bucket: tokens left, full again at."""
        charges = [Charge(bucket, cost=0) for bucket in buckets]
        return _each(charges, await self._run("check", charges))

    async def reserve(self, charges: Sequence[Charge]) -> Decision:
        """As `spend`, for what the CA will count later, at a moment that it chooses."""
        return _decisive(charges, await self._run("reserve", charges))

    async def refund(self, charges: Sequence[Charge]) -> list[Decision]:
        """Give back what `spend` took; of each bucket, whether that gave any. To be called once for each spend."""
        taken = [charge for charge in charges if not charge.check]
        return _each(taken, await self._run("refund", taken))

    async def release(self, charges: Sequence[Charge]) -> list[Decision]:
        """Give back what `reserve` took and the CA has not counted. To be called once for each."""
        taken = [charge for charge in charges if not charge.check]
        return _each(taken, await self._run("release", taken))

    async def settle(self, charges: Sequence[Charge]) -> None:
        """The CA has just counted what `reserve` took: fill from now on, not from when it was reserved."""
        await self._run("settle", [charge for charge in charges if not charge.check])

    async def count(self, charges: Sequence[Charge]) -> list[Decision]:
        """The CA has just counted what was not spent here: failed validations, certificates that were exempt."""
        taken = [charge for charge in charges if not charge.check]
        return _each(taken, await self._run("count", taken))

    async def reset(self, buckets: Iterable[Bucket]) -> None:
        """Fill the buckets."""
        await self._run("reset", [Charge(bucket) for bucket in buckets])

    async def block(self, buckets: Iterable[Bucket], until: datetime) -> None:
        """The CA said when (Retry-After): no token before `until`, whatever is refunded; one then."""
        await self._run("block", [Charge(bucket) for bucket in buckets], microseconds(until))

    async def _run(self, verb: str, charges: Sequence[Charge], until: int = 0) -> list[int]:
        keys = [self.redis_key(charge.bucket) for charge in charges]
        if len(set(keys)) < len(keys):
            raise ValueError("one call names each bucket once")
        words: list[str | int | float | bytes] = [self._clock(), verb, until]
        for charge in charges:
            rate = charge.bucket.rate
            mode = "check" if charge.check else "spend"
            words += [rate.interval, rate.burst, charge.cost, min(charge.keep, rate.burst - charge.cost), mode]
        return [int(number) for number in await self._script(keys, words)]


def full_at(text: str | None, now: int, interval: int) -> int:
    """When a bucket as Redis keeps it (gcra.lua) is full again if the CA counted all that is reserved now."""
    tat, pending = (int(word) for word in text.split()) if text else (0, 0)
    return max(now, tat) + interval * pending


def _each(charges: Sequence[Charge], answer: list[int]) -> list[Decision]:
    now = answer[0]
    rows = [answer[at : at + 4] for at in range(2, len(answer), 4)]
    return [
        Decision(
            allowed=bool(allowed),
            bucket=charge.bucket,
            remaining=remaining,
            now=from_microseconds(now),
            retry_at=from_microseconds(now + retry_in),
            reset_at=from_microseconds(now + reset_in),
        )
        for charge, (allowed, remaining, retry_in, reset_in) in zip(charges, rows, strict=True)
    ]


def _decisive(charges: Sequence[Charge], answer: list[int]) -> Decision:
    if not charges:
        now = from_microseconds(answer[0])
        return Decision(allowed=True, bucket=None, remaining=None, now=now, retry_at=now, reset_at=now)
    return _each(charges, answer)[answer[1] - 1]
