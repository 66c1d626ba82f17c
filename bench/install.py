"""Installing over SSH: hosts and certificates per second and CPU per host, beside `ssh` and `scp` for each certificate.

Many hosts with one certificate each, and one host with many; on new connections and on kept ones. Real sshds and real
nginx, each in its own network namespace where the machine allows it. Every round brings new certificates, installed
when nginx has been reloaded; that they are served is looked at afterwards, off the clock.
"""

from __future__ import annotations

import argparse
import asyncio
import platform
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import asyncssh

from bench import BenchFailed
from bench.cpu import of_trees
from bench.machine import first_line, machine
from bench.rounds import say
from bench.scp import OpenSSH
from certfleet.cli.output import print_json, print_table
from certfleet.install.answer import State
from certfleet.install.bundle import Item
from certfleet.install.drivers.connections import Connections
from certfleet.install.drivers.ssh import SSH
from certfleet.install.installer import Installer
from certfleet.install.probe import probe
from certfleet.install.snippet import snippet
from certfleet.models import App, Host
from tests.hosts.field import ssh_host
from tests.hosts.fleet import Hosts, hosts
from tests.hosts.machine import Machine
from tests.hosts.receiving import receive
from tests.hosts.sessions import KeyAtHand
from tests.install.certificates import item, name_of

PEERS = 20
"""Certificates of each peer: one by one on one host, or one on each of so many hosts."""
ROUNDS = 3
SERVED = 30.0  # seconds for the last nginx to show what was installed


@dataclass(frozen=True, slots=True)
class Case:
    """What is installed where."""

    key: str
    """`hosts` (many hosts, one certificate each) or `certificates` (one host, many)."""
    hosts: int
    certificates: int
    """On each host."""


@dataclass(frozen=True, slots=True)
class Figures:
    """What one way of installing did in one case, over all rounds."""

    case: str
    way: str
    """`new` or `kept` connections; for peers what they are."""
    hosts: int
    certificates: int
    """Of a round, on all hosts together."""
    rounds: int
    hosts_per_second: float
    certificates_per_second: float
    cpu_ms_per_host: float
    """Of the installing side, with its child processes."""
    host_cpu_ms_per_host: float
    """Of everything that runs on a host: sshd, receiver, nginx -t, reload."""
    sessions: int
    """SSH sessions of a round."""
    reloads: int
    """Of a round, by nginx's own error logs."""


@dataclass(frozen=True, slots=True)
class Result:
    """Everything measured; the fields of the JSON output. The first five are of many hosts on kept connections."""

    hosts_per_second: float
    certificates_per_second: float
    cpu_ms_per_host: float
    sessions: int
    reloads: int
    cases: list[Figures]
    peers: list[Figures]
    ratios: dict[str, float]
    """By peer and case: our rate on kept connections by theirs, and our CPU by theirs."""
    namespaces: bool
    machine: dict[str, Any]
    versions: dict[str, str]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What can be chosen."""
    parser.add_argument("--hosts", type=_hosts, default=50, metavar="N", help="hosts (2 to 200, 50)")
    parser.add_argument(
        "--certificates", type=_certificates, default=200, metavar="N", help="on the one host (2 to 1000, 200)"
    )
    parser.add_argument("--json", action="store_true", help="the figures as JSON on standard output")


def _hosts(text: str) -> int:
    return _number(text, 200)


def _certificates(text: str) -> int:
    return _number(text, 1000)


def _number(text: str, most: int) -> int:
    if not text.isdecimal() or not 2 <= int(text) <= most:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 2 to {most}")
    return int(text)


async def run(given: argparse.Namespace) -> None:
    """Measure and print. Raises BenchFailed, and InstallError when a host does not do what it should."""
    about = machine()
    # Short, for the paths of sockets; whatever TMPDIR says.
    directory = Path(tempfile.mkdtemp(prefix="certfleet-bench-", dir="/tmp"))
    try:
        result = await measure(directory, given.hosts, given.certificates, about)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    if given.json:
        print_json(**{name: getattr(result, name) for name in result.__dataclass_fields__})
    else:
        _show(result)


async def measure(directory: Path, count: int, certificates: int, about: dict[str, Any]) -> Result:
    """All cases on the same hosts, ours and the peers' in turn."""
    many, one = Case("hosts", count, 1), Case("certificates", 1, certificates)
    say(f"starting {count} hosts")
    async with hosts(directory / "hosts", count) as fleet:
        ground = await _furnished(fleet, (many, one))
        cases, peers = [], []
        for case in (many, one):
            for way in ("new", "kept"):
                say(f"{case.hosts} x {case.certificates}, {way} connections")
                cases.append(await _ours(ground, case, way))
            few = Case(case.key, min(case.hosts, PEERS), min(case.certificates, PEERS))
            for peer in (OpenSSH(fleet, kept=False), OpenSSH(fleet, kept=True)):
                say(f"{few.hosts} x {few.certificates}, {peer.name}")
                peers.append(await _theirs(ground, few, peer))
    kept = {figures.case: figures for figures in cases if figures.way == "kept"}
    first = kept["hosts"]
    return Result(
        hosts_per_second=first.hosts_per_second,
        certificates_per_second=first.certificates_per_second,
        cpu_ms_per_host=first.cpu_ms_per_host,
        sessions=first.sessions,
        reloads=first.reloads,
        cases=cases,
        peers=peers,
        ratios=_ratios(kept, peers),
        namespaces=fleet[0].place is not None,
        machine=about,
        versions=_versions(),
    )


