"""The buckets in plain Python and whole numbers, written from the formulas and not from the script."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class Answer(NamedTuple):
    """What a bucket says; times in microseconds."""

    allowed: bool
    remaining: int
    retry_in: int
    reset_in: int


def truncated(numerator: int, denominator: int) -> int:
    """Division toward zero, as Go does it."""
    quotient = abs(numerator) // denominator
    return quotient if numerator >= 0 else -quotient


@dataclass
class ReferenceBucket:
    """One bucket: `tat` by what the CA counted, `pending` tokens that it has not counted yet."""

    interval: int
    burst: int
    tat: int = 0
    pending: int = 0

    @property
    def offset(self) -> int:
        return self.interval * self.burst

    def _full(self, now: int) -> int:
        """When it is full again if the CA counted everything now."""
        return max(now, self.tat) + self.interval * self.pending

    def _left(self, now: int, full: int) -> int:
        return max(0, truncated(now - (full - self.offset), self.interval))

    def _forget(self, now: int) -> None:
        """A full bucket is forgotten, also when the clock is set back later."""
        if self.tat <= now and not self.pending:
            self.tat = 0

    def decide(self, now: int, cost: int, keep: int = 0) -> Answer:
        full = self._full(now)
        new = full + self.interval * cost
        difference = now - (new + self.interval * keep - self.offset)
        if difference < 0:
            return Answer(allowed=False, remaining=self._left(now, full), retry_in=-difference, reset_in=full - now)
        retry_in = max(0, self.interval * cost - difference)
        return Answer(allowed=True, remaining=self._left(now, new), retry_in=retry_in, reset_in=new - now)

    def take(self, now: int, cost: int, *, reserve: bool = False) -> None:
        if cost and reserve:
            self.pending += cost
        elif cost:
            self.tat = max(now, self.tat) + self.interval * cost

    def spend(self, now: int, cost: int) -> Answer:
        answer = self.decide(now, cost)
        if answer.allowed:
            self.take(now, cost)
        return answer

    def refund(self, now: int, cost: int) -> Answer:
        if now > self.tat:
            return self._state(now, allowed=False)
        old, self.tat = self.tat, max(self.tat - self.interval * cost, now)
        answer = self._state(now, allowed=self.tat != old)
        self._forget(now)
        return answer

    def _state(self, now: int, *, allowed: bool) -> Answer:
        full = self._full(now)
        return Answer(allowed, self._left(now, full), 0, full - now)

    def release(self, now: int, cost: int) -> Answer:
        old, self.pending = self.pending, max(0, self.pending - cost)
        answer = self._state(now, allowed=self.pending < old)
        self._forget(now)
        return answer

    def count(self, now: int, cost: int, *, reserved: bool) -> Answer:
        if reserved:
            self.pending = max(0, self.pending - cost)
        new = max(now, self.tat) + self.interval * cost
        took = new - self.offset <= now  # the CA drops what its bucket does not hold
        if took:
            self.tat = new
        answer = self._state(now, allowed=took)
        self._forget(now)
        return answer

    def reset(self) -> None:
        self.tat = 0

    def block(self, now: int, until: int) -> None:
        self.tat = max(self.tat, until + self.offset - self.interval)
        self._forget(now)


Asked = tuple[ReferenceBucket, int, int, bool]
"""A bucket, the cost, what is to be left, whether it is only checked."""


def spend_all(
    charges: list[Asked], now: int, *, take: bool = True, reserve: bool = False
) -> tuple[int | None, Answer | None]:
    """All or none; which bucket decides, and what it says."""
    answers = [bucket.decide(now, cost, keep) for bucket, cost, keep, _ in charges]
    allowed = all(answer.allowed for answer in answers)
    if allowed and take:
        for bucket, cost, _, check in charges:
            if not check:
                bucket.take(now, cost, reserve=reserve)
    if not answers:
        return None, None
    asked = [answer for answer in answers if answer.allowed == allowed]
    latest = max(answer.retry_in for answer in asked)
    index = next(i for i, answer in enumerate(answers) if answer.allowed == allowed and answer.retry_in == latest)
    return index, answers[index]
