"""Which certificate an endpoint really serves, seen from the outside: a TLS handshake by SNI.

A handshake that ends well shows that the key fits the certificate: the server signs with it. What has to be compared is
the certificate itself, and the intermediates that come with it: without them most browsers still get along, and
everything else does not.
"""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from certfleet.errors import HostUnreachable, InstallError

ATTEMPT = 5.0  # seconds for one handshake
LEAST = 1.0  # seconds that the last look gets even when patience is at its end
PAUSE = 0.02  # seconds before the second look; then twice as long each time, up to LONGEST_PAUSE
LONGEST_PAUSE = 0.5  # seconds


@dataclass(frozen=True, slots=True)
class Shown:
    """What an endpoint presents."""

    serial: str
    """Of the certificate itself, in lower-case hexadecimal."""
    chain: tuple[str, ...]
    """Fingerprints of what comes with it, in the order in which it comes."""


async def probe(
    address: str, port: int, name: str, serial: str, chain: Sequence[str] = (), *, patience: float = 5.0
) -> None:
    """Return when `name` at `address:port` presents the certificate with this serial (lower-case hex) and its chain.

    `chain`: the `fingerprints` of its intermediates. Looks again for up to `patience` seconds, because nginx reloads in
    the background. Raises InstallError when something else is presented in the end, HostUnreachable when there is no
    TLS handshake.
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
            difference = _difference(found, serial, chain)
            if difference is None:
                return
            failure = InstallError(f"{name} at {address} port {port} {difference}")
        if loop.time() + pause >= deadline:
            raise failure
        await asyncio.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE)


def _difference(found: Shown, serial: str, chain: Sequence[str]) -> str | None:
    if found.serial != serial:
        return f"serves serial {found.serial} (expected {serial})"
    sent = [fingerprint for fingerprint in chain if fingerprint in found.chain]
    if len(sent) < len(chain):
        return f"serves the right certificate without its chain: {len(sent)} of {len(chain)} intermediates are sent"
    return None


def fingerprints(chain: str) -> tuple[str, ...]:
    """SHA-256 of each certificate in PEM, as `probe` compares them. Raises InstallError for what is no PEM."""
    try:
        found = x509.load_pem_x509_certificates(chain.encode()) if chain.strip() else []
    except ValueError:
        raise InstallError("the chain that is kept with the certificate is not PEM; issue it again") from None
    return tuple(_fingerprint(certificate.public_bytes(Encoding.DER)) for certificate in found)


def _fingerprint(der: bytes) -> str:
    return sha256(der).hexdigest()


async def served(address: str, port: int, name: str) -> str | None:
    """The serial that is served now (lower-case hex); None when there is no TLS handshake."""
    try:
        return (await _handshake(address, port, name, limit=ATTEMPT)).serial
    except (OSError, EOFError):
        return None


async def _handshake(address: str, port: int, name: str, *, limit: float) -> Shown:
    async with asyncio.timeout(limit):
        _, writer = await asyncio.open_connection(
            address, port, ssl=_context(), server_hostname=server_name(name), ssl_handshake_timeout=limit
        )
    try:
        leaf, *chain = _presented(writer.get_extra_info("ssl_object"))
    finally:
        writer.transport.abort()
    try:
        serial = f"{x509.load_der_x509_certificate(leaf).serial_number:x}"
    except ValueError:  # not quite DER, which TLS takes all the same: some appliance's own
        serial = "unreadable"
    return Shown(serial, tuple(_fingerprint(der) for der in chain))


def _presented(connection: Any) -> list[bytes]:
    """What the server sent, in DER, its own certificate first. Raises OSError when there is none."""
    if hasattr(connection, "get_unverified_chain"):  # public from Python 3.13 on
        certificates = connection.get_unverified_chain() or []
    else:
        found = connection._sslobj.get_unverified_chain() or []  # noqa: SLF001  the only way there before
        certificates = [ssl.PEM_cert_to_DER_cert(certificate.public_bytes()) for certificate in found]
    if not certificates:
        raise OSError("the server presents no certificate")
    return list(certificates)


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
