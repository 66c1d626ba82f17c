"""`certfleet vault rotate`: every sealed key is under the new one, whatever workers do meanwhile."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet

from certfleet.agenda import Agenda
from certfleet.lifecycle.records import Records, order_member
from certfleet.lifecycle.rotation import rotate
from certfleet.models import Account, Certificate, InstallerKey, KeyType, Order, OrderState, dump, load
from certfleet.settings import Settings
from certfleet.store import Store
from certfleet.vault import Vault, ensure_key
from tests.rig import run_certfleet

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SECRET = "a private key"


def account(sealed: str) -> Account:
    return Account("a1", "letsencrypt", "ops@example.com", sealed, url="https://ca.example/1")


def certificate(sealed: str) -> Certificate:
    return Certificate(
        "blog", 3, "ca", ("blog.example.com",), KeyType.P256, "12", NOW, NOW, NOW, "leaf", "chain", sealed
    )


def order(sealed: str | None, app: str = "blog") -> Order:
    return Order(
        "o1", app, "ca", "ops@example.com", ("blog.example.com",), KeyType.P256, "renewal", NOW, sealed_key=sealed
    )


@pytest.fixture
async def sealed(settings: Settings, store: Store) -> dict[str, str]:
    """One record of each kind, beside what has no key; the answer: their sealed keys by Redis key."""
    ensure_key(settings)
    vault = Vault(settings)
    records: dict[str, Account | Certificate | InstallerKey | Order] = {
        store.key("account", "a1"): account(vault.seal(SECRET.encode())),
        store.key("certificate", "blog"): certificate(vault.seal(SECRET.encode())),
        store.key("installer", "key"): InstallerKey("ssh-ed25519 AAAA", vault.seal(SECRET.encode())),
        store.key("order", "blog"): order(vault.seal(SECRET.encode())),
    }
    for key, record in records.items():
        await store.redis.set(key, dump(record))
    await store.redis.set(store.key("order", "new"), dump(order(None, "new")))
    await store.redis.set(store.key("chain", "x"), "PEM")
    return {key: str(record.sealed_key) for key, record in records.items()}


async def test_every_kind_is_resealed(settings: Settings, store: Store, sealed: dict[str, str]) -> None:
    """The command says how many, and where the key to back up is; records are otherwise as they were."""
    environment = {"CERTFLEET_HOME": str(settings.home), "CERTFLEET_REDIS_URL": settings.redis_url.get_secret_value()}  # type: ignore[union-attr]
    said = await asyncio.to_thread(run_certfleet, "vault", "rotate", environment=environment)
    path = settings.home / "vault.key"
    assert (said.returncode, said.stderr) == (0, "")
    assert said.stdout.startswith(f"4 private keys are sealed with the new key in {path}; back it up")
    newest, *old = path.read_text().split()
    assert len(old) == 1
    assert not any(key in said.stdout for key in (newest, *old))
    kinds: dict[str, type[Any]] = {
        "account": Account,
        "certificate": Certificate,
        "installer": InstallerKey,
        "order": Order,
    }
    for key, before in sealed.items():
        record: Any = load(kinds[key.split(":")[1]], await store.redis.get(key))
        assert Fernet(newest).decrypt(str(record.sealed_key)).decode() == SECRET
        assert record.sealed_key != before
    for made, key in ((account, "account:a1"), (certificate, "certificate:blog"), (order, "order:blog")):
        record = load(type(made("")), await store.redis.get(f"certfleet:{key}"))
        assert record == made(str(record.sealed_key)), "only the sealed key changed"
    assert load(Order, await store.redis.get(store.key("order", "new"))) == order(None, "new")


async def test_nothing_is_lost_while_an_order_moves_on(
    settings: Settings, store: Store, sealed: dict[str, str]
) -> None:
    """A worker that saves all the time is never overwritten with what it had saved before, nor loses its key."""
    del sealed
    agenda = Agenda(store, lease=60)
    records = Records(store, agenda)
    await agenda.schedule(order_member("blog"), NOW)
    claim = await agenda.claim(order_member("blog"))
    assert claim is not None
    vault = Vault(settings)
    rotating = asyncio.create_task(rotate(settings))
    attempts = 0
    while not rotating.done():
        current = await records.order("blog")
        assert current is not None
        assert current.attempts == attempts, "the last save is still there"
        attempts += 1
        current.attempts, current.state = attempts, OrderState.FINALIZING
        current.sealed_key = vault.seal(SECRET.encode())
        await records.save_order(claim, current)
    assert (await rotating)[0] == 4
    last = await records.order("blog")
    assert last is not None
    assert last.attempts == attempts
    assert Vault(settings).open(str(last.sealed_key)) == SECRET.encode()


def test_without_a_key(settings: Settings, short_directory: Path) -> None:
    """A machine that never had one: a sentence, and no key that would look like the fleet's."""
    environment = {"CERTFLEET_HOME": str(settings.home), "CERTFLEET_REDIS_URL": settings.redis_url.get_secret_value()}  # type: ignore[union-attr]
    said = run_certfleet("vault", "rotate", environment=environment)
    assert said.returncode == 1
    assert "vault.key cannot be read" in said.stderr
    assert list(short_directory.iterdir()) == []


async def test_both_keys_of_an_account_in_the_middle_of_a_rollover(settings: Settings, store: Store) -> None:
    """The old vault key may be taken away afterwards: neither is under it. One that is only a way has none."""
    ensure_key(settings)
    vault = Vault(settings)
    keys = [vault.seal(word.encode()) for word in ("one", "two")]
    await store.redis.set(
        store.key("account", "a1"), dump(Account("a1", "ca", "a@example.com", keys[0], "url", sealed_next=keys[1]))
    )
    await store.redis.set(store.key("account", "a2"), dump(Account("a2", "ca", "b@example.com", "", moved="c")))
    assert (await rotate(settings))[0] == 2
    newest = Fernet((settings.home / "vault.key").read_text().split()[0])
    found = load(Account, await store.redis.get(store.key("account", "a1")))
    assert newest.decrypt(found.sealed_key) == b"one"
    assert newest.decrypt(found.sealed_next or "") == b"two"
