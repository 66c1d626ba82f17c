"""A line before a certificate that says whose it is: for places that keep a certificate and nothing about it.

PEM may have text around its blocks, which its readers pass over (RFC 7468 §2: OpenSSL, and so nginx, Apache, HAProxy;
Go's crypto/tls, and so Traefik and Caddy).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from certfleet.install.bundle import Item

_STAMP = re.compile(
    rb"certfleet: app [a-z0-9-]{1,63}, generation (?P<generation>[1-9][0-9]{0,8}), "
    rb"serial (?P<serial>[0-9a-f]{1,64})\r?\n"
)


@dataclass(frozen=True, slots=True)
class Stamp:
    """What the line says."""

    generation: int
    serial: str


def stamped(item: Item) -> bytes:
    """The chain with its line."""
    line = f"certfleet: app {item.app}, generation {item.generation}, serial {item.serial}\n"
    return (line + item.fullchain).encode()


def read_stamp(pem: bytes) -> Stamp | None:
    """The line before a certificate; None without one, and when it tells of another certificate."""
    line = _STAMP.match(pem)
    if line is None:
        return None
    try:
        leaf = x509.load_pem_x509_certificate(pem)
    except ValueError:
        return None
    said = Stamp(int(line["generation"]), line["serial"].decode())
    return said if f"{leaf.serial_number:x}" == said.serial else None


def fits(item: Item) -> bool:
    """Whether the key is the certificate's."""
    try:
        key = load_pem_private_key(item.private_key, password=None).public_key()
        leaf = x509.load_pem_x509_certificate(item.fullchain.encode()).public_key()
    except ValueError:
        return False
    ours, theirs = (public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) for public in (key, leaf))
    return ours == theirs
