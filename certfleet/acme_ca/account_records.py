"""Accounts in Redis.

account:<id>  string  the Account as JSON, its keys sealed; the id is made of directory and e-mail address
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from hashlib import sha256
from typing import Any

from certfleet.models import CA, Account, dump, load
from certfleet.store import Store

PAGE = 500  # keys per SCAN


def account_id(ca: CA, email: str) -> str:
    """The name of the record, the same in every process."""
    return sha256(f"{ca.directory}\n{email}".encode()).hexdigest()[:16]


async def known_account(store: Store, ca: CA, email: str) -> Account | None:
    """The account's record, under whichever address it is kept now; None: nobody has wanted it yet.

    Nothing is registered.
    """
    return (await _followed(store, ca, email))[1]


async def is_one_account(store: Store, ca: CA, *emails: str) -> bool:
    """Whether these addresses lead to the same account: it was moved from one to the other."""
    return len({(await _followed(store, ca, email))[0] for email in emails}) == 1


async def _followed(store: Store, ca: CA, email: str) -> tuple[str, Account | None]:
    """The address to which an address leads now, and the record there."""
    records, passed = AccountRecords(store), set[str]()
    found = await records.get(account_id(ca, email))
    while found is not None and found.moved and email not in passed:
        passed.add(email)
        email = found.moved
        found = await records.get(account_id(ca, email))
    return email, found


class AccountRecords:
    """Reads are plain; a change is made to what the record is at that moment, or not at all."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def text(self, name: str) -> str | None:
        """A record as Redis has it, to see whether it has changed."""
        text: str | None = await self._store.redis.get(self._store.key("account", name))
        return text

    async def get(self, name: str) -> Account | None:
        """One account by its id."""
        text = await self.text(name)
        return load(Account, text) if text is not None else None

    async def create(self, account: Account) -> Account:
        """Keep an account; the answer is the one of whoever came first."""
        await self._store.redis.set(self._store.key("account", account.id), dump(account), nx=True)
        return await self.get(account.id) or account

    async def all(self) -> AsyncIterator[Account]:
        """Every record, also those that are only the way to another (`moved`)."""
        pattern = self._store.key("account", "*")
        names = sorted([key async for key in self._store.redis.scan_iter(match=pattern, count=PAGE)])
        for text in await self._store.redis.mget(names) if names else []:
            if text is not None:
                yield load(Account, text)

    async def change(self, name: str, change: Callable[[Account | None], Account | None]) -> Account | None:
        """Replace a record by what `change` makes of it (None: leave it); what it is afterwards."""
        key = self._store.key("account", name)
        after: Account | None = None

        async def apply(pipe: Any) -> None:
            nonlocal after
            text = await pipe.get(key)
            before = load(Account, text) if text is not None else None
            pipe.multi()
            changed = change(before)
            after = before if changed is None else changed
            if changed is not None and changed != before:
                pipe.set(key, dump(changed))

        await self._store.redis.transaction(apply, key)
        return after

    async def move(self, account: Account, to: str, email: str) -> Account:
        """Keep an account under another id and e-mail address, with the way there, and what its limits have counted.

        What it is then: a key that it was given meanwhile goes along. What is reserved (limits/gcra.lua) stays behind:
        orders under way give it back there, and ask for it anew here.
        """
        redis, prefix = self._store.redis, self._store.key("limit")
        counted = [key async for key in redis.scan_iter(match=f"{prefix}:*{account.id}*", count=PAGE)]
        texts = await redis.mget(counted) if counted else []
        way = Account(id=account.id, ca=account.ca, email=account.email, sealed_key="", moved=email)
        key = self._store.key("account", account.id)
        moved = account

        async def apply(pipe: Any) -> None:
            nonlocal moved
            record = await pipe.get(key)
            now = load(Account, record) if record is not None else account
            moved = replace(account if now.moved else now, id=to, email=email)
            pipe.multi()
            pipe.set(self._store.key("account", to), dump(moved))
            pipe.set(key, dump(way))
            for name, text in zip(counted, texts, strict=True):
                if text is not None:
                    tat = int(text.partition(" ")[0])
                    pipe.set(name.replace(account.id, to), f"{tat} 0", pxat=tat // 1000 + 1)

        await redis.transaction(apply, key)
        return moved
