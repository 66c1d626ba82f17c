"""Certificates as long as their profile says, from any moment on: the proxy signs Pebble's leaves anew.

Pebble has one validity for all, and its own clock. Names, key and order stay Pebble's; issuer, serial and validity are
those of an intermediate of this module's, below a root of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

BACKDATED = timedelta(hours=1)  # as Let's Encrypt does
YEARS = timedelta(days=3650)  # that root and intermediate live, in either direction
ANY = ""
"""For orders by no profile, or by one without a validity of its own."""


@dataclass(slots=True)
class Reissue:
    """What signs, and for how long."""

    validity: dict[str, float] = field(default_factory=dict)
    """Profile -> seconds; empty: certificates are Pebble's own."""
    _root: Authority | None = None
    _intermediate: Authority | None = None
    _orders: dict[str, str] = field(default_factory=dict)
    """Certificate -> order, by their names at Pebble."""
    _signed: dict[str, bytes] = field(default_factory=dict)

    def begin(self, validity: Mapping[str, float]) -> str:
        """Sign from now on; PEM of the root."""
        self.validity = dict(validity)
        if self._root is None:
            self._root = Authority.make("reissuing root", None)
            self._intermediate = Authority.make("reissuing intermediate", self._root)
        return _pem(self._root.certificate).decode()

    def order_seen(self, order: str, document: Mapping[str, Any]) -> None:
        """An answer shows an order, which names its certificate."""
        if isinstance(url := document.get("certificate"), str):
            self._orders[url.rpartition("/")[2]] = order

    def order_of(self, certificate: str) -> str:
        """The order that it was issued for."""
        return self._orders.get(certificate, "")

    def chain(self, certificate: str, body: bytes, profile: str, now: float) -> bytes:
        """The chain for a download: the same each time it is asked for."""
        if not self.validity or self._intermediate is None:
            return body
        if certificate not in self._signed:
            validity = timedelta(seconds=self.validity.get(profile, self.validity.get(ANY, 90 * 86_400.0)))
            leaf = self._intermediate.sign(
                x509.load_pem_x509_certificate(body), datetime.fromtimestamp(now, UTC), validity
            )
            self._signed[certificate] = _pem(leaf) + _pem(self._intermediate.certificate)
        return self._signed[certificate]


@dataclass(frozen=True, slots=True)
class Authority:
    """A certificate that signs others."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @classmethod
    def make(cls, name: str, above: Authority | None) -> Authority:
        """A new one, signed by the one above or by itself."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        now = datetime.now(UTC)
        issuer, signer = (above.certificate.subject, above.key) if above else (subject, key)
        builder = _builder(subject, issuer, key.public_key(), signer.public_key())
        builder = builder.not_valid_before(now - YEARS).not_valid_after(now + YEARS)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        return cls(builder.sign(signer, hashes.SHA256()), key)

    def sign(self, leaf: x509.Certificate, now: datetime, validity: timedelta) -> x509.Certificate:
        """The leaf's names and key, from now on for so long."""
        begins = (now - BACKDATED).replace(microsecond=0)
        public = leaf.public_key()
        assert isinstance(public, ec.EllipticCurvePublicKey)
        builder = _builder(leaf.subject, self.certificate.subject, public, self.key.public_key())
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName)
        builder = builder.not_valid_before(begins).not_valid_after(begins + validity - timedelta(seconds=1))
        builder = builder.add_extension(names.value, critical=names.critical)
        return builder.sign(self.key, hashes.SHA256())


def _builder(
    subject: x509.Name, issuer: x509.Name, public: ec.EllipticCurvePublicKey, authority: ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority), critical=False)
    )


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)
