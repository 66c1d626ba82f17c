"""The limits as data, and the keys under which the CA counts.

Source: https://letsencrypt.org/docs/rate-limits/, as of 2026-08.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import lru_cache
from ipaddress import IPv6Address, ip_address, ip_network
from typing import NamedTuple

from publicsuffixlist import PublicSuffixList

from tests.ca.gcra import SECOND, Rate

REGISTRATIONS_PER_ADDRESS = "registrations-per-address"
REGISTRATIONS_PER_RANGE = "registrations-per-range"
ORDERS_PER_ACCOUNT = "orders-per-account"
CERTIFICATES_PER_DOMAIN = "certificates-per-domain"
CERTIFICATES_PER_SET = "certificates-per-set"
FAILED_AUTHORIZATIONS = "failed-authorizations"
CONSECUTIVE_FAILURES = "consecutive-failures"
REQUESTS = "requests-"
"""Followed by the kind of endpoint."""


class Limit(NamedTuple):
    """So many tokens come back in each period."""

    tokens: int
    period: float
    """Seconds."""
    burst: int
    """Tokens of a full bucket."""

    @property
    def rate(self) -> Rate:
        """The same for the arithmetic."""
        return Rate(max(1, round(self.period * SECOND) // self.tokens), self.burst)


HOUR, DAY = 3_600.0, 86_400.0
LETS_ENCRYPT: Mapping[str, Limit] = {
    REGISTRATIONS_PER_ADDRESS: Limit(10, 3 * HOUR, 10),
    REGISTRATIONS_PER_RANGE: Limit(500, 3 * HOUR, 500),
    ORDERS_PER_ACCOUNT: Limit(300, 3 * HOUR, 300),
    CERTIFICATES_PER_DOMAIN: Limit(50, 7 * DAY, 50),
    CERTIFICATES_PER_SET: Limit(5, 7 * DAY, 5),
    FAILED_AUTHORIZATIONS: Limit(5, HOUR, 5),
    CONSECUTIVE_FAILURES: Limit(1, DAY, 1_152),
    "requests-directory": Limit(40, 1, 40),
    "requests-new-nonce": Limit(20, 1, 10),
    "requests-new-account": Limit(5, 1, 15),
    "requests-new-order": Limit(300, 1, 200),
    "requests-revoke-cert": Limit(10, 1, 100),
    "requests-renewal-info": Limit(1_000, 1, 100),
    "requests-other": Limit(250, 1, 125),
}
SAME_SET_WINDOW = 120 * DAY
"""Seconds for which a certificate makes a further one for the same names a renewal."""


def scaled(limits: Mapping[str, Limit], factor: float, *, requests: bool = False) -> dict[str, Limit]:
    """The limits with their periods times `factor`; those on requests per second stay unless `requests`."""
    return {
        name: limit if name.startswith(REQUESTS) and not requests else limit._replace(period=limit.period * factor)
        for name, limit in limits.items()
    }


def checked(limits: Mapping[str, tuple[int, float, int]]) -> dict[str, Limit]:
    """The limits as they will be kept. Raises ValueError for an unknown name or a figure that cannot be."""
    if unknown := limits.keys() - LETS_ENCRYPT.keys():
        raise ValueError(f"no such limit: {', '.join(sorted(unknown))}")
    found = {name: Limit(int(count), float(period), int(burst)) for name, (count, period, burst) in limits.items()}
    if wrong := [name for name, limit in found.items() if limit.tokens < 1 or limit.period <= 0 or limit.burst < 1]:
        raise ValueError(f"count, period and burst are more than nothing: {', '.join(wrong)}")
    return found


def bare(identifier: str) -> str:
    """The name where a wildcard is proved: below the asterisk; in lower case."""
    return identifier.lower().removeprefix("*.")


def set_key(identifiers: Iterable[str]) -> str:
    """The exact set: each name once, sorted, in lower case."""
    return ",".join(sorted({identifier.lower() for identifier in identifiers}))


def pair_key(account: str, identifier: str) -> str:
    """An account (its URL) and a name."""
    return f"{account} {bare(identifier)}"


def range_key(address: str) -> str | None:
    """The /48 of an IPv6 address; None for IPv4."""
    found = ip_address(address)
    return str(ip_network((found, 48), strict=False)) if isinstance(found, IPv6Address) else None


@lru_cache(100_000)
def domain_key(identifier: str) -> str:
    """The registered domain (eTLD+1), the IPv4 address, or the IPv6 /64."""
    name = bare(identifier)
    try:
        address = ip_address(name)
    except ValueError:
        # A name that is itself a public suffix is its own.
        return str(_suffixes.privatesuffix(name) or name)
    return str(ip_network((address, 64), strict=False)) if isinstance(address, IPv6Address) else name


_suffixes = PublicSuffixList(accept_unknown=True)  # tests use top-level domains that nobody has
