"""Real DNS servers: BIND, a primary that takes signed updates, and Knot, a secondary that gets the zones from it.

They are on loopback addresses of their own and on one port, as the servers of a zone are: whoever knows the port finds
them by NS and A records alone. (BIND listens only where an interface has an address, Knot anywhere.) BIND is also whom
the CA asks: it follows a CNAME from one of its zones to another. A root of its own keeps it from asking anybody else.
"""

from __future__ import annotations

import asyncio
import base64
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import dns.asyncquery
import dns.exception
import dns.flags
import dns.message
import dns.opcode
import dns.rdatatype

from certfleet.demo.pebble import child
from certfleet.demo.ports import free_port

PRIMARY, SECONDARY = "127.0.0.1", "127.0.0.2"
KEY = "certfleet"
ZONES = ("corp.test", "delegated.test")

NAMED = """\
options {{
    directory "{directory}";
    pid-file none;
    session-keyfile none;
    listen-on port {port} {{ {address}; }};
    listen-on-v6 {{ none; }};
    recursion yes;
    allow-recursion {{ any; }};
    dnssec-validation no;
    notify explicit;
    allow-transfer {{ any; }};
}};
controls {{ }};
zone "." {{ type primary; file "root"; }};
key "{key}" {{ algorithm hmac-sha256; secret "{secret}"; }};
"""
NAMED_ZONE = """\
zone "{zone}" {{
    type primary;
    file "{zone}";
    update-policy {{ grant {key} wildcard * TXT; }};
    also-notify {{ {also} }};
}};
"""
KNOT = """\
server:
    listen: {address}@{port}
    rundir: {directory}
    udp-workers: 1
    tcp-workers: 1
    background-workers: 1
log:
  - target: stderr
    any: info
database:
    storage: {directory}
remote:
  - id: primary
    address: {primary}@{port}
acl:
  - id: told
    address: {primary}
    action: notify
template:
  - id: default
    storage: {directory}
    master: primary
    acl: told
    journal-content: none
    zonefile-load: whole
zone:
"""
ROOT = """\
$TTL 60
@ SOA localhost. hostmaster.localhost. 1 3600 600 86400 1
@ NS localhost.
"""
ZONE = """\
$TTL 60
@ SOA ns1 hostmaster 1 3600 600 86400 1
@ NS ns1
@ NS ns2
ns1 A {primary}
ns2 A {secondary}
@ A 127.0.0.1
* A 127.0.0.1
{more}
"""


@dataclass(frozen=True)
class Bind:
    """Two running servers."""

    port: int
    secret: str
    """Of the key, in base64."""
    directory: Path

    @property
    def resolver(self) -> str:
        """What the CA and the fleet ask."""
        return f"{PRIMARY}:{self.port}"

    def keys(self, **changes: str) -> dict[str, str]:
        """What `certfleet dns set NAME rfc2136` takes."""
        return {"server": PRIMARY, "port": str(self.port), "key": KEY, "secret": self.secret} | changes

    async def values(self, name: str, server: str = PRIMARY) -> set[str]:
        """The TXT values that a server has at this very name."""
        answer = await dns.asyncquery.udp(self._query(name), server, timeout=5, port=self.port)
        found = [one for rrset in answer.answer if rrset.rdtype == dns.rdatatype.TXT for one in rrset]
        return {b"".join(one.strings).decode() for one in found}

    def _query(self, name: str) -> dns.message.Message:
        return dns.message.make_query(name, "TXT", flags=0)

    async def notify(self, zone: str) -> None:
        """Tell the secondary that the zone has changed (RFC 1996), so that it fetches it."""
        message = dns.message.make_query(zone, "SOA", flags=dns.flags.AA)
        message.set_opcode(dns.opcode.NOTIFY)
        await dns.asyncquery.udp(message, SECONDARY, timeout=10, port=self.port, source=PRIMARY)

    def log(self) -> str:
        """What both say."""
        return "\n".join(path.read_text() for path in sorted(self.directory.glob("*.log")))


@asynccontextmanager
async def bind(directory: Path, *, notify: bool = True, more: Mapping[str, str] | None = None) -> AsyncIterator[Bind]:
    """Both servers, for as long as the block. Without `notify` the secondary learns of a change when it is told.

    `more`: further lines of a zone's file.
    """
    port, secret = free_port(), base64.b64encode(secrets.token_bytes(32)).decode()
    servers = Bind(port, secret, directory)
    async with AsyncExitStack() as stack:
        for command in (_primary(servers, more or {}, notify=notify), _secondary(servers)):
            await stack.enter_async_context(child(command, directory / f"{command[0]}.log"))
        await _up(servers)
        yield servers


def _primary(servers: Bind, more: Mapping[str, str], *, notify: bool) -> tuple[str, ...]:
    """Its files, and how it is started."""
    home = servers.directory / "named"
    home.mkdir(parents=True)
    also = f"{SECONDARY} port {servers.port};" if notify else ""
    text = NAMED.format(directory=home, port=servers.port, address=PRIMARY, key=KEY, secret=servers.secret)
    for zone in ZONES:
        text += NAMED_ZONE.format(zone=zone, key=KEY, also=also)
        (home / zone).write_text(ZONE.format(primary=PRIMARY, secondary=SECONDARY, more=more.get(zone, "")))
    (home / "root").write_text(ROOT)
    (home / "named.conf").write_text(text)
    return ("named", "-g", "-n", "1", "-c", str(home / "named.conf"))


def _secondary(servers: Bind) -> tuple[str, ...]:
    home = servers.directory / "knot"
    home.mkdir(parents=True)
    text = KNOT.format(directory=home, port=servers.port, address=SECONDARY, primary=PRIMARY)
    (home / "knot.conf").write_text(text + "".join(f"  - domain: {zone}\n" for zone in ZONES))
    return ("knotd", "-c", str(home / "knot.conf"))


async def _up(servers: Bind) -> None:
    """Wait until both have both zones. The secondary is told, in case it came first."""
    for _ in range(100):
        try:
            for zone in ZONES:
                await servers.notify(zone)
            if all([await _serial(servers, zone, address) for zone in ZONES for address in (PRIMARY, SECONDARY)]):
                return
        except (OSError, dns.exception.DNSException):
            pass  # not yet
        await asyncio.sleep(0.1)
    raise AssertionError(f"the DNS servers did not come up: {servers.log()}")


async def _serial(servers: Bind, zone: str, address: str) -> bool:
    query = dns.message.make_query(zone, "SOA", flags=0)
    return bool((await dns.asyncquery.udp(query, address, timeout=1, port=servers.port)).answer)
