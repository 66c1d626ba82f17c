"""The fleet's rules of admission on a simulated clock.

Events only, no ticks: an order that begins to wait, a bucket that gets a token somebody waits for. What happens at
the same microsecond is decided together: of all whose tokens are there the most urgent goes first. The same question
always gets the same answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush

from certfleet.limits.buckets import Bucket, Charge
from certfleet.limits.keys import OF_ONE_ORDER
from certfleet.limits.queues import Ask, Order, Place, Queue, Room, Urgency, denying

MOST_FOLLOWED = 1_000_000
"""Wishes that may follow from others before a simulation is given up: half a minute."""


@dataclass(frozen=True, slots=True)
class Wish:
    """An order that waits, or will."""

    app: str
    party: str
    """u: the emergency lane, r: renewals and what has an urgency of its own, t:<tenant>: new names of one tenant."""
    score: float
    """The order within the party: smaller goes first."""
    charges: tuple[Charge, ...]
    at: int
    """Unix microseconds: when it begins to wait."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What becomes of one wish."""

    at: int | None
    """Unix microseconds: admitted; None: not within the time that was looked ahead."""
    bucket: Bucket | None
    """The one that it waited for longest; None: it did not wait."""


Follow = Callable[[Wish, int], Wish | None]
"""What an admitted wish brings with it later (its renewal); the second argument is when it was admitted."""


