"""What the CA answers when it refuses: the problem documents of Boulder, word for word."""

from __future__ import annotations

import json
from base64 import urlsafe_b64encode
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from aiohttp import web

from tests.ca.buckets import Denial
from tests.ca.gcra import SECOND
from tests.ca.limits import (
    CERTIFICATES_PER_DOMAIN,
    CERTIFICATES_PER_SET,
    FAILED_AUTHORIZATIONS,
    ORDERS_PER_ACCOUNT,
    REGISTRATIONS_PER_ADDRESS,
    REGISTRATIONS_PER_RANGE,
)

URN = "urn:ietf:params:acme:error:"
DOCS = "https://letsencrypt.org/docs/rate-limits/"
HELP = f'<{DOCS}>;rel="help"'
BUSY = "Service busy; retry later."

TEXTS = {
    REGISTRATIONS_PER_ADDRESS: ("new registrations ({burst}) from this IP address", "new-registrations-per-ip-address"),
    REGISTRATIONS_PER_RANGE: (
        "new registrations ({burst}) from this /48 subnet of IPv6 addresses",
        "new-registrations-per-ipv6-range",
    ),
    ORDERS_PER_ACCOUNT: ("new orders ({burst}) from this account", "new-orders-per-account"),
    CERTIFICATES_PER_DOMAIN: (
        'certificates ({burst}) already issued for "{name}"',
        "new-certificates-per-registered-domain",
    ),
    CERTIFICATES_PER_SET: (
        "certificates ({burst}) already issued for this exact set of identifiers",
        "new-certificates-per-exact-set-of-identifiers",
    ),
    FAILED_AUTHORIZATIONS: (
        'failed authorizations ({burst}) for "{name}"',
        "authorization-failures-per-identifier-per-account",
    ),
}
"""Limit -> what there are too many of, and where the documentation says so."""


class Problem(NamedTuple):
    """An answer of 400 and above."""

    status: int
    type: str
    """With or without the `urn:ietf:params:acme:error:` prefix."""
    detail: str
    retry_after: str | None = None
    """The header, as it is."""

    def response(self, nonce: str | None = None) -> web.Response:
        """As HTTP."""
        kind = self.type if ":" in self.type else URN + self.type
        headers = {"Cache-Control": "public, max-age=0, no-cache"}
        if kind == URN + "rateLimited":
            headers["Link"] = HELP
        if self.retry_after is not None:
            headers["Retry-After"] = self.retry_after
        if nonce is not None:
            headers["Replay-Nonce"] = nonce
        document: dict[str, Any] = {"type": kind, "detail": self.detail, "status": self.status}
        return web.Response(
            status=self.status,
            body=json.dumps(document).encode(),
            content_type="application/problem+json",
            headers=headers,
        )


def too_many(denial: Denial, now: int, *, jitter: float = 0.0) -> Problem:
    """A 429 for an empty bucket; `jitter` is the part of the wait by which it is told longer."""
    what, anchor = TEXTS[denial.limit]
    wait = int(denial.retry_in * (1 + jitter))
    until = datetime.fromtimestamp((now + wait) // SECOND, UTC)
    name = denial.key.rpartition(" ")[2]
    return Problem(
        429,
        "rateLimited",
        f"too many {what.format(burst=denial.figures.burst, name=name)} in the last {duration(denial.figures.period)}, "
        f"retry after {until:%Y-%m-%d %H:%M:%S} UTC: see {DOCS}#{anchor}",
        retry_after=str(-(-wait // SECOND)),
    )


def paused(account: str, identifiers: Sequence[str], origin: str) -> Problem:
    """A 429 that no waiting ends."""
    token = urlsafe_b64encode(json.dumps({"sub": account, "identifiers": list(identifiers)}).encode()).decode()
    return Problem(
        429,
        "rateLimited",
        f"Your account is temporarily prevented from requesting certificates for {', '.join(identifiers)} "
        f"and possibly others. Please visit: {origin}/sfe/v1/unpause?jwt={token.rstrip('=')}",
    )


def invalid_profile(profile: str) -> Problem:
    """A 400 for a profile that the directory does not list (draft-ietf-acme-profiles §5)."""
    return Problem(400, "invalidProfile", f'Invalid profile: profile name "{profile}" not recognized')


def busy(wait: int) -> Problem:
    """A 503 of the load balancer; `wait` in nanoseconds."""
    return Problem(503, "rateLimited", BUSY, retry_after=str(max(1, -(-wait // SECOND))))


def duration(seconds: float) -> str:
    """As Go prints a duration: `3h0m0s`, `1m40.8s`, `250ms`."""
    whole = round(seconds * SECOND)
    for unit, size in (("ns", 1), ("µs", 1_000), ("ms", 1_000_000)):
        if whole < size * 1_000 and whole < SECOND:
            return f"{_decimal(whole, size)}{unit}"
    minutes, rest = divmod(whole, 60 * SECOND)
    hours, minutes = divmod(minutes, 60)
    head = f"{hours}h{minutes}m" if hours else f"{minutes}m" if minutes else ""
    return f"{head}{_decimal(rest, SECOND)}s"


def _decimal(value: int, size: int) -> str:
    whole, rest = divmod(value, size)
    places = len(str(size)) - 1
    return f"{whole}.{rest:0{places}d}".rstrip("0").rstrip(".") if rest else str(whole)
