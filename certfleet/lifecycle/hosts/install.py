"""One visit to a host: everything that waits for it, one configuration test, one reload, each app proven alone."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from certfleet.agenda import Claim
from certfleet.errors import InstallError, UnknownName, VaultError
from certfleet.install import presets
from certfleet.install.answer import Answer, AppAnswer, State
from certfleet.install.bundle import Item
from certfleet.key_place import may_have
from certfleet.lifecycle.challenges import publishing
from certfleet.lifecycle.hosts import errands, outcomes
from certfleet.lifecycle.hosts.audit import audit
from certfleet.lifecycle.hosts.endpoints import AFTER_RELOAD, ask, endpoint, shows
from certfleet.lifecycle.hosts.outcomes import Job
from certfleet.lifecycle.hosts.waves import Rollout, hosts_named, next_look, parse_waves, rollout
from certfleet.lifecycle.orders import host_key
from certfleet.lifecycle.records import Command, host_member
from certfleet.lifecycle.work import Next
from certfleet.lifecycle.workbench import Workbench
from certfleet.models import App, Certificate, Fault, Host, Installation, utcnow
from certfleet.properties import OF_THE_HOST, effective

GATHER = 0.05  # seconds: certificates that come together are installed together
GATHER_LONGEST = 1.0  # seconds, while more and more come
VISITS = 20  # per step; more would keep one host's claim for too long
BATCH = 200  # apps per visit; a bundle stays below a few megabytes
AFTER_ROLLBACK = 2.0  # seconds for the endpoint to show the old one again


@dataclass(frozen=True, slots=True)
class Waiting:
    """What waits for a host: jobs for now, and when to look at the others again."""

    jobs: Sequence[Job]
    again: datetime | None


async def install(bench: Workbench, claim: Claim) -> Next:
    """Visit a host until nothing waits for it."""
    try:
        host = await bench.fleet.inventory.host(claim.name)
    except UnknownName:
        return Next(None)
    await _gather(bench, host)
    errands_at = await errands.run(bench, claim, host)
    members: list[str] = []
    for visits in range(VISITS):
        published_at, orders = await publishing.visit(bench, host)
        made_at, ready = await host_key.visit(bench, claim, host)
        members += [*orders, *ready]
        waiting = await _waiting(bench, claim, host)
        if waiting.jobs:
            members += await _visit(bench, claim, host, waiting.jobs)
            continue
        audit_at = await audit(bench, claim, host, visited=visits > 0)
        if audit_at is None or audit_at > utcnow():
            times = [at for at in (waiting.again, errands_at, audit_at, published_at, made_at) if at is not None]
            return Next(min(times, default=None), tuple(members))
    return Next(utcnow(), tuple(members))


async def _gather(bench: Workbench, host: Host) -> None:
    """Wait a moment, and on while more certificates come for this host."""
    loop = asyncio.get_running_loop()
    deadline, before = loop.time() + GATHER_LONGEST, -1
    while (now := await bench.fleet.records.gathered(host.name)) != before and loop.time() < deadline:
        before = now
        await asyncio.sleep(GATHER)


async def _waiting(bench: Workbench, claim: Claim, host: Host) -> Waiting:
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
        installation = known[name].get(host.name, Installation(name, host.name))
        if app is None or certificate is None or not _is_wanted(app, certificate, host.name):
            await records.forget_pending(claim, name, known[name].get(host.name))
            continue
        if _is_done(installation, certificate.generation):
            await records.forget_pending(claim, name, known[name].get(host.name))
            continue
        properties = effective(app.properties, everywhere)
        standing = rollout(app.hosts, known[name], certificate.generation, parse_waves(properties["wave"]))
        if installation.retry_at is not None and installation.retry_at > now:
            later.append(installation.retry_at)
        elif host.name in standing.held:
            later.append(now + next_look(standing))
        elif len(jobs) < BATCH:
            jobs.append(Job(app, certificate, installation, properties, standing))
    return Waiting(jobs, min(later, default=None))


def _is_wanted(app: App, certificate: Certificate, host: str) -> bool:
    return app.enabled and host in app.hosts and may_have(certificate, host)


def _is_done(installation: Installation, generation: int) -> bool:
    """It was put on the list by somebody who did not know yet."""
    everywhere = installation.wanted == installation.installed == installation.served == generation
    return everywhere and installation.error is None


async def _visit(bench: Workbench, claim: Claim, host: Host, jobs: Sequence[Job]) -> list[str]:
    """Install the jobs, prove each at the live endpoint, put back what is not served, keep what became of them.

    The answer: agenda members of the hosts whose turn has come by that.
    """
    items, failures = await _items(bench, host, jobs)
    await _keep(bench, claim, jobs, failures)
    jobs, lost = [job for job in jobs if job.app.name in items], list[str]()
    if jobs:
        try:
            answer = await bench.driver(host).install(host, list(items.values()))
        except InstallError as error:
            await _keep(bench, claim, jobs, [outcomes.untaken(job, error, utcnow()) for job in jobs])
        else:
            results = await _proven(bench, host, jobs, answer)
            keyless = [job for job in jobs if answer.apps[job.app.name].state is State.KEY_LOST]
            lost += [await host_key.lost(bench.fleet, job.certificate, host.name) for job in keyless]
            await _keep(bench, claim, jobs, await _put_back(bench, host, jobs, answer, results))
    return [*lost, *await _next_in_waves(bench, host, jobs)]


async def _items(bench: Workbench, host: Host, jobs: Sequence[Job]) -> tuple[dict[str, Item], list[Installation]]:
    """What goes to the host, by app; and the failures of those that cannot be sent."""
    chains = await bench.fleet.records.chains(job.certificate for job in jobs)
    items: dict[str, Item] = {}
    failures: list[Installation] = []
    for job in jobs:
        try:
            own = bool(job.certificate.key_on)
            private_key = b"" if own else bench.vault.open(job.certificate.sealed_key)
            listen = _listen(host, job)
        except (VaultError, InstallError) as error:
            failures.append(outcomes.failure(job, str(error), Fault.UNFIT, utcnow()))
            continue
        items[job.app.name] = Item(
            app=job.app.name,
            generation=job.certificate.generation,
            serial=job.certificate.serial,
            fullchain=job.certificate.leaf + chains[job.certificate.chain],
            private_key=private_key,
            port=int(job.properties["port"]),
            listen=listen,
            adopt=job.properties["adopt"] == "on",
            again=job.again,
            keep=int(job.properties["keep-generations"]),
            made_here=own,
        )
    return items, failures


def _listen(host: Host, job: Job) -> str:
    """The one address that the app's TLS listens on. Raises InstallError when the host has none."""
    listen = job.properties["listen"]
    if listen != OF_THE_HOST:
        return listen
    try:
        presets.endpoint(host.address, int(job.properties["port"]))
    except InstallError as error:
        raise InstallError(f"{job.app.name} is to listen on the host's address: {error}") from None
    return host.address


