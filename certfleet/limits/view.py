"""The buckets in use, for whoever looks: tokens left, full again at, who waits and until when."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from certfleet.limits.buckets import Bucket, Rate
from certfleet.limits.keys import parse_name, today
from certfleet.limits.line import Lines, full_times
from certfleet.limits.overrides import LimitsBook
from certfleet.limits.words import meaning
from certfleet.models import from_microseconds
from certfleet.store import Store

PAGE = 1000  # keys looked at per SCAN


@dataclass(frozen=True, slots=True)
class BucketInUse:
    """One bucket that is not full, or that somebody waits for."""

    ca: str
    limit: str
    key: str
    meaning: str
    """Limit and key in words."""
    burst: int
    """Tokens when it is full."""
    left: int
    """Whole tokens left; what is reserved for orders under way is not among them."""
    full_at: datetime
    """When it is full again, if nobody takes any."""
    waiting: int
    """Orders in its waiting room."""
    last_at: datetime | None
    """When the last of these is served, if no other limit is in the way; None: nobody waits."""


async def buckets_in_use(
    store: Store, book: LimitsBook, directories: Mapping[str, str], emails: Mapping[str, str]
) -> list[BucketInUse]:
    """Every bucket in use, fullest waiting rooms first.

    `directories` are the CAs' by name, `emails` the accounts' by id.
    """
    names = {key.removeprefix(store.prefix) async for key in store.redis.scan_iter(store.key("limit", "*"), count=PAGE)}
    lines = Lines(store)
    rooms = [line for room in await lines.rooms() if (line := await lines.line(room))]
    waiting = {line.bucket.name: line for line in rooms}
    buckets = []
    for name in sorted(names | waiting.keys()):
        bucket = parse_name(name, Rate(1, 1, 1))
        known = await book.of(bucket.ca, directories.get(bucket.ca, bucket.ca))
        present = today(known.limits, bucket)
        if present is not None or name in waiting:  # a limit that is gone holds nobody
            buckets.append(present or bucket)
    now, full = await full_times(store, buckets)
    found = []
    for bucket in buckets:
        line = waiting.get(bucket.name)
        at = max(full[bucket], now)
        found.append(
            BucketInUse(
                ca=bucket.ca,
                limit=bucket.limit,
                key=bucket.key,
                meaning=meaning(bucket, emails),
                burst=bucket.rate.burst,
                left=_left(bucket, at, now),
                full_at=from_microseconds(at),
                waiting=len(line.apps) if line else 0,
                last_at=line.last.at if line else None,
            )
        )
    return sorted(found, key=lambda one: (-one.waiting, one.ca, one.limit, one.key))


def _left(bucket: Bucket, full: int, now: int) -> int:
    rate = bucket.rate
    return max(0, (now + rate.interval * rate.burst - full) // rate.interval)
