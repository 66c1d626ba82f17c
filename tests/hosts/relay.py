"""A wire that can be cut: a TCP relay that breaks after so many bytes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from certfleet.demo.ports import free_port

PIECE = 4096  # bytes


@dataclass(slots=True)
class Relay:
    """The near end of the wire."""

    port: int
    """On 127.0.0.1."""
    cut_after: int | None = None
    """Bytes that still pass towards the host before everything that goes over the wire is cut; None: no end."""
    connections: int = 0
    """Taken up so far."""
    silent: int = 0
    """On so many of them, counted from the first, nothing passes any more, and nobody is told."""
    _open: set[asyncio.StreamWriter] = field(default_factory=set)

    def cut(self) -> None:
        """Break every connection at once, both ways, as a pulled cable and a rebooted firewall do."""
        for writer in self._open:
            writer.transport.abort()
        self._open.clear()


@asynccontextmanager
async def relay(address: str, port: int) -> AsyncIterator[Relay]:
    """A wire to `address:port` as long as the block runs."""
    wire = Relay(free_port())

    async def pump(
        source: asyncio.StreamReader, sink: asyncio.StreamWriter, number: int, *, towards_host: bool
    ) -> None:
        with suppress(OSError):
            while data := await source.read(PIECE):
                if number <= wire.silent:
                    continue
                if towards_host and wire.cut_after is not None:
                    sink.write(data[: wire.cut_after])
                    await sink.drain()
                    wire.cut_after -= len(data)
                    if wire.cut_after < 0:
                        wire.cut()
                        return
                    continue
                sink.write(data)
                await sink.drain()
        sink.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        wire.connections += 1
        number = wire.connections
        far_reader, far_writer = await asyncio.open_connection(address, port)
        wire._open |= {writer, far_writer}
        with suppress(asyncio.CancelledError):  # the test is over
            await asyncio.gather(
                pump(reader, far_writer, number, towards_host=True),
                pump(far_reader, writer, number, towards_host=False),
            )
        wire._open -= {writer, far_writer}

    listening = await asyncio.start_server(serve, "127.0.0.1", wire.port)
    try:
        yield wire
    finally:
        listening.close()
        wire.cut()
