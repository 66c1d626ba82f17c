"""What a CA's 429 says: which limit, for what, and whether only a person can help. Decisions only: no I/O.

The texts are those of Boulder (github.com/letsencrypt/boulder, ratelimits/limiter.go and wfe2); another CA's text is
believed without being understood.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from certfleet.limits.buckets import Bucket
from certfleet.limits.names import authorized, covering
from certfleet.limits.presets import Limit

# In this order: "this exact set" is also one of "certificates".
TEXTS: tuple[tuple[re.Pattern[str], tuple[Limit, ...]], ...] = (
    (re.compile(r"too many new registrations .* from this /48"), (Limit.REGISTRATIONS_PER_RANGE,)),
    (re.compile(r"too many new registrations .* from this IP"), (Limit.REGISTRATIONS_PER_ADDRESS,)),
    (re.compile(r"too many new orders .* from this account"), (Limit.ORDERS,)),
    (re.compile(r'too many failed authorizations .* for "(?P<name>[^"]+)"'), (Limit.FAILURES,)),
    (re.compile(r"too many certificates .* for this exact set of (identifiers|domains)"), (Limit.SET,)),
    (
        re.compile(r'too many certificates .* issued for "(?P<name>[^"]+)"'),
        (Limit.DOMAIN, Limit.DOMAIN_OF_ACCOUNT),
    ),
)
PAUSED = re.compile(r"temporarily prevented from requesting certificates for (?P<name>\S+)", re.IGNORECASE)
LINK = re.compile(r"https://[!-~]{1,2000}")


@dataclass(frozen=True, slots=True)
class Paused:
    """The CA issues nothing for a name until a person has asked it to (letsencrypt.org/docs/rate-limits)."""

    name: str
    link: str | None
    """Where to ask; it carries a token of the CA's, so it is for the operator only."""


def paused(detail: str) -> Paused | None:
    """Whether this 429 ends only when a person does something."""
    found = PAUSED.search(detail)
    if found is None:
        return None
    link = LINK.search(detail)
    return Paused(found["name"], link[0].rstrip(".,;") if link else None)


def refusing(detail: str, buckets: Iterable[Bucket]) -> list[Bucket]:
    """Which of an order's buckets a 429 is about; none when its text does not say so."""
    for text, limits in TEXTS:
        if found := text.search(detail):
            name = found.groupdict().get("name")
            return [one for one in buckets if one.limit in limits and (name is None or _is_for(one, name))]
    return []


def _is_for(bucket: Bucket, name: str) -> bool:
    # A key is `example.com`, or `<account>/example.com`.
    key = bucket.key
    names = {name.lower(), authorized(name), covering(name)}
    return key in names or key.partition("/")[2] in names
