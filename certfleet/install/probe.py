"""Which certificate an endpoint really serves, seen from the outside: a TLS handshake by SNI."""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
from functools import cache

from cryptography import x509

from certfleet.errors import HostUnreachable, InstallError

ATTEMPT = 5.0  # seconds for one handshake
LEAST = 1.0  # seconds that the last look gets even when patience is at its end
PAUSE = 0.02  # seconds before the second look; then twice as long each time, up to LONGEST_PAUSE
LONGEST_PAUSE = 0.5  # seconds


async def probe(address: str, port: int, name: str, serial: str, *, patience: float = 5.0) -> None:
    """Return when `name` at `address:port` serves the certificate with this serial (lower-case hex).

    Looks again for up to `patience` seconds, because nginx reloads in the background. Raises InstallError when
    another certificate is served in the end, HostUnreachable when there is no TLS handshake.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + patience
    pause = PAUSE
    while True:
        failure: InstallError
        try:
            found = await _handshake(address, port, name, limit=min(ATTEMPT, max(LEAST, deadline - loop.time())))
        except (OSError, EOFError) as error:
            reason = str(error) or type(error).__name__
            failure = HostUnreachable(f"{name} at {address} port {port} does not answer with TLS: {reason}")
        else:
            if found == serial:
                return
            failure = InstallError(f"{name} at {address} port {port} serves serial {found} (expected {serial})")
        if loop.time() + pause >= deadline:
            raise failure
        await asyncio.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE)


async def served(address: str, port: int, name: str) -> str | None:
    """The serial that is served now (lower-case hex); None when there is no TLS handshake."""
    try:
        return await _handshake(address, port, name, limit=ATTEMPT)
    except (OSError, EOFError):
        return None


async def _handshake(address: str, port: int, name: str, *, limit: float) -> str:
    async with asyncio.timeout(limit):
        _, writer = await asyncio.open_connection(
            address, port, ssl=_context(), server_hostname=server_name(name), ssl_handshake_timeout=limit
        )
    try:
        leaf = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    finally:
        writer.transport.abort()
    return f"{x509.load_der_x509_certificate(leaf).serial_number:x}"


def server_name(identifier: str) -> str:
    """What to ask for by SNI: nothing for an IP address (RFC 6066 §3), some name below a wildcard."""
    try:
        ipaddress.ip_address(identifier)
    except ValueError:
        return identifier.replace("*", "certfleet", 1)
    return ""


@cache
def _context() -> ssl.SSLContext:
    # Which certificate is served counts, not whether this machine trusts it. Built once: it costs milliseconds.
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
