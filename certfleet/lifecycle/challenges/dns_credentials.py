"""What a person does with DNS credentials: set them, list them, take them away."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from certfleet.dns.credentials import check_values
from certfleet.errors import UsageError
from certfleet.inventory import check_name
from certfleet.lifecycle.fleet import Fleet
from certfleet.lifecycle.records import dns_member
from certfleet.models import App, utcnow
from certfleet.properties import effective
from certfleet.vault import Vault, ensure_key


@dataclass(frozen=True, slots=True)
class DNSCredentials:
    """What may be shown of credentials."""

    name: str
    provider: str
    keys: tuple[str, ...]
    """The names of its keys; their values are sealed."""


async def keep_credentials(fleet: Fleet, name: str, provider: str, values: Mapping[str, str]) -> list[App]:
    """Seal and keep credentials, in place of those of the same name; the apps that use them.

    What could not be removed with the values before is tried again. Raises UsageError, which shows no secret, and
    ConfigurationError without the vault's key.
    """
    check_name("dns", name)
    kept = check_values(provider, values)
    ensure_key(fleet.settings)
    await fleet.dns.keep(Vault(fleet.settings), name, provider, kept)
    await fleet.journal.write("", "DNS credentials set", f"{name}: {provider}, {', '.join(kept)}")
    for app in await _with_records(fleet, name):
        await _try_again(fleet, app)
    return await _users(fleet, name)


async def list_credentials(fleet: Fleet) -> list[DNSCredentials]:
    """By name."""
    return [DNSCredentials(one.name, one.provider, one.keys) for one in await fleet.dns.all()]


async def forget_credentials(fleet: Fleet, name: str) -> None:
    """Raises UnknownName, and UsageError while an app uses them or records written with them are still there."""
    await fleet.dns.get(name)
    if users := sorted(app.name for app in await _users(fleet, name)):
        raise UsageError("dns", name, f"is used by {_some(users)}: set another one there first")
    if (await fleet.inventory.properties()).get("dns") == name:
        raise UsageError("dns", name, "is set for all apps: `certfleet set dns=` first")
    if records := await _with_records(fleet, name):
        raise UsageError("dns", name, f"is needed to remove TXT records of {_some(records)}: wait until they are gone")
    await fleet.dns.forget(name)
    await fleet.journal.write("", "DNS credentials removed", name)


async def _users(fleet: Fleet, name: str) -> list[App]:
    everywhere = await fleet.inventory.properties()
    found = []
    async for app in fleet.inventory.apps():
        values = effective(app.properties, everywhere)
        if values["dns"] == name and (values["challenge"] == "dns-01" or app.properties.get("dns")):
            found.append(app)
    return found


async def _with_records(fleet: Fleet, name: str) -> list[str]:
    """The apps with records on their lists that were written with these credentials."""
    lists = [(app, await fleet.written.of(app)) for app in await fleet.written.apps()]
    return [app for app, written in lists if any(one.dns == name for one in written.values())]


async def _try_again(fleet: Fleet, app: str) -> None:
    for field, written in (await fleet.written.of(app)).items():
        if written.retry_at is not None:
            await fleet.written.keep(app, {field: replace(written, retry_at=None)})
            await fleet.agenda.schedule(dns_member(app), utcnow())


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")  # noqa: PLR2004
