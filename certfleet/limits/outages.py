"""A CA that does not answer, as the whole fleet sees it: one order tries, the others wait until it is back.

    3 requests in a row without an answer ──▶ away: one try after 5, 10, 20, … s, at last every 5 min
      any answer ──▶ back: whoever waits is due at once, the most urgent first
      another failure within 10 min ──▶ the same outage goes on, with the pause that it had

Everything is decided in Redis by outage.lua, which tells the keys. A process that knows of no failure looks once a
second; so a CA that is well costs an order nothing.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from certfleet.agenda import SCHEDULE, Agenda, Clock, redis_clock
from certfleet.models import from_microseconds, microseconds
from certfleet.store import Store

LOOK = 1.0  # seconds between two looks at what other processes know of a CA


@dataclass(frozen=True, slots=True)
class Outage:
    """A CA that is away."""

    directory: str
    since: datetime
    """When the first of the requests failed that got no answer since."""
    next_try: datetime
    """When one order asks it again; in the past: one is asking, or the next that comes will."""
    waiting: int = 0
    """How many orders wait for it."""

    def likely_back(self, now: datetime) -> datetime:
        """When it is thought to answer again: a CA that was away for some time is away for as long again."""
        return max(now, self.next_try, now + (now - self.since))


@dataclass(frozen=True, slots=True)
class Unheard:
    """What a request without an answer comes to."""

    outage: Outage | None
    """The CA is away; None: too few have failed for that."""
    failures: int
    """Requests in a row, of whichever orders, that got no answer."""
    closed: bool
    """With this one the CA is taken for away."""


class Outages:
    """What is known of each CA, by the URL of its directory; `clock` is handed in by tests only."""

    def __init__(self, store: Store, agenda: Agenda, clock: Clock = redis_clock) -> None:
        self._store = store
        self._redis = store.redis
        self._keys = agenda.keys
        self._clock = clock
        self._script = store.script(*SCHEDULE, Path(__file__).with_name("outage.lua"))
        self._looked: dict[str, float] = {}
        """By directory: until when (time.monotonic) it is believed that nothing is known against it."""

    async def enter(self, directory: str, app: str, rank: float) -> Outage | None:
        """Ask whether the app's order may send requests; the outage that it waits for from now on, or None.

        `rank`: among those that wait, the smallest is let go first.
        """
        if time.monotonic() < self._looked.get(directory, 0.0):
            return None
        standing, since, again, failures = await self._run("enter", directory, app, repr(rank))
        if standing == "away":
            return _outage(directory, since, again)
        if failures == "0":
            self._looked[directory] = time.monotonic() + LOOK
        return None

    async def failed(self, directory: str, app: str, rank: float, not_before: datetime | None) -> Unheard:
        """A request of the app's order got no answer; the CA asked not to be tried `not_before` (Retry-After)."""
        self._looked.pop(directory, None)
        at = microseconds(not_before) if not_before else 0
        standing, since, again, failures = await self._run("failed", directory, directory, app, repr(rank), at)
        outage = _outage(directory, since, again) if standing in ("away", "closed") else None
        return Unheard(outage, int(failures), closed=standing == "closed")

    async def answered(self, directory: str) -> bool:
        """The CA has answered; whether it was away until now. Whoever waits for it is due."""
        if time.monotonic() < self._looked.get(directory, 0.0):
            return False
        [standing] = await self._run("answered", directory)
        self._looked[directory] = time.monotonic() + LOOK
        return bool(standing == "away")

    async def unheard(self, directory: str, app: str) -> None:
        """The app's order asked the CA nothing: if it was its turn to try, it is another's."""
        if time.monotonic() >= self._looked.get(directory, 0.0):
            await self._run("unheard", directory, app)

    async def open(self, id: str) -> tuple[datetime | None, tuple[str, ...]]:  # noqa: A002  the agenda's name for it
        """Let one order try, or all go when the CA is back: when to come again (None: not), and whose orders go."""
        again, *apps = await self._script(self._keys, [self._clock(), self._store.prefix, "open", id])
        return None if again == "-" else from_microseconds(int(again)), tuple(apps)

    async def directory(self, id: str) -> str | None:  # noqa: A002
        """Whose id it is; None: nothing is known against that CA any more."""
        found: str | None = await self._redis.hget(self._store.key("outages"), id)
        return found

    async def of(self, directory: str) -> Outage | None:
        """The outage of a CA; None: it is not known to be away."""
        [found] = await self._read([directory])
        return found

    async def all(self) -> list[Outage]:
        """Every CA that is away, the longest first."""
        directories = sorted((await self._redis.hgetall(self._store.key("outages"))).values())
        found = await self._read(directories) if directories else []
        return sorted((one for one in found if one), key=lambda one: (one.since, one.directory))

    async def _read(self, directories: Sequence[str]) -> list[Outage | None]:
        pipe = self._redis.pipeline(transaction=False)
        for directory in directories:
            key = self._store.key("outage", id_of(directory))
            pipe.hmget(key, "open", "since", "next")
            pipe.zcard(f"{key}:waiting")
        answers = await pipe.execute()
        return [
            _outage(directory, since, again, waiting) if is_open else None
            for directory, (is_open, since, again), waiting in zip(
                directories, answers[::2], answers[1::2], strict=True
            )
        ]

    async def _run(self, verb: str, directory: str, *words: str | int) -> list[str]:
        answer: list[str] = await self._script(
            self._keys, [self._clock(), self._store.prefix, verb, id_of(directory), *words]
        )
        return answer


def _outage(directory: str, since: str, again: str, waiting: int = 0) -> Outage:
    return Outage(directory, from_microseconds(int(since)), from_microseconds(int(again or 0)), waiting)


def id_of(directory: str) -> str:
    """What a CA is called in keys and on the agenda."""
    return hashlib.sha256(directory.encode()).hexdigest()[:16]
