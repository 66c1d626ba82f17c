"""A fleet of real hosts for a test: `async with hosts(directory, 20) as fleet`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from certfleet.demo.ports import free_port
from tests.hosts import namespaces
from tests.hosts.machine import Machine

MOST = 250  # hosts in one fleet: what fits into the last number of an address
AT_ONCE = 8  # hosts that boot at the same time


@dataclass(frozen=True, slots=True)
class Hosts:
    """The hosts, and the one key that may log in to each of them."""

    machines: Sequence[Machine]
    key: Path
    """A private key in OpenSSH's format; its public half is in every host's authorized_keys."""
    public_key: str
    gateway: str
    """Where every host finds this machine."""
    http_port: int
    """The same on each host: where a CA looks for challenges."""

    def __getitem__(self, number: int) -> Machine:
        return self.machines[number]

    def __len__(self) -> int:
        return len(self.machines)

    def ssh(self, machine: Machine, *command: str) -> tuple[str, ...]:
        """OpenSSH's own client, with this key and that host's key pinned; for what it is to run there."""
        known = machine.directory / "known_hosts"
        known.write_text(f"[{machine.address}]:{machine.ssh_port} {machine.host_key}\n")
        if machine.ssh_port == 22:
            known.write_text(f"{machine.address} {machine.host_key}\n")
        options = {
            "IdentitiesOnly": "yes",
            "IdentityFile": str(self.key),
            "UserKnownHostsFile": str(known),
            "StrictHostKeyChecking": "yes",
            "BatchMode": "yes",
            "ConnectTimeout": "10",
        }
        words = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
        user, _, _ = machine.login.partition("@")
        return ("ssh", "-F", "none", *words, "-p", str(machine.ssh_port), f"{user}@{machine.address}", *command)


@asynccontextmanager
async def hosts(directory: Path, count: int) -> AsyncIterator[Hosts]:
    """Boot `count` hosts named web1, web2, …; nothing of them outlives the block, or the test.

    In namespaces each has an address and the usual ports of its own, and Debian's paths. Where the machine does
    not allow that, they are 127.0.0.2, 127.0.0.3, … with high ports and directories below `directory`.
    """
    assert 1 <= count <= MOST
    key, public_key = _client_key(directory)
    async with _machines(directory, count) as machines:
        await asyncio.gather(*(machine.furnish(public_key) for machine in machines))
        at_once = asyncio.Semaphore(AT_ONCE)

        async def start(machine: Machine) -> None:
            async with at_once:
                await machine.start()

        await asyncio.gather(*map(start, machines))
        yield Hosts(machines, key, public_key, machines[0].gateway, machines[0].http_port)


@asynccontextmanager
async def _machines(directory: Path, count: int) -> AsyncIterator[list[Machine]]:
    made: list[Machine] = []
    try:
        if namespaces.allowed():
            subnet = namespaces.free_subnet()
            for number in range(1, count + 1):
                # One by one into the list, so that those that are there are ended when a later one does not boot.
                made.append(await _in_namespaces(directory, subnet, number))  # noqa: PERF401
        else:
            ports = free_port(), free_port(), free_port()
            made += [_on_loopback(directory, number, *ports) for number in range(1, count + 1)]
        yield made
    finally:
        await asyncio.gather(*(machine.end() for machine in made))


async def _in_namespaces(directory: Path, subnet: str, number: int) -> Machine:
    name = f"web{number}"
    own = _own_directory(directory, name)
    (own / "disk").mkdir()
    place = await namespaces.place(own / "disk", name, subnet, number + 1)
    return Machine(name, own, place.address, place.gateway, 22, 80, 443, place)


def _on_loopback(directory: Path, number: int, ssh_port: int, http_port: int, tls_port: int) -> Machine:
    name = f"web{number}"
    own = _own_directory(directory, name)
    return Machine(name, own, f"127.0.0.{number + 1}", "127.0.0.1", ssh_port, http_port, tls_port, None)


def _own_directory(directory: Path, name: str) -> Path:
    own = directory / name
    own.mkdir(mode=0o755, parents=True)
    return own


def _client_key(directory: Path) -> tuple[Path, str]:
    key = ed25519.Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    directory.mkdir(parents=True, exist_ok=True)
    file = directory / "client_key"
    file.touch(mode=0o600)
    file.write_bytes(private)
    return file, public.decode()
