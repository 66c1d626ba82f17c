"""What the CA counts an identifier under: names as keys of buckets."""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Iterable

from certfleet.identifiers import address_of, registered_domain

DOMAIN_PREFIX = 64  # bits: certificates for IPv6 addresses (letsencrypt.org/docs/rate-limits)
REGISTRATION_PREFIX = 48  # bits: new accounts
DIGEST = 32  # hexadecimal digits: 128 bits tell sets apart


def network(address: ipaddress.IPv6Address, prefix: int) -> str:
    """The IPv6 network of that many bits around the address."""
    return str(ipaddress.IPv6Network((int(address), prefix), strict=False))


def canonical(identifier: str) -> str:
    """One spelling for each identifier: lower case, no final dot, addresses in their shortest form."""
    address = address_of(identifier)
    return str(address) if address else identifier.lower().removesuffix(".")


def authorized(identifier: str) -> str:
    """What the CA authorizes for it: a wildcard's own name without `*.` (RFC 8555 §7.1.3)."""
    return canonical(identifier).removeprefix("*.")


def covering(identifier: str) -> str:
    """What certificates for it are counted under: registered domain, IPv4 address, or IPv6 /64."""
    address = address_of(identifier.removesuffix(f"/{DOMAIN_PREFIX}"))  # a network is its own
    if address is None:
        return registered_domain(authorized(identifier))
    return network(address, DOMAIN_PREFIX) if isinstance(address, ipaddress.IPv6Address) else str(address)


def exact_set(identifiers: Iterable[str]) -> str:
    """The same for the same set, whatever its order and case; begins so that a person knows it."""
    names = sorted({canonical(identifier) for identifier in identifiers})
    digest = hashlib.sha256(",".join(names).encode()).hexdigest()[:DIGEST]
    return f"{names[0]}+{len(names) - 1}/{digest}"
