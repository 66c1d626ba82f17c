"""Challenges that an app's hosts answer themselves (property `challenge-via`), handed out by way of each host's agenda.

An order says what it needs on which hosts and waits; each host is visited as for an installation, by a worker of its
zone, once for all that waits; then the orders go on. A host that is down does not hold the others: the order goes on
with those that have it, and fails when none has.

publish:<host>      hash    token -> "<since> <app>": to be written into its webroot
published:<host>    hash    token -> when it was written, 0: it may be there; taken away when challenge:<token> is gone
unwritten:<host>    hash    app -> "<since> <thumbprint> <name>...": for its web server to answer with (stateless)
stateless:<host>    hash    app -> "<when> <thumbprint> <name>...": as its web server has it
unpublished:<host>  hash    app -> "<when> <why>": what went wrong the last time

Times are Unix seconds. Whatever becomes of the order, the worker and the app: a token has an end (records.py), and is
taken away at the host's next look after it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from certfleet.errors import InstallError, OwnerError
from certfleet.install.answer import State
from certfleet.install.answering import taken_up
from certfleet.install.challenge import Answerer
from certfleet.lifecycle.records import CHALLENGE_LIFE, host_member, order_member
from certfleet.lifecycle.work import Waiting
from certfleet.models import App, Host, utcnow
from certfleet.properties import effective

if TYPE_CHECKING:
    from certfleet.lifecycle.fleet import Fleet
    from certfleet.lifecycle.workbench import Workbench

WEBROOT = "webroot"
VISITED = 120  # seconds for somebody to visit the host; longer than a session takes to fail
LOOK = timedelta(seconds=5)  # for an order between two looks; it is woken sooner
RETRY = timedelta(minutes=1)  # for a host that failed
TIDY = timedelta(minutes=10)  # between two looks at what has to be taken away
AT_ONCE = 1000  # challenges or apps per session
LONGEST = 1024 * 1024  # bytes of snippets per session, as the receiver takes them
LOOKED_AT = 5  # sites that are asked after a reload: some may not be set up yet, or not be open to us


@dataclass(frozen=True, slots=True)
class Wish:
    """What an order needs on each host: fields of the host's hash, and what makes them the same as what is there."""

    via: str
    fields: Mapping[str, str]
    """token -> app, or app -> thumbprint and names."""

    @property
    def asked(self) -> str:
        """The kind of the hash of wishes."""
        return "publish" if self.via == WEBROOT else "unwritten"


def wish(app: App, via: str, tokens: Sequence[str], thumbprint: str) -> Wish:
    """What is needed for these tokens."""
    if via == WEBROOT:
        return Wish(via, dict.fromkeys(tokens, app.name))
    return Wish(via, {app.name: " ".join((thumbprint, *app.identifiers))})


async def hand_out(fleet: Fleet, app: App, wanted: Wish, trusted: datetime | None) -> None:
    """Return when hosts of the app answer. Raises Waiting while some are still to be visited, OwnerError: none does.

    `trusted`: what was written before is not believed to be there still, because the last try failed.
    """
    waiting: list[str] = []
    failures: dict[str, str] = {}
    for host in app.hosts:
        missing = await _missing(fleet, host, wanted, trusted)
        if not missing:
            continue
        since = await _ask(fleet, host, missing, wanted.asked)
        failed = await _failure(fleet, host, app.name, since)
        if failed:
            failures[host] = failed
        elif utcnow().timestamp() - since > VISITED:
            failures[host] = "nobody has visited it; does a worker run for its zone?"
        else:
            waiting.append(host_member(host))
    if waiting:
        for member in waiting:
            await fleet.agenda.schedule(member, utcnow())
        raise Waiting(utcnow() + LOOK, tuple(waiting))
    if failures:
        for host in failures:  # the order gives up, or goes on without it; the next one asks again
            await fleet.store.redis.hdel(fleet.store.key(wanted.asked, host), *wanted.fields)
        told = "; ".join(f"{host}: {why}" for host, why in failures.items())
        if len(failures) == len(app.hosts):
            raise OwnerError(f"no host can answer the CA's challenge: {told}")
        await fleet.journal.write(app.name, "challenge not everywhere", told)


async def _missing(fleet: Fleet, host: str, wanted: Wish, trusted: datetime | None) -> dict[str, str]:
    """What the host does not have yet."""
    kind = "published" if wanted.via == WEBROOT else "stateless"
    oldest = max(int(trusted.timestamp()) if trusted else 0, 1)
    missing = {}
    texts = await fleet.store.redis.hmget(fleet.store.key(kind, host), list(wanted.fields))
    for (field, content), text in zip(wanted.fields.items(), texts, strict=True):
        when, _, there = (text or "0").partition(" ")
        if int(when) < oldest or (kind == "stateless" and there != content):
            missing[field] = content
    return missing


async def _ask(fleet: Fleet, host: str, missing: Mapping[str, str], kind: str) -> int:
    """Put it on the host's list, where it is not; since when it is there."""
    key, now = fleet.store.key(kind, host), int(utcnow().timestamp())
    first = now
    for field, content in missing.items():
        known = await fleet.store.redis.hget(key, field)
        since, _, before = (known or "").partition(" ")
        if before == content:
            first = min(first, int(since))
        else:
            await fleet.store.redis.hset(key, field, f"{now} {content}")
    return first


async def _failure(fleet: Fleet, host: str, app: str, since: int) -> str | None:
    """Why it could not be done since then."""
    text = await fleet.store.redis.hget(fleet.store.key("unpublished", host), app)
    when, _, why = (text or "0 ").partition(" ")
    return why if why and int(when) >= since else None


