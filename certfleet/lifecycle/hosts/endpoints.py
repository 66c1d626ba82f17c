"""Asking the live endpoints: after an install, and with each expiry check."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from certfleet.agenda import Claim
from certfleet.errors import InstallError
from certfleet.install.probe import fingerprints, probe
from certfleet.lifecycle.hosts import drift
from certfleet.lifecycle.records import Command
from certfleet.lifecycle.workbench import Workbench
from certfleet.models import App, Certificate, Host, Installation, utcnow

AFTER_RELOAD = 5.0  # seconds: the web server takes up its new configuration in the background
AT_A_CHECK = 1.5  # seconds: enough for a second handshake when the first met a restart
LOOKS = 60.0  # seconds for one check's endpoints; those that were not asked then are asked with the next


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where one host serves an app."""

    address: str
    port: int
    name: str
    """What is asked for: the app's first name."""


def endpoint(app: App, host: Host, properties: Mapping[str, str]) -> Endpoint:
    """Where an app is asked for its certificate on a host."""
    return Endpoint(properties["address"] or host.address, int(properties["port"]), app.identifiers[0])


async def ask(bench: Workbench, at: Endpoint, certificate: Certificate, patience: float) -> None:
    """Return when an endpoint presents this certificate with its chain. Raises InstallError."""
    chain = bench.chains.get(certificate.chain)
    if chain is None:
        pem = (await bench.fleet.records.chains([certificate]))[certificate.chain]
        chain = bench.chains[certificate.chain] = fingerprints(pem)
    async with bench.handshakes:
        await probe(at.address, at.port, at.name, certificate.serial, chain, patience=patience)


async def shows(bench: Workbench, at: Endpoint, serial: str, patience: float) -> bool:
    """Whether an endpoint presents an older certificate, of which only the serial is known."""
    try:
        async with bench.handshakes:
            await probe(at.address, at.port, at.name, serial, patience=patience)
    except InstallError:
        return False
    return True


async def look(
    bench: Workbench, claim: Claim, certificate: Certificate, endpoints: Sequence[tuple[Endpoint, Installation]]
) -> list[Installation]:
    """Ask endpoints that served this certificate, and keep what they present; those that drifted. Raises LeaseLost."""
    records, journal = bench.fleet.records, bench.fleet.journal

    async def one(at: Endpoint, before: Installation) -> tuple[Installation, Installation]:
        failure = None
        try:
            await ask(bench, at, certificate, AT_A_CHECK)
        except InstallError as error:
            failure = error
        return before, drift.asked(before, failure, utcnow())

    if not endpoints:
        return []
    looks = [asyncio.create_task(one(at, before)) for at, before in endpoints]
    try:
        done, _ = await asyncio.wait(looks, timeout=LOOKS)
    finally:
        for task in looks:
            task.cancel()
    drifted: list[Installation] = []
    commands: list[Command] = []
    for before, after in (task.result() for task in done):
        commands += records.change_saved(before, after)
        if after.error != before.error:
            drifted.append(after)
            commands.append(journal.entry(after.app, "drift", f"{after.host}: {after.error}"))
    await records.write(claim, commands)
    return drifted
