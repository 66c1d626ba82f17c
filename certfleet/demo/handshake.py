"""The demo's own eyes: a verified TLS handshake, made with nothing of certfleet's own probing."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence

LIMIT = 5.0  # seconds per handshake
AT_ONCE = 32


def trusting(roots: str) -> ssl.SSLContext:
    """A client that trusts these roots (PEM) and nothing else, and checks names."""
    return ssl.create_default_context(cadata=roots)


async def serials(context: ssl.SSLContext, port: int, names: Sequence[str]) -> dict[str, str]:
    """The serial number (hexadecimal) of the valid certificate that each name shows on loopback; others are missing."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def look(name: str) -> tuple[str, str | None]:
        async with gate:
            return name, await _serial(context, port, name)

    return {name: serial for name, serial in await asyncio.gather(*(look(name) for name in names)) if serial}


async def _serial(context: ssl.SSLContext, port: int, name: str) -> str | None:
    try:
        async with asyncio.timeout(LIMIT):
            _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=name)
    except (OSError, TimeoutError):  # an ssl.SSLError is an OSError: not valid is as good as not served
        return None
    try:
        return str(writer.get_extra_info("peercert")["serialNumber"]).lower().lstrip("0")
    finally:
        writer.transport.abort()
