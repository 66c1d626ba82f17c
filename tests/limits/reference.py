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
    """One bucket: `tat` with our reservations, `known` with what the CA is known to have counted."""

    interval: int
    burst: int
    tat: int = 0
    known: int = 0

    @property
    def offset(self) -> int:
        return self.interval * self.burst

    def _keep(self, now: int, tat: int, known: int) -> None:
        """A full bucket is forgotten, and so is what lies in the past."""
        self.tat = tat if tat > now else 0
        self.known = known if known > now and tat > now else 0

    def _left(self, now: int, tat: int) -> int:
        return max(0, truncated(now - (tat - self.offset), self.interval))

    def look(self, now: int, *, allowed: bool = True) -> Answer:
        tat = max(now, self.tat)
        return Answer(allowed, self._left(now, tat), 0, tat - now)

    def decide(self, now: int, cost: int) -> Answer:
        tat = max(now, self.tat)
        new = tat + self.interval * cost
        difference = now - (new - self.offset)
        if difference < 0:
            return Answer(allowed=False, remaining=self._left(now, tat), retry_in=-difference, reset_in=tat - now)
        retry_in = max(0, self.interval * cost - difference)
        return Answer(allowed=True, remaining=self._left(now, new), retry_in=retry_in, reset_in=new - now)

    def take(self, now: int, cost: int) -> None:
        if cost:
            self._keep(now, max(now, self.tat) + self.interval * cost, self.known)

    def spend(self, now: int, cost: int) -> Answer:
        answer = self.decide(now, cost)
        if answer.allowed:
            self.take(now, cost)
        return answer

    def refund(self, now: int, cost: int) -> Answer:
        if now > self.tat:
            return self.look(now, allowed=False)
        old, new = self.tat, max(self.tat - self.interval * cost, self.known, now)
        self._keep(now, new, self.known)
        return self.look(now, allowed=new != old)

    def count(self, now: int, cost: int, *, reserved: bool) -> Answer:
        known = max(now, self.known) + self.interval * cost
        if known - self.offset > now:  # the CA drops what its bucket does not hold
            return self.look(now, allowed=False)
        tat = self.tat if reserved else max(now, self.tat) + self.interval * cost
        self._keep(now, max(tat, known), known)
        return self.look(now)

    def reset(self) -> None:
        self.tat = self.known = 0

    def block(self, now: int, until: int) -> None:
        known = max(self.known, until + self.offset - self.interval)
        self._keep(now, max(self.tat, known), known)


def spend_all(
    charges: list[tuple[ReferenceBucket, int, bool]], now: int, *, take: bool = True
) -> tuple[int | None, Answer | None]:
    """All or none; which bucket decides, and what it says. A charge: bucket, cost, only checked."""
    answers = [bucket.decide(now, cost) for bucket, cost, _ in charges]
    allowed = all(answer.allowed for answer in answers)
    if allowed and take:
        for bucket, cost, check in charges:
            if not check:
                bucket.take(now, cost)
    if not answers:
        return None, None
    asked = [answer for answer in answers if answer.allowed == allowed]
    latest = max(answer.retry_in for answer in asked)
    index = next(i for i, answer in enumerate(answers) if answer.allowed == allowed and answer.retry_in == latest)
    return index, answers[index]
