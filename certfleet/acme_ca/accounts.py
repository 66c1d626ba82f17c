"""One account per (CA, e-mail), made once however many workers want it first.

The record with the sealed key is written before the CA hears of the key, by whoever comes first; everybody
registers with the key that won, and registering a key twice gives the same account (RFC 8555 §7.3.1).
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import datetime
from hashlib import sha256
from http import HTTPStatus
from typing import Any, Protocol

from certfleet.acme_ca.keys import AccountKey, key_pem, load_account_key, make_account_key
from certfleet.acme_ca.protocol import Signer, new_account
from certfleet.acme_ca.transport import Transport
from certfleet.errors import AcmeProblem, RateLimited, SlowedDown
from certfleet.models import CA, Account, dump, load
from certfleet.store import Store


class Vault(Protocol):
    """Keeps secrets at rest (certfleet/vault.py)."""

    def seal(self, secret: bytes) -> str:
        """The secret as text that may go to Redis."""

    def open(self, sealed: str) -> bytes:
        """The secret back. Raises VaultError."""


class Registrations(Protocol):
    """Counts new accounts before the CA does (limits/registrations.py)."""

    async def spend(self, ca: CA) -> None:
        """Take what one newAccount costs. Raises RateLimited."""

    async def give_back(self, ca: CA) -> None:
        """Nothing was registered by it."""

    async def block(self, ca: CA, until: datetime) -> None:
        """The CA takes no newAccount before `until`."""


class Unlimited:
    """Registrations that nobody counts."""

    async def spend(self, ca: CA) -> None:
        """Nothing."""

    async def give_back(self, ca: CA) -> None:
        """Nothing."""

    async def block(self, ca: CA, until: datetime) -> None:
        """Nothing."""


OTHERS = (0.1, 2.0)  # seconds: between two looks whether somebody else registers the account just now, and in all


def account_id(ca: CA, email: str) -> str:
    """The name of the record, the same in every process."""
    return sha256(f"{ca.directory}\n{email}".encode()).hexdigest()[:16]


async def known_account(store: Store, ca: CA, email: str) -> Account | None:
    """The account's record as it is, nothing registered; None: nobody has wanted it yet."""
    text = await store.redis.get(store.key("account", account_id(ca, email)))
    return load(Account, text) if text is not None else None


class Accounts:
    """The accounts of this process, kept once they are known."""

    def __init__(self, store: Store, vault: Vault, registrations: Registrations | None = None) -> None:
        """Records go to `store`, keys through `vault`; `registrations` is asked before each newAccount."""
        self._store = store
        self._vault = vault
        self._registrations = registrations or Unlimited()
        self._known: dict[str, tuple[Account, Signer]] = {}
        self._asking: dict[str, asyncio.Task[tuple[Account, Signer]]] = {}

    async def account_for(self, transport: Transport, email: str) -> tuple[Account, Signer]:
        """The account, registered when it was not. Raises CAError when the CA will not, RateLimited, VaultError."""
        name = account_id(transport.ca, email)
        if name in self._known:
            return self._known[name]
        if name not in self._asking:  # whoever wants it meanwhile shares what comes of it, also a failure
            self._asking[name] = asyncio.create_task(self._registered(name, transport, email))
            self._asking[name].add_done_callback(lambda done: self._asked(name, done))
        return await asyncio.shield(self._asking[name])

    def _asked(self, name: str, done: asyncio.Task[tuple[Account, Signer]]) -> None:
        del self._asking[name]
        if not done.cancelled() and done.exception() is None:
            self._known[name] = done.result()

    async def forget(self, account: Account) -> None:
        """Drop the account's URL after the CA said `accountDoesNotExist`; the next use registers its key again."""
        self._known.pop(account.id, None)
        await self._change_url(account.id, account.url, None)

    async def _registered(self, name: str, transport: Transport, email: str) -> tuple[Account, Signer]:
        account = await self._record(name, transport.ca, email)
        key = load_account_key(self._vault.open(account.sealed_key))
        url = account.url
        if url is None:
            try:
                url = await self._register(transport, key, email)
            except RateLimited:
                url = await self._registered_by_others(name)
                if url is None:
                    raise
            await self._change_url(name, None, url)
        return replace(account, url=url), Signer(key, url)

    async def _register(self, transport: Transport, key: AccountKey, email: str) -> str:
        ca = transport.ca
        await transport.directory()  # a CA that cannot be reached costs no token
        await self._registrations.spend(ca)
        try:
            registered = await new_account(transport, key, email, agree_tos=True)
        except (AcmeProblem, SlowedDown) as error:
            # After any other error nobody knows whether the CA has made an account and counted it: it counts here.
            await self._registrations.give_back(ca)
            refused = isinstance(error, AcmeProblem) and error.status == HTTPStatus.TOO_MANY_REQUESTS
            if refused and error.retry_at is not None:
                await self._registrations.block(ca, error.retry_at)
            raise
        if not registered.new:
            await self._registrations.give_back(ca)
        return registered.url

    async def _registered_by_others(self, name: str) -> str | None:
        """The URL, when a process that found a token registers the same account just now."""
        pause, patience = OTHERS
        for _ in range(round(patience / pause)):
            await asyncio.sleep(pause)
            text = await self._store.redis.get(self._store.key("account", name))
            if text is not None and (url := load(Account, text).url) is not None:
                return url
        return None

    async def _record(self, name: str, ca: CA, email: str) -> Account:
        key = self._store.key("account", name)
        text = await self._store.redis.get(key)
        if text is None:
            sealed = self._vault.seal(key_pem(make_account_key().private))
            ours = dump(Account(id=name, ca=ca.name, email=email, sealed_key=sealed))
            await self._store.redis.set(key, ours, nx=True)
            text = await self._store.redis.get(key) or ours  # whoever came first
        return load(Account, text)

    async def _change_url(self, name: str, old: str | None, new: str | None) -> None:
        # Only the URL changes: a key that was sealed anew in the meantime stays as it is.
        key = self._store.key("account", name)

        async def change(pipe: Any) -> None:
            text = await pipe.get(key)
            pipe.multi()
            if text is not None and (account := load(Account, text)).url == old:
                pipe.set(key, dump(replace(account, url=new)))

        await self._store.redis.transaction(change, key)
