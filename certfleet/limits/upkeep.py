"""What renewals need of each limit, for ever: the steady state that a number of certificates leads to."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from certfleet.limits.buckets import Bucket

DAY = 86_400_000_000  # microseconds
ROUNDING = 1e-9  # of a share: sums of many small floats


@dataclass(frozen=True, slots=True)
class Renewal:
    """One certificate that is renewed again and again."""

    buckets: tuple[Bucket, ...]
    """That lose a token each time."""
    period: int
    """Microseconds between two renewals."""


@dataclass(frozen=True, slots=True)
class Upkeep:
    """What all renewals together need."""

    per_day: float
    """Renewals."""
    shares: dict[Bucket, float]
    """Of each bucket, tokens that renewals need for each one that comes: above 1 it cannot be sustained."""

    @property
    def first_to_fail(self) -> Bucket | None:
        """The bucket of which the largest share is needed; None: renewals need nothing."""
        return min(self.shares, key=lambda b: (-self.shares[b], b.name), default=None)

    @property
    def sustainable(self) -> bool:
        """Whether every bucket gains as many tokens as renewals take."""
        return all(share <= 1 + ROUNDING for share in self.shares.values())


def upkeep(renewals: Iterable[Renewal]) -> Upkeep:
    """Add up what the renewals need."""
    per_day = 0.0
    shares: defaultdict[Bucket, float] = defaultdict(float)
    for renewal in renewals:
        per_day += DAY / renewal.period
        for bucket in renewal.buckets:
            shares[bucket] += bucket.rate.interval / renewal.period
    return Upkeep(per_day, dict(shares))
