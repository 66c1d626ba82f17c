"""How a host is reached: each driver has the functions of `Driver`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Protocol, Self

from certfleet.errors import InstallError
from certfleet.install.answer import Answer, Report
from certfleet.install.bundle import Item
from certfleet.install.challenge import Answerer
from certfleet.install.csr import Wanted
from certfleet.install.drivers import local
from certfleet.install.drivers.connections import Connections
from certfleet.install.drivers.dokku import Dokku
from certfleet.install.drivers.ssh import SSH
from certfleet.install.installer import Installer
from certfleet.models import Host


class Driver(Protocol):
    """Runs the receiver on a host. Raises HostUnreachable or InstallError; what became of each app is in the Answer."""

    async def install(self, host: Host, items: Sequence[Item]) -> Answer:
        """Put the items into place: one configuration test, one reload; a bad one is put back alone."""

    async def rollback(self, host: Host, previous: Mapping[str, int]) -> Answer:
        """Make each app's given generation current again (0: none), with one reload."""

    async def status(self, host: Host) -> Answer:
        """What is current for each app, with serials. Changes nothing."""

    async def check(self, host: Host, *, reload: bool = False) -> Report:
        """What works on the host, point by point. Changes nothing; with `reload`, the web server is reloaded."""

    async def remove(self, host: Host, apps: Sequence[str]) -> Answer:
        """Take the apps' certificates away, unless the web server's configuration needs one of them."""

    async def cleanup(self, host: Host, keep: int) -> Answer:
        """Delete generations that are neither current nor among the newest `keep` of their app."""

    async def publish(self, host: Host, answers: Mapping[str, str]) -> None:
        """Put challenges into the host's webroot: token -> key authorization."""

    async def withdraw(self, host: Host, tokens: Sequence[str]) -> None:
        """Take them away again; tokens that are not there are no error."""

    async def snippet(self, host: Host, apps: Sequence[Answerer]) -> Answer:
        """Let the web server answer for the apps' names by their account's thumbprint; reloads it when it is new."""

    async def request(self, host: Host, wanted: Sequence[Wanted]) -> Answer:
        """Have the host make a key for each, which stays there; the requests for their certificates."""


class Drivers:
    """The drivers of one process, with the connections that they keep until the block ends."""

    def __init__(self, installer: Installer) -> None:
        """`installer` is who logs in on hosts."""
        self._connections = Connections(installer)
        self._known: dict[str, Driver] = {
            "local": local,
            "ssh": SSH(self._connections),
            "dokku": Dokku(self._connections),
        }

    def of(self, host: Host) -> Driver:
        """The host's driver. Raises InstallError when there is none of that name."""
        driver = self._known.get(host.driver)
        if driver is None:
            choices = ", ".join(self._known)
            raise InstallError(f"host {host.name}: there is no driver {host.driver!r}; choose one of: {choices}")
        return driver

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._connections.close()
