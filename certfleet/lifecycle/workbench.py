"""What only workers have: the vault and the kept connections to CAs and hosts, beside the fleet's books."""

from __future__ import annotations

import asyncio
import hashlib
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

from certfleet.acme_ca.accounts import Accounts
from certfleet.acme_ca.challenges.http01 import SelfCheck
from certfleet.acme_ca.lookup import Lookup
from certfleet.acme_ca.transport import Transport
from certfleet.install.drivers import Driver, Drivers
from certfleet.install.installer import Installer
from certfleet.lifecycle.fleet import Fleet, open_fleet
from certfleet.limits.buckets import Buckets
from certfleet.limits.registrations import Registrations
from certfleet.limits.requests import SharedTurnstile
from certfleet.models import CA, Host
from certfleet.settings import Settings
from certfleet.vault import Vault

HANDSHAKES = 100  # at once with hosts' endpoints
LISTS = 2  # revocation lists in memory at once


@dataclass(frozen=True, slots=True)
class Workbench:
    """One per worker process."""

    fleet: Fleet
    vault: Vault
    accounts: Accounts
    buckets: Buckets
    lookup: Lookup
    turns: defaultdict[str, asyncio.Lock]
    """By account: of this process's newOrders that have to take turns, one asks at a time."""
    _drivers: Drivers
    _closing: AsyncExitStack
    _transports: dict[str, Transport] = field(default_factory=dict)
    _self_checks: dict[int, SelfCheck] = field(default_factory=dict)
    handshakes: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(HANDSHAKES))
    """Bounds how many endpoints this process asks at once."""
    lists: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(LISTS))
    """Bounds how many revocation lists this process reads at once."""
    chains: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Fingerprints of the intermediates by their name in the records; a CA has few."""

    def transport(self, ca: CA) -> Transport:
        """The kept connection to a CA."""
        trust = hashlib.sha256((ca.bundle or "").encode()).hexdigest()[:16]
        name = f"{ca.directory} {trust}"
        if name not in self._transports:
            settings = self.fleet.settings
            turnstile = SharedTurnstile(self.buckets, self.fleet.limits, ca, settings.egress_address)
            self._transports[name] = Transport(ca, nameservers=settings.nameservers, turnstile=turnstile)
            self._closing.push_async_callback(self._transports[name].close)
        return self._transports[name]

    def driver(self, host: Host) -> Driver:
        """What reaches a host, over connections that are kept. Raises InstallError: there is none of that name."""
        return self._drivers.of(host)

    def self_check(self, port: int) -> SelfCheck:
        """What fetches our own challenges where a CA validates on `port`."""
        if port not in self._self_checks:
            self._self_checks[port] = SelfCheck(nameservers=self.fleet.settings.nameservers, port=port)
            self._closing.push_async_callback(self._self_checks[port].close)
        return self._self_checks[port]


@asynccontextmanager
async def open_workbench(settings: Settings) -> AsyncIterator[Workbench]:
    """Connect, and read the vault's key. Raises RedisUnavailable, ConfigurationError."""
    vault = Vault(settings)
    async with open_fleet(settings) as fleet, AsyncExitStack() as closing:
        buckets = Buckets(fleet.store)
        accounts = Accounts(fleet.store, vault, Registrations(buckets, fleet.limits, settings.egress_address))
        drivers = await closing.enter_async_context(Drivers(Installer(fleet.store, vault)))
        lookup = Lookup(settings.nameservers)
        yield Workbench(fleet, vault, accounts, buckets, lookup, defaultdict(asyncio.Lock), drivers, closing)
