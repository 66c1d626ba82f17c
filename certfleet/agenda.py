"""The agenda: the one list of everything that has to happen later.

Members are `check:<app>`, `order:<id>`, `dns:<app>` and `host:<name>`. Whoever works on a member holds it by a claim:
a fencing number and the end of a lease. While it is held its time is the lease's end, so that work lost
with a killed worker, a lost message or an emptied broker comes due again by itself. A member that is asked
for while it is held comes due when its holder ends. Everything is decided by agenda.lua, on Redis's clock.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from certfleet.errors import LeaseLost
from certfleet.models import from_microseconds, microseconds
from certfleet.store import Store

CLOCK = Path(__file__).with_name("clock.lua")
"""Begins every script that needs the time."""
SCHEDULE = (CLOCK, Path(__file__).with_name("schedule.lua"))
"""Begins every script that puts something on the agenda; its first keys are `Agenda.keys`."""

AHEAD = 1_000_000
"""Microseconds by which the clock of whoever scheduled something may be ahead of Redis's."""

Clock = Callable[[], int]
"""Unix microseconds; 0 stands for Redis's own clock."""


def redis_clock() -> int:
    """Redis's own clock."""
    return 0


def _call() -> str:
    """A word for one call: redis-py repeats a call whose answer it lost, and agenda.lua knows it again by this."""
    return secrets.token_hex(8)


@dataclass(frozen=True, slots=True)
class Claim:
    """One member, held: `fence` is newer than that of every earlier holder."""

    member: str
    fence: int

    @property
    def kind(self) -> str:
        """`check`, `order` or `host`."""
        return self.member.partition(":")[0]

    @property
    def name(self) -> str:
        """What follows the kind: an app's, order's or host's name."""
        return self.member.partition(":")[2]


class Agenda:
    """Times and claims in Redis; `clock` is handed in by simulations only."""

    def __init__(self, store: Store, lease: float, clock: Clock = redis_clock) -> None:
        """`lease`: seconds that a claim holds."""
        self._redis = store.redis
        self._keys = [store.key("agenda"), store.key("agenda", "leases"), store.key("agenda", "fence")]
        self._answer_key = store.key("agenda", "due")
        self._script = store.script(*SCHEDULE, Path(__file__).with_name("agenda.lua"))
        self._lease = round(lease * 1_000_000)
        self._clock = clock

    @property
    def keys(self) -> list[str]:
        """The agenda's own keys, as scripts behind SCHEDULE have them first."""
        return list(self._keys)

    @property
    def leases_key(self) -> str:
        """The hash of live claims; scripts that refuse a stale holder's save look here."""
        return self._keys[1]

    @property
    def lease_seconds(self) -> float:
        """How long a claim holds."""
        return self._lease / 1_000_000

    async def _run(self, *words: str | int) -> Any:
        return await self._script([*self._keys, self._answer_key], [self._clock(), *words])

    async def schedule(self, member: str, at: datetime) -> None:
        """Let the member come due at `at` or sooner."""
        await self._run("schedule", member, microseconds(at))

    async def due(self, limit: int) -> list[Claim]:
        """Claim up to `limit` members whose time has come, earliest first."""
        answer = await self._run("due", limit, self._lease, _call())
        return [Claim(member, int(fence)) for member, fence in zip(answer[::2], answer[1::2], strict=True)]

    async def claim(self, member: str) -> Claim | None:
        """Claim one member now, due or not; None when it is held or not in the agenda."""
        fence = await self._run("claim", member, self._lease, _call(), "-")
        return Claim(member, fence) if fence else None

    async def claim_due(self, member: str) -> Claim | None:
        """Claim one member whose time has come; None also when it has another by now, a back-off perhaps."""
        fence = await self._run("claim", member, self._lease, _call(), AHEAD)
        return Claim(member, fence) if fence else None

    async def begin(self, claim: Claim) -> Claim | None:
        """Take over a claim that came in a message; None when the message is stale or came twice."""
        fence = await self._run("begin", claim.member, claim.fence, self._lease, _call())
        return Claim(claim.member, fence) if fence else None

    async def extend(self, claim: Claim) -> None:
        """Hold on for another lease. Raises LeaseLost."""
        if not await self._run("extend", claim.member, claim.fence, self._lease):
            raise LeaseLost(f"{claim.member} is held by somebody else now")

    async def finish(self, claim: Claim, again: datetime | None) -> bool:
        """End a claim: come due again at `again` (sooner if asked for meanwhile), or never. False: lost."""
        at = "-" if again is None else str(microseconds(again))
        return bool(await self._run("finish", claim.member, claim.fence, at))

    async def drop(self, member: str) -> None:
        """Take a member out, whoever holds it: what it was for is gone."""
        await self._run("drop", member)

    async def time_of(self, member: str) -> datetime | None:
        """When a member comes due, or its holder's lease ends; None when it is not in the agenda."""
        score = await self._redis.zscore(self._keys[0], member)
        return None if score is None else from_microseconds(int(score))

    async def size(self) -> int:
        """How many members there are."""
        return int(await self._redis.zcard(self._keys[0]))
