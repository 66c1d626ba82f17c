"""Whether a host's web server answers challenges by itself already: a reload happens in the background."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import suppress

from certfleet.identifiers import authority
from certfleet.install.challenge import PATH

ATTEMPT = 2.0  # seconds for one look
PATIENCE = 3.0  # seconds for the new configuration to answer
PAUSE = 0.05  # seconds between two looks
BOTH = 0.3  # seconds for which old processes may answer beside the new ones (nginx: 0.1)
LONGEST = 4096  # bytes of an answer
TOKEN = "certfleet-looks"  # noqa: S105  any one will do


async def taken_up(address: str, sites: Iterable[tuple[str, int, str]]) -> bool:
    """Return when one of the sites (name, port, thumbprint) answers with its thumbprint, or none did in time.

    Port 80 of a host need not be open to us; so False says no more than that the CA will see.
    """
    looks = [asyncio.create_task(_until(address, *site)) for site in sites]
    try:
        async with asyncio.timeout(PATIENCE):
            await asyncio.wait(looks, return_when=asyncio.FIRST_COMPLETED)
    except TimeoutError:
        return False
    finally:
        for look in looks:
            look.cancel()
    await asyncio.sleep(BOTH)
    return True


async def _until(address: str, name: str, port: int, thumbprint: str) -> None:
    while not await _answers(address, name, port, f"{TOKEN}.{thumbprint}".encode()):  # noqa: ASYNC110  a web server's state
        await asyncio.sleep(PAUSE)


async def _answers(address: str, name: str, port: int, expected: bytes) -> bool:
    request = f"GET {PATH}{TOKEN} HTTP/1.1\r\nHost: {authority(name)}\r\nConnection: close\r\n\r\n"
    with suppress(OSError):
        async with asyncio.timeout(ATTEMPT):
            reader, writer = await asyncio.open_connection(address, port)
            try:
                writer.write(request.encode())
                answer = b""
                while len(answer) < LONGEST and (more := await reader.read(LONGEST)):
                    answer += more
            finally:
                writer.transport.abort()
        return expected in answer
    return False
