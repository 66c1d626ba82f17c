"""A person who adds hosts and sets them up: with a home, a key and this machine's SSH."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncssh

from certfleet.client import Client, open_client
from certfleet.install.drivers import Drivers
from certfleet.install.installer import Installer
from certfleet.settings import Settings
from certfleet.store import Store
from certfleet.vault import Vault
from tests.hosts.fleet import Hosts, hosts
from tests.hosts.machine import Machine
from tests.rig import run_certfleet

Said = subprocess.CompletedProcess[str]


@dataclass(frozen=True)
class Desk:
    """A person's place: a home with a key and ~/.ssh, the fleet's settings, and hosts that take that key for root."""

    hosts: Hosts
    home: Path
    settings: Settings
    client: Client
    store: Store

    def run(self, *words: str) -> Said:
        """Run `certfleet` as that person."""
        assert self.settings.redis_url is not None
        return run_certfleet(
            *words,
            environment={
                "PATH": os.environ["PATH"],
                "HOME": str(self.home),
                "LOGNAME": "person",
                "CERTFLEET_HOME": str(self.settings.home),
                "CERTFLEET_REDIS_URL": self.settings.redis_url.get_secret_value(),
            },
        )

    async def done(self, *words: str, status: int = 0) -> str:
        """Run what has to succeed."""
        said = await asyncio.to_thread(self.run, *words)
        assert said.returncode == status, (words, said.stdout, said.stderr)
        return said.stdout

    async def refused(self, *words: str, status: int = 2) -> str:
        """Run what has to fail, with its one sentence."""
        said = await asyncio.to_thread(self.run, *words)
        assert said.returncode == status, (words, said.stdout, said.stderr)
        return said.stderr

    async def points(self, *words: str) -> dict[str, dict[str, Any]]:
        """`host check --json`, by point."""
        said = await asyncio.to_thread(self.run, "host", "check", "web1", "--json", *words)
        told = json.loads(said.stdout)
        assert (told["version"], told["host"]) == (1, "web1")
        assert told["ok"] == all(point["ok"] for point in told["points"]) == (said.returncode == 0)
        return {point["name"]: point for point in told["points"]}

    async def failing(self, *words: str) -> dict[str, str]:
        """What does not work, with its words."""
        return {name: point["message"] for name, point in (await self.points(*words)).items() if not point["ok"]}

    async def add(self, *words: str) -> None:
        """Add the first host."""
        key = fingerprint(self.hosts[0])
        await self.done("host", "add", "web1", "--ssh", self.hosts[0].login, "--fingerprint", key, *words)

    async def driver(self) -> Drivers:
        """What a worker has."""
        return Drivers(Installer(self.store, Vault(self.settings)))


def fingerprint(machine: Machine) -> str:
    """Of its host key."""
    return asyncssh.import_public_key(machine.host_key).get_fingerprint()


@asynccontextmanager
async def desk_with_one_host(directory: Path, settings: Settings, store: Store) -> AsyncIterator[Desk]:
    """And `web1`, as Debian sets it up."""
    async with hosts(directory / "hosts", 1) as fleet, open_client(settings) as client:
        with fleet[0].path("/etc/hosts").open("a") as file:
            file.write("127.0.1.1 web1\n")  # as Debian's installer does; sudo looks itself up
        home = directory / "person"
        (home / ".ssh").mkdir(parents=True, mode=0o700)
        shutil.copy(fleet.key, home / ".ssh" / "id_ed25519")
        yield Desk(fleet, home, settings, client, store)
