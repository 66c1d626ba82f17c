"""A clock that tests move, and buckets that follow it."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from certfleet.limits.buckets import Bucket, Buckets, Rate
from certfleet.store import Store

SECOND = 1_000_000


@dataclass
class Watch:
    """Microseconds since 1970, for the script instead of Redis's own."""

    now: int = 1_800_000_000 * SECOND

    def __call__(self) -> int:
        return self.now

    def move(self, seconds: float) -> None:
        self.now += round(seconds * SECOND)


@pytest.fixture
def watch() -> Watch:
    return Watch()


@pytest.fixture
def buckets(store: Store, watch: Watch) -> Buckets:
    """Buckets on the moved clock."""
    return Buckets(store, watch)


def bucket_of(key: str, *, count: int = 10, period: float = 10, burst: int | None = None) -> Bucket:
    """A bucket of `count` tokens in `period` seconds: ten in ten seconds, unless the test says otherwise."""
    return Bucket("ca", "certificates-per-domain", key, Rate(count, round(period * SECOND), burst or count))