async def _proven(bench: Workbench, host: Host, jobs: Sequence[Job], answer: Answer) -> list[Installation]:
    """Ask the live endpoint for each certificate that the host took."""

    async def prove(job: Job, said: AppAnswer) -> Installation:
        if said.state not in (State.INSTALLED, State.UNCHANGED):
            return outcomes.refused(job, said, utcnow())
        try:
            await ask(bench, endpoint(job.app, host, job.properties), job.certificate, AFTER_RELOAD)
        except InstallError as error:
            return outcomes.unserved(job, said, error, utcnow())
        return outcomes.success(job, utcnow())

    return list(await asyncio.gather(*(prove(job, answer.apps[job.app.name]) for job in jobs)))


async def _put_back(
    bench: Workbench, host: Host, jobs: Sequence[Job], answer: Answer, results: Sequence[Installation]
) -> list[Installation]:
    """Put the old generations back where the new one is not served, and look whether they are."""
    back = {
        job.app.name: before
        for job, result in zip(jobs, results, strict=True)
        if result.fault is Fault.UNSERVED and (before := _before(job, answer.apps[job.app.name])) is not None
    }
    if not back:
        return list(results)
    try:
        said: Mapping[str, AppAnswer] = (await bench.driver(host).rollback(host, back)).apps
    except InstallError as error:
        return [outcomes.not_put_back(one, error.at(host.name)) if one.app in back else one for one in results]

    async def finish(job: Job, result: Installation) -> Installation:
        if job.app.name not in back:
            return result
        now = said[job.app.name]
        if now.state not in (State.ROLLED_BACK, State.UNCHANGED):
            return outcomes.not_put_back(result, now.message or str(now.state))
        at = endpoint(job.app, host, job.properties)
        served = now.generation > 0 and await shows(bench, at, now.serial, AFTER_ROLLBACK)
        return outcomes.put_back(result, now.generation, served=served)

    return list(await asyncio.gather(*(finish(job, result) for job, result in zip(jobs, results, strict=True))))


