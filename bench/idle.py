"""How long a token lay idle while somebody waited for it: an observer beside the fleet, with its own arithmetic.

It reads the rooms and their buckets some times a second and trusts nothing that the fleet says about itself. A token is
there from the moment that the bucket's numbers give; it lay idle from then, or from when somebody was first seen
waiting, until it was seen to be gone.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from certfleet.store import Store

LOOK = 0.2  # seconds between two looks
SECOND = 1_000_000


@dataclass(slots=True)
class Idle:
    """What was seen."""

    longest: float = 0.0
    """Seconds."""
    where: str = ""
    """The bucket of the longest."""
    looks: int = 0
    rooms: int = 0
    """Most rooms seen at once."""
    _none: dict[str, int] = field(default_factory=dict)
    """Room -> the last moment at which there was nobody, or no token."""
    _last: int = 0

    def take(self, now: int, seen: dict[str, tuple[int, str]]) -> None:
        """One look: each room where somebody waits -> (when the first of them has a token, its bucket)."""
        self.looks += 1
        self.rooms = max(self.rooms, len(seen))
        self._none = {
            room: now if free > now else self._none.get(room, self._last or now) for room, (free, _) in seen.items()
        }
        for room, (free, name) in seen.items():
            # A bucket that is full again leaves no number behind: then it is known to one look only.
            idle = (now - max(free, self._none[room])) / SECOND
            if idle > self.longest:
                self.longest, self.where = idle, name
        self._last = now


@asynccontextmanager
async def observed(store: Store, keep: float) -> AsyncIterator[Idle]:
    """Look as long as the block; `keep` is the share of orders that new names leave for renewals."""
    idle = Idle()
    task = asyncio.create_task(_watch(store, keep, idle))
    try:
        yield idle
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _watch(store: Store, keep: float, idle: Idle) -> None:
    while True:
        rooms = await store.redis.hgetall(store.key("rooms"))
        pipe = store.redis.pipeline()
        pipe.time()
        for room, text in rooms.items():
            pipe.get(text.split(" ", 3)[3])
            pipe.zrange(store.key("room", room), 0, 0)
        (seconds, rest), *answers = await pipe.execute()
        now = int(seconds) * SECOND + int(rest)
        seen = {}
        for index, (room, text) in enumerate(rooms.items()):
            interval, burst, _, key = text.split(" ", 3)
            bucket, parties = answers[2 * index], answers[2 * index + 1]
            if not parties:  # everybody went in meanwhile
                continue
            left = int(int(burst) * keep) if parties[0].startswith("t:") and ":orders-per-account:" in key else 0
            tat, pending = (int(word) for word in bucket.split()) if bucket else (0, 0)
            full = tat if not pending else max(now, tat) + int(interval) * pending
            free = full - int(interval) * (int(burst) - left - 1)
            seen[room] = (free, key)
        idle.take(now, seen)
        await asyncio.sleep(LOOK)
