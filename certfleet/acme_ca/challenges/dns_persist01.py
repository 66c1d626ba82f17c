"""dns-persist-01 (draft-ietf-acme-dns-persist): which TXT record stands for a name, a CA and an account. No I/O.

    _validation-persist.<name>  "<issuer>; accounturi=<account>[; policy=wildcard][; persistUntil=<Unix seconds>]"

The value is an issue-value of RFC 8659 §4.2. Two forms are in use: up to version 01 of the draft the account is its
URL at the CA (letsencrypt.org/2026/02/18/dns-persist-01, and what Boulder checks), from version 02 on a hash below a
prefix that the CA's directory names. Both are read; the directory says which one is written.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated

from pydantic import BeforeValidator

from certfleet.acme_ca.jws import b64

METHOD = "dns-persist-01"
LABEL = "_validation-persist"
MOST_ISSUERS = 10  # draft §3.1
STRING = 255  # octets of one character-string of a TXT record (RFC 1035 §3.3)
SHOWN = 200  # characters of somebody else's record
FOREVER = int(datetime(9999, 1, 1, tzinfo=UTC).timestamp())
"""Unix seconds; what is good for longer than a date can say is shown as good until then."""

_BLANK = " \t"
_DOMAIN = re.compile(r"(?=.{1,253}$)[a-z0-9](?:-*[a-z0-9])*(?:\.[a-z0-9](?:-*[a-z0-9])*)*")
_VALUE = re.compile(r"[\x21-\x3a\x3c-\x7e]*")  # RFC 8659 §4.2: `value`
_SECONDS = re.compile(r"[+-]?[0-9]{1,18}")
_PREFIX = re.compile(r"https?://[\x21-\x3a\x3c-\x7e]{1,500}")


def issuer_names(value: object) -> tuple[str, ...]:
    """What the CA is called in these records, as a challenge or a directory lists it; empty when it is no such list.

    One to ten domain names of A-labels in lower case, without a final dot (draft §3.1).
    """
    if not isinstance(value, list | tuple) or not 0 < len(value) <= MOST_ISSUERS:
        return ()
    fit = all(isinstance(name, str) and _DOMAIN.fullmatch(name) for name in value)
    return tuple(value) if fit else ()


def _hash_prefix(value: object) -> str:
    return value if isinstance(value, str) and _PREFIX.fullmatch(value) else ""


# A directory with something else there is no reason to order nothing: who proves names in another way does without it.
Issuers = Annotated[tuple[str, ...], BeforeValidator(issuer_names)]
"""`meta.issuerDomainNames` of a directory (draft §3.2)."""
HashPrefix = Annotated[str, BeforeValidator(_hash_prefix)]
"""`meta.accountHashPrefix` of a directory (draft §4.1); empty: accounts are named by their URLs."""


@dataclass(frozen=True, slots=True)
class Holder:
    """The account that a record is for."""

    url: str
    thumbprints: tuple[str, ...]
    """RFC 7638: of its present key, then of those that it had before."""
    prefix: str = ""
    """The CA's `accountHashPrefix`."""

    def uris(self, name: str) -> tuple[str, ...]:
        """What `accounturi` may be in the record of a DNS name; the first is what is written.

        With a prefix these are hashes for this name and for any (draft §4.1), by each key that the account has had (a
        CA has to accept them all, §4.2). The plain URL still counts: the older form is for the CA to refuse.
        """
        hashed = [
            hashed_account(self.prefix, domain, thumbprint, self.url)
            for domain in (name, "*")
            for thumbprint in self.thumbprints
            if self.prefix
        ]
        return (*hashed, self.url)


def hashed_account(prefix: str, name: str, thumbprint: str, url: str) -> str:
    """The hashed account URI for a DNS name, or for any (`*`): draft version 02, §4.1."""
    content = bytes([len(name)]) + f"{name}{thumbprint}{url}".encode("ascii")
    return f"{prefix}sha-256/{b64(hashlib.sha256(content).digest()).decode()}"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a record has to say, and where."""

    base: str
    """The name that is proven, without `*.`."""
    issuers: tuple[str, ...]
    """Any of these; empty: the CA has not said how it is called."""
    accounts: tuple[str, ...]
    """Any of these; the first is what is written."""
    wildcard: bool
    """It is for the base's wildcard too."""

    @property
    def name(self) -> str:
        """Where the CA looks (draft §4): below the name itself, for a wildcard below the name without `*.`."""
        return f"{LABEL}.{self.base}"

    def value(self, until: datetime | None = None) -> str:
        """The record to make, good for new proofs until then. The issuer has to be known."""
        parts = [self.issuers[0], f"accounturi={self.accounts[0]}"]
        if self.wildcard:
            parts.append("policy=wildcard")
        if until is not None:
            parts.append(f"persistUntil={int(until.timestamp())}")
        return "; ".join(parts)


