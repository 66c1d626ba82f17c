"""The fleet's one SSH key: hosts let it run the receiver and nothing else.

installer:key  string  the InstallerKey, private half sealed; made on first use by whoever comes first
"""

from __future__ import annotations

from typing import Protocol

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from certfleet.models import InstallerKey, dump, load
from certfleet.store import Store

COMMENT = "certfleet-installer"


class Vault(Protocol):
    """Keeps secrets at rest (certfleet/vault.py)."""

    def seal(self, secret: bytes) -> str:
        """The secret as text that may go to Redis."""

    def open(self, sealed: str) -> bytes:
        """The secret back. Raises VaultError."""


class Installer:
    """Who we are to hosts."""

    def __init__(self, store: Store, vault: Vault) -> None:
        """The record goes to `store`, the private half through `vault`."""
        self._store = store
        self._vault = vault
        self._private: bytes | None = None

    async def public_key(self) -> str:
        """The public half as a line of authorized_keys."""
        return (await self._record()).public

    async def private_key(self) -> bytes:
        """The private half in OpenSSH's form, unencrypted. Raises VaultError."""
        if self._private is None:
            self._private = self._vault.open((await self._record()).sealed_key)
        return self._private

    async def _record(self) -> InstallerKey:
        name = self._store.key("installer", "key")
        text = await self._store.redis.get(name)
        if text is None:
            ours = dump(self._made())
            await self._store.redis.set(name, ours, nx=True)
            text = await self._store.redis.get(name) or ours  # whoever came first
        return load(InstallerKey, text)

    def _made(self) -> InstallerKey:
        key = Ed25519PrivateKey.generate()
        public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
        private = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
        return InstallerKey(public=f"{public} {COMMENT}", sealed_key=self._vault.seal(private))
