"""Admission: an order gets all its tokens at once, or waits in the room of a bucket that lacks one.

Everything is decided in Redis by scripts that share rooms.lua, which tells the keys and the order in which orders
are served. An order that waits costs nothing: each room has one time on the agenda, its gate's, and whoever is
first there and finds all its tokens is put on the agenda again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from certfleet.agenda import SCHEDULE, Agenda, Claim, Clock, redis_clock
from certfleet.errors import LeaseLost
from certfleet.limits.buckets import GCRA, Bucket, Rate
from certfleet.limits.keys import OF_ONE_ORDER, OrderBuckets, parse_name
from certfleet.models import from_microseconds, microseconds
from certfleet.store import Store

HERE = Path(__file__).parent


class Standing(StrEnum):
    """How far an order is with its tokens."""

    FREE = "free"
    """No limit holds it; nothing is kept of it."""
    ADMITTED = "admitted"
    """All its tokens are reserved."""
    ORDERED = "ordered"
    """What the CA counts at newOrder is counted."""
    WAITING = "waiting"
    """In a waiting room; its gate puts it on the agenda."""
    OUTDATED = "outdated"
    """The limits have changed meanwhile: ask again with those of today."""


class Sending(StrEnum):
    """Whether a newOrder may be sent."""

    GO = "go"
    BUSY = "busy"
    """Another one is under way that the same bucket is spent by: ask again in a moment."""
    WAITING = "waiting"
    """The tokens are not there any more (the CA said so): back in a waiting room."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """An order that asks for its tokens."""

    app: str
    order: str
    wish: str
    """What it asks the CA for; another wish of the same order begins anew."""
    version: str
    """Of the limits by which `buckets` were chosen."""
    party: str
    """`u` (emergency), `r` (renewals) or `t:<tenant>` (new names)."""
    rank: float
    """Within the party, smaller first (rooms.lua)."""
    buckets: OrderBuckets
    keep: int = 0
    """Tokens to leave in what newOrder spends: the share that is kept for renewals."""

    def charges(self, prefix: str, *, ordered: bool = True) -> str:
        """The lines of rooms.lua; without those of newOrder when there is an order at the CA already."""
        lines: list[tuple[str, Bucket, int]] = []
        if ordered:
            lines += [("o", bucket, min(self.keep, bucket.rate.burst - 1)) for bucket in self.buckets.ordered]
        lines += [("i", bucket, 0) for bucket in self.buckets.issued]
        lines += [("n", bucket, 0) for bucket in self.buckets.uncontrolled]
        lines += [("c", bucket, 0) for bucket in self.buckets.checked]
        return "\n".join(_line(prefix, phase, bucket, keep) for phase, bucket, keep in lines)


def _line(prefix: str, phase: str, bucket: Bucket, keep: int = 0) -> str:
    kind = "p" if bucket.limit in OF_ONE_ORDER else "s"
    return f"{phase} {kind} {keep} {bucket.rate.interval} {bucket.rate.burst} {prefix}{bucket.name}"


@dataclass(frozen=True, slots=True)
class Opened:
    """What came of opening a gate."""

    again: datetime | None
    """When the next token is there; None: nobody waits any more."""
    apps: tuple[str, ...]
    """Whose orders go on now; they are on the agenda."""


class Rooms:
    """The scripts; `clock` is handed in by tests only."""

    def __init__(self, store: Store, agenda: Agenda, clock: Clock = redis_clock) -> None:
        self._store = store
        self._redis = store.redis
        self._agenda = agenda
        self._keys = agenda.keys
        self._clock = clock
        shared = (*SCHEDULE, GCRA, HERE / "rooms.lua")
        self._enter = store.script(*shared, HERE / "enter.lua")
        self._open = store.script(*shared, HERE / "open.lua")
        self._step = store.script(*shared, HERE / "step.lua")

    def _words(self, *words: str | float) -> list[str | int | float | bytes]:
        return [self._clock(), self._store.prefix, *words]

    async def enter(self, claim: Claim, asking: Candidate, *, ordered: bool = True) -> Standing:
        """Take all tokens or a place in a waiting room. Safe to repeat. Raises LeaseLost.

        `ordered=False` when the CA has the order already: only what issuing costs is asked for.
        """
        words = self._words(
            *(claim.member, str(claim.fence), asking.app, asking.order, asking.wish, asking.version),
            *(asking.party, repr(asking.rank), asking.charges(self._store.prefix, ordered=ordered)),
            "new" if ordered else "made",
        )
        standing = (await self._enter(self._keys, words))[0]
        if standing == "stale":
            raise LeaseLost(f"{claim.member} is held by somebody else now")
        return Standing(standing)

    async def open(self, room: str, version: str, bucket: Bucket | None) -> Opened | None:
        """Let in whoever is first and finds all tokens; None, and nobody goes in, when the limits have another version.

        `bucket`: the room's, with its rate of this version; None: that limit holds no more, nobody need wait for it.
        """
        rate = (bucket.rate.interval, bucket.rate.burst) if bucket else ("-", "-")
        again, *apps = await self._open(self._keys, self._words(room, version, *rate))
        if again == "outdated":
            return None
        return Opened(None if again == "-" else from_microseconds(int(again)), tuple(apps))

    async def send(self, app: str) -> Sending | Standing:
        """Ask for newOrder's turn, and note that it is sent: if nothing is heard of it, it counts."""
        said = (await self._step(self._keys, self._words("send", app)))[0]
        return Sending(said) if said in list(Sending) else Standing(said)

    async def ordered(self, app: str) -> None:
        """The CA has answered newOrder with an order."""
        await self._step(self._keys, self._words("ordered", app))

    async def counted(self, app: str) -> None:
        """The CA has issued the certificate, which cannot be had yet: its tokens are spent whatever becomes of it."""
        await self._step(self._keys, self._words("counted", app))

    async def completed(self, app: str) -> None:
        """The order is gone because its certificate is there, and whoever stored it could not say `issued`."""
        await self._step(self._keys, self._words("issued", app, ""))

    async def issued(self, asking: Candidate, pausing: Iterable[Bucket]) -> None:
        """The certificate is stored: the CA has counted it, and every name was valid."""
        valid = [_line(self._store.prefix, "v", bucket) for bucket in pausing]
        lines = "\n".join([asking.charges(self._store.prefix, ordered=False), *valid])
        await self._step(self._keys, self._words("issued", asking.app, lines))

    async def refused(self, app: str, buckets: Sequence[Bucket], until: datetime) -> None:
        """The CA answered newOrder 429: tokens back, and none in these buckets before `until`; one then."""
        lines = [_line(self._store.prefix, "c", bucket) for bucket in buckets]
        await self._step(self._keys, self._words("refused", app, microseconds(until), *lines))

    async def leave(self, app: str) -> None:
        """There is no order any more, or it does not go on for now: what the CA has not counted is given back."""
        await self._step(self._keys, self._words("leave", app))

    async def open_all(self, now: datetime) -> None:
        """The limits have changed: let every gate look again."""
        for room in await self._redis.hkeys(self._store.key("rooms")):
            await self._agenda.schedule(gate_member(room), now)

    async def bucket(self, room: str) -> Bucket | None:
        """A room's bucket, with the rate that held when somebody came in last; None when nobody waits there."""
        text: Any = await self._redis.hget(self._store.key("rooms"), room)
        if text is None:
            return None
        interval, burst, _, key = text.split(" ", 3)
        return parse_name(key.removeprefix(self._store.prefix), Rate(1, int(interval), int(burst)))


def gate_member(room: str) -> str:
    """The agenda member of a waiting room."""
    return f"gate:{room}"
