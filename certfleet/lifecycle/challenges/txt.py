"""TXT records for dns-01: written, waited for until every server of their zone shows them, and removed afterwards.

A record is on its app's list (written.py), and `dns:<app>` on the agenda, before it is written. So it is removed
whatever happens: by the look that the end of its order asks for, else by the one that is due anyway. It is removed by
its value: those of another order for the same name (a wildcard's and its own name's, another app's) stay.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from certfleet.agenda import Claim
from certfleet.dns.authority import Zones
from certfleet.dns.credentials import open_provider
from certfleet.dns.provider import Provider, TXTRecord, explained
from certfleet.errors import CertfleetError, OwnerError, UsageError, VaultError
from certfleet.lifecycle.challenges.written import Written, field_of
from certfleet.lifecycle.records import dns_member
from certfleet.lifecycle.renewals.renewal import retry_after
from certfleet.lifecycle.work import Next, Waiting
from certfleet.models import App, Order, utcnow
from certfleet.properties import parse_grace

if TYPE_CHECKING:
    from certfleet.lifecycle.fleet import Fleet
    from certfleet.lifecycle.workbench import Workbench

LOOK = (timedelta(seconds=2), timedelta(seconds=30))  # shortest and longest wait between looks at a zone's servers
TIDY = timedelta(minutes=10)  # between looks at a list that nobody asked for
GIVEN_UP = timedelta(days=30)  # a provider that is not reached for so long is not ours any more
ROOM = timedelta(seconds=60)  # of a step's three minutes: what is not written by then is the next step's


async def show(
    bench: Workbench, app: App, order: Order, properties: dict[str, str], values: Sequence[tuple[str, str]]
) -> None:
    """Return when every server of each zone shows the records (name, value) that an order needs.

    Raises Waiting while they are on their way, OwnerError when they cannot be written, or do not arrive in time.
    """
    zones = Zones(bench.fleet.settings.nameservers, port=int(properties["dns-port"]))
    kept = await bench.fleet.written.of(app.name)
    records = await _places(zones, kept, values)
    missing = [record for record in records if _is_to_be_written(kept.get(field_of(record)), order)]
    if missing:
        provider = await _provider(bench, properties["dns"], zones)
        await _write(bench.fleet, app, provider, properties["dns"], order, missing)
    if properties["self-check"] == "on":
        kept = await bench.fleet.written.of(app.name)
        since = [kept[field].since for record in records if (field := field_of(record)) in kept]
        await _see(zones, records, min(since, default=utcnow()), parse_grace(properties["dns-propagation"]))


async def _places(zones: Zones, kept: dict[str, Written], values: Sequence[tuple[str, str]]) -> list[TXTRecord]:
    """Where each value belongs; what was written stays where it is, even if DNS points elsewhere by now."""
    known = {(written.record.owner, written.record.value): written.record for written in kept.values()}

    async def place(wanted: tuple[str, str]) -> TXTRecord:
        return known[wanted] if wanted in known else await zones.place(*wanted)

    return list(await asyncio.gather(*(place(wanted) for wanted in values)))


def _is_to_be_written(written: Written | None, order: Order) -> bool:
    """What was written for another order, or before this one last failed, is not believed to be there still."""
    if written is None or written.done is None or written.order != (order.url or ""):
        return True
    return order.retry_at is not None and written.done < order.retry_at


async def _provider(bench: Workbench, name: str, zones: Zones) -> Provider:
    """What writes with the credentials of this name. Raises OwnerError, VaultError."""
    try:
        return open_provider(await bench.fleet.dns.get(name), bench.vault, zones)
    except UsageError as error:
        raise OwnerError(str(error)) from None


async def _write(  # noqa: PLR0917  all of it goes on the list
    fleet: Fleet, app: App, provider: Provider, dns: str, order: Order, records: Sequence[TXTRecord]
) -> None:
    """One after the other: some providers write a whole zone back that they read. Raises Waiting, OwnerError."""
    now = utcnow()
    wanted = {field_of(record): Written(record, dns, order.url or "", since=now) for record in records}
    await fleet.written.keep(app.name, wanted)
    await fleet.agenda.schedule(dns_member(app.name), now + TIDY)
    for field, written in wanted.items():
        if utcnow() - now > ROOM:
            raise Waiting(utcnow())
        with explained(written.dns, written.record):
            await provider.present(written.record)
        await fleet.written.keep(app.name, {field: replace(written, done=utcnow())})
    told = ", ".join(sorted({record.name for record in records}))
    await fleet.journal.write(app.name, "TXT written", f"{told} ({dns}); every DNS server of the zone has to show it")


async def _see(zones: Zones, records: Sequence[TXTRecord], since: datetime, patience: timedelta | None) -> None:
    """Raise Waiting until every server shows every record, OwnerError when that takes longer than patience."""
    names = sorted({record.zone for record in records})
    servers = dict(zip(names, await asyncio.gather(*(zones.servers(name) for name in names)), strict=True))
    told = await asyncio.gather(*(zones.not_shown(record, servers[record.zone]) for record in records))
    # A name and its wildcard have a record each in one place: what is wrong there is told once.
    missing = list(dict.fromkeys(sentence for sentences in told for sentence in sentences))
    if not missing:
        return
    waited = utcnow() - since
    if patience is not None and waited > patience:
        more = f" (and {len(missing) - 3} more)" if len(missing) > 3 else ""  # noqa: PLR2004  three tell enough
        raise OwnerError(
            f"the TXT records did not reach every DNS server in {patience}: {'; '.join(missing[:3])}{more}; "
            "do these servers get the zone? The property dns-propagation allows for more time"
        )
    shortest, longest = LOOK
    raise Waiting(utcnow() + min(max(waited / 4, shortest), longest))


async def settled(fleet: Fleet, app: App) -> tuple[str, ...]:
    """An order has come to its end: its records are looked at now. The answer: what became due."""
    if not await fleet.written.any(app.name):
        return ()
    await fleet.agenda.schedule(dns_member(app.name), utcnow())
    return (dns_member(app.name),)


async def tidy(bench: Workbench, claim: Claim) -> Next:
    """Remove what was written for an app and is not needed any more; when to look again."""
    fleet, now, times = bench.fleet, utcnow(), []
    kept = await fleet.written.of(claim.name)
    order = await fleet.records.order(claim.name)
    for field, written in kept.items():
        if _is_needed(written, order):
            times.append(now + TIDY)
        elif written.retry_at is not None and written.retry_at > now:
            times.append(written.retry_at)
        elif utcnow() - now > ROOM:
            times.append(now)
        elif (again := await _remove(bench, claim, field, written)) is not None:
            times.append(again)
    return Next(min(times, default=None))


def _is_needed(written: Written, order: Order | None) -> bool:
    """Until the CA has looked: with the certificate's key every name is proven."""
    return order is not None and order.url == written.order and order.sealed_key is None and not order.csr


