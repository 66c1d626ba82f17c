"""Waiting rooms as a simulation has them: who waits for a bucket, and who of them is served next.

A queue is all waiting orders of one party that ask the same buckets; its head speaks for it. It waits in the room of
one bucket that denies its head. Orders may have to leave tokens for others (Charge.keep), so that not everybody in a
room is let in by the same level: a room has one lane for each number of tokens that has to be there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush, heapreplace

from certfleet.limits.buckets import Bucket, Charge
from certfleet.limits.gcra import opens, spent

RANKS = {"u": 0, "r": 1}
"""The order of the parties: the emergency lane, what has an urgency of its own, then all tenants alike."""
TENANT = 2

Order = tuple[float, int, int]
"""Score, microseconds when it began to wait, number: smaller goes first, and no two are the same."""
Urgency = tuple[float | str, ...]
"""Across queues: rank and order, of a tenant rank, turn, tenant and order. Smaller goes first."""


@dataclass(slots=True, eq=False)
class Ask:
    """What an order asks of one room's bucket."""

    room: Room
    cost: int
    """Tokens to take; 0 where they only have to be there."""
    tokens: int
    """That have to be there."""


@dataclass(slots=True, eq=False)
class Place:
    """An order's place in its queue."""

    order: Order
    own: tuple[Ask, ...]
    """What it asks beside what all in its queue ask."""
    before: tuple[int, ...]
    """Microseconds that the queue had waited in the room of each of its asks when this one came."""

    def __lt__(self, other: Place) -> bool:
        return self.order < other.order


@dataclass(slots=True, eq=False)
class Queue:
    """The orders of one party that ask the same buckets; the most urgent is its head."""

    party: str
    asks: tuple[Ask, ...]
    places: list[Place] = field(default_factory=list)
    """A heap."""
    waited: list[int] = field(default_factory=list)
    """Microseconds in the room of each ask, up to `since`."""
    lane: Lane | None = None
    """Where it waits."""
    index: int = 0
    """The ask whose room that is."""
    since: int = 0
    """Microseconds: since when."""

    def join(self, now: int, order: Order, own: tuple[Ask, ...], credit: Sequence[int] = ()) -> None:
        """One more order; `credit` is what it waited for each ask elsewhere, if it did."""
        before = self.waited.copy()
        if self.lane is not None:
            before[self.index] += now - self.since
        for index, already in enumerate(credit):
            before[index] -= already
        place = Place(order, own, tuple(before))
        heappush(self.places, place)
        if self.lane is not None and self.places[0] is place:
            self.lane.note(self)

    def leave(self, now: int) -> None:
        """Out of the room."""
        if self.lane is not None:
            self.waited[self.index] += now - self.since
            self.lane.size -= 1
            self.lane = None

    def waits_of(self, place: Place) -> list[int]:
        """Microseconds that this order waited in the room of each ask."""
        return [whole - before for whole, before in zip(self.waited, place.before, strict=True)]


Note = tuple[Urgency, int, Queue]
"""That a queue came with a head of this urgency; the number tells two of the same apart."""


@dataclass(slots=True)
class Turns:
    """When one bucket served each tenant last, as the number of that turn."""

    _of: dict[str, int]
    """Below 0: served before the simulation began, or in the line since then."""
    last: int = 0

    def of(self, party: str) -> int:
        """A tenant that comes in goes behind those that have waited for their next turn (rooms.lua)."""
        return self._of.setdefault(party, self.last)

    def served(self, party: str, turn: int) -> None:
        """It has had its turn."""
        self._of[party] = self.last = turn


