"""What every way to write TXT records has in common."""

from __future__ import annotations

import ipaddress
import re
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import quote

import dns.exception
import dns.name
import structlog

from certfleet.errors import CertfleetError, DNSProviderError

log = structlog.get_logger(__name__)

TIME_LIMIT = 60.0  # seconds for one record, unless the provider's own keys say otherwise
TTL = 60  # seconds; the record is looked up a few times in its life of minutes
SHOWN = 300  # characters of what somebody else said
HIDDEN = "****"
LABEL = re.compile(r"[\w-]{1,63}")  # more than a host name may have (RFC 1123 §2.1): Windows takes underscores
LEAST = 4  # characters: what is shorter keeps nobody out, and stands in many a word


@dataclass(frozen=True, slots=True)
class TXTRecord:
    """One value at one name; other values there are other people's."""

    name: str
    """Where it is written: A-labels in lower case, no final dot; behind every CNAME."""
    value: str
    zone: str
    """The zone that `name` is in."""
    owner: str
    """Where the CA looks for it: the same, or a CNAME to it."""


class Provider(Protocol):
    """Writes and removes TXT records. Both may be repeated, and both raise DNSProviderError."""

    async def present(self, record: TXTRecord) -> None:
        """Let this value be there, beside those that are."""

    async def cleanup(self, record: TXTRecord) -> None:
        """Take this value away and no other one; it may be gone already."""


def host(value: str) -> str | None:
    """An IP address, or a host name as DNS is asked for it: A-labels, no final dot. None: it is neither."""
    try:
        return str(ipaddress.ip_address(value))
    except ValueError:
        labels = value.removesuffix(".").split(".")
    if labels[-1].isdecimal() or not all(LABEL.fullmatch(label) for label in labels):
        return None
    try:
        return dns.name.from_text(value).to_text(omit_final_dot=True).lower()
    except dns.exception.DNSException:
        return None


@contextmanager
def explained(credentials: str, record: TXTRecord) -> Iterator[None]:
    """Whatever a provider raises is told: what fails with words is tried again, less and less often.

    The words of what nobody expected may hold a secret: the log has where it happened, and not what it said.
    """
    try:
        yield
    except CertfleetError:
        raise
    except Exception as error:  # noqa: BLE001  whatever it is
        kind, where = type(error).__name__, "".join(traceback.format_tb(error.__traceback__))
        log.error("DNS provider failed", credentials=credentials, name=record.name, error=kind, traceback=where)
        raise DNSProviderError(
            f"the DNS credentials {credentials} do not work for {record.name} ({kind}; the worker's log has "
            f"more): are their values right? `certfleet dns set {credentials} …` replaces them"
        ) from None


def redacted(text: str, secrets: Iterable[str]) -> str:
    """Words of somebody else's on one line, without what must not be read, and not too long."""
    spelled = {spelling for secret in secrets for spelling in (secret, quote(secret, safe=""))}
    for one in sorted(spelled, key=len, reverse=True):
        if len(one) >= LEAST:
            text = text.replace(one, HIDDEN)
    line = " ".join(text.split())
    return line if len(line) <= SHOWN else f"{line[:SHOWN]}…"
