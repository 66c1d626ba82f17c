"""The limits in words, for people."""

from __future__ import annotations

from collections.abc import Mapping

from certfleet.limits.buckets import Bucket
from certfleet.limits.keys import ANY_ADDRESS
from certfleet.limits.presets import Limit

WORDS: dict[Limit, str] = {
    Limit.REGISTRATIONS_PER_ADDRESS: "new accounts from the IP address",
    Limit.REGISTRATIONS_PER_RANGE: "new accounts from the IPv6 range",
    Limit.ORDERS: "new orders of the account",
    Limit.DOMAIN: "certificates per registered domain",
    Limit.DOMAIN_OF_ACCOUNT: "certificates per registered domain and account",
    Limit.SET: "certificates for the exact set of names",
    Limit.FAILURES: "failed authorizations",
    Limit.PAUSING: "failed authorizations in a row",
    Limit.REFUSED: "the time that the CA named (429) for the account",
    Limit.SLOW_DOWN: "the time that the CA named (503) for the address",
}

OF_ACCOUNT = frozenset({Limit.FAILURES, Limit.PAUSING, Limit.DOMAIN_OF_ACCOUNT})
"""Their keys are `<account>/<name>`."""
ACCOUNTS_OWN = frozenset({Limit.ORDERS, Limit.REFUSED})
"""Their keys are `<account>`."""


def meaning(bucket: Bucket, emails: Mapping[str, str]) -> str:
    """A bucket for a person: `certificates per registered domain example.com`.

    `emails`: of accounts by id; an account is known to people by its address.
    """
    limit, key = Limit(bucket.limit), bucket.key
    words = WORDS.get(limit, f"requests ({limit.removeprefix('requests-')}) from the IP address")
    if limit in OF_ACCOUNT:
        key = key.partition("/")[2]
    if limit in ACCOUNTS_OWN:
        key = emails.get(key, key)
    if limit is Limit.SET:
        name, _, more = key.partition("/")[0].partition("+")
        key = name if more in ("", "0") else f"{name} and {more} more"
    return words if key == ANY_ADDRESS else f"{words} {key}"