@dataclass(slots=True)
class Ground:
    """The hosts, set up."""

    fleet: Hosts
    key: bytes
    """The fleet's private key, which may run the receiver alone."""
    known: dict[str, Host]
    generation: int = 0

    def items(self, case: Case) -> dict[Machine, list[Item]]:
        """New certificates for a round."""
        self.generation += 1
        return {
            one: [item(app, self.generation, port=one.tls_port, listen=one.listen) for app in _apps(case.certificates)]
            for one in self.fleet.machines[: case.hosts]
        }


def _apps(count: int) -> list[str]:
    return [f"app{number}" for number in range(1, count + 1)]


async def _furnished(fleet: Hosts, cases: Sequence[Case]) -> Ground:
    key = asyncssh.generate_private_key("ssh-ed25519")
    known = {}
    for number, one in enumerate(fleet.machines):
        receive(one, key.export_public_key().decode().strip())
        known[one.name] = ssh_host(one)
        sites = max(case.certificates for case in cases if number < case.hosts)
        for name in _apps(sites):
            app = App(name, (name_of(name),), (one.name,))
            one.add_site(name, app.identifiers, snippet(app, known[one.name], one.gateway, 8402))
    await asyncio.gather(*(one.reload_nginx() for one in fleet.machines))
    return Ground(fleet, key.export_private_key(), known)


class _Meter:
    """What a round took: time, our CPU and our children's, the hosts' CPU, sessions and reloads."""

    def __init__(self, machines: Sequence[Machine]) -> None:
        self._machines = machines
        self.seconds = self.ours = self.theirs = 0.0
        self.sessions = self.reloads = 0

    @asynccontextmanager
    async def round(self) -> AsyncIterator[None]:
        """Measure the block."""
        before = self._read()
        began = time.monotonic()
        yield
        self.seconds += time.monotonic() - began
        await asyncio.sleep(0.3)  # sshd's processes end after their answer; that is the host's CPU, too
        ours, theirs, sessions, reloads = (now - then for now, then in zip(self._read(), before, strict=True))
        self.ours += ours
        self.theirs += theirs
        self.sessions += int(sessions)
        self.reloads += int(reloads)

    def _read(self) -> tuple[float, float, float, float]:
        first = [pid for one in self._machines for pid in one.first_processes]
        used = time.process_time() + OpenSSH.children_seconds()
        return (
            used * 1000,
            of_trees(first),
            sum(one.commands() for one in self._machines),
            sum(one.reloads() for one in self._machines),
        )

    def figures(self, case: Case, way: str, rounds: int) -> Figures:
        """Per second, per host, per round."""
        visits = case.hosts * rounds
        return Figures(
            case=case.key,
            way=way,
            hosts=case.hosts,
            certificates=case.hosts * case.certificates,
            rounds=rounds,
            hosts_per_second=round(visits / self.seconds, 2),
            certificates_per_second=round(visits * case.certificates / self.seconds, 2),
            cpu_ms_per_host=round(self.ours / visits, 2),
            host_cpu_ms_per_host=round(self.theirs / visits, 2),
            sessions=round(self.sessions / rounds),
            reloads=round(self.reloads / rounds),
        )