class Simulation:
    """The clock, the rooms, and everybody who waits or will."""

    def __init__(
        self,
        wishes: Sequence[Wish],
        levels: Mapping[Bucket, int],
        now: int,
        *,
        asked: int,
        follow: Follow | None = None,
        turns: Mapping[Bucket, Sequence[str]] | None = None,
    ) -> None:
        """The first `asked` wishes are those whose outcome counts; times are Unix microseconds.

        `levels`: the TAT of buckets that are not full; `turns`: tenants that wait for one already, the next one first.
        """
        self.now = now
        self.outcomes = [Outcome(None, None)] * asked
        self._unanswered = asked
        self._follow = follow
        self._wishes = list(wishes)
        self._most = len(wishes) + MOST_FOLLOWED
        self._coming = [(max(now, wish.at), number) for number, wish in enumerate(wishes)]
        heapify(self._coming)
        # A bucket is known by its names: under another rate it has the same state.
        self._levels = {(bucket.ca, bucket.limit, bucket.key): tat for bucket, tat in levels.items()}
        self._turns = {(bucket.ca, bucket.limit, bucket.key): each for bucket, each in (turns or {}).items()}
        self._rooms: dict[tuple[str, str, str], Room] = {}
        self._asks: dict[tuple[int, int, bool, int], Ask] = {}
        self._queues: dict[tuple[str, tuple[Ask, ...]], Queue] = {}
        self._alarms: list[tuple[int, int, Room]] = []
        self._touched: dict[Room, None] = {}
        self._giving: list[tuple[Urgency, int, Room]] = []
        self._turn = 0

    def run(self, end: int) -> None:
        """Until every wish that counts is admitted, or until `end`."""
        while self._unanswered and len(self._wishes) <= self._most:
            times = [heap[0][0] for heap in (self._coming, self._alarms) if heap]
            if not times or min(times) > end:
                break
            self.now = min(times)
            while self._coming and self._coming[0][0] == self.now:
                self._arrive(heappop(self._coming)[1])
            while self._alarms and self._alarms[0][0] == self.now:
                self._ring(heappop(self._alarms)[2])
            self._serve()
        self._close()

    # --- coming ------------------------------------------------------------------------------------

    def _arrive(self, number: int) -> None:
        wish = self._wishes[number]
        shared = tuple(self._ask(c) for c in wish.charges if c.bucket.limit not in OF_ONE_ORDER)
        own = tuple(self._room(c.bucket).ask(c) for c in wish.charges if c.bucket.limit in OF_ONE_ORDER)
        order = (wish.score, wish.at, number)
        if shared:
            self._join(wish.party, shared, order, own)
        else:
            self._join(wish.party, own, order, ())

    def _ask(self, charge: Charge) -> Ask:
        """The same object for all who ask the same: a queue is known by its asks."""
        room = self._room(charge.bucket)
        key = (room.number, charge.cost, charge.check, charge.keep)
        ask = self._asks.get(key)
        if ask is None:
            ask = self._asks[key] = room.ask(charge)
        return ask

    def _room(self, bucket: Bucket) -> Room:
        names = (bucket.ca, bucket.limit, bucket.key)
        room = self._rooms.get(names)
        if room is None:
            level, turns = self._levels.get(names, 0), self._turns.get(names, ())
            room = self._rooms[names] = Room(len(self._rooms), bucket, level, turns)
        return room

    def _join(
        self, party: str, asks: tuple[Ask, ...], order: Order, own: tuple[Ask, ...], credit: Sequence[int] = ()
    ) -> None:
        queue = self._queues.get((party, asks))
        if queue is None:
            queue = self._queues[party, asks] = Queue(party, asks, waited=[0] * len(asks))
        queue.join(self.now, order, own, credit)
        if queue.lane is None:
            self._place(queue)

    def _place(self, queue: Queue) -> None:
        """Let a queue wait in the room that denies its head; if none does, in the first one, where it is served."""
        if not queue.asks:
            while queue.places:
                self._admit(queue, heappop(queue.places))
        if not queue.places:
            del self._queues[queue.party, queue.asks]
            return
        index = denying(queue.asks, self.now) or 0
        room = queue.asks[index].room
        room.enter(queue, index, self.now)
        self._touched[room] = None

    # --- serving -----------------------------------------------------------------------------------

    def _ring(self, room: Room) -> None:
        if room.alarm == self.now:
            room.alarm = None
            self._touched[room] = None

    def _serve(self) -> None:
        while self._touched or self._giving:
            for room in self._touched:
                self._look(room)
            self._touched.clear()
            if self._giving:
                urgency, _, room = heappop(self._giving)
                if urgency is room.noted:
                    room.noted = None
                    self._touched[room] = None
                    found = room.first(self.now)
                    if found is not None and found[0] == urgency:
                        self._attempt(found[1])

    def _look(self, room: Room) -> None:
        """Note whom the room could serve now; if nobody, set the alarm for when it can."""
        found = room.first(self.now)
        if found is not None:
            if room.noted != found[0]:
                room.noted = found[0]
                heappush(self._giving, (found[0], room.number, room))
            return
        room.noted = None
        gate = room.gate()
        if gate is not None and (room.alarm is None or gate < room.alarm):
            room.alarm = gate
            heappush(self._alarms, (gate, room.number, room))

    def _attempt(self, queue: Queue) -> None:
        """Admit the head of the queue, or let it wait where it is denied."""
        queue.leave(self.now)
        if denying(queue.asks, self.now) is None:
            place = heappop(queue.places)
            if denying(place.own, self.now) is None:
                self._admit(queue, place)
            else:  # a bucket of its own denies it: the others in the queue do not wait for that
                credit = queue.waits_of(place)
                self._join(queue.party, queue.asks + place.own, place.order, (), credit)
        self._place(queue)

    def _admit(self, queue: Queue, place: Place) -> None:
        self._turn += 1
        for ask in queue.asks + place.own:
            if ask.cost:
                ask.room.spend(self.now, ask.cost, queue.party, self._turn)
        number = place.order[2]
        if number < len(self.outcomes):
            self._unanswered -= 1
            self.outcomes[number] = Outcome(self.now, _longest(queue, place))
        if self._follow is not None and (after := self._follow(self._wishes[number], self.now)) is not None:
            heappush(self._coming, (max(self.now, after.at), len(self._wishes)))
            self._wishes.append(after)

    def _close(self) -> None:
        """Say of those who still wait what for."""
        for queue in self._queues.values():
            queue.leave(self.now)
            for place in queue.places:
                if place.order[2] < len(self.outcomes):
                    self.outcomes[place.order[2]] = Outcome(None, _longest(queue, place))


def _longest(queue: Queue, place: Place) -> Bucket | None:
    waits = queue.waits_of(place)
    longest = max(waits, default=0)
    return queue.asks[waits.index(longest)].room.bucket if longest else None
