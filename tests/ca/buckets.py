"""All buckets of the CA: one per limit and key, and none for a limit that is not configured."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from tests.ca.gcra import SECOND, Decision, Rate, refund, spend
from tests.ca.limits import Limit
from tests.ca.report import Bucket

PRUNE_AT = 100_000  # buckets of one limit; then the full ones are forgotten


class Charge(NamedTuple):
    """One token of one bucket."""

    limit: str
    key: str
    take: bool = True
    """False: it has to be there, but stays."""


class Denial(NamedTuple):
    """Why a request is refused."""

    limit: str
    key: str
    figures: Limit
    retry_in: int
    """Nanoseconds."""


class Buckets:
    """What every bucket holds."""

    def __init__(self) -> None:
        self.limits: dict[str, Limit] = {}
        self._rates: dict[str, Rate] = {}
        self._tats: dict[str, dict[str, int]] = {}
        self._prune_at: dict[str, int] = {}

    def configure(self, limits: Mapping[str, Limit]) -> None:
        """Let these limits hold, and no others, from now on; what was spent stays spent."""
        self.limits = dict(limits)
        self._rates = {name: limit.rate for name, limit in limits.items()}

    def forget(self) -> None:
        """Fill every bucket."""
        self._tats.clear()

    def all_or_nothing(self, charges: Iterable[Charge], now: int) -> Denial | None:
        """Take what is to be taken when every charge can be met; else say which bucket can be asked again last."""
        held = [charge for charge in charges if charge.limit in self._rates]
        decisions = [self._decide(charge.limit, charge.key, now, 1) for charge in held]
        denied = [
            Denial(charge.limit, charge.key, self.limits[charge.limit], decision.retry_in)
            for charge, decision in zip(held, decisions, strict=True)
            if not decision.allowed
        ]
        if denied:
            return max(denied, key=lambda denial: denial.retry_in)
        for charge, decision in zip(held, decisions, strict=True):
            if charge.take:
                self._keep(charge.limit, charge.key, now, decision.tat)
        return None

    def spend(self, limit: str, key: str, now: int, cost: int = 1) -> Decision | None:
        """Take tokens if they are there; None for a limit that does not hold."""
        if limit not in self._rates:
            return None
        decision = self._decide(limit, key, now, cost)
        if decision.allowed:
            self._keep(limit, key, now, decision.tat)
        return decision

    def look(self, limit: str, key: str, now: int) -> Decision | None:
        """How a bucket is; None for a limit that does not hold."""
        return self._decide(limit, key, now, 0) if limit in self._rates else None

    def give_back(self, charges: Iterable[Charge], now: int) -> None:
        """Undo what `all_or_nothing` took."""
        for limit, key, take in charges:
            if take and limit in self._rates and (tat := self._tats.get(limit, {}).get(key)) is not None:
                self._tats[limit][key] = refund(self._rates[limit], now, tat, 1).tat

    def fill(self, limit: str, key: str) -> None:
        """Forget what was spent of one bucket."""
        self._tats.get(limit, {}).pop(key, None)

    def state(self, now: int) -> dict[str, dict[str, Bucket]]:
        """Limit -> key -> what is left, of every bucket that is not full."""
        found: dict[str, dict[str, Bucket]] = {}
        for limit in self._rates:
            for key, tat in self._tats.get(limit, {}).items():
                if tat > now:
                    left = self._decide(limit, key, now, 0).remaining
                    found.setdefault(limit, {})[key] = Bucket(left, tat / SECOND)
        return found

    def _decide(self, limit: str, key: str, now: int, cost: int) -> Decision:
        return spend(self._rates[limit], now, self._tats.get(limit, {}).get(key, 0), cost)

    def _keep(self, limit: str, key: str, now: int, tat: int) -> None:
        tats = self._tats.setdefault(limit, {})
        tats[key] = tat
        if len(tats) > self._prune_at.get(limit, PRUNE_AT):
            for full in [key for key, tat in tats.items() if tat <= now]:
                del tats[full]
            self._prune_at[limit] = max(PRUNE_AT, 2 * len(tats))