class Lane:
    """Those in one room who need the same number of tokens."""

    def __init__(self, turns: Turns) -> None:
        """`turns`: of this room."""
        self.size = 0
        self._urgent: list[Note] = []
        self._tenants: dict[str, list[Note]] = {}
        self._next: list[tuple[int, str]] = []
        self._turns = turns
        self._notes = 0

    def enter(self, queue: Queue) -> None:
        """Wait here from now on."""
        self.size += 1
        queue.lane = self
        self.note(queue)

    def note(self, queue: Queue) -> None:
        """Its head is another one now; what was noted before is passed over from now on."""
        self._notes += 1
        order, party = queue.places[0].order, queue.party
        if party in RANKS:
            heappush(self._urgent, ((RANKS[party], *order), self._notes, queue))
            return
        if party not in self._tenants:
            self._tenants[party] = []
            heappush(self._next, (self._turns.of(party), party))
        heappush(self._tenants[party], (order, self._notes, queue))

    def first(self) -> tuple[Urgency, Queue] | None:
        """Who is served next, and how urgent that is: the tenant that was served longest ago, its oldest order."""
        if found := self._head(self._urgent):
            return found[0], found[2]
        while self._next:
            turn, party = self._next[0]
            newest = self._turns.of(party)
            if turn != newest:
                heapreplace(self._next, (newest, party))
            elif found := self._head(self._tenants[party]):
                return (TENANT, turn, party, *found[0]), found[2]
            else:
                heappop(self._next)
                del self._tenants[party]
        return None

    def _head(self, notes: list[Note]) -> Note | None:
        while notes:
            urgency, _, queue = notes[0]
            if queue.lane is self and queue.places[0].order == urgency[-3:]:
                return notes[0]
            heappop(notes)
        return None


class Room:
    """One bucket, and the queues that wait for it."""

    __slots__ = ("_burst", "_interval", "_lanes", "_turns", "alarm", "bucket", "noted", "number", "tat")

    def __init__(self, number: int, bucket: Bucket, tat: int, turns: Sequence[str] = ()) -> None:
        """`number` decides where nothing else does; `tat` is the bucket's state.

        `turns`: tenants that have waited for it already, in the order of their next turns; any other comes behind.
        """
        self.number = number
        self.bucket = bucket
        self.tat = tat
        self.alarm: int | None = None
        """Microseconds: when it is looked at next."""
        self.noted: Urgency | None = None
        """Its entry among those that have something to give now."""
        self._interval, self._burst = bucket.rate.interval, bucket.rate.burst
        self._lanes: dict[int, Lane] = {}
        self._turns: Turns | None = None
        if turns:
            self._turns = Turns({party: place - len(turns) for place, party in enumerate(turns)})

    def ask(self, charge: Charge) -> Ask:
        """The charge as an ask; what has to be left in the bucket is never more than it can hold."""
        cost = 0 if charge.check else charge.cost
        return Ask(self, cost, min(charge.cost + charge.keep, self._burst))

    def opens(self, tokens: int) -> int:
        """Microseconds: from when on so many tokens are there."""
        return opens(self.tat, self._interval, self._burst, tokens)

    def spend(self, now: int, cost: int, party: str, turn: int) -> None:
        """Take tokens for an order of this party, in this turn."""
        self.tat = spent(self.tat, now, self._interval, cost)
        if self._turns is not None and party not in RANKS:
            self._turns.served(party, turn)

    def enter(self, queue: Queue, index: int, now: int) -> None:
        """A queue waits here with its ask of this index."""
        queue.index, queue.since = index, now
        tokens = queue.asks[index].tokens
        if self._turns is None:
            self._turns = Turns({})
        if tokens not in self._lanes:
            self._lanes[tokens] = Lane(self._turns)
        self._lanes[tokens].enter(queue)

    def gate(self) -> int | None:
        """Microseconds: from when on there are tokens for somebody who waits here; None: nobody does."""
        needs = [tokens for tokens, lane in self._lanes.items() if lane.size]
        return self.opens(min(needs)) if needs else None

    def first(self, now: int) -> tuple[Urgency, Queue] | None:
        """The most urgent of those whose tokens are there now."""
        best: tuple[Urgency, Queue] | None = None
        for tokens, lane in self._lanes.items():
            if lane.size and self.opens(tokens) <= now:
                found = lane.first()
                if found and (best is None or found[0] < best[0]):
                    best = found
        return best


def denying(asks: Sequence[Ask], now: int) -> int | None:
    """The index of the ask whose tokens come last; None: all are there."""
    latest, index = now, None
    for number, ask in enumerate(asks):
        at = ask.room.opens(ask.tokens)
        if at > latest:
            latest, index = at, number
    return index
