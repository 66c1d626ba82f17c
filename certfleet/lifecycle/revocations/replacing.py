"""Replacing many certificates at once, when a CA or a key ceremony went wrong: `certfleet replace`.

replacing  hash  app -> the Replacement as JSON

A certificate that is to go is marked as such, in its own record; the one that takes its place has no mark. So nothing
is done twice, whoever dies in between, and the same wish can be given again. Orders go through the CA's limits as
every order does. What is to be revoked is revoked last, each when every host of its app serves another one.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from certfleet.acme_ca.presets import resolve_ca
from certfleet.acme_ca.reasons import Reason
from certfleet.errors import UsageError
from certfleet.lifecycle.fleet import Fleet
from certfleet.lifecycle.records import check_member
from certfleet.lifecycle.revocations.withdrawal import REPLACED, SAFETY, ask_revocation
from certfleet.models import App, Certificate, dump, load, utcnow

PAGE = 500  # apps whose certificates are read at once
SERIAL = set("0123456789abcdef")


@dataclass(frozen=True, slots=True)
class Selection:
    """Which certificates: those that fit everything that is given."""

    serials: frozenset[str] | None = None
    ca: str | None = None
    """The URL of a directory."""
    between: tuple[datetime, datetime] | None = None
    """Issued at or after the first and before the second."""

    def holds(self, one: Certificate | Replacement) -> bool:
        """Whether this is one of them."""
        if self.serials is not None and one.serial not in self.serials:
            return False
        if self.ca is not None and one.ca != self.ca:
            return False
        return self.between is None or (one.issued is not None and self.between[0] <= one.issued < self.between[1])


@dataclass(frozen=True, slots=True)
class Replacement:
    """One app whose certificate is being replaced."""

    app: str
    generation: int
    """Of the one that has to go."""
    serial: str
    asked: datetime
    revoke: bool = False
    ca: str = ""
    issued: datetime | None = None


@dataclass(frozen=True, slots=True)
class Choice:
    """What a selection comes to."""

    apps: tuple[str, ...]
    """The enabled apps whose present certificate is one of these, by name."""
    asked: int
    """How many of these are being replaced, or were, since `replace` was given before."""
    unknown: tuple[str, ...]
    """The serials of which nothing is known."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a replacement has come: each number holds those of the numbers after it, but for `failing`."""

    asked: int
    ordered: int
    """A new one was ordered or is there."""
    issued: int
    served: int
    """Every host of the app serves it."""
    to_revoke: int
    revoked: int
    failing: int
    """Apps with an error: `certfleet ls` has it."""

    @property
    def complete(self) -> bool:
        """Whether nothing is left to do."""
        return self.served == self.asked and self.revoked == self.to_revoke


def selection(serials: str | None, ca: str | None, between: tuple[str, str] | None) -> Selection:
    """A person's words as a selection: the text of a file, a CA, two times. Raises UsageError."""
    if serials is None and ca is None and between is None:
        wanted = "which certificates? Give --file SERIALS, --ca CA or --all-issued-between A B"
        raise UsageError("replace", None, wanted)
    return Selection(
        serials=None if serials is None else parse_serials(serials),
        ca=None if ca is None else resolve_ca(ca).directory,
        between=None if between is None else _span(*between),
    )


def parse_serials(text: str) -> frozenset[str]:
    """Serials in hexadecimal, one in a line, with or without colons; the rest of a line after # is a remark."""
    found: set[str] = set()
    for number, line in enumerate(text.splitlines(), 1):
        word = line.partition("#")[0].strip().lower().removeprefix("0x").replace(":", "")
        if not word:
            continue
        if not set(word) <= SERIAL or len(word) > 40:  # noqa: PLR2004  20 bytes, RFC 5280 §4.1.2.2
            raise UsageError("file", line.strip()[:60], f"(line {number}) is not a serial in hexadecimal")
        found.add(word.lstrip("0") or "0")
    if not found:
        raise UsageError("file", None, "holds no serial: write one in a line, in hexadecimal")
    return frozenset(found)


def _span(first: str, last: str) -> tuple[datetime, datetime]:
    begin, end = _moment(first), _moment(last)
    if begin >= end:
        raise UsageError("all-issued-between", f"{first} {last}", "ends before it begins: give the earlier time first")
    return begin, end


def _moment(text: str) -> datetime:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        wanted = "is not a time: give one such as 2026-11-01 or 2026-11-01T12:30Z, in UTC if it says nothing else"
        raise UsageError("all-issued-between", text, wanted) from None
    try:
        return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    except OverflowError:  # the years 1 and 9999 have hours that are in another year in UTC, which no calendar has
        wanted = "is before the year 1 or after the year 9999 in UTC: give a time such as 2026-11-01T12:30Z"
        raise UsageError("all-issued-between", text, wanted) from None