def _before(job: Job, said: AppAnswer) -> int | None:
    """The generation to go back to (0: none was there); None when the same was only put there anew."""
    generation, known = job.certificate.generation, job.installation.installed
    if said.state is State.INSTALLED and said.previous != generation:
        return said.previous
    if said.state is State.UNCHANGED and 0 < known < generation:  # put there by a visit of whose end we never heard
        return known
    return None


async def _keep(bench: Workbench, claim: Claim, jobs: Sequence[Job], results: Sequence[Installation]) -> None:
    if not results:
        return
    records, commands = bench.fleet.records, list[Command]()
    before = {job.app.name: job.installation for job in jobs}
    for result in results:
        event = "install failed" if result.error else "served"
        detail = f"{result.host}: {result.error or f'generation {result.served}'}"
        failed = result.error is not None
        commands += records.failure_saved(before[result.app], result) if failed else records.outcome_saved(result)
        commands.append(bench.fleet.journal.entry(result.app, event, detail))
    await records.write(claim, commands)


async def _next_in_waves(bench: Workbench, host: Host, jobs: Sequence[Job]) -> list[str]:
    """After what became of the jobs was written: wake the hosts whose turn it is by that, or say that nobody's is."""
    fleet, members = bench.fleet, list[str]()
    spread = [job for job in jobs if len(job.app.hosts) > 1]
    # Read again: the last of several visits that end at once sees what all of them have written.
    known = await fleet.records.installations_of([job.app.name for job in spread])
    for job in spread:
        waves = parse_waves(job.properties["wave"])
        now = rollout(job.app.hosts, known[job.app.name], job.certificate.generation, waves)
        held = set(job.standing.held)
        members += [host_member(name) for name in now.go if name in held]
        if (why := _stopped(job, now, host.name)) is not None:
            await fleet.journal.write(job.app.name, "wave stopped", why)
        elif (who := _goes_on(job, now)) is not None:
            await fleet.journal.write(job.app.name, "wave goes on", who)
    members = list(dict.fromkeys(members))
    for member in members:
        await fleet.agenda.schedule(member, utcnow())
    return members


def _stopped(job: Job, now: Rollout, host: str) -> str | None:
    """What to tell when this host is the first whose failure holds others."""
    if host not in now.stopped_by or not now.held or job.standing.stopped_by:
        return None
    kept = f"{len(now.held)} hosts keep the certificate they have ({hosts_named(now.held)})"
    mended = f"`certfleet renew {job.app.name}` goes on when it is mended"
    return f"generation {job.certificate.generation} failed on {host}: {kept}; {mended}"


def _goes_on(job: Job, now: Rollout) -> str | None:
    """What to tell when others were held by this host's failures, and are not any longer."""
    held = set(job.standing.held)
    woken = [name for name in now.go if name in held]
    if not woken or not job.installation.attempts:
        return None
    return f"generation {job.certificate.generation} goes to {hosts_named(woken)}"
