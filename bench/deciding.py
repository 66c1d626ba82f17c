"""One client that asks for decisions, each when the one before is answered: certfleet's buckets, and peers.

`python -m bench.deciding SOCKET BUCKETS...` is a process that is measured, with so many buckets in each decision:
`warm` out, then for each JSON line in (what to do) one JSON line out (what was done). It ends with its input.

All ask under the same keys and limits, which nobody ever reaches: a denied decision writes nothing and is cheaper.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import uvloop
from limits import RateLimitItemPerHour
from limits.aio.storage import RedisStorage
from limits.aio.strategies import MovingWindowRateLimiter
from pydantic import SecretStr

from bench import BenchFailed
from certfleet.limits.buckets import Bucket, Buckets, Charge, Rate
from certfleet.settings import Settings
from certfleet.store import Store, open_store

ORDERS = 100  # different orders in turn: some buckets are shared by all, most are not
MOST = 1_000_000  # decisions in one round
WARM = 50  # decisions of each kind before it counts
LIMIT = 1_000_000_000  # tokens
WINDOW = 3  # hours
CA = "bench"

Ask = Callable[[int], Awaitable[bool]]
"""Decide for the order of this number."""


@dataclass(frozen=True, slots=True)
class Round:
    """What to do: decisions by one peer over so many buckets each, for so long."""

    key: str
    buckets: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Done:
    """What was done; CPU is that of this process."""

    decisions: int
    seconds: float
    cpu_ms: float


def keys_of(order: int, buckets: int) -> list[tuple[str, str]]:
    """Limit and key of an order's buckets: one of the whole account, the others of the order's own names."""
    return [("orders-per-account", "1"), *((f"limit-{n}", f"site{order}.example") for n in range(1, buckets))]


def certfleet(store: Store, buckets: int) -> Ask:
    """All or none of the tokens in one script call."""
    decider = Buckets(store)
    rate = Rate(count=1, period=100_000, burst=LIMIT)
    orders = [
        tuple(Charge(Bucket(CA, limit, key, rate)) for limit, key in keys_of(order, buckets)) for order in range(ORDERS)
    ]

    async def ask(order: int) -> bool:
        return (await decider.spend(orders[order])).allowed

    return ask


def incr_expire(store: Store, buckets: int) -> Ask:
    """A counter of a fixed window for each bucket: INCR and EXPIRE of all in one round trip, whatever they say."""
    orders = _plain_keys(store, buckets)

    async def ask(order: int) -> bool:
        pipe = store.redis.pipeline(transaction=False)
        for key in orders[order]:
            pipe.incr(key)
            pipe.expire(key, WINDOW * 3600)
        answers: list[int] = await pipe.execute()
        return max(answers[::2]) <= LIMIT

    return ask


def moving_window(storage: RedisStorage, buckets: int) -> Ask:
    """The PyPI package `limits`: one script call for each bucket, all at once; in turn would be slower."""
    limiter = MovingWindowRateLimiter(storage)
    item = RateLimitItemPerHour(LIMIT, WINDOW)
    orders = [keys_of(order, buckets) for order in range(ORDERS)]

    async def alone(order: int) -> bool:
        [(limit, key)] = orders[order]
        return await limiter.hit(item, CA, limit, key)

    async def together(order: int) -> bool:
        return all(await asyncio.gather(*(limiter.hit(item, CA, limit, key) for limit, key in orders[order])))

    return alone if buckets == 1 else together


def _plain_keys(store: Store, buckets: int) -> list[list[str]]:
    return [[store.key("counter", CA, limit, key) for limit, key in keys_of(order, buckets)] for order in range(ORDERS)]


async def decide(ask: Ask, seconds: float, most: int) -> Done:
    """Ask one after another. Raises BenchFailed when the answer is no."""
    wall, cpu = time.perf_counter(), time.process_time()
    until, decisions, now = wall + seconds, 0, wall
    while now < until and decisions < most:
        if not await ask(decisions % ORDERS):
            raise BenchFailed("a decision that has to be allowed was denied")
        decisions += 1
        now = time.perf_counter()
    return Done(decisions, now - wall, (time.process_time() - cpu) * 1000)


async def _main(socket: Path, sizes: Sequence[int]) -> None:
    storage = RedisStorage(f"async+redis+unix://{socket}", implementation="redispy")
    bridge: Any = storage.bridge  # that of redis-py; the common base knows no connection
    settings = Settings(home=socket.parent, redis_url=SecretStr(f"unix://{socket}"))
    async with open_store(settings) as store, bridge.get_connection():
        asks = {
            (key, size): ask
            for size in sizes
            for key, ask in (
                ("certfleet", certfleet(store, size)),
                ("incr_expire", incr_expire(store, size)),
                ("limits", moving_window(storage, size)),
            )
        }
        for ask in asks.values():
            await decide(ask, 1.0, WARM)
        print("warm", flush=True)
        while line := await asyncio.to_thread(sys.stdin.readline):
            todo = Round(**json.loads(line))
            done = await decide(asks[todo.key, todo.buckets], todo.seconds, MOST)
            print(json.dumps(asdict(done)), flush=True)


if __name__ == "__main__":
    uvloop.run(_main(Path(sys.argv[1]), [int(word) for word in sys.argv[2:]]))
