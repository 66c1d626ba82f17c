"""What an operator does with an account: another key, another address, its end, one that another client made.

What a crash must not lose is kept before the CA is asked; every change may be asked for again.
"""

from __future__ import annotations

from dataclasses import replace

from certfleet.acme_ca.account_records import account_id
from certfleet.acme_ca.account_requests import change_contact, change_key, deactivate_account, find_account
from certfleet.acme_ca.accounts import Accounts, Vault, require_active
from certfleet.acme_ca.keys import AccountKey, key_pem, load_account_key, make_account_key
from certfleet.acme_ca.protocol import Signer, account_status
from certfleet.acme_ca.transport import Transport
from certfleet.errors import AcmeProblem, UsageError, VaultError
from certfleet.models import Account, utcnow


class AccountChanges:
    """Changes of the accounts of one CA."""

    def __init__(self, accounts: Accounts, vault: Vault, transport: Transport) -> None:
        self._accounts = accounts
        self._records = accounts.records
        self._vault = vault
        self._transport = transport

    async def account(self, email: str) -> Account:
        """The registered account with this address. Raises UsageError: there is none."""
        ca = self._transport.ca
        found = await self._records.get(account_id(ca, email))
        if found is None or found.moved or found.url is None:
            raise UsageError("account", email, f"is none at {ca.name}: `certfleet account ls` shows every account")
        return found

    async def roll_over(self, email: str) -> Account:
        """Give the account a new key (RFC 8555 §7.3.5). Raises UsageError, OwnerError, CAError.

        The new key is kept, sealed, before the CA hears of it. One that a crash left there is used again, and the CA
        is asked first whether it has it already.
        """
        account = await self._with_next(await self.account(email))
        following = load_account_key(self._vault.open(account.sealed_next or ""))
        signer = self._signer(account)
        if await find_account(self._transport, following) != signer.kid:
            try:
                await change_key(self._transport, signer, following)
            except AcmeProblem:
                # Somebody else was at it in this moment, with the same key: what counts is what the CA has.
                if await find_account(self._transport, following) != signer.kid:
                    raise
        return await self._accounts.promote(account) or account

    async def _with_next(self, account: Account) -> Account:
        require_active(account)
        sealed = self._vault.seal(key_pem(make_account_key().private))

        def change(now: Account | None) -> Account | None:
            return None if now is None or now.sealed_next is not None else replace(now, sealed_next=sealed)

        return await self._records.change(account.id, change) or account

    async def change_email(self, old: str, new: str) -> Account:
        """Give the account another contact (§7.3.2), and keep it under that address from now on.

        Asked for again after a crash, it goes on where it was. Raises UsageError, OwnerError, CAError.
        """
        account, done = await self._to_move(old, new)
        if done:
            return account
        await change_contact(self._transport, self._signer(account), new)
        return await self._records.move(account, account_id(self._transport.ca, new), new)

    async def try_email(self, old: str, new: str) -> None:
        """Raise what `change_email` would, as far as it can be known before: by our records, and by the CA's word.

        Nothing is changed.
        """
        account, done = await self._to_move(old, new)
        if not done:
            await account_status(self._transport, self._signer(account))

    async def _to_move(self, old: str, new: str) -> tuple[Account, bool]:
        """The account that is to have another address, and whether it has it. Raises UsageError, CARefuses."""
        ca = self._transport.ca
        taken = await self._records.get(account_id(ca, new))
        before = await self._records.get(account_id(ca, old))
        if before is not None and before.moved == new and taken is not None:
            return taken, True
        if taken is not None and not taken.moved and taken.url is not None:
            raise UsageError("account", new, f"is there already at {ca.name}: set the apps' `email` to it instead")
        account = await self.account(old)
        require_active(account)
        return account, False

    async def deactivate(self, email: str) -> Account:
        """End the account for ever (§7.3.6). Raises UsageError, CAError.

        It is noted first: nothing is ordered with it while the CA is asked, nor when that fails.
        """
        account = await self.account(email)

        def change(now: Account | None) -> Account | None:
            return None if now is None or now.deactivated is not None else replace(now, deactivated=utcnow())

        account = await self._records.change(account.id, change) or account
        await deactivate_account(self._transport, self._signer(account))
        return account

    async def take_over(self, email: str, key: AccountKey) -> tuple[Account, bool]:
        """Use the account that has this key, made by another client, and whether that is new here.

        The CA says which one it is (§7.3.1). Raises UsageError when it knows none, when this address has another one,
        and when the account is kept under another address.
        """
        ca = self._transport.ca
        url = await find_account(self._transport, key)
        if url is None:
            raise UsageError("key", None, f"{ca.name} knows no account with it: is it of another CA, or rolled over?")
        name = account_id(ca, email)
        await self._require_kept_once(name, email, url, key)
        ours = Account(id=name, ca=ca.name, email=email, sealed_key=self._vault.seal(key_pem(key.private)), url=url)

        def change(now: Account | None) -> Account | None:
            in_use = now is not None and not now.moved and now.url is not None and now.deactivated is None
            return None if in_use else ours

        kept = await self._records.change(name, change) or ours
        if kept.url != url:
            raise UsageError(
                "email", email, f"has another account at {ca.name} already, {kept.url}: give another address"
            )
        return kept, kept.sealed_key == ours.sealed_key

    async def _require_kept_once(self, name: str, email: str, url: str, key: AccountKey) -> None:
        """Raise UsageError when another record has the account: a new key, or its end, would reach one of them only."""
        ca = self._transport.ca
        async for one in self._records.all():
            if one.ca != ca.name or one.id == name or one.moved or one.deactivated is not None:
                continue
            if one.url == url or (one.url is None and self._has_key(one, key)):
                told = f"cannot have the account {url} at {ca.name} too, {one.email} has it"
                command = f"certfleet account email {one.email} {email}"
                wanted = f"set the apps' `email` to that, or give the account this address (`{command}`)"
                raise UsageError("email", email, f"{told}: {wanted}")

    def _has_key(self, account: Account, key: AccountKey) -> bool:
        """Whether a record that no CA knows would be registered with this key, which gives the same account."""
        try:
            return load_account_key(self._vault.open(account.sealed_key)).thumbprint == key.thumbprint
        except VaultError:
            return False  # it is never registered with a key that nobody can open

    def _signer(self, account: Account) -> Signer:
        return Signer(load_account_key(self._vault.open(account.sealed_key)), account.url or "")
