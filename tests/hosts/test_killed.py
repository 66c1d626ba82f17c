"""kill -9 of the receiver before each of its lines, over SSH and before a real nginx."""

from __future__ import annotations

import asyncio
import dataclasses
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from certfleet.errors import InstallError
from certfleet.install.answer import State
from certfleet.install.bundle import Item
from certfleet.install.drivers.ssh import SSH
from certfleet.install.probe import probe, served
from certfleet.install.receiver import program
from certfleet.install.snippet import snippet
from certfleet.models import App, Host
from tests.hosts.field import ssh_host
from tests.hosts.fleet import Hosts, hosts
from tests.hosts.machine import Machine
from tests.hosts.receiving import PROGRAM, configure, put_program
from tests.hosts.sessions import sessions
from tests.install.certificates import item, name_of
from tests.install.killer import CLOSERS, LINES, killable, with_killer, with_trace

COUNT = 4  # hosts that are killed side by side
TRACE = "/var/trace"
NONSENSE = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"


@dataclass(slots=True)
class Victim:
    """A host that serves two apps; each run brings one good certificate and one that nginx refuses."""

    machine: Machine
    host: Host
    driver: SSH
    generation: int = 1
    blog: str = ""
    """The serial that is served."""
    shop: str = ""

    def batch(self) -> tuple[Item, Item]:
        """A good one and a bad one of the next generation."""
        self.generation += 1
        good, bad = (item(app, self.generation, port=443, listen="") for app in ("blog", "shop"))
        chain = bad.fullchain
        return good, dataclasses.replace(bad, fullchain=chain[: chain.index("-----BEGIN", 10)] + NONSENSE)

    async def killed(self, line: int) -> bool:
        """Kill before a line: whether the run came to it. Old or new is served, and the tree is whole."""
        put_program(self.machine, with_killer(line, 1))
        good, bad = self.batch()
        try:
            await self.driver.install(self.host, [good, bad])
        except InstallError as error:
            complaint = str(error)
        else:
            complaint = ""
        assert "ended with" in complaint or not complaint, f"line {line}: {complaint}"
        assert await self.sees("blog") in {self.blog, good.serial}, f"line {line}: {LINES[line]}"
        assert await self.sees("shop") == self.shop
        if not (self.machine.root_path / ".pending").exists():
            await self.machine.run(*self.machine.test_command)
        return bool(complaint)

    async def survives(self, line: int) -> None:
        """The next run cleans up, whatever was left, and everything is as if nothing had been."""
        put_program(self.machine, program())
        good, bad = self.batch()
        answer = await self.driver.install(self.host, [good, bad])
        states = {app: said.state for app, said in answer.apps.items()}
        assert states == {"blog": State.INSTALLED, "shop": State.FAILED}, f"after line {line}: {answer}"
        assert not answer.pending
        await probe(self.host.address, 443, name_of("blog"), good.serial)
        await self.machine.settled()
        self.blog = good.serial
        left = {path.name for path in self.machine.root_path.glob(".*")} - {".lock"}
        assert left == set(), f"after line {line}"

    async def sees(self, app: str) -> str | None:
        """What is served at this moment."""
        return await served(self.host.address, 443, name_of(app))


@pytest.fixture
async def victims(short_directory: Path) -> AsyncIterator[list[Victim]]:
    """Hosts with two apps that are served."""
    async with hosts(short_directory / "hosts", COUNT) as fleet, sessions(fleet) as connections:
        yield list(await asyncio.gather(*(victim(fleet, machine, SSH(connections)) for machine in fleet.machines)))


async def victim(fleet: Hosts, machine: Machine, driver: SSH) -> Victim:
    """Set one up."""
    if machine.place is None:
        pytest.skip("needs hosts with a file system of their own, which this machine does not allow")
    host = ssh_host(machine)
    (machine.path("/root/.ssh/authorized_keys")).write_text(f'command="{PROGRAM} serve",restrict {fleet.public_key}\n')
    put_program(machine, program())
    configure(machine, {})
    for app in ("blog", "shop"):
        site = App(app, (name_of(app),), (machine.name,))
        machine.add_site(app, site.identifiers, snippet(site, host, machine.gateway, 8402))
    await machine.reload_nginx()
    made = Victim(machine, host, driver)
    blog, shop = item("blog", 1, listen=""), item("shop", 1, listen="")
    await driver.install(host, [blog, shop])
    for one in (blog, shop):
        await probe(host.address, 443, name_of(one.app), one.serial)
    made.blog, made.shop = blog.serial, shop.serial
    return made


async def reached(one: Victim) -> list[int]:
    """The lines that an undisturbed run comes to."""
    possible = {number for number in killable() if LINES[number].strip() not in CLOSERS}
    put_program(one.machine, with_trace(possible, TRACE))
    await one.driver.install(one.host, one.batch())
    counted = Counter(int(word) for word in one.machine.path(TRACE).read_text().split())
    await one.survives(0)
    return [number for number in possible if counted[number]]


@pytest.mark.timeout(400)
async def test_killed(victims: list[Victim]) -> None:
    """Old or new is served after every kill, never none, and the next run puts everything in order."""
    lines = await reached(victims[0])
    outcomes: list[bool] = []

    async def through(one: Victim, share: list[int]) -> None:
        for line in share:
            outcomes.append(await one.killed(line))
            await one.survives(line)

    await asyncio.gather(*(through(one, lines[number::COUNT]) for number, one in enumerate(victims)))
    # The test would prove nothing if few of the lines had been reached.
    assert sum(outcomes) > 150, f"{sum(outcomes)} of {len(lines)}"
