"""What has to be done once on a host besides installing: an app's files taken away, old generations cleaned up.

errands:<host>  hash  "remove <app>" or "cleanup" -> the Errand as JSON

An errand stays until it is done, whatever becomes of the app's records meanwhile, or is given up with a word in the
journal. It is superseded when the app is wanted on the host again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from certfleet.agenda import Claim
from certfleet.errors import InstallError
from certfleet.install.answer import AppAnswer, State
from certfleet.lifecycle.records import Command, check_member
from certfleet.lifecycle.renewals.renewal import retry_after
from certfleet.models import App, Host, dump, load, utcnow
from certfleet.properties import effective
from certfleet.store import Store

if TYPE_CHECKING:
    from certfleet.lifecycle.workbench import Workbench

GIVEN_UP = timedelta(days=30)
"""A host that was down for so long does not come back; certificates expire by themselves."""
CLEANUP = "cleanup"
AT_ONCE = 200
"""Apps taken away in one session: the receiver takes so many words, and has so much time."""


@dataclass(frozen=True, slots=True)
class Errand:
    """One thing to do on one host."""

    since: datetime
    attempts: int = 0
    retry_at: datetime | None = None


def removal(app: str) -> str:
    """The name of the errand that takes an app's files away."""
    return f"remove {app}"


def app_of(name: str) -> str | None:
    """The app of a removal; None: it is something else."""
    verb, _, app = name.partition(" ")
    return app if verb == "remove" and app else None


def is_superseded(app: App | None, host: str) -> bool:
    """Whether the files that were to be taken away are wanted there again."""
    return app is not None and app.enabled and host in app.hosts


def after_failure(errand: Errand, now: datetime) -> Errand | None:
    """When it is tried again; None: it is given up."""
    if now - errand.since >= GIVEN_UP:
        return None
    attempts = errand.attempts + 1
    return replace(errand, attempts=attempts, retry_at=now + retry_after(attempts))


class Errands:
    """The list for each host."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def key(self, host: str) -> str:
        """Where a host's errands are."""
        return self._store.key("errands", host)

    async def ask(self, host: str, *names: str) -> None:
        """Put errands on a host's list; a new wish begins anew."""
        await self._store.redis.hset(self.key(host), mapping=dict.fromkeys(names, dump(Errand(utcnow()))))

    async def withdraw(self, host: str, *names: str) -> None:
        """They are not wanted any more."""
        await self._store.redis.hdel(self.key(host), *names)

    async def of(self, host: str) -> dict[str, Errand]:
        """All that is to be done on a host."""
        found = await self._store.redis.hgetall(self.key(host))
        return {name: load(Errand, text) for name, text in sorted(found.items())}

    async def forget(self, host: str) -> list[str]:
        """The host is gone; what was not done."""
        names = sorted(await self._store.redis.hkeys(self.key(host)))
        await self._store.redis.delete(self.key(host))
        return names


async def run(bench: Workbench, claim: Claim, host: Host) -> datetime | None:
    """Do what is due on a host; when the rest is. Raises LeaseLost."""
    fleet, now = bench.fleet, utcnow()
    every = await fleet.errands.of(host.name)
    due = {name: errand for name, errand in every.items() if errand.retry_at is None or errand.retry_at <= now}
    later = [errand.retry_at for name, errand in every.items() if name not in due and errand.retry_at is not None]
    removals = [name for name in due if app_of(name) is not None]
    later += await _remove(bench, claim, host, {name: due[name] for name in removals[:AT_ONCE]})
    later += [now] if len(removals) > AT_ONCE else []
    if CLEANUP in due:
        later += await _clean_up(bench, claim, host, due[CLEANUP])
    return min(later, default=None)


