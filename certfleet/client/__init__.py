"""What other programs import to ask things of the fleet; the command line is made of it.

    async with open_client() as client:
        await client.add_app("blog", ["blog.example.com"], ["web1"], {"email": "ops@example.com"})
        await client.enable("blog")
        await client.wait(["blog"], timeout=60)

Every method checks what it is given and raises UsageError with one sentence before anything is changed.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from certfleet.client.certificates import CertificateRequests
from certfleet.client.credentials import CredentialRequests
from certfleet.client.desk import Done
from certfleet.client.hosts import HostRequests
from certfleet.client.looking import Looks
from certfleet.lifecycle.fleet import open_fleet
from certfleet.settings import Settings, load_settings

__all__ = ["Client", "Done", "open_client"]

PATIENCE = 3.0  # seconds that a person waits for Redis: a restart takes a second or two


class Client(HostRequests, CredentialRequests, CertificateRequests, Looks):
    """The fleet, seen from outside."""


@asynccontextmanager
async def open_client(settings: Settings | None = None) -> AsyncIterator[Client]:
    """A client on this machine's settings. Raises ConfigurationError, RedisUnavailable."""
    async with open_fleet(settings or load_settings(), PATIENCE) as fleet:
        yield Client(fleet)