async def _remove(bench: Workbench, claim: Claim, field: str, written: Written) -> datetime | None:
    """Remove one record; when to try again, None: never. Raises LeaseLost."""
    fleet, app = bench.fleet, claim.name
    going = replace(written, done=None)  # an order that needs it from now on writes it again
    await fleet.records.write(claim, fleet.written.changed(app, field, written, going))
    if (await fleet.written.of(app)).get(field) != going:
        return utcnow()
    try:
        provider = await _provider(bench, written.dns, Zones(fleet.settings.nameservers))
        with explained(written.dns, written.record):
            await provider.cleanup(written.record)
    except (OwnerError, VaultError) as error:
        return await _not_removed(fleet, claim, field, going, error)
    await fleet.records.write(claim, fleet.written.changed(app, field, going, None))
    return None


async def _not_removed(
    fleet: Fleet, claim: Claim, field: str, written: Written, error: CertfleetError
) -> datetime | None:
    now, app, attempts = utcnow(), claim.name, written.attempts + 1
    told = f"TXT record {written.record.name}: {error}"
    if now - written.since > GIVEN_UP:
        await fleet.journal.write(app, "given up", f"{told}; remove {written.record.value} by hand")
        await fleet.records.write(claim, fleet.written.changed(app, field, written, None))
        return None
    if attempts == 1:
        await fleet.journal.write(app, "not done yet", told)
    again = now + retry_after(attempts)
    failed = replace(written, attempts=attempts, retry_at=again)
    await fleet.records.write(claim, fleet.written.changed(app, field, written, failed))
    return again
