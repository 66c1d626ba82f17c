"""How a host is reached: each driver is a module with the three functions of `Driver`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from certfleet.errors import InstallError
from certfleet.install.answer import Answer
from certfleet.install.bundle import Item
from certfleet.install.drivers import local
from certfleet.models import Host


class Driver(Protocol):
    """Runs the receiver on a host. Raises HostUnreachable or InstallError; what became of each app is in the Answer."""

    async def install(self, host: Host, items: Sequence[Item]) -> Answer:
        """Put the items into place: one configuration test, one reload; a bad one is put back alone."""

    async def rollback(self, host: Host, previous: Mapping[str, int]) -> Answer:
        """Make each app's given generation current again (0: none), with one reload."""

    async def status(self, host: Host) -> Answer:
        """What is current for each app, with serials. Changes nothing."""


DRIVERS: dict[str, Driver] = {"local": local}


def driver_for(host: Host) -> Driver:
    """The host's driver. Raises InstallError when there is none of that name."""
    driver = DRIVERS.get(host.driver)
    if driver is None:
        raise InstallError(f"host {host.name}: there is no driver {host.driver!r}; choose one of: {', '.join(DRIVERS)}")
    return driver