async def visit(bench: Workbench, host: Host) -> tuple[datetime | None, tuple[str, ...]]:
    """Do on a host what orders wait for. The answer: when to look again, and the agenda's members that became due."""
    times, members = [], []
    for step in (_write_webroot, _write_snippets):
        again, apps = await step(bench, host)
        if again is not None:
            times.append(again)
        members += [order_member(app) for app in apps]
    for member in members:
        await bench.fleet.agenda.schedule(member, utcnow())
    return min(times, default=None), tuple(dict.fromkeys(members))


async def _write_webroot(bench: Workbench, host: Host) -> tuple[datetime | None, list[str]]:
    redis, key = bench.fleet.store.redis, bench.fleet.store.key
    asked, there = key("publish", host.name), key("published", host.name)
    wishes: dict[str, str] = await redis.hgetall(asked)
    tokens = sorted({*wishes, *await redis.hkeys(there)})
    if not tokens:
        return None, []
    texts = dict(zip(tokens, await redis.mget([key("challenge", token) for token in tokens]), strict=True))
    fresh = {token: text for token in list(wishes)[:AT_ONCE] if (text := texts[token])}
    gone = [token for token in tokens if texts[token] is None][:AT_ONCE]
    apps = sorted({wishes[token].partition(" ")[2] for token in fresh})
    try:
        if fresh:
            await redis.hset(there, mapping=dict.fromkeys(fresh, 0))  # what may be there is taken away in any case
            await bench.driver(host).publish(host, fresh)
            await redis.hset(there, mapping=dict.fromkeys(fresh, int(utcnow().timestamp())))
            await redis.hdel(asked, *fresh)
        if gone:
            await bench.driver(host).withdraw(host, gone)
            await redis.hdel(there, *gone)
            await redis.hdel(asked, *gone)
    except InstallError as error:
        await _failed(bench.fleet, host, dict.fromkeys(apps, error.at(host.name)))
        return utcnow() + RETRY, apps
    more = len(wishes) > AT_ONCE
    return (utcnow() if more else utcnow() + TIDY) if await redis.exists(there) else None, apps


async def _write_snippets(bench: Workbench, host: Host) -> tuple[datetime | None, list[str]]:
    redis, key = bench.fleet.store.redis, bench.fleet.store.key
    asked = key("unwritten", host.name)
    wishes: dict[str, str] = await redis.hgetall(asked)
    oldest = utcnow().timestamp() - CHALLENGE_LIFE
    if old := [app for app, text in wishes.items() if int(text.partition(" ")[0]) < oldest]:
        # No order waits for so long: it was given up meanwhile, or asks again.
        await redis.hdel(asked, *old)
        wishes = {app: text for app, text in wishes.items() if app not in old}
    lines = _of_one_session(wishes)
    if not lines:
        return None, []
    answerers = [Answerer(app, words[0], tuple(words[1:])) for app, text in lines.items() if (words := text.split())]
    now = int(utcnow().timestamp())
    try:
        answer = await bench.driver(host).snippet(host, answerers)
    except InstallError as error:
        await _failed(bench.fleet, host, dict.fromkeys(lines, error.at(host.name)))
        return utcnow() + RETRY, list(lines)
    await _taken_up(bench.fleet, host, {a: lines[a] for a in lines if answer.apps[a].state is State.INSTALLED})
    written = [app for app in lines if answer.apps[app].state in (State.INSTALLED, State.UNCHANGED)]
    if written:
        await redis.hset(key("stateless", host.name), mapping={app: f"{now} {lines[app]}" for app in written})
        # What was wished anew meanwhile stays a wish.
        latest = dict(zip(written, await redis.hmget(asked, written), strict=True))
        if done := [app for app in written if latest[app] == wishes[app]]:
            await redis.hdel(asked, *done)
    why = "its web server does not take the challenge snippet: {}"
    await _failed(bench.fleet, host, {a: why.format(answer.apps[a].message) for a in lines if a not in written})
    if written and len(wishes) > len(lines):
        return utcnow(), list(lines)
    return (utcnow() + RETRY if await redis.exists(asked) else None), list(lines)


def _of_one_session(wishes: Mapping[str, str]) -> dict[str, str]:
    """As many of these wishes as the receiver takes at once: app -> thumbprint and names."""
    lines, length = dict[str, str](), 0
    for app, text in sorted(wishes.items())[:AT_ONCE]:
        line = text.partition(" ")[2]
        length += len(app) + len(line) + 2
        if length > LONGEST:
            break
        lines[app] = line
    return lines


async def _taken_up(fleet: Fleet, host: Host, written: Mapping[str, str]) -> None:
    """Wait until the web server answers with what was written, or it is clear that we cannot see that."""
    apps = await fleet.inventory.find_apps(list(written)[:LOOKED_AT])
    everywhere = await fleet.inventory.properties()
    sites = []
    for name, app in apps.items():
        port = int(effective(app.properties, everywhere)["http-port"])
        sites.append((app.identifiers[0], port, written[name].partition(" ")[0]))
    if sites:
        await taken_up(host.address, sites)


async def _failed(fleet: Fleet, host: Host, reasons: Mapping[str, str]) -> None:
    """Keep why, for the orders that wait; not for ever."""
    if not reasons:
        return
    key, now = fleet.store.key("unpublished", host.name), int(utcnow().timestamp())
    sentences = {app: f"{now} {' '.join(why.split())}" for app, why in reasons.items()}
    await fleet.store.redis.hset(key, mapping=sentences)
    await fleet.store.redis.expire(key, CHALLENGE_LIFE)


async def forget_host(fleet: Fleet, host: str) -> None:
    """A host was removed: so is what waits for it."""
    kinds = ("publish", "published", "unwritten", "stateless", "unpublished")
    await fleet.store.redis.delete(*(fleet.store.key(kind, host) for kind in kinds))