def wanted(names: Iterable[str], issuers: Sequence[str], holder: Holder) -> list[Wanted]:
    """The records for these names, one for a wildcard and its base together, in the order of the names."""
    together: dict[str, bool] = {}
    for name in names:
        base = name.removeprefix("*.")
        together[base] = together.get(base, False) or name != base
    return [Wanted(base, tuple(issuers), holder.uris(base), wildcard) for base, wildcard in together.items()]


@dataclass(frozen=True, slots=True)
class Entry:
    """A record, read."""

    issuer: str
    account: str
    wildcard: bool
    until: int | None
    """Unix seconds after which it is good for no new proof; None: it has no end."""


def parse(text: str) -> Entry:
    """Read a record as CAs do (draft §4.1). Raises ValueError with what is wrong, for the end of a sentence.

    Tags count in any case and order, unknown ones are passed over; the known ones may stand there once.
    """
    first, *rest = text.split(";")
    issuer = first.strip(_BLANK).lower().removesuffix(".")
    if text.startswith('"'):
        raise ValueError("has quotation marks in it: they are how zone files write it, and no part of the value")
    if not _DOMAIN.fullmatch(issuer):
        raise ValueError("does not begin with the domain name of a CA")
    found: dict[str, str] = {}
    for part in rest:
        tag, value = _parameter(part)
        if tag in ("accounturi", "policy", "persistuntil"):
            if tag in found:
                raise ValueError(f"says {tag} twice")
            found[tag] = value
    if not found.get("accounturi"):
        raise ValueError("names no account (accounturi)")
    until = found.get("persistuntil")
    if until is not None and not _SECONDS.fullmatch(until):
        raise ValueError("has a persistUntil that is no number of seconds")
    return Entry(
        issuer,
        found["accounturi"],
        wildcard=found.get("policy", "").lower() == "wildcard",
        until=None if until is None else int(until),
    )


def _parameter(part: str) -> tuple[str, str]:
    tag, equals, value = part.strip(_BLANK).partition("=")
    tag, value = tag.strip(_BLANK).lower(), value.strip(_BLANK)
    if not tag and not equals:
        raise ValueError("ends with a semicolon, or has two behind each other")
    if not tag or not equals:
        raise ValueError("has a part that is not tag=value")
    if not _VALUE.fullmatch(value):
        raise ValueError(f"has a {tag if tag.isascii() else 'part'} with characters that may not be there")
    return tag, value


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the records at a name come to."""

    stands: bool
    until: datetime | None = None
    """When the record that stands longest ends; None: never, or none stands."""
    faults: tuple[str, ...] = ()
    """What is wrong with those that were meant for this CA, in words; empty: there are none."""


def judge(values: Iterable[str], want: Wanted, now: datetime) -> Verdict:
    """Whether one of the records at a name does. Those of other CAs are theirs alone (draft §4.3.2)."""
    ends: list[int] = []
    faults: list[str] = []
    for text in sorted(values):
        try:
            entry = parse(text)
        except ValueError as error:
            if _is_meant(text, want):
                faults.append(f"{_shown(text)} {error}")
            continue
        if want.issuers and entry.issuer not in want.issuers:
            continue
        if fault := _fault(entry, want, now):
            faults.append(f"{_shown(text)} {fault}")
        else:
            ends.append(FOREVER if entry.until is None else min(entry.until, FOREVER))
    if not ends:
        return Verdict(stands=False, faults=tuple(faults))
    longest = max(ends)
    return Verdict(stands=True, until=None if longest == FOREVER else datetime.fromtimestamp(longest, UTC))


def _is_meant(text: str, want: Wanted) -> bool:
    # A wildcard's TXT records (SPF and the like) show up below every name, and are nobody's mistake.
    return "accounturi" in text.lower() or any(issuer in text.lower() for issuer in want.issuers)


def _fault(entry: Entry, want: Wanted, now: datetime) -> str | None:
    if entry.account not in want.accounts:  # RFC 3986 §6.2.1: character by character
        return f"is for another account than ours, which is {want.accounts[0]}"
    if want.wildcard and not entry.wildcard:
        return f"has no policy=wildcard, which *.{want.base} needs"
    if entry.until is not None and now.timestamp() > entry.until:
        ended = datetime.fromtimestamp(entry.until, UTC) if entry.until >= 0 else None
        return f"was good until {ended:%Y-%m-%d %H:%M} UTC" if ended else "has a persistUntil in the past"
    return None


def _shown(text: str) -> str:
    kept = "".join(c if c.isascii() and c.isprintable() else "?" for c in text[:SHOWN])
    return f"'{kept}…'" if len(text) > SHOWN else f"'{kept}'"


def zone_line(name: str, value: str) -> str:
    """A record as zone files write it, in strings of 255 octets at most (RFC 1035 §3.3.14, §5.1)."""
    parts = [value[start : start + STRING] for start in range(0, len(value), STRING)]
    quoted = " ".join('"' + part.replace("\\", "\\\\").replace('"', '\\"') + '"' for part in parts)
    return f"{name}. IN TXT {quoted}"
