"""A new master key: every sealed key in Redis is sealed anew, while workers go on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from certfleet.dns.credentials import Credentials
from certfleet.lifecycle.fleet import open_fleet
from certfleet.models import Account, Certificate, ExternalAccount, InstallerKey, Order, dump, load
from certfleet.settings import Settings
from certfleet.store import Store
from certfleet.vault import Vault, add_key

Sealed = Account | Certificate | Credentials | ExternalAccount | InstallerKey | Order
KINDS: dict[str, type[Sealed]] = {
    "account": Account,
    "certificate": Certificate,
    "dns": Credentials,
    "eab": ExternalAccount,
    "installer": InstallerKey,
    "order": Order,
}
PAGE = 500  # keys per SCAN


async def rotate(settings: Settings) -> tuple[int, Path]:
    """Add a key, reseal everything; how many keys were resealed, and the key file.

    Old keys stay in the file: another process may have sealed with one a moment ago.
    Raises ConfigurationError when the keys come from the environment.
    """
    async with open_fleet(settings) as fleet:
        path = add_key(settings)
        vault = Vault(settings)
        count = 0
        for kind, model in KINDS.items():
            async for key in fleet.store.redis.scan_iter(match=fleet.store.key(kind, "*"), count=PAGE):
                count += await _reseal(fleet.store, vault, key, model)
        await fleet.journal.write("", "vault rotated", f"{count} keys sealed anew")
        return count, path


async def _reseal(store: Store, vault: Vault, key: str, model: type[Sealed]) -> int:
    """Replace one record's sealed key, unless the record changes meanwhile; then look again."""
    resealed = 0

    async def change(pipe: Any) -> None:
        nonlocal resealed
        text = await pipe.get(key)
        pipe.multi()
        record = load(model, text) if text else None
        resealed = 0
        if record is not None and record.sealed_key:
            changed = replace(record, sealed_key=vault.reseal(record.sealed_key))
            resealed = 1
            if isinstance(changed, Account) and changed.sealed_next is not None:
                changed = replace(changed, sealed_next=vault.reseal(changed.sealed_next))
                resealed = 2
            pipe.set(key, dump(changed))

    await store.redis.transaction(change, key)
    return resealed
