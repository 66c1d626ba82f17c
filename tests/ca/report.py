"""What the CA's book says, as entries that go from the proxy to whoever judges a client. Times are Unix seconds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple


class Refusal(NamedTuple):
    """An answer that the proxy gave itself."""

    at: float
    status: int
    limit: str
    """Whose bucket was empty; `slow-down` and `planned` were ordered by the test."""
    key: str
    account: str | None = None
    identifiers: tuple[str, ...] = ()
    until: float | None = None
    """When this bucket has a token again; None when it is none."""


class Accepted(NamedTuple):
    """A newOrder that Pebble took."""

    at: float
    account: str
    identifiers: tuple[str, ...]
    exempt: bool
    """From orders per account and certificates per domain."""


class Issuance(NamedTuple):
    """A certificate, at the moment its order was finalized."""

    at: float
    account: str
    identifiers: tuple[str, ...]
    domains: tuple[str, ...]
    """Keys of the limit per domain, whether it was spent or not."""
    exempt: bool
    """From certificates per domain."""


class Failure(NamedTuple):
    """A validation that failed, or a pending authorization that its owner gave up."""

    at: float
    account: str
    identifier: str


class Overshoot(NamedTuple):
    """Something happened that the bucket had no token for any more; it was not counted."""

    at: float
    limit: str
    key: str


class Replacement(NamedTuple):
    """An order that replaces a certificate (RFC 9773 §5)."""

    at: float
    account: str
    identifiers: tuple[str, ...]
    replaces: str
    """The certificate."""
    order: str
    exempt: bool
    """From every limit."""
    issued: bool = False


class Bucket(NamedTuple):
    """A bucket that is not full."""

    remaining: int
    full_at: float


@dataclass(frozen=True, slots=True)
class Report:
    """The whole book at one moment; each list keeps its latest 200,000 entries."""

    at: float
    rate_limited_answers: int
    """429s since the last reset."""
    slow_downs: int
    """503s since the last reset."""
    refusals: tuple[Refusal, ...]
    accepted: tuple[Accepted, ...]
    issuances: tuple[Issuance, ...]
    failures: tuple[Failure, ...]
    overshoots: tuple[Overshoot, ...]
    buckets: Mapping[str, Mapping[str, Bucket]]
    """Limit -> key -> what is left of those that are not full."""
    paused: tuple[str, ...]
    """Identifiers, and `account identifier` pairs."""
    replacements: tuple[Replacement, ...] = ()
    looks: Mapping[str, int] = field(default_factory=dict)
    """Certificate -> how often its renewal information was asked for."""

    def refusals_within_refill(self) -> dict[tuple[str, str], int]:
        """(limit, key) -> how many of its 429s were answered before it had another token, at most.

        The first of them says when that is: each further one before then comes from a client that did not listen.
        """
        most: dict[tuple[str, str], int] = {}
        waves: dict[tuple[str, str], tuple[float, int]] = {}
        for refusal in self.refusals:
            if refusal.status != 429 or refusal.until is None:
                continue
            bucket = (refusal.limit, refusal.key)
            until, count = waves.get(bucket, (refusal.at, 0))
            waves[bucket] = (until, count + 1) if refusal.at < until else (refusal.until, 1)
            most[bucket] = max(most.get(bucket, 0), waves[bucket][1])
        return most

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Report:
        """What the proxy's JSON says."""
        buckets = {
            limit: {key: Bucket(*state) for key, state in keys.items()} for limit, keys in document["buckets"].items()
        }
        lists: dict[str, Any] = {
            name: tuple(kind(*map(_tuple, entry)) for entry in document[name]) for name, kind in KINDS.items()
        }
        plain = {name: document[name] for name in ("at", "rate_limited_answers", "slow_downs", "looks")}
        return cls(buckets=buckets, paused=tuple(document["paused"]), **plain, **lists)


def _tuple(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


KINDS: Mapping[str, type[Any]] = {
    "refusals": Refusal,
    "accepted": Accepted,
    "issuances": Issuance,
    "failures": Failure,
    "overshoots": Overshoot,
    "replacements": Replacement,
}
"""Each list of the report, and what it holds; on the wire an entry is its fields in order."""