async def select(fleet: Fleet, wanted: Selection) -> list[tuple[App, Certificate]]:
    """The enabled apps whose present certificate is one of these, by name."""
    found: list[tuple[App, Certificate]] = []
    async for page in _pages(fleet):
        certificates = await fleet.records.certificates([app.name for app in page])
        pairs = [(app, certificates[app.name]) for app in page if app.name in certificates]
        found += [(app, certificate) for app, certificate in pairs if wanted.holds(certificate)]
    return found


async def choose(fleet: Fleet, wanted: Selection) -> Choice:
    """What would be replaced, and what of it was asked for already."""
    chosen = await select(fleet, wanted)
    asked = [wish for wish in await _wishes(fleet) if wanted.holds(wish)]
    known = {certificate.serial for _, certificate in chosen} | {wish.serial for wish in asked}
    unknown = sorted((wanted.serials or frozenset()) - known)
    return Choice(tuple(app.name for app, _ in chosen), len(asked), tuple(unknown))


async def begin(fleet: Fleet, chosen: Sequence[tuple[App, Certificate]], revoke: Reason | None) -> None:
    """Have these replaced, and revoked afterwards for a reason (None: not). May be given again.

    The list of an earlier replacement that is complete is forgotten first.
    """
    if not chosen:
        return
    if (earlier := await progress(fleet)).asked and earlier.complete:
        await fleet.store.redis.delete(_key(fleet))
    for app, certificate in chosen:
        wish = Replacement(
            app=app.name,
            generation=certificate.generation,
            serial=certificate.serial,
            asked=utcnow(),
            revoke=revoke is not None,
            ca=certificate.ca,
            issued=certificate.issued,
        )
        known = ("HSET", _key(fleet), app.name, dump(wish))
        await fleet.agenda.schedule(check_member(app.name), utcnow() + SAFETY)
        if revoke is not None and certificate.revoked is None:
            try:
                await ask_revocation(fleet, app, revoke, after=True, withdrawn=certificate.withdrawn or REPLACED)
            except UsageError:  # it was replaced or revoked in this moment
                continue
        await fleet.revocations.ask(None, app.name, _marked(certificate), known)


def _marked(certificate: Certificate) -> Callable[[Certificate], Certificate]:
    def change(now: Certificate) -> Certificate:
        same = now.serial == certificate.serial
        return replace(now, withdrawn=now.withdrawn or REPLACED) if same else now

    return change


async def progress(fleet: Fleet) -> Progress:
    """How far the replacement that was asked for last has come."""
    wishes = await _wishes(fleet)
    counts = Progress(len(wishes), 0, 0, 0, sum(wish.revoke for wish in wishes), 0, 0)
    for start in range(0, len(wishes), PAGE):
        counts = await _counted(fleet, counts, wishes[start : start + PAGE])
    return counts


async def _wishes(fleet: Fleet) -> list[Replacement]:
    return [load(Replacement, text) for text in (await fleet.store.redis.hgetall(_key(fleet))).values()]


async def _counted(fleet: Fleet, counts: Progress, wishes: Sequence[Replacement]) -> Progress:
    names = [wish.app for wish in wishes]
    apps, orders = await fleet.inventory.find_apps(names), await fleet.records.orders(names)
    certificates, known = await fleet.records.certificates(names), await fleet.records.installations_of(names)
    for wish in wishes:
        app, certificate, order = apps.get(wish.app), certificates.get(wish.app), orders.get(wish.app)
        hosts = known[wish.app]
        gone = app is None or not app.enabled  # nobody takes care of it any more: there is nothing to wait for
        issued = gone or (certificate is not None and certificate.generation > wish.generation)
        served = gone or (
            issued
            and app is not None
            and certificate is not None
            and all(host in hosts and hosts[host].served == certificate.generation for host in app.hosts)
        )
        waits = wish.revoke and any(one.serial == wish.serial for one in await fleet.revocations.of(wish.app))
        failing = (order is not None and order.error is not None) or any(one.error for one in hosts.values())
        counts = replace(
            counts,
            ordered=counts.ordered + (issued or order is not None),
            issued=counts.issued + issued,
            served=counts.served + served,
            revoked=counts.revoked + (wish.revoke and not waits),
            failing=counts.failing + (failing and not gone),
        )
    return counts


def _key(fleet: Fleet) -> str:
    return fleet.store.key("replacing")


async def _pages(fleet: Fleet) -> AsyncIterator[list[App]]:
    page: list[App] = []
    async for app in fleet.inventory.apps():
        if app.enabled:
            page.append(app)
        if len(page) == PAGE:
            yield page
            page = []
    if page:
        yield page
