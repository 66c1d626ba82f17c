"""Names that go into certificates: checked and normalised at the door."""

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


def normalise_all(names: Sequence[str]) -> dict[str, str]:
    """Every name normalised, in the order given, each once -> the name as it was typed. Raises UsageError."""
    if not names:
        raise UsageError("domain", None, "an app needs at least one: --domain blog.example.com")
    unique: dict[str, str] = {}
    for name in names:
        unique.setdefault(normalise(name), name.strip())
    if len(unique) > MAXIMUM_NAMES:
        raise UsageError("domain", len(unique), f"names are too many for one certificate: at most {MAXIMUM_NAMES}")
    return unique


def require_public(name: str, shown: str) -> None:
    """Raise UsageError unless a public CA may certify the name (it lies below a public suffix)."""
    bare = name.removeprefix("*.")
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
