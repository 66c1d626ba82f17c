"""What an operator says about the limits of a CA, and what holds there afterwards."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from certfleet.acme_ca.account_records import account_id
from certfleet.acme_ca.presets import resolve_ca
from certfleet.ca_list import first_ca
from certfleet.errors import UsageError
from certfleet.identifiers import address_of, normalise
from certfleet.lifecycle.fleet import Fleet
from certfleet.limits.names import covering
from certfleet.limits.presets import (
    Limits,
    Override,
    Scope,
    Switch,
    Switched,
    Told,
    field_of,
    limits_of,
    preset_of,
    scope,
    write_rate,
)
from certfleet.models import CA
from certfleet.properties import PROPERTIES, effective

WORDS = {True: "on", False: "off"}


@dataclass(frozen=True, slots=True)
class Publication:
    """Where a CA's limits come from."""

    ca: str
    directory: str
    source: str | None
    as_of: str | None


@dataclass(frozen=True, slots=True)
class Rule:
    """One limit that holds at a CA."""

    limit: str
    account: str | None
    """Whose: the account's e-mail address; None: everybody's."""
    domain: str | None
    """For what: a registered domain, an IPv4 address or an IPv6 /64; None: for every one."""
    value: str
    published: str | None
    """What the preset says; None: nothing."""
    overridden: bool


async def set_limits(
    fleet: Fleet, values: Mapping[str, str], *, ca: str | None, account: str | None, domain: str | None
) -> tuple[CA, bool]:
    """Set limits at a CA (None: the fleet's), all or none; whether that changed anything. Raises UsageError."""
    at = await _ca(fleet, ca)
    words = {"ca": at.name}
    if account is not None:
        email = PROPERTIES["email"].check("account", account)
        words |= {"account": account_id(at, email), "email": email}
    if domain is not None:
        words["domain"] = _counted(domain)
    told: list[Told] = []
    removed: list[str] = []
    for limit, value in values.items():
        if limit in list(Switch):
            name = _switched(words, limit, value, told)
            removed += [] if value else [name]
        elif value:
            told.append(scope(Override, limit=limit, rate=value, **words))
        else:
            removed.append(scope(Scope, limit=limit, **words).name)
    changed = await fleet.limits.change(told, removed)
    if changed:
        detail = ", ".join(f"{limit} = {value or 'the preset'}" for limit, value in values.items())
        for one in (account, domain):
            detail += f" for {one}" if one is not None else ""
        await fleet.journal.write("", "limits set", f"{at.name}: {detail}")
    return at, changed


async def rules(fleet: Fleet, ca: str | None) -> tuple[Publication, list[Rule]]:
    """The limits that hold at a CA (None: the fleet's), and where they come from. Raises UsageError."""
    at = await _ca(fleet, ca)
    preset = preset_of(at.directory)
    publication = Publication(
        ca=at.name,
        directory=at.directory,
        source=preset.source if preset else None,
        as_of=preset.as_of.isoformat() if preset else None,
    )
    told = [one for one in await fleet.limits.all() if one.ca == at.name]
    return publication, list(_rules(limits_of(at.name, at.directory), told, known=preset is not None))


def _rules(published: Limits, told: list[Told], *, known: bool) -> Iterator[Rule]:
    """Every rate, then those of single accounts and domains, then the switches."""
    overrides = [one for one in told if isinstance(one, Override)]
    rates = {one.limit: one for one in overrides if one.account is None and one.domain is None}
    for limit in dict.fromkeys([*published.rates, *rates]):
        preset = write_rate(published.rates[limit]) if limit in published.rates else None
        value = write_rate(rates[limit].rate) if limit in rates else preset
        yield Rule(limit, None, None, value or "", preset, limit in rates)
    for one in overrides:
        if one.account is not None or one.domain is not None:
            preset = write_rate(published.rates[one.limit]) if one.limit in published.rates else None
            account = one.email or one.account
            yield Rule(one.limit, account, one.domain, write_rate(one.rate), preset, overridden=True)
    switched = {one.switch: one.on for one in told if isinstance(one, Switched)}
    for switch in Switch:
        before = bool(getattr(published, field_of(switch)))
        value = WORDS[switched.get(switch, before)]
        yield Rule(switch, None, None, value, WORDS[before] if known else None, switch in switched)


async def _ca(fleet: Fleet, ca: str | None) -> CA:
    return resolve_ca(ca) if ca else first_ca(effective({}, await fleet.inventory.properties()))


def _counted(domain: str) -> str:
    """The domain as it is written in keys. Raises UsageError when the CA counts it under another."""
    name = domain if address_of(domain.removesuffix("/64")) else normalise(domain)
    if covering(name) != name:
        raise UsageError("domain", domain, f"is counted under {covering(name)}; set that")
    return name


def _switched(words: Mapping[str, str], switch: str, value: str, told: list[Told]) -> str:
    """Tell what a switch is set to, if to anything; its name."""
    for kind in ("account", "domain"):
        if kind in words:
            raise UsageError("limit", switch, f"is not set per {kind}: it holds for a CA")
    if value not in ("", *WORDS.values()):
        raise UsageError(switch, value, f"is not one of {', '.join(WORDS.values())}")
    switched = Switched(ca=words["ca"], switch=Switch(switch), on=value == WORDS[True])
    told += [switched] if value else []
    return switched.name