async def _remove(bench: Workbench, claim: Claim, host: Host, due: Mapping[str, Errand]) -> list[datetime]:
    """Take the files of these apps away, all in one session."""
    fleet, now = bench.fleet, utcnow()
    wanted = {app: name for name in due if (app := app_of(name)) is not None}
    apps = await fleet.inventory.find_apps(wanted)
    superseded = {app for app in wanted if is_superseded(apps.get(app), host.name)}
    if superseded:
        await fleet.errands.withdraw(host.name, *(wanted[app] for app in superseded))
    names = [app for app in wanted if app not in superseded]
    if not names:
        return []
    failures: dict[str, str] = {}
    try:
        answer = await bench.driver(host).remove(host, names)
    except InstallError as error:
        failures = dict.fromkeys(names, error.at(host.name))
    else:
        failures = {app: reason for app in names if (reason := _left(answer.apps.get(app))) is not None}
    commands: list[Command] = []
    for app in names:
        if app in failures:
            continue
        commands += [
            ("HDEL", fleet.errands.key(host.name), wanted[app]),
            *fleet.records.uninstalled(app, host.name),
            fleet.journal.entry(app, "purged", host.name),
        ]
    failed = {wanted[app]: (due[wanted[app]], app, reason) for app, reason in failures.items()}
    later = await _kept(bench, claim, host, commands, failed)
    for name, again in (await fleet.inventory.find_apps(names)).items():
        if is_superseded(again, host.name):  # enabled while its files were being taken away
            await fleet.agenda.schedule(check_member(name), now)
    return later


def _left(said: AppAnswer | None) -> str | None:
    """Why files were not taken away; None: they are not there."""
    if said is None or said.state in (State.REMOVED, State.FOREIGN, State.EMPTY):  # gone, or not ours to take away
        return None
    return f"its files are still there: {said.message or said.state}"


async def _clean_up(bench: Workbench, claim: Claim, host: Host, errand: Errand) -> list[datetime]:
    """Remove old generations: as many stay as the most cautious of the host's apps asks for."""
    fleet = bench.fleet
    everywhere = await fleet.inventory.properties()
    apps = await fleet.inventory.find_apps(await fleet.inventory.hosted(host.name))
    keep = most_kept(apps.values(), everywhere)
    try:
        await bench.driver(host).cleanup(host, keep)
    except InstallError as error:
        return await _kept(bench, claim, host, [], {CLEANUP: (errand, host.name, error.at(host.name))})
    done = fleet.journal.entry(host.name, "cleaned up", f"the newest {keep} generations of each app stay")
    return await _kept(bench, claim, host, [("HDEL", fleet.errands.key(host.name), CLEANUP), done], {})


def most_kept(apps: Iterable[App], everywhere: Mapping[str, str]) -> int:
    """How many generations stay on a host when it is cleaned up."""
    values = [effective(app.properties, everywhere)["keep-generations"] for app in apps]
    return max(int(value) for value in values or [effective({}, everywhere)["keep-generations"]])


async def _kept(
    bench: Workbench,
    claim: Claim,
    host: Host,
    commands: Sequence[Command],
    failed: Mapping[str, tuple[Errand, str, str]],
) -> list[datetime]:
    """Write what was done, and when each that failed (errand, whose, why) is tried again. Raises LeaseLost."""
    fleet, now, writes, later = bench.fleet, utcnow(), list(commands), list[datetime]()
    key = fleet.errands.key(host.name)
    for name, (errand, whose, reason) in failed.items():
        again, detail = after_failure(errand, now), f"{host.name}: {reason}"
        if again is None or again.retry_at is None:
            given_up = f"{detail} (for {GIVEN_UP.days} days)"
            writes += [("HDEL", key, name), fleet.journal.entry(whose, "given up", f"{name}: {given_up}")]
        else:
            later.append(again.retry_at)
            writes += [
                ("HSET", key, name, dump(again)),
                fleet.journal.entry(whose, "not done yet", f"{name}: {detail}"),
            ]
    await fleet.records.write(claim, writes)
    return later
