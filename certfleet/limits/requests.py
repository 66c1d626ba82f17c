"""Requests per second: a turnstile before each CA, shared by all processes behind one egress address.

One process's requests that wait at the same moment are granted by one script run: as many tokens as there are
requests, else as many as there are tokens, else none until the next token is there. A CA without limits on requests
costs one look a second, for the case that another process was told to slow down.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from certfleet.errors import SlowedDown
from certfleet.limits.buckets import Bucket, Buckets, Charge, Decision
from certfleet.limits.keys import ANY_ADDRESS, request_buckets, slow_down_bucket
from certfleet.limits.overrides import Known, LimitsBook
from certfleet.limits.presets import Limit
from certfleet.limits.words import meaning
from certfleet.models import CA, utcnow

PATIENCE = 5.0  # seconds that a request waits here at most; the agenda waits longer ones out
FRESH = 0.1  # seconds in which a granted request has to be on its way: less than what the spared half burst allows
PAUSE = 0.02  # seconds between two script runs of a fast bucket: each token needs no run of its own
LOOK = 1.0  # seconds between two looks whether another process was told to slow down
LONGEST_SLOW_DOWN = timedelta(hours=1)  # a Retry-After beyond it is obeyed by the order, and asked about by the others

ENDPOINTS: Mapping[str, Limit] = {
    "directory": Limit.REQUESTS_DIRECTORY,
    "newNonce": Limit.REQUESTS_NEW_NONCE,
    "newAccount": Limit.REQUESTS_NEW_ACCOUNT,
    "newOrder": Limit.REQUESTS_NEW_ORDER,
    "revokeCert": Limit.REQUESTS_REVOKE_CERT,
    "renewalInfo": Limit.REQUESTS_RENEWAL_INFO,
    "authorization": Limit.REQUESTS_AUTHORIZATION,
    "challenge": Limit.REQUESTS_CHALLENGE,
    "certificate": Limit.REQUESTS_CERTIFICATE,
}
"""By the transport's word for a request; every other one is Limit.REQUESTS_OTHER."""
ANY_PROJECT = "any"
"""The one project of a fleet at a CA that counts per project."""


