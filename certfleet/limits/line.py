"""Who stands where in the waiting rooms, and when each is served: read from Redis, worked out without it.

The order is that of rooms.lua: the emergency lane, then renewals by deadline, then new names, one of each tenant in
turn. Times hold when nobody more urgent comes and no other limit is in the way; `certfleet forecast` counts with those.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import zip_longest

from certfleet.agenda import Clock, redis_clock
from certfleet.limits.buckets import Bucket, Charge, Rate, full_at
from certfleet.limits.keys import parse_name
from certfleet.models import from_microseconds
from certfleet.store import Store

PAGE = 500  # records read at once
NUMBERS = 5000  # buckets read at once; each is a few bytes


@dataclass(frozen=True, slots=True)
class Place:
    """Where one order stands."""

    bucket: Bucket
    place: int
    """1 is next."""
    waiting: int
    """How many wait in this room, this one included."""
    at: datetime
    """When it is served."""


@dataclass(frozen=True, slots=True)
class Line:
    """One waiting room, in the order in which it is served."""

    bucket: Bucket
    check: bool
    full: int
    """When the bucket is full again, microseconds, everything reserved counted."""
    now: int
    """Microseconds, by Redis's clock."""
    apps: tuple[str, ...]
    keeps: Mapping[str, int]
    """Tokens that have to be left, for those of whom that is asked."""

    def place(self, app: str) -> Place | None:
        """Where the app's order stands; None when it is not here."""
        try:
            index = self.apps.index(app)
        except ValueError:
            return None
        return self._place(index)

    def places(self) -> dict[str, Place]:
        """Everybody here."""
        return {app: self._place(index) for index, app in enumerate(self.apps)}

    @property
    def last(self) -> Place:
        """Whoever is served last."""
        return self._place(len(self.apps) - 1)

    def _place(self, index: int) -> Place:
        keep = self.keeps.get(self.apps[index], 0)
        # A gate that costs no token lets in twice as many each second (open.lua).
        rate, tokens = self.bucket.rate, keep + (1 if self.check else index + 1)
        at = max(self.now, self.full - rate.interval * (rate.burst - tokens))
        pause = timedelta(seconds=(index + 1).bit_length() - 1) if self.check else timedelta()
        return Place(self.bucket, index + 1, len(self.apps), from_microseconds(at) + pause)


class Lines:
    """The rooms as they are now; each is read once. `clock` is handed in by tests only."""

    def __init__(self, store: Store, clock: Clock = redis_clock) -> None:
        self._store = store
        self._clock = clock
        self._redis = store.redis
        self._lines: dict[str, Line | None] = {}

    async def places(self, apps: Sequence[str]) -> dict[str, Place]:
        """Where the orders of these apps stand; those that do not wait are left out."""
        rooms = await self._rooms_of(apps)
        found: dict[str, Place] = {}
        for room, members in rooms.items():
            line = await self.line(room)
            if line is None:
                continue
            everybody = line.places() if len(members) > 1 else {}
            for app in members:
                place = everybody.get(app) or line.place(app)
                if place is not None:
                    found[app] = place
        return found

    async def rooms(self) -> list[str]:
        """Every room where somebody waits."""
        return sorted(await self._redis.hkeys(self._store.key("rooms")))

    async def line(self, room: str) -> Line | None:
        """One room; None when nobody waits there."""
        if room not in self._lines:
            self._lines[room] = await self._read(room)
        return self._lines[room]

    async def _rooms_of(self, apps: Sequence[str]) -> dict[str, list[str]]:
        pipe = self._redis.pipeline(transaction=False)
        for app in apps:
            pipe.hmget(self._store.key("admission", app), "state", "queue")
        answers = await pipe.execute() if apps else []
        queues = {app: queue for app, (state, queue) in zip(apps, answers, strict=True) if state == "waiting" and queue}
        names = sorted(set(queues.values()))
        texts = await self._redis.hmget(self._store.key("queues"), names) if names else []
        room_of = {queue: text.split(" ", 1)[0] for queue, text in zip(names, texts, strict=True) if text}
        rooms: dict[str, list[str]] = {}
        for app, queue in queues.items():
            if queue in room_of:
                rooms.setdefault(room_of[queue], []).append(app)
        return rooms

    async def _read(self, room: str) -> Line | None:
        text = await self._redis.hget(self._store.key("rooms"), room)
        if text is None:
            return None
        _, _, phase, key = text.split(" ", 3)
        bucket = _bucket(text, self._store.prefix)
        now = self._clock() or await redis_time(self._store)
        full = full_at(await self._redis.get(key), now, bucket.rate.interval)
        parties = await self._redis.zrange(self._store.key("room", room), 0, -1)
        tenants: list[list[str]] = []
        apps: list[str] = []
        keeps: dict[str, int] = {}
        for party in parties:
            served = await self._party(room, party)
            keep = await self._keep(served[0], key) if served else 0
            keeps |= dict.fromkeys(served, keep) if keep else {}
            if party in ("u", "r"):
                apps += served
            else:
                tenants.append(served)
        apps += [app for turn in zip_longest(*tenants) for app in turn if app is not None]
        if not apps:  # the last of them has gone in since the room was found
            return None
        return Line(bucket, phase == "c", full, now, tuple(apps), keeps)

    async def _party(self, room: str, party: str) -> list[str]:
        """The apps of one party, most urgent first, whichever queue they stand in."""
        queues = await self._redis.zrange(self._store.key("party", room, party), 0, -1)
        members: list[tuple[float, str]] = []
        for start in range(0, len(queues), PAGE):
            pipe = self._redis.pipeline(transaction=False)
            for queue in queues[start : start + PAGE]:
                pipe.zrange(self._store.key("queue", queue), 0, -1, withscores=True)
            members += [(rank, app) for answer in await pipe.execute() for app, rank in answer]
        return [app for _, app in sorted(members)]

    async def _keep(self, app: str, key: str) -> int:
        text = await self._redis.hget(self._store.key("admission", app), "charges")
        return next((int(line.split(" ", 5)[2]) for line in (text or "").splitlines() if line.endswith(f" {key}")), 0)


