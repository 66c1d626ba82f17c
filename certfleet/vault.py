"""Private keys at rest: sealed with Fernet before they touch Redis, by keys that stay on the workers.

The master keys stand in `<home>/vault.key` (0600), newest first, one per line; or in
`CERTFLEET_VAULT_KEY` (comma-separated), or in the file that `CERTFLEET_VAULT_KEY_FILE` names.
The newest key seals; every key opens, so that a rotation never loses what another process
sealed a moment ago.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from certfleet.errors import ConfigurationError, VaultError
from certfleet.settings import Settings, ensure_home

FILE_NAME = "vault.key"


def key_file(settings: Settings) -> Path | None:
    """The file with the master keys; None when they come from the environment."""
    if settings.vault_key is not None:
        return None
    return settings.vault_key_file or settings.home / FILE_NAME


def ensure_key(settings: Settings) -> None:
    """Make the master key at first start. A key that is there is never touched."""
    path = key_file(settings)
    if path is None or path.exists() or settings.vault_key_file is not None:
        return
    ensure_home(settings)
    _write(path, [Fernet.generate_key().decode()], replace=False)


def add_key(settings: Settings) -> Path:
    """Put a new key before the others; from then on it seals. Raises ConfigurationError without a key file."""
    path = key_file(settings)
    if path is None:
        raise ConfigurationError(
            "the vault's keys come from CERTFLEET_VAULT_KEY: put a new key before the old ones there, "
            "and restart every process; what was sealed before is still opened by the old ones"
        )
    _write(path, [Fernet.generate_key().decode(), *_read(path)], replace=True)
    return path


def _write(path: Path, keys: list[str], *, replace: bool) -> None:
    try:
        _write_whole(path, keys, replace=replace)
    except OSError as error:
        raise ConfigurationError(f"the vault's key file {path} cannot be written: {error.strerror}") from error


def _write_whole(path: Path, keys: list[str], *, replace: bool) -> None:
    # Complete and 0600 from the moment it has its name: a crash leaves the old file or the new one.
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write("\n".join(keys) + "\n")
            if replace and os.geteuid() == 0:  # the workers' user has to go on reading it
                owner = path.stat()
                os.fchown(file.fileno(), owner.st_uid, owner.st_gid)
            file.flush()
            os.fsync(file.fileno())
        if replace:
            Path(temporary).replace(path)
        else:
            with contextlib.suppress(FileExistsError):  # another process was first: its key is the key
                os.link(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)
    _keep_name(path.parent)


def _keep_name(directory: Path) -> None:
    """Let the file's name outlive a power cut: what is sealed with a lost key is lost."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read(path: Path) -> list[str]:
    try:
        lines = path.read_text().split()
    except OSError as error:
        raise ConfigurationError(f"the vault's key file {path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError:
        raise ConfigurationError(
            f"the vault's key file {path} is not text: put the key back from your backup"
        ) from None
    if not lines:
        raise ConfigurationError(f"the vault's key file {path} is empty: put the key back from your backup")
    return lines


class Vault:
    """Seals and opens secrets; notices by itself when the key file has got a new key."""

    def __init__(self, settings: Settings) -> None:
        """Raises ConfigurationError when there is no usable key."""
        self._settings = settings
        self._path = key_file(settings)
        self._stamp: tuple[int, int] | None = None
        self._fernet = self._load()

    def seal(self, secret: bytes) -> str:
        """The secret as text that only this vault's keys open."""
        self._refresh()
        return self._fernet.encrypt(secret).decode()

    def open(self, sealed: str) -> bytes:
        """The secret back. Raises VaultError when no key at hand opens it."""
        try:
            return self._fernet.decrypt(sealed)
        except InvalidToken:
            self._refresh()
        try:
            return self._fernet.decrypt(sealed)
        except InvalidToken:
            source = self._path or "CERTFLEET_VAULT_KEY"
            raise VaultError(f"a sealed key cannot be opened with the keys in {source}: is it this fleet's?") from None

    def reseal(self, sealed: str) -> str:
        """The same secret under the newest key, with its first time of sealing kept."""
        self._refresh()
        try:
            return self._fernet.rotate(sealed).decode()
        except InvalidToken:
            raise VaultError("a sealed key cannot be opened with any key of this vault") from None

    def _refresh(self) -> None:
        if self._path is not None and self._stat() != self._stamp:
            self._fernet = self._load()

    def _stat(self) -> tuple[int, int] | None:
        try:
            status = (self._path or Path()).stat()
        except OSError:
            return self._stamp  # keep working with the keys in memory
        return status.st_mtime_ns, status.st_ino

    def _load(self) -> MultiFernet:
        if self._path is not None:
            self._stamp = self._stat()
            keys = _read(self._path)
        else:
            assert self._settings.vault_key is not None  # noqa: S101  what key_file() said
            keys = self._settings.vault_key.get_secret_value().replace(",", " ").split()
        try:
            return MultiFernet([Fernet(key) for key in keys])
        except ValueError:
            source = self._path or "CERTFLEET_VAULT_KEY"
            raise ConfigurationError(
                f"{source} does not hold Fernet keys (32 bytes, url-safe base64, newest first)"
            ) from None
