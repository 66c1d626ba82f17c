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

from certfleet.demo.pebble import free_port


@dataclass
class Zone:
    """`records` holds (name, type) → addresses; a name with no entry at all does not exist."""

    records: dict[tuple[str, str], list[str]]
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
        elif not any(known == name for known, _ in self.records):
            answer.set_rcode(dns.rcode.NXDOMAIN)
        elif addresses := self.records.get((name, kind)):
            answer.answer.append(dns.rrset.from_text_list(question.name, self.ttl, "IN", kind, addresses))
        return answer


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
    found, port = Zone(records, ttl), free_port()
    found.address = f"127.0.0.1:{port}"
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: _Protocol(found), local_addr=("127.0.0.1", port)
    )
    try:
        yield found
    finally:
        transport.close()
