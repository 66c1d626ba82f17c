"""The bucket's arithmetic, as the CA runs it: whole nanoseconds and division toward zero, without state.

A bucket is one number, its theoretical arrival time (`tat`, Unix nanoseconds): when it will be full. 0 is full.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

SECOND = 1_000_000_000  # nanoseconds


@dataclass(frozen=True, slots=True)
class Rate:
    """How fast a bucket fills, and what it holds."""

    interval: int
    """Nanoseconds per token."""
    burst: int
    """Tokens of a full bucket."""

    @property
    def offset(self) -> int:
        """Nanoseconds from empty to full."""
        return self.interval * self.burst


class Decision(NamedTuple):
    """What a bucket says; times in nanoseconds from now."""

    allowed: bool
    remaining: int
    retry_in: int
    """Until the same could be spent (again)."""
    reset_in: int
    """Until the bucket is full."""
    tat: int
    """What to keep."""


def spend(rate: Rate, now: int, tat: int, cost: int) -> Decision:
    """Take `cost` tokens (0 only looks), or leave the bucket as it is."""
    tat = max(now, tat)
    new = tat + rate.interval * cost
    left = now - (new - rate.offset)
    if left < 0:
        remaining = _truncated(now - (tat - rate.offset), rate.interval)
        return Decision(allowed=False, remaining=remaining, retry_in=-left, reset_in=tat - now, tat=tat)
    retry_in = max(0, rate.interval * cost - left)
    return Decision(True, _truncated(left, rate.interval), retry_in, new - now, new)  # noqa: FBT003


def refund(rate: Rate, now: int, tat: int, cost: int) -> Decision:
    """Put `cost` tokens back, at most until the bucket is full; `allowed` when that changed anything."""
    if now > tat:
        return Decision(allowed=False, remaining=rate.burst, retry_in=0, reset_in=0, tat=tat)
    new = max(tat - rate.interval * cost, now)
    remaining = _truncated(now - (new - rate.offset), rate.interval)
    return Decision(allowed=new != tat, remaining=remaining, retry_in=0, reset_in=new - now, tat=new)


def _truncated(numerator: int, denominator: int) -> int:
    quotient = abs(numerator) // denominator
    return quotient if numerator >= 0 else -quotient
