"""Zones as the CA will see them: where a name leads, who answers for its zone, and what these answer.

A CA asks the authoritative servers (Let's Encrypt: from several places at once, so any of them may be asked). A record
counts as there when all of them show it.
"""

from __future__ import annotations

import asyncio
import ipaddress
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

import dns.asyncquery
import dns.asyncresolver
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.nameserver
import dns.rcode
import dns.rdatatype
import dns.resolver

from certfleet.dns.provider import TXTRecord
from certfleet.errors import OwnerError

PORT = 53
LIFETIME = 10.0  # seconds for one question to the resolver, retries and all
ANSWER = 5.0  # seconds for one question to an authoritative server
ALIASES = 8  # CNAMEs behind each other; resolvers give up after about as many


@dataclass(frozen=True, slots=True)
class Server:
    """One authoritative server of a zone."""

    name: str
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a name leads, behind every CNAME, and the zone that this is in."""

    name: str
    zone: str


@dataclass(frozen=True, slots=True)
class Shown:
    """What one server has at a name."""

    where: str
    """The server's name and address."""
    values: frozenset[str] = frozenset()
    fault: str | None = None
    """Why that is not known, as the end of a sentence that begins with `where`."""
    heard: bool = True
    """There was an answer."""


class Zones:
    """Questions about zones, by the system's resolver or by the name servers that the settings name."""

    def __init__(self, nameservers: Sequence[str] = (), *, port: int = PORT) -> None:
        """`nameservers`: `address` or `address:port`. `port`: where authoritative servers answer; 53 but in tests."""
        self._resolver = dns.asyncresolver.Resolver(configure=not nameservers)
        if nameservers:
            self._resolver.nameservers = [_nameserver(value) for value in nameservers]
        self._resolver.lifetime = LIFETIME
        self._port = port

    async def place(self, owner: str, value: str) -> TXTRecord:
        """The record to write so that `owner` shows `value`: behind its CNAMEs. Raises OwnerError."""
        found = await self.follow(owner)
        return TXTRecord(name=found.name, value=value, zone=found.zone, owner=owner)

    async def follow(self, owner: str) -> Place:
        """Where a name leads. Raises OwnerError."""
        name = owner
        for _ in range(ALIASES):
            target = await self._alias(name)
            if target is None:
                return Place(name, await self.zone_of(name))
            name = target
        raise OwnerError(f"{owner} leads through more than {ALIASES} CNAMEs: let it be one CNAME to the name itself")

    async def zone_of(self, name: str) -> str:
        """The zone that a name is in: the nearest name above it with an SOA record. Raises OwnerError."""
        labels = name.split(".")
        for start in range(len(labels)):
            candidate = ".".join(labels[start:])
            if await self._ask(candidate, "SOA") is not None:
                return candidate
        raise OwnerError(f"{name} is in no zone that DNS knows: is its domain registered, and delegated?")

    async def servers(self, zone: str) -> list[Server]:
        """The zone's authoritative servers with their addresses. Raises OwnerError."""
        found = await self._ask(zone, "NS")
        names = sorted(_text(record.target) for record in found) if found else []
        if not names:
            raise OwnerError(f"zone {zone} has no NS records: its domain is not delegated to a DNS server")
        addresses = await asyncio.gather(*(self.addresses(name) for name in names))
        return [Server(name, found) for name, found in zip(names, addresses, strict=True)]

    async def addresses(self, host: str) -> tuple[str, ...]:
        """A host's addresses, IPv4 first; an address is its own. Raises OwnerError when DNS does not answer."""
        try:
            return (str(ipaddress.ip_address(host)),)
        except ValueError:
            answers = await asyncio.gather(self._ask(host, "A"), self._ask(host, "AAAA"))
        return tuple(record.address for answer in answers for record in answer or ())

    async def not_shown(self, record: TXTRecord, servers: Sequence[Server]) -> list[str]:
        """What is still in the way at each server that does not show the record, in words; empty: all show it."""
        told = []
        for seen in await self.texts(Place(record.name, record.zone), servers):
            if seen.fault is not None:
                told.append(f"{seen.where} {seen.fault}")
            elif record.value not in seen.values:
                told.append(f"{seen.where} does not show the TXT record {record.name} yet")
        return told

    async def texts(self, place: Place, servers: Sequence[Server]) -> list[Shown]:
        """The TXT records that each server has there itself, asked without a resolver between."""
        seen = await asyncio.gather(*(self._texts_at(place, server) for server in servers))
        return [shown for several in seen for shown in several]

    async def _texts_at(self, place: Place, server: Server) -> list[Shown]:
        if not server.addresses:
            return [Shown(server.name, fault="has no address", heard=False)]
        told = await asyncio.gather(*(self._ask_server(place, server.name, address) for address in server.addresses))
        # An IPv6 address that this machine has no way to is no evidence while the server answers elsewhere.
        return [shown for shown in told if shown.heard] or told[:1]

    async def _ask_server(self, place: Place, server: str, address: str) -> Shown:
        query = dns.message.make_query(place.name, "TXT", flags=0)
        where = f"{server} ({address})"
        try:
            answer, _ = await dns.asyncquery.udp_with_fallback(query, address, timeout=ANSWER, port=self._port)
        except (dns.exception.DNSException, OSError, EOFError) as error:
            return Shown(where, fault=f"does not answer ({type(error).__name__})", heard=False)
        if answer.rcode() not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
            return Shown(where, fault=f"answers {dns.rcode.to_text(answer.rcode())} for {place.zone}")
        values = (
            b"".join(one.strings).decode(errors="replace")
            for rrset in answer.answer
            if rrset.rdtype == dns.rdatatype.TXT and _text(rrset.name) == place.name
            for one in rrset
        )
        return Shown(where, frozenset(values))

    async def _alias(self, name: str) -> str | None:
        """Where a CNAME of this name leads; None: it has none of its own."""
        found = await self._ask(name, "CNAME")
        if not found:
            return None
        target = _text(found[0].target)
        # A wildcard's CNAME ends for a name as soon as that has a record of its own (RFC 4592 §3.3.1).
        beside = await self._ask(f"certfleet-{secrets.token_hex(4)}.{name.partition('.')[2]}", "CNAME")
        return None if beside and _text(beside[0].target) == target else target

    async def _ask(self, name: str, kind: str) -> dns.resolver.Answer | None:
        try:
            answer = await self._resolver.resolve(name, kind, search=False, raise_on_no_answer=False)
        except (dns.resolver.NXDOMAIN, dns.resolver.YXDOMAIN):
            return None
        except (dns.exception.DNSException, OSError) as error:
            raise OwnerError(
                f"DNS did not answer for {name} ({type(error).__name__}): is the resolver at fault?"
            ) from None
        rrset = answer.rrset
        # A resolver that follows a CNAME answers for another name than was asked.
        return answer if rrset is not None and _text(rrset.name) == name.lower() else None


def _text(name: dns.name.Name) -> str:
    return name.to_text(omit_final_dot=True).lower()


def _nameserver(value: str) -> dns.nameserver.Nameserver:
    """Of `address`, `address:port` or `[address]:port`, as the settings have checked it."""
    try:
        return dns.nameserver.Do53Nameserver(str(ipaddress.ip_address(value)), PORT)
    except ValueError:
        address, _, port = value.rpartition(":")
        return dns.nameserver.Do53Nameserver(address.strip("[]"), int(port))
