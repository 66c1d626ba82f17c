"""What DNS says about a name: whether it exists, its addresses, its CAA records."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass
from time import monotonic

import dns.asyncresolver
import dns.exception
import dns.message
import dns.rdata
import dns.rdatatype
import dns.resolver
from dns.rdtypes.ANY.CAA import CAA

from certfleet.acme_ca.caa import CAARecord
from certfleet.acme_ca.resolver import parse_nameserver

LIFETIME = 3.0  # seconds for one question, retries and all: an order goes on without an answer
KEPT = 1.0  # seconds that an answer is kept: names of one domain share theirs, and what was mended is seen
KEPT_NAMES = 10_000
AT_ONCE = 100  # questions; each has a socket of its own
_PRINTABLE = re.compile(r"[!-~]+")


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to one question."""

    records: tuple[dns.rdata.Rdata, ...] = ()
    missing: bool = False
    """NXDOMAIN (RFC 2308 §2.1): there is nothing of this name, nor below it (RFC 8020)."""
    zone: str | None = None
    """Whose SOA stands in it: the zone that says so, not merely a server that does not know (RFC 2308 §3)."""
    error: str | None = None
    """Why there is no answer."""


class Lookup:
    """Asks the name servers of the settings, else the system's."""

    def __init__(self, nameservers: Sequence[str] = ()) -> None:
        """`nameservers`: `address` or `address:port`. Raises UsageError for what is neither."""
        self._own = [parse_nameserver(value) for value in nameservers]
        self._resolver: dns.asyncresolver.Resolver | None = None
        self._kept: dict[tuple[str, str], tuple[float, asyncio.Task[Reply]]] = {}
        self._turns = asyncio.Semaphore(AT_ONCE)

    async def missing(self, name: str) -> str | None:
        """The zone that says for certain that there is no such name; None: it exists, or nobody can say.

        CAA records are asked for first, because they are needed anyway. A second question is for servers that answer
        NXDOMAIN to a type that they do not know (RFC 4074 §4.2).
        """
        for kind in ("CAA", "A"):
            reply = await self._ask(name, kind)
            if not reply.missing or reply.zone is None:
                return None
        return None if await self._in_hosts_file(name) else reply.zone

    async def addresses(self, name: str) -> list[str]:
        """IPv4 first. Raises OSError with one sentence when there is none."""
        replies = await asyncio.gather(self._ask(name, "A"), self._ask(name, "AAAA"))
        found = [str(record) for reply in replies for record in reply.records]
        if found:
            return found
        if known := await self._in_hosts_file(name):
            return known
        for reply in replies:
            if reply.error:
                raise OSError(None, reply.error)
        what = "does not exist in DNS" if replies[0].missing else "has no address in DNS"
        raise OSError(None, f"{name} {what}")

    async def caa(self, name: str) -> tuple[CAARecord, ...]:
        """The CAA records at a name, aliases followed; none: there are none. Raises OSError: nobody answered."""
        reply = await self._ask(name, "CAA")
        if reply.error:
            raise OSError(None, reply.error)
        return tuple(
            CAARecord(record.flags, record.tag.decode("latin-1").lower(), record.value.decode("latin-1"))
            for record in reply.records
            if isinstance(record, CAA)
        )

    async def _in_hosts_file(self, name: str) -> list[str]:
        """What the system knows beside DNS; only where it is the system that resolves."""
        if self._own:
            return []
        try:
            found = await asyncio.get_running_loop().getaddrinfo(name, None)
        except OSError:
            return []
        return list(dict.fromkeys(str(entry[4][0]) for entry in found))

    async def _ask(self, name: str, kind: str) -> Reply:
        """Ask once, however many want to know."""
        kept = self._kept.get((name, kind))
        if kept is None or kept[0] <= monotonic():
            if len(self._kept) >= KEPT_NAMES:
                self._kept.clear()
            kept = monotonic() + KEPT, asyncio.create_task(self._question(name, kind))
            self._kept[name, kind] = kept
        return await asyncio.shield(kept[1])

    async def _question(self, name: str, kind: str) -> Reply:
        try:
            async with self._turns:
                answer = await self._servers().resolve(
                    name, kind, search=False, raise_on_no_answer=False, lifetime=LIFETIME
                )
        except dns.resolver.NXDOMAIN as error:
            return Reply(missing=True, zone=_zone(error))
        except dns.exception.DNSException as error:
            return Reply(error=f"DNS did not answer for {name} ({type(error).__name__})")
        return Reply(tuple(answer.rrset or ()))

    def _servers(self) -> dns.asyncresolver.Resolver:
        if self._resolver is None:
            resolver = dns.asyncresolver.Resolver(configure=not self._own)
            if self._own:
                resolver.nameservers = list(self._own)
            self._resolver = resolver
        return self._resolver


def _zone(error: dns.resolver.NXDOMAIN) -> str | None:
    """The owner of the SOA record in an NXDOMAIN answer."""
    responses: dict[object, dns.message.Message] = error.kwargs.get("responses", {})
    for response in responses.values():
        for rrset in response.authority:
            zone = rrset.name.to_text(omit_final_dot=True)
            if rrset.rdtype == dns.rdatatype.SOA and _PRINTABLE.fullmatch(zone):
                return zone if zone != "." else "the root"
    return None
