"""The SSH connections of a worker, for a test without one: with the rig's key as the fleet's."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import cast

from certfleet.install.drivers.connections import Connections
from certfleet.install.installer import Installer
from tests.hosts.fleet import Hosts


class KeyAtHand:
    """In an Installer's place: no store, no vault."""

    def __init__(self, private_key: bytes) -> None:
        self._private_key = private_key

    async def private_key(self) -> bytes:
        """The private half in OpenSSH's form."""
        return self._private_key


@asynccontextmanager
async def sessions(fleet: Hosts) -> AsyncIterator[Connections]:
    """Connections that log in with the rig's key, closed afterwards."""
    connections = Connections(cast("Installer", KeyAtHand(fleet.key.read_bytes())))
    try:
        yield connections
    finally:
        await connections.close()
