"""The fleet's steps over SSH: hosts of the rig with the receiver on them, and the fleet's own key let in."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from certfleet.client import Client
from certfleet.install.installer import Installer
from certfleet.install.probe import probe
from certfleet.lifecycle.workbench import open_workbench
from certfleet.models import Host, Installation
from certfleet.settings import Settings
from certfleet.vault import ensure_key
from tests.hosts.fleet import Hosts, hosts
from tests.hosts.machine import Machine
from tests.hosts.receiving import receive
from tests.install.certificates import item, name_of
from tests.lifecycle.farm import CA, Farm


@dataclass
class Field(Farm):
    """A farm whose hosts are reached over SSH; no CA and no workers: the test runs the steps that are due."""

    fleet: Hosts

    async def reload(self) -> None:
        """All web servers take up their sites."""
        for machine in self.fleet.machines:
            await machine.reload_nginx()

    def machine(self, host: str) -> Machine:
        """The host as the rig has it."""
        return next(machine for machine in self.fleet.machines if machine.name == host)

    async def change_host(self, name: str, **changes: Any) -> None:
        """Another login or host key, say."""
        before = self.hosts[name]
        self.hosts[name] = dataclasses.replace(before, **changes)
        await self.bench.fleet.inventory.save_host(self.hosts[name], before)

    async def again(self, app: str, host: str) -> Installation:
        """Try at once what is to be tried again later."""
        records = self.bench.fleet.records
        await records.amend(app, host, lambda known: dataclasses.replace(known, retry_at=None), pending=True)
        await self.visit(host)
        return await self.one(app, host)

    async def proven(self, app: str, host: str, serial: str) -> None:
        """A handshake with the host shows this certificate, and so that its key belongs to it."""
        await probe(self.hosts[host].address, self.port, name_of(app), serial, patience=30)

    async def one(self, app: str, host: str) -> Installation:
        """What is known of an app on a host."""
        return (await self.state(app))[host]

    def current(self, app: str, host: str) -> int:
        """The generation that is current, by the host's own tree; 0: none."""
        link = self.machine(host).root_path / app / "current"
        return int(str(link.readlink())) if link.is_symlink() else 0


@asynccontextmanager
async def field(directory: Path, settings: Settings, count: int) -> AsyncIterator[Field]:
    """Hosts web1, web2, …; nothing of it outlives the block."""
    ensure_key(settings)
    async with AsyncExitStack() as stack:
        fleet = await stack.enter_async_context(hosts(directory / "hosts", count))
        bench = await stack.enter_async_context(open_workbench(settings))
        client = Client(bench.fleet)
        public_key = await Installer(bench.fleet.store, bench.vault).public_key()
        known: dict[str, Host] = {}
        for machine in fleet.machines:
            receive(machine, public_key)
            known[machine.name] = ssh_host(machine)
            await client.add_host(known[machine.name])
        roots = item("any").fullchain  # of a CA that nobody ever asks
        await client.set_properties(
            {"listen": "host", "port": str(fleet[0].tls_port), "ca": CA, "ca-bundle": roots, "wave": "100%"}
        )
        servers: Any = {machine.name: machine for machine in fleet.machines}
        yield Field(bench, client, servers, known, fleet[0].tls_port, fleet)


def ssh_host(machine: Machine) -> Host:
    """The host as the fleet knows it."""
    return Host(
        machine.name,
        driver="ssh",
        address=machine.address,
        root=machine.root,
        login=machine.login,
        host_keys=(machine.host_key,),
    )
