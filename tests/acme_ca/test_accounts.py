"""One account per (CA, e-mail), however many want it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from cryptography.fernet import Fernet

from certfleet.acme_ca.accounts import Accounts, account_id
from certfleet.acme_ca.presets import resolve_ca
from certfleet.acme_ca.protocol import Signer, new_order
from certfleet.acme_ca.transport import Transport
from certfleet.demo.pebble import pebble
from certfleet.demo.ports import free_port
from certfleet.errors import AcmeProblem, CAUnreachable
from certfleet.models import Account, load
from certfleet.store import Store

EMAIL = "ops@example.com"


class FernetVault:
    """A vault with one key."""

    def __init__(self) -> None:
        self._fernet = Fernet(Fernet.generate_key())

    def seal(self, secret: bytes) -> str:
        """Encrypt."""
        return self._fernet.encrypt(secret).decode()

    def open(self, sealed: str) -> bytes:
        """Decrypt."""
        return self._fernet.decrypt(sealed.encode())


async def record(store: Store, name: str) -> Account:
    """The record as Redis has it."""
    return load(Account, await store.redis.get(store.key("account", name)))


async def test_fifty_workers_make_one_account(store: Store, tmp_path: Path) -> None:
    """All start at the same moment with nothing in Redis: one record, one key, one account URL."""
    vault = FernetVault()
    async with (
        pebble(tmp_path, http_port=free_port()) as ca,
        Transport(resolve_ca(ca.directory, bundle=ca.bundle)) as transport,
    ):
        workers = [Accounts(store, vault) for _ in range(50)]
        found = await asyncio.gather(*(worker.account_for(transport, EMAIL, agree_tos=True) for worker in workers))
        assert len({signer.kid for _, signer in found}) == 1
        assert len({signer.key.thumbprint for _, signer in found}) == 1
        assert await store.redis.keys("certfleet:account:*") == [f"certfleet:account:{found[0][0].id}"]
        account = await record(store, found[0][0].id)
        assert (account.url, account.email, account.ca) == (found[0][1].kid, EMAIL, ca.directory)
        assert "There are now 2 accounts" not in ca.log.read_text()
        await new_order(transport, found[0][1], ["a.example.com"])


async def test_a_known_account_costs_no_request(store: Store, tmp_path: Path) -> None:
    """Neither in the process that knows it nor in one that finds it in Redis."""
    vault = FernetVault()
    async with (
        pebble(tmp_path, http_port=free_port()) as ca,
        Transport(resolve_ca(ca.directory, bundle=ca.bundle)) as transport,
    ):
        first = Accounts(store, vault)
        _, signer = await first.account_for(transport, EMAIL, agree_tos=True)
        await ca.reset()
        assert (await first.account_for(transport, EMAIL, agree_tos=True))[1] is signer
        assert (await Accounts(store, vault).account_for(transport, EMAIL, agree_tos=True))[1].kid == signer.kid
        assert not any((await ca.counts()).values())
        _, other = await first.account_for(transport, "dev@example.com", agree_tos=True)
        assert other.kid != signer.kid


async def test_an_account_that_the_ca_lost_is_registered_again(store: Store, tmp_path: Path) -> None:
    """A CA that starts anew does not know the account: forget it, and the same key gets another URL."""
    vault, port = FernetVault(), free_port()
    accounts = Accounts(store, vault)
    async with (
        pebble(tmp_path, http_port=port) as ca,
        Transport(resolve_ca(ca.directory, bundle=ca.bundle)) as transport,
    ):
        account, signer = await accounts.account_for(transport, EMAIL, agree_tos=True)
        lost = Signer(signer.key, signer.kid + "0")
        with pytest.raises(AcmeProblem) as caught:
            await new_order(transport, lost, ["a.example.com"])
        assert caught.value.type == "accountDoesNotExist"
        await accounts.forget(account)
        assert (await record(store, account.id)).url is None
        again, signer_again = await accounts.account_for(transport, EMAIL, agree_tos=True)
        assert again.sealed_key == account.sealed_key
        assert signer_again.key.thumbprint == signer.key.thumbprint
        await new_order(transport, signer_again, ["a.example.com"])


async def test_a_second_forget_does_not_undo_the_new_registration(store: Store, tmp_path: Path) -> None:
    """Two workers hear of the loss; the slower one drops only what it knew."""
    vault = FernetVault()
    async with (
        pebble(tmp_path, http_port=free_port()) as ca,
        Transport(resolve_ca(ca.directory, bundle=ca.bundle)) as transport,
    ):
        accounts = Accounts(store, vault)
        account, signer = await accounts.account_for(transport, EMAIL, agree_tos=True)
        stale = Account(account.id, account.ca, account.email, account.sealed_key, "https://127.0.0.1/old")
        await accounts.forget(stale)
        assert (await record(store, account.id)).url == signer.kid


async def test_the_key_is_there_before_the_ca_hears_of_it_and_sealed(store: Store) -> None:
    """A CA that is down leaves the sealed key for the next try, and nothing in the clear."""
    vault = FernetVault()
    ca = resolve_ca(f"https://127.0.0.1:{free_port()}/dir")
    async with Transport(ca) as transport:
        for _ in range(2):
            with pytest.raises(CAUnreachable):
                await Accounts(store, vault).account_for(transport, EMAIL, agree_tos=True)
    account = await record(store, account_id(ca, EMAIL))
    assert account.url is None
    assert b"PRIVATE KEY" in vault.open(account.sealed_key)
    assert "PRIVATE KEY" not in await store.redis.get(store.key("account", account.id))
