"""One account per (CA, e-mail), made once however many workers want it first.

The record with the sealed key is written before the CA hears of the key, by whoever comes first; everybody
registers with the key that won, and registering a key twice gives the same account (RFC 8555 §7.3.1).
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from dataclasses import replace
from hashlib import sha256
from typing import Any, Protocol

from certfleet.acme_ca.keys import key_pem, load_account_key, make_account_key
from certfleet.acme_ca.protocol import Signer, new_account
from certfleet.acme_ca.transport import Transport
from certfleet.models import CA, Account, dump, load
from certfleet.store import Store


class Vault(Protocol):
    """Keeps secrets at rest (certfleet/vault.py)."""

    def seal(self, secret: bytes) -> str:
        """The secret as text that may go to Redis."""

    def open(self, sealed: str) -> bytes:
        """The secret back. Raises VaultError."""


def account_id(ca: CA, email: str) -> str:
    """The name of the record, the same in every process."""
    return sha256(f"{ca.directory}\n{email}".encode()).hexdigest()[:16]


class Accounts:
    """The accounts of this process, kept once they are known."""

    def __init__(self, store: Store, vault: Vault) -> None:
        """Records go to `store`, keys through `vault`."""
        self._store = store
        self._vault = vault
        self._known: dict[str, tuple[Account, Signer]] = {}
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def account_for(self, transport: Transport, email: str) -> tuple[Account, Signer]:
        """The account, registered when it was not. Raises CAError when the CA will not, VaultError."""
        name = account_id(transport.ca, email)
        if name in self._known:
            return self._known[name]
        async with self._locks[name]:
            if name not in self._known:
                self._known[name] = await self._registered(name, transport, email)
            return self._known[name]

    async def forget(self, account: Account) -> None:
        """Drop the account's URL after the CA said `accountDoesNotExist`; the next use registers its key again."""
        self._known.pop(account.id, None)
        await self._change_url(account.id, account.url, None)

    async def _registered(self, name: str, transport: Transport, email: str) -> tuple[Account, Signer]:
        account = await self._record(name, transport.ca, email)
        key = load_account_key(self._vault.open(account.sealed_key))
        if account.url is None:
            url = await new_account(transport, key, email, agree_tos=True)
            await self._change_url(name, None, url)
            account = replace(account, url=url)
        else:
            url = account.url
        return account, Signer(key, url)

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
