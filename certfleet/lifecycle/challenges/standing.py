"""Standing records (dns-persist-01): which ones an app needs, and whether the DNS servers of their zones show them.

A person makes each record once, for a name and an account; nothing here or elsewhere in certfleet writes one. An order
looks at them before the CA does (proving.py), expiry checks look whether they still stand (watching.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from certfleet.acme_ca.account_records import known_account
from certfleet.acme_ca.challenges.dns_persist01 import Holder, Wanted, judge, wanted, zone_line
from certfleet.acme_ca.keys import load_account_key
from certfleet.ca_list import cas_of
from certfleet.dns.authority import Place, Shown, Zones
from certfleet.errors import OwnerError
from certfleet.identifiers import address_of
from certfleet.lifecycle.fleet import Fleet
from certfleet.lifecycle.workbench import Workbench, open_workbench
from certfleet.models import CA, Account, App, utcnow
from certfleet.properties import effective, parse_grace
from certfleet.settings import Settings
from certfleet.vault import ensure_key

AT_ONCE = 20  # names looked at beside each other
TOLD = 2  # records that stand in one sentence


@dataclass(frozen=True, slots=True)
class Sighting:
    """What was seen of one record that is wanted."""

    want: Wanted
    stands: bool | None
    """None: nobody could say."""
    until: datetime | None
    """When what stands ends; None: it does not, or nothing stands."""
    message: str
    """What was seen, in words."""


@dataclass(frozen=True, slots=True)
class StandingRecord:
    """One record as `certfleet dns-persist show` lists it."""

    ca: str
    """A preset's name, or the URL of a directory."""
    account: str
    """URL of the account that it is for."""
    names: tuple[str, ...]
    """The app's names that it proves."""
    record: str
    """Where it is to be made."""
    value: str
    stands: bool | None
    """Whether every DNS server that answers for the zone shows one that does; None: none answers."""
    until: datetime | None
    """When what stands ends; None: it does not, or nothing stands."""
    message: str
    """What was seen, for a person."""


async def standing_records(fleet: Fleet, app: App) -> list[StandingRecord]:
    """The records that an app needs at each of its CAs, and whether they stand; none for one with addresses alone.

    Raises OwnerError where there is no account yet or the CA does not say what it is called, CAError, VaultError, and
    ConfigurationError without the vault's key, which opens the account's.
    """
    if not _names(app):
        return []
    ensure_key(fleet.settings)
    async with open_workbench(fleet.settings) as bench:
        properties = effective(app.properties, await fleet.inventory.properties())
        found = [await _at(bench, app, ca, properties) for ca in cas_of(properties)]
        return [record for records in found for record in records]


async def _at(bench: Workbench, app: App, ca: CA, properties: Mapping[str, str]) -> list[StandingRecord]:
    """Those for one CA."""
    account = await _account(bench, app, ca, properties["email"])
    seen, until = await sightings(bench, app, ca, properties), ends(properties)
    if any(not one.want.issuers for one in seen):
        raise OwnerError(
            f"the CA {ca.name} does not say in its directory what it is called in records of dns-persist-01: "
            "an order learns it, and its error names the records to make"
        )
    return [
        StandingRecord(
            ca=ca.name,
            account=account.url or "",
            names=tuple(name for name in app.identifiers if name.removeprefix("*.") == one.want.base),
            record=one.want.name,
            value=one.want.value(until),
            stands=one.stands,
            until=one.until,
            message=one.message,
        )
        for one in seen
    ]


async def sightings(bench: Workbench, app: App, ca: CA, properties: Mapping[str, str]) -> list[Sighting]:
    """What is seen now of each record that an app needs at a CA. Raises OwnerError, CAError, VaultError."""
    account = await _account(bench, app, ca, properties["email"])
    meta = (await bench.transport(ca).directory()).meta
    key = load_account_key(bench.vault.open(account.sealed_key))
    holder = Holder(account.url or "", (key.thumbprint, *account.former), meta.account_hash_prefix)
    return await look(zones_for(bench.fleet.settings, properties), wanted(_names(app), meta.issuers, holder))


def _names(app: App) -> list[str]:
    """What DNS can prove: an IP address has no place there (RFC 8738 §7)."""
    return [name for name in app.identifiers if address_of(name) is None]


async def _account(bench: Workbench, app: App, ca: CA, email: str) -> Account:
    account = await known_account(bench.fleet.store, ca, email)
    if account is None or account.url is None:
        raise OwnerError(
            f"there is no account for {email or 'the app (set its email)'} at {ca.name} yet, and the records of "
            f"dns-persist-01 name it: `certfleet account register {email or 'EMAIL'} --ca {ca.name}` makes it, "
            f"and so does the first order that app {app.name} has there"
        )
    return account


def zones_for(settings: Settings, properties: Mapping[str, str]) -> Zones:
    """Whom an app's zones are asked from."""
    return Zones(settings.nameservers, port=int(properties["dns-port"]))


def ends(properties: Mapping[str, str]) -> datetime | None:
    """When a record that is made now is to end, by the property `persist-for`; None: never."""
    length = parse_grace(properties["persist-for"]) if properties["persist-for"] else None
    return None if length is None else utcnow() + length


async def look(zones: Zones, wants: Sequence[Wanted]) -> list[Sighting]:
    """Ask every authoritative server of each record's zone, where its CNAMEs lead."""
    turns = asyncio.Semaphore(AT_ONCE)

    async def one(want: Wanted) -> Sighting:
        async with turns:
            try:
                place = await zones.follow(want.name)
                servers = await zones.servers(place.zone)
            except OwnerError as error:
                return Sighting(want, None, None, str(error))
            return sighted(want, place, await zones.texts(place, servers), utcnow())

    return list(await asyncio.gather(*(one(want) for want in wants)))


def sighted(want: Wanted, place: Place, shown: Sequence[Shown], now: datetime) -> Sighting:
    """What the servers' answers come to. The CA asks any of them, and another one where one does not answer."""
    leads = f"at {place.name}, where a CNAME leads: " if place.name != want.name else ""
    verdicts = {one.where: judge(one.values, want, now) for one in shown if one.fault is None}
    if not verdicts:
        told = "; ".join(f"{one.where} {one.fault}" for one in shown)
        return Sighting(want, None, None, leads + told)
    without = {where: verdict for where, verdict in verdicts.items() if not verdict.stands}
    if without:
        where, verdict = next(iter(without.items()))
        more = f" (and {len(without) - 1} more of its servers)" if len(without) > 1 else ""
        told = f"{where} has " + (" and ".join(verdict.faults[:TOLD]) or "no such record")
        return Sighting(want, stands=False, until=None, message=leads + told + more)
    until = min((verdict.until for verdict in verdicts.values() if verdict.until), default=None)
    told = f"good until {until:%Y-%m-%d %H:%M} UTC" if until else "good for ever"
    return Sighting(want, stands=True, until=until, message=f"{leads}{told}")


def require_standing(app: App, seen: Sequence[Sighting], until: datetime | None) -> None:
    """Raise OwnerError with the records to make, unless all stand; a proof that fails at the CA is what it saves."""
    missing = [one for one in seen if not one.stands]
    if not missing:
        return
    told = [f"{zone_line(one.want.name, one.want.value(until))} ({one.message})" for one in missing[:TOLD]]
    more = f", and {len(missing) - TOLD} more" if len(missing) > TOLD else ""
    raise OwnerError(
        f"the CA wants a TXT record that stands for dns-persist-01: make {'; '.join(told)}{more}; "
        f"`certfleet dns-persist show {app.name}` lists all, `certfleet renew {app.name}` goes on then"
    )
