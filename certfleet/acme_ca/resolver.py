"""Look-ups by the name servers that the settings name, instead of the system's."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Sequence
from ipaddress import ip_address
from time import monotonic

import dns.asyncresolver
import dns.exception
import dns.nameserver
import dns.resolver
from aiohttp.abc import AbstractResolver, ResolveResult

from certfleet.errors import UsageError

LIFETIME = 5.0  # seconds for one question, retries and all
KEPT = 3.0  # seconds that an answer is kept at most: a name that was just mended should be seen
KEPT_NAMES = 10_000

_NAMESERVER = re.compile(
    r"(?:(?P<four>[0-9.]+)|\[(?P<bracketed>[0-9A-Fa-f:.]+)\])(?::(?P<port>[0-9]{1,5}))?|(?P<six>[0-9A-Fa-f:.]+)"
)


def make_resolver(nameservers: Sequence[str]) -> AbstractResolver | None:
    """Make a resolver for aiohttp from `address` or `address:port` values; None (aiohttp has its own) for none.

    Raises UsageError for a value that is neither.
    """
    return DNSResolver([parse_nameserver(value) for value in nameservers]) if nameservers else None


def parse_nameserver(value: str) -> dns.nameserver.Nameserver:
    """A name server of `address` or `address:port`. Raises UsageError."""
    parts = _NAMESERVER.fullmatch(value)
    port = int(parts["port"] or 53) if parts else 0
    try:
        address = ip_address(parts["four"] or parts["six"] or parts["bracketed"]) if parts else None
    except ValueError:
        address = None
    if address is None or not 0 < port < 2**16:
        wanted = "is not a name server; write an address, address:port or [IPv6 address]:port"
        raise UsageError("nameservers", value, wanted)
    return dns.nameserver.Do53Nameserver(str(address), port)


class DNSResolver(AbstractResolver):
    """A and AAAA records by dnspython, kept for a few seconds or their TTL, whichever is shorter."""

    def __init__(self, nameservers: Sequence[dns.nameserver.Nameserver]) -> None:
        """Ask these, in this order."""
        self._resolver = dns.asyncresolver.Resolver(configure=False)
        self._resolver.nameservers = list(nameservers)
        self._resolver.lifetime = LIFETIME
        self._kept: dict[tuple[str, int], tuple[float, list[str]]] = {}

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """All addresses, IPv4 first. Raises OSError with one sentence when there is none."""
        families = {socket.AF_INET: ["A"], socket.AF_INET6: ["AAAA"]}.get(family, ["A", "AAAA"])
        answers = await asyncio.gather(*(self._ask(host, kind) for kind in families), return_exceptions=True)
        addresses = [address for answer in answers if not isinstance(answer, BaseException) for address in answer]
        if not addresses:
            for error in answers:
                if isinstance(error, BaseException):
                    raise error
            raise OSError(None, f"{host} has no address in DNS")
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=0,
                flags=socket.AI_NUMERICHOST,
            )
            for address in addresses
        ]

    async def _ask(self, host: str, kind: str) -> list[str]:
        key = host, dns.rdatatype.from_text(kind)
        kept = self._kept.get(key)
        if kept is not None and kept[0] > monotonic():
            return kept[1]
        try:
            answer = await self._resolver.resolve(host, kind, search=False)
        except dns.resolver.NoAnswer:
            return []
        except dns.resolver.NXDOMAIN:
            raise OSError(None, f"{host} does not exist in DNS") from None
        except dns.exception.DNSException as error:
            raise OSError(None, f"DNS did not answer for {host} ({type(error).__name__})") from None
        addresses = [record.address for record in answer]
        if len(self._kept) >= KEPT_NAMES:
            self._kept.clear()
        ttl = answer.rrset.ttl if answer.rrset is not None else 0
        self._kept[key] = monotonic() + min(KEPT, ttl), addresses
        return addresses

    async def close(self) -> None:
        """Nothing is kept open between questions."""
