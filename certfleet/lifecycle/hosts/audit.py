"""Asking a host what is current there, for all its apps at once: what its web server would serve after a restart."""

from __future__ import annotations

from datetime import datetime, timedelta

import structlog

from certfleet.agenda import Claim
from certfleet.errors import InstallError
from certfleet.lifecycle.hosts import drift
from certfleet.lifecycle.records import Command
from certfleet.lifecycle.workbench import Workbench
from certfleet.models import Host, utcnow

log = structlog.get_logger(__name__)

SOON = timedelta(minutes=1)
"""After a visit: it has been there a moment ago, and whoever waits for its next message comes first."""
PAGE = 500  # apps compared at once


async def audit(bench: Workbench, claim: Claim, host: Host, *, visited: bool) -> datetime | None:
    """Ask when it is time; when to ask again (a time that has come: now there is something to visit for). None: never.

    Raises LeaseLost.
    """
    fleet, now = bench.fleet, utcnow()
    apps = await fleet.inventory.hosted(host.name)
    if not apps:
        return None
    last = await fleet.records.audit_time(host.name)
    if last is None:  # its first visit
        await fleet.records.note_audit(host.name, now)
        return drift.audit_at(host.name, now)
    due = drift.audit_at(host.name, last)
    if due > now:
        return due
    if visited:
        return now + SOON
    await fleet.records.note_audit(host.name, now)
    try:
        said = (await bench.driver(host).status(host)).apps
    except InstallError as error:  # its apps' endpoints tell whether anything is wrong
        log.info("host could not be asked", host=host.name, error=str(error))
        return drift.audit_at(host.name, now)
    wrong = 0
    for start in range(0, len(apps), PAGE):
        names = apps[start : start + PAGE]
        found = await fleet.inventory.find_apps(names)
        certificates = await fleet.records.certificates(names)
        known = await fleet.records.installations_of(names)
        commands: list[Command] = []
        for name in names:
            installation, certificate = known[name].get(host.name), certificates.get(name)
            if installation is None or certificate is None or name not in found or not found[name].enabled:
                continue
            fault = drift.audited(installation, said.get(name), certificate)
            if fault is not None:
                wrong += 1
                commands += fleet.records.outcome_saved(drift.found(installation, said.get(name), fault, now))
                commands.append(fleet.journal.entry(name, "drift", f"{host.name}: {fault}"))
        await fleet.records.write(claim, commands)
    return now if wrong else drift.audit_at(host.name, now)