async def _ours(ground: Ground, case: Case, way: str) -> Figures:
    """The driver of the workers, from the certificate in memory to nginx's reload."""
    meter = _Meter(ground.fleet.machines[: case.hosts])
    connections = _connections(ground)
    if way == "kept":
        await _visit(ground, SSH(connections), ground.items(case))
    for _ in range(ROUNDS):
        if way == "new":
            await connections.close()
            connections = _connections(ground)
        items = ground.items(case)
        async with meter.round():
            await _visit(ground, SSH(connections), items)
        await _all_served(items)
    await connections.close()
    return meter.figures(case, way, ROUNDS)


def _connections(ground: Ground) -> Connections:
    return Connections(cast("Installer", KeyAtHand(ground.key)))


async def _visit(ground: Ground, driver: SSH, items: dict[Machine, list[Item]]) -> None:
    answers = await asyncio.gather(*(driver.install(ground.known[one.name], batch) for one, batch in items.items()))
    for one, answer in zip(items, answers, strict=True):
        bad = {app: said.message for app, said in answer.apps.items() if said.state is not State.INSTALLED}
        if bad:
            raise BenchFailed(f"{one.name} did not take {len(bad)} certificates: {next(iter(bad.items()))}")


async def _theirs(ground: Ground, case: Case, peer: OpenSSH) -> Figures:
    machines = ground.fleet.machines[: case.hosts]
    meter = _Meter(machines)
    async with peer.ready(machines):
        items = ground.items(case)
        async with meter.round():
            await peer.install(items)
        await _all_served(items)
    return meter.figures(case, peer.key, 1)


async def _all_served(items: dict[Machine, list[Item]]) -> None:
    for one, batch in items.items():
        last = batch[-1]
        await probe(one.address, one.tls_port, name_of(last.app), last.serial, patience=SERVED)


def _ratios(kept: dict[str, Figures], peers: Sequence[Figures]) -> dict[str, float]:
    ratios = {}
    for peer in peers:
        ours = kept[peer.case]
        rate = ours.certificates_per_second / peer.certificates_per_second
        each = (
            ours.cpu_ms_per_host * ours.hosts / ours.certificates,
            peer.cpu_ms_per_host * peer.hosts / peer.certificates,
        )
        ratios[f"rate_{peer.case}_to_{peer.way}"] = round(rate, 2)
        ratios[f"cpu_{peer.case}_to_{peer.way}"] = round(each[0] / each[1], 3)
    return ratios


def _versions() -> dict[str, str]:
    return {
        "python": platform.python_version(),
        **{name: version(name) for name in ("certfleet", "asyncssh", "cryptography")},
        "openssh": first_line(["ssh", "-V"], r"OpenSSH_(\S+?),?\s"),
        "nginx": first_line(["nginx", "-v"], r"nginx/(\S+)"),
    }


def _show(result: Result) -> None:
    """A table on standard output."""
    rows = [
        (
            f"{f.hosts} x {f.certificates // f.hosts}, {'certfleet, ' if f in result.cases else ''}{f.way}",
            f"{f.hosts_per_second:g}",
            f"{f.certificates_per_second:g}",
            f"{f.cpu_ms_per_host:g}",
            f"{f.host_cpu_ms_per_host:g}",
            f.sessions,
            f.reloads,
        )
        for f in (*result.cases, *result.peers)
    ]
    print_table(("", "HOSTS/S", "CERTIFICATES/S", "CPU MS PER HOST", "HOST'S OWN", "SESSIONS", "RELOADS"), rows)
    print()
    for name, value in result.ratios.items():
        print(f"{name.replace('_', ' ')}: {value}")
    about, used = result.machine, result.versions
    print(
        f"\n{about['processor']}, {about['cores']} cores, {about['memory_gb']} GB, {about['system']}, "
        f"load before {about['load_before']}\n" + ", ".join(f"{name} {number}" for name, number in used.items())
    )
