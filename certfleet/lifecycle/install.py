"""One visit to a host: everything that waits for it, one configuration test, one reload, each app proven alone."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from certfleet.agenda import Claim
from certfleet.errors import InstallError, UnknownName, VaultError
from certfleet.install.answer import Answer, AppAnswer, State
from certfleet.install.bundle import Item
from certfleet.install.drivers import driver_for
from certfleet.install.probe import probe
from certfleet.lifecycle.records import Command
from certfleet.lifecycle.renewal import retry_after
from certfleet.lifecycle.work import Next
from certfleet.lifecycle.workbench import Workbench
from certfleet.models import App, Certificate, Host, Installation, utcnow
from certfleet.properties import effective

GATHER = 0.05  # seconds: certificates that come together are installed together
VISITS = 20  # per step; more would keep one host's claim for too long
BATCH = 200  # apps per visit; a bundle stays below a few megabytes
PROBES = 50  # handshakes at once


@dataclass(frozen=True, slots=True)
class Job:
    """One app's newest certificate for one host."""

    app: App
    certificate: Certificate
    installation: Installation
    properties: dict[str, str]


@dataclass(frozen=True, slots=True)
class Waiting:
    """What waits for a host: jobs for now, and when the earliest failed one is tried again."""

    jobs: Sequence[Job]
    again: datetime | None


async def install(bench: Workbench, claim: Claim) -> Next:
    """Visit a host until nothing waits for it."""
    try:
        host = await bench.fleet.inventory.host(claim.name)
    except UnknownName:
        return Next(None)
    await asyncio.sleep(GATHER)
    for _ in range(VISITS):
        waiting = await _waiting(bench, host)
        if not waiting.jobs:
            return Next(waiting.again)
        await _visit(bench, claim, host, waiting.jobs)
    return Next(utcnow())


async def _waiting(bench: Workbench, host: Host) -> Waiting:
    records, inventory, now = bench.fleet.records, bench.fleet.inventory, utcnow()
    names = await records.pending(host.name)
    apps = await inventory.find_apps(names)
    certificates = await records.certificates(names)
    known = await records.installations_of(names)
    everywhere = await inventory.properties()
    jobs: list[Job] = []
    later: list[datetime] = []
    for name in names:
        app, certificate = apps.get(name), certificates.get(name)
        if app is None or certificate is None or host.name not in app.hosts:
            await records.forget_pending(host.name, name)
            continue
        installation = known[name].get(host.name, Installation(name, host.name))
        if installation.retry_at is not None and installation.retry_at > now:
            later.append(installation.retry_at)
        elif len(jobs) < BATCH:
            jobs.append(Job(app, certificate, installation, effective(app.properties, everywhere)))
    return Waiting(jobs, min(later, default=None))


async def _visit(bench: Workbench, claim: Claim, host: Host, jobs: Sequence[Job]) -> None:
    """Install the jobs, prove each at the live endpoint, put back what is not served, keep the outcome."""
    items, sealed = await _items(bench, jobs)
    jobs = [job for job in jobs if job.app.name in items]
    await _keep(bench, claim, sealed)
    if not jobs:
        return
    try:
        answer = await driver_for(host).install(host, list(items.values()))
    except InstallError as error:
        await _keep(bench, claim, [_failed(job, str(error)) for job in jobs])
        return
    outcomes = await _proven(host, jobs, answer)
    back = {
        job.app.name: answer.apps[job.app.name].previous
        for job, outcome in zip(jobs, outcomes, strict=True)
        if outcome.error and answer.apps[job.app.name].state is State.INSTALLED
    }
    if back:
        outcomes = await _rolled_back(host, outcomes, back)
    await _keep(bench, claim, outcomes)


async def _items(bench: Workbench, jobs: Sequence[Job]) -> tuple[dict[str, Item], list[Installation]]:
    """What goes to the host, by app; and the failures of those whose key cannot be opened."""
    chains = await bench.fleet.records.chains(job.certificate for job in jobs)
    items: dict[str, Item] = {}
    failures: list[Installation] = []
    for job in jobs:
        try:
            private_key = bench.vault.open(job.certificate.sealed_key)
        except VaultError as error:
            failures.append(_failed(job, str(error)))
            continue
        items[job.app.name] = Item(
            app=job.app.name,
            generation=job.certificate.generation,
            serial=job.certificate.serial,
            fullchain=job.certificate.leaf + chains[job.certificate.chain],
            private_key=private_key,
            port=int(job.properties["port"]),
            listen=job.properties["listen"],
            adopt=job.properties["adopt"] == "on",
        )
    return items, failures


async def _proven(host: Host, jobs: Sequence[Job], answer: Answer) -> list[Installation]:
    """Ask the live endpoint for each certificate that the host took."""
    at_once = asyncio.Semaphore(PROBES)

    async def prove(job: Job, said: AppAnswer) -> Installation:
        if said.state not in (State.INSTALLED, State.UNCHANGED):
            installed = replace(job.installation, installed=said.generation)
            return _failed(replace(job, installation=installed), _reason(job, said))
        name, port = job.app.identifiers[0], int(job.properties["port"])
        try:
            async with at_once:
                await probe(host.address, port, name, job.certificate.serial)
        except InstallError as error:
            return _failed(job, str(error))
        generation = job.certificate.generation
        return Installation(
            job.app.name, host.name, wanted=generation, installed=generation, served=generation, changed=utcnow()
        )

    return list(await asyncio.gather(*(prove(job, answer.apps[job.app.name]) for job in jobs)))


def _reason(job: Job, said: AppAnswer) -> str:
    match said.state:
        case State.FOREIGN:
            return f"{said.message}; `certfleet enable {job.app.name} --adopt` takes it over"
        case State.STALE:
            newer = f"`certfleet renew {job.app.name} --force` makes one above it"
            return f"the host has generation {said.generation}, which this fleet does not know (restored?): {newer}"
        case State.BROKEN_BEFORE:
            return f"the web server's configuration was broken before we came, nothing was touched: {said.message}"
        case _:
            return f"the web server refused it, the old one is back: {said.message}"


def _failed(job: Job, error: str) -> Installation:
    attempts = job.installation.attempts + 1
    now = utcnow()
    return replace(
        job.installation,
        wanted=job.certificate.generation,
        error=" ".join(error.split()),  # a web server says it in several lines
        attempts=attempts,
        retry_at=now + retry_after(attempts),
        changed=now,
    )


async def _rolled_back(host: Host, outcomes: list[Installation], back: Mapping[str, int]) -> list[Installation]:
    """Put the old generations back where the new one is not served; say so when even that fails."""
    try:
        await driver_for(host).rollback(host, back)
    except InstallError as error:
        return [
            replace(outcome, error=f"{outcome.error}; putting the old one back failed too: {error}")
            if outcome.app in back
            else outcome
            for outcome in outcomes
        ]
    return [
        replace(outcome, installed=back[outcome.app], error=f"{outcome.error}; the old one is back")
        if outcome.app in back
        else outcome
        for outcome in outcomes
    ]


async def _keep(bench: Workbench, claim: Claim, outcomes: Sequence[Installation]) -> None:
    if not outcomes:
        return
    commands: list[Command] = []
    for outcome in outcomes:
        event = "install failed" if outcome.error else "served"
        detail = f"{outcome.host}: {outcome.error or f'generation {outcome.served}'}"
        commands += bench.fleet.records.outcome_saved(outcome)
        commands.append(bench.fleet.journal.entry(outcome.app, event, detail))
    await bench.fleet.records.write(claim, commands)
