"""Names and addresses that go into certificates: checked and normalised at the door."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from functools import cache

import idna
from publicsuffixlist import PublicSuffixList

from certfleet.errors import UsageError

MAXIMUM_LENGTH = 253  # RFC 1035 §2.3.4, without the root's dot
MAXIMUM_NAMES = 100  # Let's Encrypt, profile "classic" (letsencrypt.org/docs/profiles)
LABEL = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)")  # RFC 1123 §2.1; no underscore in a certificate (CA/B Forum)
PLAIN = re.compile(r"[a-z0-9.-]+")
BROADCAST = ipaddress.IPv4Address("255.255.255.255")  # everybody on the link (RFC 919 §7)

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def normalise(name: str) -> str:
    """The name as A-labels in lower case. Raises UsageError when it is not a DNS name."""
    wanted = "is not a DNS name: give a name such as blog.example.com"
    text = name.strip()
    if _is_address(text):
        raise UsageError("domain", name, "is an IP address: give a DNS name")
    wildcard, bare = (True, text[2:]) if text.startswith("*.") else (False, text)
    try:
        ascii_name = _a_labels(bare.removesuffix("."))
    except (idna.IDNAError, UnicodeError):
        raise UsageError("domain", name, wanted) from None
    labels = ascii_name.split(".")
    length = len(ascii_name) + 2 * wildcard
    fits = length <= MAXIMUM_LENGTH and all(LABEL.fullmatch(label) for label in labels)
    # A bare top-level domain is no host; one of digits alone is an address that somebody mistyped (RFC 3696 §2).
    if not fits or len(labels) < 2 or labels[-1].isdecimal():  # noqa: PLR2004
        raise UsageError("domain", name, wanted)
    return f"*.{ascii_name}" if wildcard else ascii_name


def address_of(identifier: str) -> Address | None:
    """The IP address, when it is one (RFC 8738); an IPv4 address in IPv6's clothes as IPv4."""
    if ":" not in identifier and not identifier[-1:].isdigit():
        return None  # told at once: nearly every identifier is a DNS name, and a fleet's are asked for often
    try:
        address = ipaddress.ip_address(identifier)
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, ipaddress.IPv6Address) else address


def authority(identifier: str) -> str:
    """The identifier as URLs and Host headers write it: an IPv6 address in brackets (RFC 3986 §3.2.2)."""
    return f"[{identifier}]" if ":" in identifier else identifier


def normalise_identifier(text: str) -> str:
    """What an app may be called: a DNS name as `normalise` has it, or an IP address as RFC 8738 §3 writes it.

    IPv6 addresses may come in brackets. Raises UsageError for anything else, and for addresses that no host has.
    """
    bare = text.strip()
    address = address_of(bare[1:-1] if bare.startswith("[") and bare.endswith("]") and ":" in bare else bare)
    if address is None:
        return normalise(text)
    if "%" in bare or address.is_unspecified or address.is_multicast or address == BROADCAST:
        raise UsageError("domain", text, "is no address of a host: give a DNS name, or an address such as 192.0.2.1")
    return str(address)


def normalise_all(names: Sequence[str]) -> dict[str, str]:
    """Every name and address normalised, in the order given, each once -> as it was typed. Raises UsageError."""
    if not names:
        raise UsageError("domain", None, "an app needs at least one: --domain blog.example.com")
    unique: dict[str, str] = {}
    for name in names:
        unique.setdefault(normalise_identifier(name), name.strip())
    if len(unique) > MAXIMUM_NAMES:
        raise UsageError("domain", len(unique), f"names are too many for one certificate: at most {MAXIMUM_NAMES}")
    return unique


def require_public(name: str, shown: str) -> None:
    """Raise UsageError unless a public CA may certify the name (it lies below a public suffix) or the address.

    An address has to be of the public Internet (CA/B Forum, Baseline Requirements §4.2.2, "Reserved IP Address").
    """
    bare = name.removeprefix("*.")
    address = address_of(bare)
    if address is not None:
        if not address.is_global:
            wanted = (
                "is not a public address, so a public CA cannot certify it: use a private CA with --ca URL "
                "and --ca-bundle FILE"
            )
            raise UsageError("domain", shown, wanted)
        return
    if _public_suffixes().privatesuffix(bare) is None:
        wanted = (
            "has no public suffix, so a public CA cannot certify it: use a public name, or a private CA with --ca URL"
        )
        raise UsageError("domain", shown, f"{wanted} and --ca-bundle FILE")


def registered_domain(name: str) -> str:
    """The part of an A-label name that was registered (eTLD+1 by the Public Suffix List), in lower case.

    A top-level domain that is not listed counts as a suffix; a name that is itself a suffix is its own.
    """
    return _public_suffixes().privatesuffix(name, accept_unknown=True) or name


def _a_labels(name: str) -> str:
    """IDNA; what is plain already stays as it is, in a tenth of the time. Raises IDNAError, UnicodeError."""
    if PLAIN.fullmatch(name) and "--" not in name:
        return name
    return idna.encode(name, uts46=True).decode().lower()


def _is_address(text: str) -> bool:
    bare = text.strip("[]")
    if ":" not in bare and not bare[-1:].isdigit():
        return False
    try:
        ipaddress.ip_address(bare)
    except ValueError:
        return False
    return True


@cache
def _public_suffixes() -> PublicSuffixList:
    return PublicSuffixList(accept_unknown=False)
