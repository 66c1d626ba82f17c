"""Keys: of accounts (they sign requests), of certificates (they never do), and the requests to certify them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID
from josepy.json_util import encode_b64jose
from josepy.jwk import JWKEC, JWKRSA

from certfleet.errors import VaultError
from certfleet.identifiers import address_of
from certfleet.models import KeyType

CertificateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
PublicHalf = CertificateKey | x509.Certificate | x509.CertificateSigningRequest
"""What tells the public key."""
COMMON_NAME_LENGTH = 64  # characters, ub-common-name of RFC 5280 appendix A

_RSA_BITS = {KeyType.RSA2048: 2048, KeyType.RSA3072: 3072, KeyType.RSA4096: 4096}


@dataclass(frozen=True, slots=True)
class AccountKey:
    """A key that signs requests, with what every request needs of it worked out once. Those made here are P-256."""

    private: CertificateKey
    jwk: str
    """The public key as JSON (RFC 7517)."""
    thumbprint: str
    """RFC 7638, base64url; the second half of every key authorization (RFC 8555 §8.1)."""

    def __repr__(self) -> str:
        return f"<AccountKey {self.thumbprint[:8]}>"


def signing_key(private: CertificateKey) -> AccountKey:
    """The key as requests need it."""
    public = (JWKRSA if isinstance(private, rsa.RSAPrivateKey) else JWKEC)(key=private).public_key()
    thumbprint = encode_b64jose(public.thumbprint(hash_function=hashes.SHA256))
    return AccountKey(private, json.dumps(public.to_json(), separators=(",", ":"), sort_keys=True), thumbprint)


def make_account_key() -> AccountKey:
    """A fresh account key."""
    return signing_key(ec.generate_private_key(ec.SECP256R1()))


def load_account_key(pem: bytes) -> AccountKey:
    """The account key of a PEM. Raises VaultError when it is none that a CA takes (RFC 7518 §3.1, RFC 8555 §6.2)."""
    private = load_key(pem)
    if isinstance(private, rsa.RSAPrivateKey):
        known = private.key_size in _RSA_BITS.values()
    else:
        known = isinstance(private.curve, ec.SECP256R1 | ec.SECP384R1)
    if not known:
        raise VaultError("an account key has to be P-256, P-384, or RSA with 2048, 3072 or 4096 bits; this one is not")
    return signing_key(private)


async def make_key(kind: KeyType) -> CertificateKey:
    """A fresh certificate key. RSA takes tens to hundreds of milliseconds and runs beside the event loop."""
    match kind:
        case KeyType.P256:
            return ec.generate_private_key(ec.SECP256R1())
        case KeyType.P384:
            return ec.generate_private_key(ec.SECP384R1())
        case _:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(None, rsa.generate_private_key, 65_537, _RSA_BITS[kind])


def key_pem(key: CertificateKey) -> bytes:
    """The private key as unencrypted PKCS #8 PEM: seal it before it goes anywhere."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def load_key(pem: bytes) -> CertificateKey:
    """The private key of a PEM. Raises VaultError, which never shows the key, when it is not one of our kinds."""
    try:
        key = serialization.load_pem_private_key(pem, password=None)
    except (ValueError, TypeError) as error:
        raise VaultError(f"what was sealed is not a private key in PEM ({type(error).__name__})") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise VaultError(f"a sealed key is of a kind that certfleet never makes ({type(key).__name__})")
    return key


def make_csr(key: CertificateKey, names: Sequence[str]) -> bytes:
    """The certificate signing request in DER: all names and addresses as SANs, the first name that fits as common name.

    An address stands in no common name: it is an iPAddress of the SANs alone (RFC 8738 §3).
    """
    common = next((name for name in names if len(name) <= COMMON_NAME_LENGTH and address_of(name) is None), None)
    subject = [x509.NameAttribute(NameOID.COMMON_NAME, common)] if common else []
    return (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name(subject))
        .add_extension(x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False)
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.DER)
    )


def _general_name(name: str) -> x509.GeneralName:
    address = address_of(name)
    return x509.DNSName(name) if address is None else x509.IPAddress(address)


def spki_digest(key: PublicHalf) -> bytes:
    """SHA-256 of the public key, to see whether a certificate and a key, or its request, belong together."""
    public = key.public_key()
    return sha256(
        public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    ).digest()
