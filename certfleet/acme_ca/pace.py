"""When to look again: a poll that learns how long a CA takes, so that the first look mostly finds the answer.

Each look too early costs a request, each moment too late somebody's time. The delay before the first look
follows the slow end of what this CA took lately: it doubles (at most) when a look came too early and shrinks
by a hundredth when it did not, which settles where about one look in seventy is too early.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, TypeVar

from certfleet.models import utcnow

BUDGET = 2.0  # seconds that one poll takes at most
SHORTEST, LONGEST = 0.002, 1.8  # seconds before a first look
FIRST_GUESS = 0.02  # seconds
UP, DOWN = 2.0, 0.99


@dataclass(slots=True)
class Pace:
    """How long one step of one CA takes, as seen by this process."""

    delay: float = FIRST_GUESS
    """Seconds before the first look."""

    def learn(self, waited: float, looks: int) -> None:
        """Take in one poll: seconds from its start to the last look, and how many looks there were."""
        if looks > 1:
            self.delay = min(self.delay * UP, max(self.delay, waited), LONGEST)
        else:
            self.delay = max(self.delay * DOWN, SHORTEST)


def next_delay(pace_delay: float, waited: float, asked: float, budget: float) -> float | None:
    """Seconds until the next look; None when the budget (seconds in all) does not reach.

    The first comes after the learned delay, each later one after as long again as was waited so far.
    `asked` is how long the CA wants to be left alone from now on (Retry-After), in seconds.
    """
    delay = max(pace_delay if waited == 0 else waited, asked)
    return delay if waited + delay <= budget else None


class Waits(Protocol):
    """Anything that a CA may send with a Retry-After."""

    @property
    def retry_at(self) -> datetime | None:
        """When the CA wants to be asked again."""


Look = TypeVar("Look", bound=Waits)


async def poll(
    fetch: Callable[[], Awaitable[Look]],
    done: Callable[[Look], bool],
    pace: Pace,
    *,
    budget: float = BUDGET,
    retry_at: datetime | None = None,
) -> Look | None:
    """Look until `done`, or until the budget (seconds) is spent; then the last look, whatever it says.

    `retry_at` is what the answer before the first look asked for. None when not even one look fits in.
    """
    clock = asyncio.get_running_loop().time
    start, waited, looks, seen = clock(), 0.0, 0, None
    while True:
        asked = (retry_at - utcnow()).total_seconds() if retry_at else 0.0
        delay = next_delay(pace.delay, waited, asked, budget)
        if delay is None:
            break
        await asyncio.sleep(delay)
        seen = await fetch()
        looks, retry_at = looks + 1, seen.retry_at
        waited = clock() - start
        if done(seen):
            pace.learn(waited, looks)
            return seen
    if looks:
        pace.learn(waited, looks + 1)
    return seen
