"""What a fleet needs to write TXT records, under a name that apps refer to: sealed, and never shown again.

dns:<name>  string  the Credentials as JSON, their values sealed by the vault
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError

from certfleet.dns import acmedns, hook, lexicon, rfc2136
from certfleet.dns.authority import Zones
from certfleet.dns.provider import Provider
from certfleet.errors import DNSProviderError, UnknownName, UsageError
from certfleet.models import dump, load
from certfleet.store import Store
from certfleet.vault import Vault

OWN: dict[str, type[BaseModel]] = {"rfc2136": rfc2136.Keys, "exec": hook.Keys, "acme-dns": acmedns.Keys}
"""The providers that are not dns-lexicon's, and their keys."""
LONGEST = 65_536  # characters of all values together


@dataclass(frozen=True, slots=True)
class Credentials:
    """A provider and the values of its keys; `sealed_key` is their JSON."""

    name: str
    provider: str
    keys: tuple[str, ...]
    """The names alone, for a person."""
    sealed_key: str


def providers() -> dict[str, bool]:
    """Every provider that can be named, our own first; False: it needs a package that is not installed."""
    return dict.fromkeys(OWN, True) | {name: there for name, there in lexicon.known().items() if name not in OWN}


def check_values(provider: str, values: Mapping[str, str]) -> dict[str, str]:
    """The values as they are kept. Raises UsageError, which names keys and shows no secret."""
    if provider not in OWN and provider not in lexicon.known():
        wanted = "is not known: `certfleet dns providers` lists them"
        raise UsageError("provider", provider, wanted)
    if sum(len(value) for value in values.values()) > LONGEST:
        raise UsageError("key", None, f"the values are longer than {LONGEST} characters together")
    if provider not in OWN:
        return lexicon.check(provider, values)
    try:
        OWN[provider].model_validate(dict(values))
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = str(first["loc"][0]) if first["loc"] else None
        raise UsageError(
            "key", where, f"{_told(first['msg'])} ({provider} takes {', '.join(takes(provider))})"
        ) from None
    return dict(values)


def takes(provider: str) -> list[str]:
    """The keys of a provider."""
    if provider not in OWN:
        return lexicon.keys_of(provider)
    return [*OWN[provider].model_fields, *(["VARIABLE"] if provider == "exec" else [])]


def _told(message: str) -> str:
    known = {"Extra inputs are not permitted": "is not a key", "Field required": "is missing", "Value error, ": ""}
    for theirs, ours in known.items():
        message = message.replace(theirs, ours)
    return message


class CredentialsBook:
    """The credentials by name. Looking needs no vault; keeping and opening do."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def get(self, name: str) -> Credentials:
        """Raises UnknownName."""
        text = await self._store.redis.get(self._store.key("dns", name))
        if text is None:
            raise UnknownName("dns", name, "is not known: `certfleet dns set` makes it, `certfleet dns list` shows all")
        return load(Credentials, text)

    async def all(self) -> list[Credentials]:
        """By name."""
        names = [key async for key in self._store.redis.scan_iter(match=self._store.key("dns", "*"), count=1000)]
        texts = await self._store.redis.mget(sorted(names)) if names else []
        return [load(Credentials, text) for text in texts if text]

    async def keep(self, vault: Vault, name: str, provider: str, values: Mapping[str, str]) -> None:
        """Seal and keep checked values, in place of those that there were."""
        sealed = vault.seal(json.dumps(dict(values)).encode())
        credentials = Credentials(name, provider, tuple(values), sealed)
        await self._store.redis.set(self._store.key("dns", name), dump(credentials))

    async def forget(self, name: str) -> None:
        """They are gone."""
        await self._store.redis.delete(self._store.key("dns", name))


def open_provider(credentials: Credentials, vault: Vault, zones: Zones) -> Provider:
    """What writes records with these credentials. Raises VaultError, DNSProviderError for what was kept unchecked."""
    values: dict[str, str] = json.loads(vault.open(credentials.sealed_key))
    kind = credentials.provider
    makers: dict[str, Callable[[Any], Provider]] = {
        "rfc2136": lambda keys: rfc2136.RFC2136(keys, zones),
        "exec": hook.Hook,
        "acme-dns": acmedns.AcmeDNS,
    }
    if kind in makers:
        try:
            check_values(kind, values)
        except UsageError as error:
            name = credentials.name
            raise DNSProviderError(
                f"the DNS credentials {name} cannot be used: {error}; `certfleet dns set {name} {kind} …` replaces them"
            ) from None
        return makers[kind](OWN[kind].model_validate(values))
    return lexicon.Lexicon(kind, values)
