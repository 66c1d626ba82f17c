"""When will these be done? What becomes of orders that wait, and which limit they wait for.

A token that is taken counts at once, nobody fails, and an order is done when it is admitted: issuing takes seconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from certfleet.limits.buckets import Bucket
from certfleet.limits.simulation import Follow, Outcome, Simulation, Wish

HORIZON = 100 * 365 * 86_400_000_000
"""Microseconds that are looked ahead; who is not served by then never is, for all that anybody can say."""
NEVER = 1 << 62


@dataclass(frozen=True, slots=True)
class Wait:
    """What one bucket lets orders wait."""

    bucket: Bucket
    waited: int
    """Orders that wait longer for it than for any other."""
    until: int | None
    """Unix microseconds: when the last of them is admitted; None: not all are."""


@dataclass(frozen=True, slots=True)
class Forecast:
    """What becomes of all."""

    outcomes: tuple[Outcome, ...]
    """One for each wish, in their order."""
    finish: int | None
    """Unix microseconds: when the last is admitted; None: not all are, or there are none."""
    waits: tuple[Wait, ...]
    """The bucket that somebody waits for last comes first."""
    seen: int
    """Unix microseconds: how far it was looked ahead."""

    @property
    def binding(self) -> Bucket | None:
        """The bucket that the last one waits for; None: nobody waits."""
        return self.waits[0].bucket if self.waits else None


def forecast(
    wishes: Sequence[Wish],
    levels: Mapping[Bucket, int],
    now: int,
    *,
    background: Iterable[Wish] = (),
    follow: Follow | None = None,
    turns: Mapping[Bucket, Sequence[str]] | None = None,
) -> Forecast:
    """What becomes of the wishes.

    `levels`: the TAT of buckets that are not full, in Unix microseconds, with what is reserved. `background`: others
    who take tokens meanwhile, renewals that fall due; they and what follows are not reported. `turns`: of buckets
    that tenants wait for already, these in the order of their next turns.
    """
    simulation = Simulation([*wishes, *background], levels, now, asked=len(wishes), follow=follow, turns=turns)
    simulation.run(now + HORIZON)
    outcomes = tuple(simulation.outcomes)
    last = max((_end(outcome) for outcome in outcomes), default=NEVER)
    return Forecast(outcomes, None if last == NEVER else last, _waits(outcomes), simulation.now)


def _waits(outcomes: Iterable[Outcome]) -> tuple[Wait, ...]:
    ends: dict[int, list[int]] = {}
    buckets: dict[int, Bucket] = {}
    for outcome in outcomes:
        if outcome.bucket is not None:  # a simulation has one object for each bucket: its id is found faster
            buckets[id(outcome.bucket)] = outcome.bucket
            ends.setdefault(id(outcome.bucket), []).append(_end(outcome))
    found = [(max(times), len(times), buckets[key]) for key, times in ends.items()]
    found.sort(key=lambda row: (-row[0], -row[1], row[2].name))
    return tuple(Wait(bucket, waited, None if last == NEVER else last) for last, waited, bucket in found)


def _end(outcome: Outcome) -> int:
    return NEVER if outcome.at is None else outcome.at
