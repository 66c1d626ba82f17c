"""What CAs gave the operator to make accounts with (external account binding), and the profiles that they offer.

eab:<account id>  string  the ExternalAccount, MAC key sealed; read when the account is made
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from certfleet.acme_ca.account_records import account_id
from certfleet.acme_ca.eab import parse_binding
from certfleet.acme_ca.presets import resolve_ca
from certfleet.ca_list import first_ca
from certfleet.errors import UsageError
from certfleet.lifecycle.fleet import Fleet
from certfleet.models import CA, ExternalAccount, dump, load
from certfleet.properties import PROPERTIES
from certfleet.vault import Vault, ensure_key

HIDDEN = "****"
PAGE = 10_000  # keys per SCAN; a person asks for the list, and seldom


@dataclass(frozen=True, slots=True)
class Bound:
    """One external account as it is shown."""

    ca: str
    """A preset's name, or the URL of the directory."""
    email: str
    kid: str
    key: str
    """Never the key itself."""


@dataclass(frozen=True, slots=True)
class Profile:
    """A kind of certificate that a CA offers."""

    name: str
    description: str
    """As the CA wrote it, mostly the URL of a page."""


@dataclass(frozen=True, slots=True)
class Offer:
    """What a CA's directory says."""

    ca: str
    directory: str
    external_account_required: bool
    profiles: tuple[Profile, ...]


def account_of(properties: Mapping[str, str]) -> tuple[CA, str]:
    """CA (of a list the first) and e-mail that make an account. Raises UsageError without an e-mail."""
    if not properties["email"]:
        raise UsageError("email", None, "is not set for all apps: give --email ops@example.com")
    return first_ca(properties), properties["email"]


def checked(ca: str | None, email: str | None) -> dict[str, str]:
    """The properties that a person named instead of those set for all apps, one CA at most. Raises UsageError."""
    if ca is not None and "," in ca:
        raise UsageError("ca", ca, "are several CAs: give one at a time")
    given = {"ca": ca, "email": email}
    return {name: PROPERTIES[name].check(name, value) for name, value in given.items() if value is not None}


async def keep(fleet: Fleet, ca: CA, email: str, kid: str, key: str) -> None:
    """Keep what the CA gave, sealed. Raises UsageError for what is no such key, ConfigurationError."""
    binding = parse_binding(kid, key)
    ensure_key(fleet.settings)
    sealed = Vault(fleet.settings).seal(binding.key)
    record = ExternalAccount(ca=ca.directory, email=email, kid=binding.kid, sealed_key=sealed)
    await fleet.store.redis.set(fleet.store.key("eab", account_id(ca, email)), dump(record))


async def forget(fleet: Fleet, ca: CA, email: str) -> bool:
    """Forget it; False when there was none. An account that was made with it stays."""
    return bool(await fleet.store.redis.delete(fleet.store.key("eab", account_id(ca, email))))


async def find(fleet: Fleet, ca: CA, email: str) -> Bound | None:
    """What is kept for a CA and e-mail."""
    text = await fleet.store.redis.get(fleet.store.key("eab", account_id(ca, email)))
    return _bound(text) if text else None


async def every(fleet: Fleet) -> list[Bound]:
    """All that is kept, by CA and e-mail."""
    redis = fleet.store.redis
    keys = [key async for key in redis.scan_iter(match=fleet.store.key("eab", "*"), count=PAGE)]
    texts = await redis.mget(keys) if keys else []
    return sorted((_bound(text) for text in texts if text), key=lambda one: (one.ca, one.email))


def _bound(text: str) -> Bound:
    record = load(ExternalAccount, text)
    return Bound(ca=resolve_ca(record.ca).name, email=record.email, kid=record.kid, key=HIDDEN)


async def offer(fleet: Fleet, ca: CA) -> Offer:
    """Ask the CA, from this machine. Raises CAError."""
    from certfleet.acme_ca.transport import Transport  # noqa: PLC0415  250 ms that most commands do without

    async with Transport(ca, nameservers=fleet.settings.nameservers) as transport:
        meta = (await transport.directory()).meta
    profiles = tuple(Profile(name, text) for name, text in meta.profiles.items())
    return Offer(ca.name, ca.directory, meta.external_account_required, profiles)
