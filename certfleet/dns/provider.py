"""What every way to write TXT records has in common."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import quote

TIME_LIMIT = 60.0  # seconds for one record, unless the provider's own keys say otherwise
TTL = 60  # seconds; the record is looked up a few times in its life of minutes
SHOWN = 300  # characters of what somebody else said
HIDDEN = "****"
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


def redacted(text: str, secrets: Iterable[str]) -> str:
    """Words of somebody else's on one line, without what must not be read, and not too long."""
    spelled = {spelling for secret in secrets for spelling in (secret, quote(secret, safe=""))}
    for one in sorted(spelled, key=len, reverse=True):
        if len(one) >= LEAST:
            text = text.replace(one, HIDDEN)
    line = " ".join(text.split())
    return line if len(line) <= SHOWN else f"{line[:SHOWN]}…"