class SharedTurnstile:
    """Lets this process's requests to one CA through as fast as the CA takes them from this address.

    A CA that counts per project (Google) does so over all accounts that were bound to one. Which those are is not
    known here, so all accounts of the fleet count as one project: never too fast, and exact for the usual one.
    """

    def __init__(self, buckets: Buckets, book: LimitsBook, ca: CA, address: str | None) -> None:
        """`address`: the egress address of this machine; None: all machines that do not say theirs count as one."""
        self._buckets = buckets
        self._book = book
        self._ca = ca
        self._address = address
        self._known: Known | None = None
        self._asked: dict[str, tuple[Bucket | None, Bucket]] = {}
        self._queues: dict[str, _Queue] = {}
        self._slow_until = -math.inf
        self._looked_at = -math.inf
        self._looking = asyncio.Lock()

    async def enter(self, kind: str) -> float:
        """Wait for a request's turn; until when (time.monotonic) it is good. Raises SlowedDown, RedisError."""
        bucket, closed = await self._buckets_of(kind)
        await self._while_slow(closed)
        if bucket is not None:
            if bucket.limit not in self._queues:
                self._queues[bucket.limit] = _Queue(self._buckets, bucket, self._slow_for)
            return await self._queues[bucket.limit].join(bucket, closed)
        await self._look(closed)
        await self._while_slow(closed)
        return math.inf

    async def slow_down(self, until: datetime) -> None:
        """The CA wants no request from this address before: neither from this process nor from any other."""
        until = min(until, utcnow() + LONGEST_SLOW_DOWN)
        self._slow_for((until - utcnow()).total_seconds())
        _, closed = await self._buckets_of("directory")
        await self._buckets.block([closed], until)

    async def _buckets_of(self, kind: str) -> tuple[Bucket | None, Bucket]:
        """What a request of this kind spends, and what the CA closes when it wants less."""
        known = await self._book.of(self._ca.name, self._ca.directory)
        if known is not self._known:
            self._known, self._asked = known, {}
        if kind not in self._asked:
            address = self._address or ANY_ADDRESS
            endpoint = ENDPOINTS.get(kind, Limit.REQUESTS_OTHER)
            found = request_buckets(known.limits, endpoint, address=address, account=ANY_PROJECT)
            [closed] = slow_down_bucket(known.limits, self._address)
            self._asked[kind] = (found[0] if found else None, closed)
        return self._asked[kind]

    def _slow_for(self, seconds: float) -> None:
        self._slow_until = max(self._slow_until, time.monotonic() + seconds)

    async def _while_slow(self, closed: Bucket) -> None:
        """Wait out what the CA asked for. Raises SlowedDown when that is longer than a task should wait."""
        while (left := self._slow_until - time.monotonic()) > 0:
            if left > PATIENCE:
                raise _slowed(closed, left)
            await asyncio.sleep(left)

    async def _look(self, closed: Bucket) -> None:
        """Hear, once a second, whether another process was told to slow down."""
        if time.monotonic() - self._looked_at < LOOK:
            return
        async with self._looking:
            if time.monotonic() - self._looked_at < LOOK:
                return
            asked = time.monotonic()
            decision = await self._buckets.check([Charge(closed, check=True)])
            if not decision.allowed:
                self._slow_for(decision.retry_in)
            self._looked_at = asked


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A request that wants to be sent."""

    turn: asyncio.Future[float]
    deadline: float
    """By time.monotonic: when it has waited long enough."""


class _Queue:
    """The requests of this process that one bucket is spent by; the first come is served first."""

    def __init__(self, buckets: Buckets, bucket: Bucket, slow_for: Callable[[float], None]) -> None:
        """`slow_for` hears for how many seconds the CA wants nothing at all."""
        self._buckets = buckets
        self._slow_for = slow_for
        self._waiting: deque[_Waiting] = deque()
        self._serving: asyncio.Task[None] | None = None
        self._bucket = bucket
        self._next = -math.inf
        """By time.monotonic: when the first who waits gets a token, as far as is known."""
        self._told = -math.inf
        """Likewise: the latest time that somebody was told to come back at."""

    async def join(self, bucket: Bucket, closed: Bucket) -> float:
        """Wait for a token; until when it is good. Raises SlowedDown at once when it would take too long."""
        now = time.monotonic()
        self._bucket = bucket
        if self._serving is None:
            self._next = _if_full(bucket, now)  # until one knows better
            self._serving = asyncio.create_task(self._serve(closed))
        if self._next + _seconds(bucket) * len(self._waiting) > now + PATIENCE:
            raise self._sent_away(bucket, self._next + _seconds(bucket) * len(self._waiting))
        waiting = _Waiting(asyncio.get_running_loop().create_future(), now + PATIENCE)
        self._waiting.append(waiting)
        return await waiting.turn

    async def _serve(self, closed: Bucket) -> None:
        """Serve until nobody waits."""
        try:
            while self._left():
                pause = await self._round(closed)
                if self._left():
                    await asyncio.sleep(pause)
        except Exception as error:  # noqa: BLE001  whoever waits raises it
            for one in self._waiting:
                if not one.turn.done():
                    one.turn.set_exception(error)
        finally:
            for one in self._waiting:
                one.turn.cancel()  # only when the process ends; nothing to those who were served
            self._waiting.clear()
            self._serving = None

    def _left(self) -> int:
        """How many wait; those who gave up are taken out."""
        if any(one.turn.done() for one in self._waiting):
            self._waiting = deque(one for one in self._waiting if not one.turn.done())
        return len(self._waiting)

    async def _round(self, closed: Bucket) -> float:
        """Serve as many as there are tokens for; seconds until there is something to do again."""
        bucket, each = self._bucket, _seconds(self._bucket)
        there = int((time.monotonic() - self._next) / each) + 1  # if nobody else took any
        wanted, denying = max(1, min(len(self._waiting), bucket.rate.burst, there)), bucket
        for _ in range(2):
            decision = await self._spend(bucket, closed, wanted)
            if decision.allowed:
                self._grant(wanted, bucket)
                break
            if decision.bucket != bucket:
                denying = closed
                self._slow_for(decision.retry_in)
                self._next = time.monotonic() + decision.retry_in
                break
            # It was told when all are there; the first of them is there before.
            self._next = time.monotonic() + decision.retry_in - each * (wanted - 1)
            if not decision.remaining:
                break
            wanted = min(wanted, decision.remaining)
        self._send_away(bucket, denying)
        return max(self._next - time.monotonic(), min(PAUSE, each * bucket.rate.burst / 2))

    async def _spend(self, bucket: Bucket, closed: Bucket, cost: int) -> Decision:
        return await self._buckets.spend([Charge(bucket, cost), Charge(closed, check=True)])

    def _grant(self, count: int, bucket: Bucket) -> None:
        now, each = time.monotonic(), _seconds(bucket)
        self._next = max(self._next, _if_full(bucket, now)) + each * count
        good = now + FRESH
        while count and self._waiting:
            one = self._waiting.popleft()
            if not one.turn.done():
                one.turn.set_result(good)
                count -= 1

    def _send_away(self, bucket: Bucket, denying: Bucket) -> None:
        """Tell those who would wait too long when their turn would be."""
        for place, one in enumerate(self._waiting):
            at = self._next + _seconds(bucket) * place
            if at > one.deadline and not one.turn.done():
                one.turn.set_exception(self._sent_away(denying, at))

    def _sent_away(self, denying: Bucket, at: float) -> SlowedDown:
        """With a time that nobody else was told: a crowd does not come back at once.

        Not `at` itself where that was promised already: tokens that another process took move a whole queue back by
        whole tokens, onto the times of those who were sent away before.
        """
        self._told = max(at, self._told + _seconds(self._bucket))
        return _slowed(denying, self._told - time.monotonic())


def _seconds(bucket: Bucket) -> float:
    """For one token."""
    return bucket.rate.interval / 1_000_000


def _if_full(bucket: Bucket, now: float) -> float:
    """Since when the first token of a full bucket has been there: the last of them came just now."""
    return now - _seconds(bucket) * (bucket.rate.burst - 1)


def _slowed(bucket: Bucket, seconds: float) -> SlowedDown:
    at = utcnow() + timedelta(seconds=seconds)
    return SlowedDown(f"{meaning(bucket, {})} at {bucket.ca}", at)
