"""A name server that answers what a test wants, over UDP on a port of its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import cast

import dns.flags
import dns.message
import dns.rcode
import dns.rrset

from certfleet.demo.ports import free_port


@dataclass
class Zone:
    """`records` holds (name, type) → data as zone files have it; a name with no entry at all does not exist."""

    records: dict[tuple[str, str], list[str]]
    elsewhere: list[str] = field(default_factory=list)
    """IPv4 addresses of every name without an entry that is not `gone`."""
    gone: set[str] = field(default_factory=set)
    denied: set[str] = field(default_factory=set)
    """Types to which the server answers NXDOMAIN, as some load balancers do."""
    apex: str | None = "test"
    """The zone whose SOA stands in answers that a name does not exist; None: no SOA."""
    ttl: int = 60
    failing: bool = False
    silent: bool = False
    asked: list[tuple[str, str]] = field(default_factory=list)
    address: str = ""

    def reply(self, query: dns.message.Message) -> dns.message.Message:
        """The answer to one question."""
        question = query.question[0]
        name, kind = question.name.to_text(omit_final_dot=True), question.rdtype.name
        self.asked.append((name, kind))
        answer = dns.message.make_response(query)
        answer.flags |= dns.flags.RA
        if self.failing:
            answer.set_rcode(dns.rcode.SERVFAIL)
        else:
            self._fill(answer, name, kind)
        return answer

    def _fill(self, answer: dns.message.Message, name: str, kind: str) -> None:
        while aliases := self.records.get((name, "CNAME")):
            answer.answer.append(dns.rrset.from_text_list(f"{name}.", self.ttl, "IN", "CNAME", aliases))
            name = aliases[0].removesuffix(".")
        if data := self.records.get((name, kind)):
            answer.answer.append(dns.rrset.from_text_list(f"{name}.", self.ttl, "IN", kind, data))
        elif kind in self.denied or not self._exists(name):
            answer.set_rcode(dns.rcode.NXDOMAIN)
            if self.apex is not None:
                soa = "ns.test. hostmaster.test. 1 3600 600 86400 60"
                answer.authority.append(dns.rrset.from_text(f"{self.apex}.", self.ttl, "IN", "SOA", soa))
        elif kind == "A" and self.elsewhere and not any(known == name for known, _ in self.records):
            answer.answer.append(dns.rrset.from_text_list(f"{name}.", self.ttl, "IN", "A", self.elsewhere))

    def _exists(self, name: str) -> bool:
        """Also names that only have others below them (RFC 8020)."""
        known = any(f".{known}".endswith(f".{name}") for known, _ in self.records)
        return known or (bool(self.elsewhere) and name not in self.gone)


class _Protocol(asyncio.DatagramProtocol):
    def __init__(self, zone: Zone) -> None:
        self.zone = zone

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # asyncio's own is one in all but its class.
        self.transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        reply = self.zone.reply(dns.message.from_wire(data))
        if not self.zone.silent:
            self.transport.sendto(reply.to_wire(), addr)


@asynccontextmanager
async def zone(records: dict[tuple[str, str], list[str]], *, ttl: int = 60) -> AsyncIterator[Zone]:
    """A name server as long as the block."""
    found, port = Zone(records, ttl=ttl), free_port()
    found.address = f"127.0.0.1:{port}"
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: _Protocol(found), local_addr=("127.0.0.1", port)
    )
    try:
        yield found
    finally:
        transport.close()
