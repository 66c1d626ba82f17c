"""Certificates for the tests: a small CA of our own, one key for it, fresh keys for the leaves."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import cache

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from certfleet.install.bundle import Item


def name_of(app: str) -> str:
    """The DNS name of an app's site."""
    return f"{app}.example.test"


def item(
    app: str,
    generation: int = 1,
    *,
    port: int = 443,
    listen: str = "127.0.0.1",
    adopt: bool = False,
    mismatched: bool = False,
) -> Item:
    """A certificate for the app's name, just issued; `mismatched` with another certificate's key."""
    key = ec.generate_private_key(ec.SECP256R1())
    other = ec.generate_private_key(ec.SECP256R1())
    leaf, serial = _leaf(name_of(app), key.public_key())
    return Item(
        app=app,
        generation=generation,
        serial=serial,
        fullchain=leaf + _ca()[1],
        private_key=pem(other if mismatched else key),
        port=port,
        listen=listen,
        adopt=adopt,
    )


def item_for(csr: bytes, app: str, generation: int = 1, *, port: int = 443) -> Item:
    """A certificate for the key that a request (DER) is signed with, to be put beside that key."""
    public = x509.load_der_x509_csr(csr).public_key()
    assert isinstance(public, ec.EllipticCurvePublicKey)
    leaf, serial = _leaf(name_of(app), public)
    return Item(
        app=app,
        generation=generation,
        serial=serial,
        fullchain=leaf + _ca()[1],
        private_key=b"",
        port=port,
        listen="127.0.0.1",
        made_here=True,
    )


def pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """The key in PEM, unencrypted."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _leaf(name: str, public: ec.EllipticCurvePublicKey) -> tuple[str, str]:
    ca_key, _ = _ca()
    certificate = (
        _builder("test intermediate", name)
        .public_key(public)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM).decode(), f"{certificate.serial_number:x}"


@cache
def _ca() -> tuple[ec.EllipticCurvePrivateKey, str]:
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = (
        _builder("test root", "test intermediate")
        .public_key(key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    return key, certificate.public_bytes(serialization.Encoding.PEM).decode()


def _builder(issuer: str, subject: str) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
    )
