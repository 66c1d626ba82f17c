"""Buckets in words for people."""

from __future__ import annotations

import pytest

from certfleet.limits.buckets import Bucket, Rate
from certfleet.limits.names import exact_set
from certfleet.limits.presets import Limit
from certfleet.limits.words import meaning


@pytest.mark.parametrize(
    ("limit", "key", "said"),
    [
        (Limit.DOMAIN, "example.com", "certificates per registered domain example.com"),
        (Limit.DOMAIN, "2001:db8::/64", "certificates per registered domain 2001:db8::/64"),
        (Limit.DOMAIN_OF_ACCOUNT, "a1b2/2001:db8::/64", "certificates per registered domain and account 2001:db8::/64"),
        (Limit.ORDERS, "a1b2", "new orders of the account ops@example.com"),
        (Limit.REFUSED, "a1b2", "the time that the CA named (429) for the account ops@example.com"),
        (Limit.FAILURES, "a1b2/example.com", "failed authorizations example.com"),
        (
            Limit.SET,
            exact_set(["b.test", "a.test", "c.test"]),
            "certificates for the exact set of names a.test and 2 more",
        ),
        (Limit.SET, exact_set(["a.test"]), "certificates for the exact set of names a.test"),
        (Limit.REGISTRATIONS_PER_ADDRESS, "192.0.2.1", "new accounts from the IP address 192.0.2.1"),
        (Limit.REGISTRATIONS_PER_ADDRESS, "any", "new accounts from the IP address"),
        (Limit.REGISTRATIONS_PER_RANGE, "2001:db8::/48", "new accounts from the IPv6 range 2001:db8::/48"),
        (Limit.REQUESTS_NEW_ORDER, "192.0.2.1", "requests (new-order) from the IP address 192.0.2.1"),
        (Limit.REQUESTS_OTHER, "any", "requests (other) from the IP address"),
        (Limit.SLOW_DOWN, "192.0.2.1", "the time that the CA named (503) for the address 192.0.2.1"),
    ],
)
def test_meaning(limit: Limit, key: str, said: str) -> None:
    """The limit and what it is for; no account's id, no digest."""
    assert meaning(Bucket("ca", limit.value, key, Rate(1, 1, 1)), {"a1b2": "ops@example.com"}) == said