@dataclass(frozen=True, slots=True)
class Waiter:
    """One waiting order as a forecast needs it."""

    app: str
    party: str
    rank: float
    charges: tuple[Charge, ...]
    entered: int
    """Microseconds."""


async def waiters(store: Store) -> list[Waiter]:
    """Every order that waits, with what it waits for."""
    apps: list[str] = []
    for queue in await store.redis.hkeys(store.key("queues")):
        apps += await store.redis.zrange(store.key("queue", queue), 0, -1)
    found: list[Waiter] = []
    for start in range(0, len(apps), PAGE):
        page = apps[start : start + PAGE]
        pipe = store.redis.pipeline(transaction=False)
        for app in page:
            pipe.hmget(store.key("admission", app), "state", "party", "rank", "charges", "entered")
        for app, (state, party, rank, charges, entered) in zip(page, await pipe.execute(), strict=True):
            if state == "waiting":
                lines = charges.splitlines()
                found.append(Waiter(app, party, float(rank), _charges(lines, store.prefix), int(entered)))
    return found


async def turns(store: Store) -> dict[Bucket, tuple[str, ...]]:
    """Of each bucket that tenants wait for, their parties in the order of their next turns."""
    texts = await store.redis.hgetall(store.key("rooms"))
    rooms = sorted(texts)
    found: dict[Bucket, tuple[str, ...]] = {}
    for start in range(0, len(rooms), PAGE):
        page = rooms[start : start + PAGE]
        pipe = store.redis.pipeline(transaction=False)
        for room in page:
            pipe.zrange(store.key("room", room), 0, -1)
        for room, parties in zip(page, await pipe.execute(), strict=True):
            tenants = tuple(party for party in parties if party.startswith("t:"))
            if tenants:
                found[_bucket(texts[room], store.prefix)] = tenants
    return found


def _bucket(text: str, prefix: str) -> Bucket:
    """That of a room, as `rooms` has it."""
    interval, burst, _, key = text.split(" ", 3)
    return parse_name(key.removeprefix(prefix), Rate(1, int(interval), int(burst)))


async def admitted(store: Store, apps: Sequence[str]) -> set[str]:
    """Those of the apps whose order has its tokens: no limit is in its way any more."""
    pipe = store.redis.pipeline(transaction=False)
    for app in apps:
        pipe.hget(store.key("admission", app), "state")
    states = await pipe.execute() if apps else []
    return {app for app, state in zip(apps, states, strict=True) if state in ("admitted", "ordered")}


def _charges(lines: Iterable[str], prefix: str) -> tuple[Charge, ...]:
    found = []
    for line in lines:
        phase, _, keep, interval, burst, key = line.split(" ", 5)
        if phase != "n":
            bucket = parse_name(key.removeprefix(prefix), Rate(1, int(interval), int(burst)))
            found.append(Charge(bucket, check=phase == "c", keep=int(keep)))
    return tuple(found)


async def redis_time(store: Store) -> int:
    """Microseconds, by Redis's clock."""
    seconds, rest = await store.redis.time()
    return int(seconds) * 1_000_000 + int(rest)


async def full_times(store: Store, buckets: Sequence[Bucket]) -> tuple[int, dict[Bucket, int]]:
    """Now by Redis's clock, and when each of these buckets is full again, everything reserved counted; microseconds."""
    now = await redis_time(store)
    answers: list[str | None] = []
    for start in range(0, len(buckets), NUMBERS):
        answers += await store.redis.mget([store.key(bucket.name) for bucket in buckets[start : start + NUMBERS]])
    return now, {b: full_at(text, now, b.rate.interval) for b, text in zip(buckets, answers, strict=True)}
