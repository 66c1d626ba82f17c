"""Requests about hosts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from certfleet.errors import UsageError
from certfleet.install.login import parse_login
from certfleet.install.servers import check_server
from certfleet.inventory import check_address, check_name, host_exists
from certfleet.lifecycle.challenges import publishing
from certfleet.lifecycle.hosts import unmade
from certfleet.lifecycle.hosts.errands import CLEANUP, app_of
from certfleet.lifecycle.records import host_member
from certfleet.models import Host

if TYPE_CHECKING:
    from certfleet.install.answer import Point
    from certfleet.install.pinning import Approve

from certfleet.client.desk import Desk, Done, asked_now


class HostRequests(Desk):
    """Adding hosts, trusting, setting up, checking, cleaning and removing them."""

    async def require_addable(self, host: Host) -> None:
        """Raises UsageError for a host that cannot be added, pinned or not: before anybody is asked about its key."""
        check_name("host", host.name)
        if host.zone is not None:
            check_name("zone", host.zone)
        # It becomes a line of the web server's configuration: nothing that means something there.
        if not re.fullmatch(r"/[A-Za-z0-9._/@+-]*", host.root) or ".." in host.root.split("/"):
            wanted = "is not an absolute path of letters, digits and . _ - + @: give one such as /var/lib/certificates"
            raise UsageError("root", host.root, wanted)
        check_address(host.address)
        check_server(host)
        if host.driver != "local":
            for login in (*(hop.login for hop in host.jump), host.login):
                parse_login(login)
        if await self._fleet.inventory.find_hosts([host.name]):
            raise host_exists(host.name)

    async def add_host(self, host: Host) -> None:
        """Add a host. Raises UsageError."""
        await self.require_addable(host)
        if host.driver != "local" and not all((*(hop.host_keys for hop in host.jump), host.host_keys)):
            raise UsageError("host key", None, f"{host.login} has to be pinned, so that nobody can pose as it")
        await self._fleet.inventory.add_host(host)
        await self._fleet.journal.write(host.name, "host added", f"driver {host.driver}, preset {host.preset}")

    async def pin(self, host: Host, approve: Approve) -> Host:
        """The host with the keys that it and its jump hosts show to this machine, each approved (install/pinning.py).

        Raises UsageError, HostUnreachable.
        """
        from certfleet.install.pinning import pin  # noqa: PLC0415  170 ms of asyncssh that a quick `ls` does not need

        return await pin(host, approve)

    async def trust_host(self, name: str, approve: Approve) -> Done:
        """Pin the keys that a host shows now, and try again what failed there. Raises UsageError, HostUnreachable."""
        before = await self.host(name)
        if before.driver == "local":
            raise UsageError("host", name, "is this machine, it has no host key")
        host = await self.pin(before, approve)
        if host == before:
            return Done(changed=False, sentence=f"{name}: shows the key that is pinned already")
        await self._fleet.inventory.save_host(host, before)
        await self._fleet.journal.write(name, "host key pinned", host.login)
        await self._host_mended(name)
        return Done(changed=True, sentence=f"{name}: the host key is pinned")

    async def set_up_host(self, name: str, *, user: str | None = None, by: str | None = None) -> Host:
        """Put the receiver on a host, with its configuration and the key that may run it and nothing else.

        `user` runs it there, and is made when there is none (None: who the fleet logs in as). `by`, user or
        user@host[:port], is who does this, with this machine's SSH agent, keys and configuration (None: the same).
        Raises UsageError, InstallError, ConfigurationError.
        """
        from certfleet.lifecycle.hosts.host import set_up_host  # noqa: PLC0415  late as above

        host = await self.host(name)
        if host.driver != "ssh":
            key = f"; `certfleet host key | ssh root@{host.address} dokku ssh-keys:add certfleet` lets certfleet in"
            wanted = f"has the driver {host.driver}: there is nothing to set up on it"
            raise UsageError("host", name, wanted + key * (host.driver == "dokku"))
        login = parse_login(host.login)
        if user is not None and not re.fullmatch(r"[a-z_][a-z0-9_-]{0,31}", user):
            raise UsageError("user", user, "is not a user's name: give one such as certfleet")
        by = by or host.login
        admin = by if "@" in by else str(replace(login, user=by))
        parse_login(admin, "as")
        ready = await set_up_host(self._fleet, host, user=user or login.user, by=admin)
        await self._host_mended(name)
        return ready

    async def _host_mended(self, name: str) -> None:
        """Somebody has done something about a host: no back-off is waited for, and what it had is looked for."""
        apps = await self._fleet.inventory.find_apps(await self._fleet.inventory.hosted(name))
        for app in apps:
            await self._fleet.records.amend(app, name, asked_now)
        await self._fleet.records.audit_now([name])
        await self._look_again(list(apps.values()))
        await self._visit([name])

    async def check_host(self, name: str, *, reload: bool = False) -> list[Point]:
        """What works on a host, point by point. Raises UnknownName, InstallError, ConfigurationError.

        With `reload` its web server is reloaded, the only proof that it may be. This asks from here: for a host in a
        zone, on a machine of that zone.
        """
        from certfleet.lifecycle.hosts.host import check_host  # noqa: PLC0415  late as above

        return await check_host(self._fleet, await self.host(name), reload=reload)

    async def installer_key(self) -> str:
        """The fleet's public SSH key, as a line of authorized_keys; made on first use. Raises ConfigurationError."""
        from certfleet.lifecycle.hosts.host import installer_key  # noqa: PLC0415  late as above

        return await installer_key(self._fleet)

    async def remove_host(self, name: str) -> None:
        """Forget a host that serves no app; its files stay. Raises UsageError."""
        await self._fleet.inventory.remove_host(name)
        await publishing.forget_host(self._fleet, name)
        await unmade.forget_host(self._fleet.store, name)
        await self._fleet.agenda.drop(host_member(name))
        for errand in await self._fleet.errands.forget(name):
            app = app_of(errand)
            if app is not None:
                await self._fleet.journal.write(app, "given up", f"{errand}: {name}: the host was removed")
        await self._fleet.journal.write(name, "host removed")

    async def hosts(self) -> list[Host]:
        """Every host by name."""
        return await self._fleet.inventory.hosts()

    async def host(self, name: str) -> Host:
        """One host. Raises UnknownName."""
        return await self._fleet.inventory.host(name)

    async def clean_up(self, names: Sequence[str] = ()) -> list[Done]:
        """Have old generations removed from the named hosts (none named: all). Raises UnknownName."""
        hosts = [await self.host(name) for name in names] if names else await self.hosts()
        await self._errand([host.name for host in hosts], CLEANUP)
        return [Done(changed=True, sentence=f"{host.name}: is being cleaned up") for host in hosts]
