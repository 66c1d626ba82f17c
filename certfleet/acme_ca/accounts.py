"""One account per (CA, e-mail), made once however many workers want it first.

The record with the sealed key is written before the CA hears of the key, by whoever comes first; everybody
registers with the key that won, and registering a key twice gives the same account (RFC 8555 §7.3.1).
Whatever is kept of it in a process is used only while the record is the same.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import datetime
from http import HTTPStatus
from typing import Protocol

from certfleet.acme_ca.account_records import AccountRecords, account_id
from certfleet.acme_ca.account_requests import find_account
from certfleet.acme_ca.eab import Binding, missing
from certfleet.acme_ca.keys import AccountKey, key_pem, load_account_key, make_account_key
from certfleet.acme_ca.protocol import Signer, new_account
from certfleet.acme_ca.transport import Transport
from certfleet.errors import AcmeProblem, CARefuses, RateLimited, SlowedDown
from certfleet.models import CA, Account, ExternalAccount, dump, load
from certfleet.store import Store

__all__ = ["Accounts", "Registrations", "Vault", "account_id"]


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


FORMER_KEPT = 20  # thumbprints of keys before the present one
OTHERS = (0.1, 2.0)  # seconds: between two looks whether somebody else registers the account just now, and in all


class Accounts:
    """The accounts of this process, kept once they are known."""

    def __init__(self, store: Store, vault: Vault, registrations: Registrations | None = None) -> None:
        """Records go to `store`, keys through `vault`; `registrations` is asked before each newAccount."""
        self._store = store
        self.records = AccountRecords(store)
        self._vault = vault
        self._registrations = registrations or Unlimited()
        self._known: dict[str, tuple[str, Account, Signer]] = {}
        self._asking: dict[str, asyncio.Task[tuple[Account, Signer]]] = {}

    async def account_for(self, transport: Transport, email: str, *, agree_tos: bool = False) -> tuple[Account, Signer]:
        """The account, registered when it was not; that takes the operator's word (`agree_tos`) on a CA's terms.

        Raises CARefuses when the word or an external account is missing or the account was ended, CAError when the
        CA will not, RateLimited, VaultError.
        """
        name = account_id(transport.ca, email)
        text = await self.records.text(name)
        if name in self._known and self._known[name][0] == text:
            return self._known[name][1:]
        if name not in self._asking:  # whoever wants it meanwhile shares what comes of it, also a failure
            asking = self._registered(name, transport, email, agree_tos=agree_tos)
            self._asking[name] = asyncio.create_task(asking)
            self._asking[name].add_done_callback(lambda done: self._asked(name, done))
        return await asyncio.shield(self._asking[name])

    def _asked(self, name: str, done: asyncio.Task[tuple[Account, Signer]]) -> None:
        del self._asking[name]
        if not done.cancelled() and done.exception() is None:
            account, signer = done.result()
            self._known[name] = dump(account), account, signer

    async def forget(self, account: Account) -> None:
        """Drop the account's URL after the CA said `accountDoesNotExist`; the next use registers its key again."""
        self._known.pop(account.id, None)
        await self._change_url(account.id, account.url, None)

    async def changed(self, transport: Transport, account: Account) -> bool:
        """After the CA refused a request: whether the account has another key by now, so that it is worth another try.

        A change of its key that was cut short is brought to its end here: the CA is asked which one it has.
        """
        now = await self.records.get(account.id)
        if now is None or now.sealed_key != account.sealed_key:
            return True
        if now.sealed_next is None:
            return False
        following = load_account_key(self._vault.open(now.sealed_next))
        if await find_account(transport, following) != now.url:
            return False
        await self.promote(now)
        return True

    async def promote(self, account: Account) -> Account | None:
        """The CA has the account's next key: it is its key from now on."""
        pem = self._vault.open(account.sealed_next or "")

        def change(now: Account | None) -> Account | None:
            if now is None or now.sealed_next is None or self._vault.open(now.sealed_next) != pem:
                return None  # somebody else has done it
            before = load_account_key(self._vault.open(now.sealed_key)).thumbprint
            former = (before, *now.former)[:FORMER_KEPT]
            return replace(now, sealed_key=now.sealed_next, sealed_next=None, former=former)

        return await self.records.change(account.id, change)

    async def _registered(
        self, name: str, transport: Transport, email: str, *, agree_tos: bool
    ) -> tuple[Account, Signer]:
        account = await self._record(name, transport.ca, email)
        if account.moved:
            return await self.account_for(transport, account.moved, agree_tos=agree_tos)
        require_active(account)
        key = load_account_key(self._vault.open(account.sealed_key))
        url = account.url
        if url is None:
            await _require_terms(transport, email, agree_tos=agree_tos)
            try:
                url = await self._register(transport, key, email, agree_tos=agree_tos)
            except RateLimited:
                url = await self._registered_by_others(name)
                if url is None:
                    raise
            await self._change_url(name, None, url)
        return replace(account, url=url), Signer(key, url)

    async def _register(self, transport: Transport, key: AccountKey, email: str, *, agree_tos: bool) -> str:
        ca = transport.ca
        directory = await transport.directory()  # a CA that cannot be reached costs no token
        binding = await self._binding(ca, email)
        if directory.meta.external_account_required and binding is None:
            raise missing(ca, email)
        await self._registrations.spend(ca)
        try:
            registered = await new_account(transport, key, email, agree_tos=agree_tos, binding=binding)
        except (AcmeProblem, SlowedDown) as error:
            # After any other error nobody knows whether the CA has made an account and counted it: it counts here.
            await self._registrations.give_back(ca)
            refused = isinstance(error, AcmeProblem) and error.status == HTTPStatus.TOO_MANY_REQUESTS
            if refused and error.retry_at is not None:
                await self._registrations.block(ca, error.retry_at)
            if isinstance(error, AcmeProblem) and error.type == "externalAccountRequired" and binding is None:
                raise missing(ca, email) from error
            raise
        if not registered.new:
            await self._registrations.give_back(ca)
        return registered.url

    async def _binding(self, ca: CA, email: str) -> Binding | None:
        """What ties the new account to one that the operator has with the CA. Raises VaultError."""
        text = await self._store.redis.get(self._store.key("eab", account_id(ca, email)))
        external = load(ExternalAccount, text) if text else None
        return Binding(external.kid, self._vault.open(external.sealed_key)) if external else None

    async def _registered_by_others(self, name: str) -> str | None:
        """The URL, when a process that found a token registers the same account just now."""
        pause, patience = OTHERS
        for _ in range(round(patience / pause)):
            await asyncio.sleep(pause)
            account = await self.records.get(name)
            if account is not None and account.url is not None:
                return account.url
        return None

    async def _record(self, name: str, ca: CA, email: str) -> Account:
        found = await self.records.get(name)
        if found is not None:
            return found
        sealed = self._vault.seal(key_pem(make_account_key().private))
        return await self.records.create(Account(id=name, ca=ca.name, email=email, sealed_key=sealed))

    async def _change_url(self, name: str, old: str | None, new: str | None) -> None:
        # Only the URL changes: a key that was sealed anew in the meantime stays as it is.
        def change(account: Account | None) -> Account | None:
            return None if account is None or account.url != old else replace(account, url=new)

        await self.records.change(name, change)


def require_active(account: Account) -> None:
    """Raise CARefuses for an account that the operator has ended."""
    if account.deactivated is not None:
        raise CARefuses(
            f"the account {account.email} at {account.ca} was deactivated on {account.deactivated:%Y-%m-%d}: give its "
            "apps another `email`, or import another key for it (`certfleet account import`)"
        )


async def _require_terms(transport: Transport, email: str, *, agree_tos: bool) -> None:
    """Raise CARefuses when the CA has terms of service that nobody has agreed to (RFC 8555 §7.3.1)."""
    terms = (await transport.directory()).meta.terms_of_service
    if terms and not agree_tos:
        shown = "".join(c for c in terms[:500] if c.isprintable())
        raise CARefuses(
            f"a new account ({email}) at {transport.ca.name} needs your word on the CA's terms of service, {shown} : "
            "read them, then `certfleet set agree-tos=on`, or `--agree-tos` with `certfleet enable` for one app"
        )
