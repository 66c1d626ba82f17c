"""The peer of the SSH driver: OpenSSH's own `scp`, then `ssh` with `nginx -t` and a reload, for each certificate."""

from __future__ import annotations

import asyncio
import resource
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from bench import BenchFailed
from certfleet.install.bundle import Item
from certfleet.install.presets import nginx_fragments
from tests.hosts.fleet import Hosts
from tests.hosts.machine import Machine

AT_ONCE = 8  # hosts; more are not quicker on two cores
LIMIT = 60.0  # seconds for one command


@dataclass(frozen=True, slots=True)
class OpenSSH:
    """One way of using it."""

    fleet: Hosts
    kept: bool
    """One connection for each host, shared by all commands (ControlMaster), or a new one for each command."""

    @property
    def key(self) -> str:
        """In the JSON output."""
        return "scp_ssh_kept" if self.kept else "scp_ssh"

    @property
    def name(self) -> str:
        """For people."""
        return f"scp and ssh for each certificate{', ControlMaster' * self.kept}"

    @staticmethod
    def children_seconds() -> float:
        """CPU of every command that has ended."""
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        return used.ru_utime + used.ru_stime

    @asynccontextmanager
    async def ready(self, machines: Sequence[Machine]) -> AsyncIterator[None]:
        """Open what is kept, before the clock runs; close it afterwards."""
        if not self.kept:
            yield
            return
        await asyncio.gather(*(_done(self._ssh(one, "-M", "-N", "-f")) for one in machines))
        try:
            yield
        finally:
            await asyncio.gather(*(_done(self._ssh(one, "-O", "exit")) for one in machines))

    async def install(self, items: dict[Machine, list[Item]]) -> None:
        """Each certificate by itself; hosts side by side."""
        at_once = asyncio.Semaphore(AT_ONCE)

        async def host(one: Machine, batch: list[Item]) -> None:
            async with at_once:
                for item in batch:
                    await self._install(one, item)

        await asyncio.gather(*(host(one, batch) for one, batch in items.items()))

    async def _install(self, one: Machine, item: Item) -> None:
        place = f"{one.root}/{item.app}/{item.generation}"
        files = {"fullchain.pem": item.fullchain.encode(), "privkey.pem": item.private_key}
        files |= nginx_fragments(app=item.app, root=one.root, port=item.port, listen=item.listen)
        with tempfile.TemporaryDirectory() as directory:
            for name, content in files.items():
                (Path(directory) / name).write_bytes(content)
            target = f"{self._target(one)}:{place}"
            await _done(("scp", "-q", "-r", *self._options(one), "-P", str(one.ssh_port), directory, target))
        test, reload = " ".join(one.test_command), " ".join(one.reload_command)
        switch = f"ln -sfn {item.generation} {one.root}/{item.app}/current && {test} && {reload}"
        await _done(self._ssh(one, *(), command=switch))

    def _target(self, one: Machine) -> str:
        return one.login.rpartition(":")[0]

    def _options(self, one: Machine) -> list[str]:
        # All but `ssh` itself at the head and port and target at the end.
        options = list(self.fleet.ssh(one))[1:-3]
        if self.kept:
            options += ["-o", f"ControlPath={one.directory}/control"]
        return options

    def _ssh(self, one: Machine, *flags: str, command: str = "") -> tuple[str, ...]:
        more = (command,) if command else ()
        return ("ssh", *self._options(one), *flags, "-p", str(one.ssh_port), self._target(one), *more)


async def _done(command: Sequence[str]) -> None:
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    if await asyncio.wait_for(process.wait(), LIMIT):
        raise BenchFailed(f"`{' '.join(command)}` ended with {process.returncode}")
