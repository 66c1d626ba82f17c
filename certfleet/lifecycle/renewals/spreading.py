"""Renewals that would come in one heap, a bulk issue's above all, are spread over the time before it.

    renewals  hash  hour (since 1970) -> how many renewals are planned in it; "swept": up to where past hours are gone
    slots     hash  app -> "generation due at", the last two in Unix microseconds: a Slot

A renewal keeps its own time (the CA's window, or the rule without one) unless its hour is full; then it takes an
earlier one that is not. Never a later one, and never before half of the time from issue until then. So it leaves the
CA's window, and with it the exemption that `replaces` brings; that of a renewal of the same names it has all the same
(letsencrypt.org/docs/rate-limits, "exemptions"). Let's Encrypt asks for it: a bulk issue's renewals are to come over
days, not at once (letsencrypt.org/docs/integration-guide).

What is counted is kept in one write with the slot. Two that choose at the same moment do not see each other, which is
why one of several hours is drawn.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from certfleet.agenda import Claim
from certfleet.lifecycle.records import Command, Records
from certfleet.lifecycle.renewals.renewal import Slot, due_time, holds
from certfleet.models import Certificate, Renewal, from_microseconds, microseconds, utcnow
from certfleet.store import Store

SHARE = 1 / 2
"""Of the time from issue until a certificate's own time of renewal: how much earlier it may be renewed."""
LONGEST = timedelta(days=30)
"""How much earlier at most, however long it lives."""
FULL = 1.1
"""An hour is full with so many times the mean of the hours that there are to choose from; above 1, or all could be."""
FEW = 5
"""Fewer renewals than this fill no hour: there is nothing to spread."""
NEAREST = 24
"""Hours that one is drawn from: the last ones that are not full."""
HOUR = 3_600_000_000  # microseconds
SWEPT = "swept"
MOST_SWEPT = 1_000  # past hours that one write takes away


class Spreading:
    """What is planned in each hour, and each app's slot."""

    def __init__(self, store: Store, records: Records) -> None:
        self._store = store
        self._redis = store.redis
        self._records = records
        self._slots = store.key("slots")
        self._renewals = store.key("renewals")

    async def slots(self, apps: Iterable[str]) -> dict[str, Slot]:
        """The slots of these apps; one that does not hold any more is among them (renewal.holds)."""
        names = list(apps)
        texts = await self._redis.hmget(self._slots, names) if names else []
        return {app: _read(text) for app, text in zip(names, texts, strict=True) if text}

    async def find(
        self, claim: Claim, certificate: Certificate | None, grace: timedelta | None, told: Renewal | None
    ) -> Slot | None:
        """The certificate's slot, chosen now if it has none that holds; None: it is due. Raises LeaseLost."""
        if certificate is None:
            return None
        known = (await self.slots([certificate.app])).get(certificate.app)
        due, now = due_time(certificate, grace, told), utcnow()
        if known is not None and holds(known, certificate, due):
            return known
        if due <= now:
            return None
        first = earliest(certificate, due, now)
        hours = [str(hour) for hour in range(hour_of(first), hour_of(due) + 1)]
        counts = await self._redis.hmget(self._renewals, [SWEPT, *hours])
        swept, planned = int(counts[0] or 0), [int(count or 0) for count in counts[1:]]
        at = choose(first, due, planned, random.random())  # noqa: S311  no secret
        slot = Slot(certificate.generation, due, at)
        await self._records.write(claim, self._saved(certificate, slot, known, now, swept))
        return slot

    def _saved(
        self, certificate: Certificate, slot: Slot, before: Slot | None, now: datetime, swept: int
    ) -> list[Command]:
        """Commands that count the slot and no more the one before it; nothing, if the app has another certificate."""
        present = hour_of(now)
        commands: list[Command] = [
            ("NEEDS", self._store.key("certificate", certificate.app)),
            ("SAME", self._store.key("generation", certificate.app), str(certificate.generation)),
            ("HSET", self._slots, certificate.app, _written(slot)),
            ("HINCRBY", self._renewals, str(hour_of(slot.at)), "1"),
        ]
        if before is not None and hour_of(before.at) >= present:
            commands.append(("HINCRBY", self._renewals, str(hour_of(before.at)), "-1"))
        if swept < present:
            until = min(present, swept + MOST_SWEPT) if swept else present
            if swept:
                commands.append(("HDEL", self._renewals, *(str(hour) for hour in range(swept, until))))
            commands.append(("HSET", self._renewals, SWEPT, str(until)))
        return commands

    async def forget(self, app: str) -> None:
        """The app is removed; where its renewal was planned it goes on being counted until that hour is over."""
        await self._redis.hdel(self._slots, app)


def hour_of(moment: datetime) -> int:
    """Hours since 1970."""
    return microseconds(moment) // HOUR


def earliest(certificate: Certificate, due: datetime, now: datetime) -> datetime:
    """Before which it is not renewed for the sake of others; never after `due`."""
    return max(due - min((due - certificate.issued) * SHARE, LONGEST), min(now, due))


def choose(first: datetime, due: datetime, planned: Sequence[int], chance: float) -> datetime:
    """When to renew what is due at `due`, from `first` on.

    `planned`: how many are in each hour from that of `first` to that of `due`. `chance`, from 0 to below 1, says which
    of the last hours with room, and when in it.
    """
    full = max(FEW, FULL * sum(planned) / len(planned))
    if planned[-1] < full:
        return due
    room = _last_below(planned, full)  # one at least: not all are above their mean
    which = chance * len(room)
    begins = max(first, from_microseconds((hour_of(first) + room[int(which)]) * HOUR))
    ends = from_microseconds((hour_of(first) + room[int(which)] + 1) * HOUR)
    return begins + timedelta(microseconds=1) * int((ends - begins) / timedelta(microseconds=1) * (which % 1))


def _last_below(planned: Sequence[int], full: float) -> list[int]:
    """Indexes of the last hours, at most NEAREST, in which fewer are planned."""
    found: list[int] = []
    for index in range(len(planned) - 2, -1, -1):
        if planned[index] < full:
            found.append(index)
            if len(found) == NEAREST:
                break
    return found


def _written(slot: Slot) -> str:
    return f"{slot.generation} {microseconds(slot.due)} {microseconds(slot.at)}"


def _read(text: str) -> Slot:
    generation, due, at = text.split()
    return Slot(int(generation), from_microseconds(int(due)), from_microseconds(int(at)))
