"""What is sent to a host: certificates with their keys, unless the host has made them, as a tar made in memory."""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass, field

from certfleet.errors import InstallError
from certfleet.install import presets

APP_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
SERIAL = re.compile(r"[0-9a-f]{1,64}")
LARGEST_GENERATION = 999_999_999
_FIRST_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----\r?\n?", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Item:
    """One app's certificate on its way to one host."""

    app: str
    generation: int
    serial: str
    """Lower-case hexadecimal without leading zeros."""
    fullchain: str
    """PEM: the leaf, then the intermediates."""
    private_key: bytes = field(repr=False)
    """PEM, unencrypted; empty: the host has it (`made_here`)."""
    port: int = 443
    adopt: bool = False
    """Move aside what stands in the app's place although certfleet did not put it there."""
    again: bool = False
    """Put it there anew and reload the web server, even if it is current already: its endpoint shows something else."""
    keep: int = 3
    """How many generations of the app stay on the host."""
    listen: str = ""
    """The one address the site's TLS listens on; empty: every address of the host."""
    made_here: bool = False
    """The key was made on the host, for a request (csr.py), and nowhere else."""


def pack(items: Iterable[Item], root: str, server: str = "nginx") -> bytes:
    """An uncompressed tar with `<app>/<generation>/…` for each item; `root` and `server` (its preset) are the host's.

    Raises InstallError for an item that the receiver would refuse.
    """
    archive = io.BytesIO()
    seen: set[str] = set()
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for item in items:
            if item.app in seen:
                raise InstallError(f"{item.app} is in the batch for one host twice; send each app once")
            seen.add(item.app)
            for name, content in _files(item, root, server).items():
                member = tarfile.TarInfo(f"{item.app}/{item.generation}/{name}")
                member.mode = 0o600
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return archive.getvalue()


def _files(item: Item, root: str, server: str) -> dict[str, bytes]:
    _validate(item)
    leaf = _FIRST_CERTIFICATE.search(item.fullchain)
    if leaf is None:
        raise InstallError(f"the chain of {item.app} holds no PEM certificate; issue it again")
    return {
        **({} if item.made_here else {"privkey.pem": item.private_key}),
        "fullchain.pem": item.fullchain.encode(),
        "cert.pem": leaf.group().encode(),
        "chain.pem": item.fullchain[leaf.end() :].lstrip().encode(),
        "serial": f"{item.serial}\n".encode(),
    } | presets.fragments(server, app=item.app, root=root, port=item.port, listen=item.listen)


def _validate(item: Item) -> None:
    if not APP_NAME.fullmatch(item.app):
        raise InstallError(f"{item.app!r} cannot be a directory on a host: app names are a-z, 0-9 and -, at most 63")
    if not 1 <= item.generation <= LARGEST_GENERATION:
        raise InstallError(f"{item.app}: generation {item.generation} is not between 1 and {LARGEST_GENERATION}")
    if not SERIAL.fullmatch(item.serial):
        raise InstallError(f"{item.app}: serial {item.serial!r} is not lower-case hexadecimal")
    if item.made_here:
        if item.private_key:
            raise InstallError(f"{item.app}: its key is made on the host, and none is sent there")
    elif b"PRIVATE KEY-----" not in item.private_key:
        raise InstallError(f"{item.app}: the private key is not in PEM; issue the certificate again")
