"""Requests for certificates of keys that hosts make: what the receiver is told, and what may come back.

Whoever has taken over a host could send any request that he likes; what goes to the CA is what was asked for, exactly.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtensionOID, NameOID, ObjectIdentifier

from certfleet.errors import InstallError
from certfleet.identifiers import address_of
from certfleet.install.bundle import APP_NAME
from certfleet.models import KeyType

EXPONENT = 65_537  # of RSA keys; CA/B Forum, Baseline Requirements §6.1.6
_EXTENSION_REQUEST = ObjectIdentifier("1.2.840.113549.1.9.14")  # RFC 2985 §5.4.2
_UNREADABLE = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    binascii.Error,
    x509.DuplicateExtension,
    x509.InvalidVersion,
)
_CURVES: dict[KeyType, type[ec.EllipticCurve]] = {KeyType.P256: ec.SECP256R1, KeyType.P384: ec.SECP384R1}


@dataclass(frozen=True, slots=True)
class Wanted:
    """A request that a host is to make, with a key of its own for each order."""

    app: str
    order: str
    """Names the key: asked for again, the request is of the same one. Hexadecimal."""
    key_type: KeyType
    names: tuple[str, ...]
    """DNS names and IP addresses; the first that fits is the common name."""


def lines(wanted: Iterable[Wanted]) -> bytes:
    """What `request` reads. Raises InstallError for what is no app's name."""
    found = list(wanted)
    if bad := next((one.app for one in found if not APP_NAME.fullmatch(one.app)), None):
        raise InstallError(f"{bad!r} cannot be a directory on a host: app names are a-z, 0-9 and -, at most 63")
    return "".join(f"{one.app} {one.order} {one.key_type} {' '.join(one.names)}\n" for one in found).encode()


def checked_csr(text: str, wanted: Wanted) -> bytes:
    """The request in DER, from base64, when it is what was asked for and nothing besides. Raises InstallError."""
    try:
        csr = x509.load_der_x509_csr(base64.b64decode(text, validate=True))
        wrong = _wrong(csr, wanted)
    except _UNREADABLE as error:
        raise InstallError(f"its request for a certificate cannot be read ({type(error).__name__})") from None
    except x509.UnsupportedGeneralNameType:
        wrong = "is for names of another kind"
    if wrong is not None:
        raise InstallError(f"its request for a certificate is not the one that was asked for: it {wrong}")
    return csr.public_bytes(Encoding.DER)


def _wrong(csr: x509.CertificateSigningRequest, wanted: Wanted) -> str | None:  # noqa: PLR0911  one line per fault reads best
    """What is wrong with it, as the end of a sentence; None: nothing."""
    if not _is_kind(csr.public_key(), wanted.key_type):
        return f"has no {wanted.key_type} key"
    if not csr.is_signature_valid:
        return "is not signed with its own key"
    if any(attribute.oid != _EXTENSION_REQUEST for attribute in csr.attributes):
        return "has attributes of its own"
    if [extension.oid for extension in csr.extensions] != [ExtensionOID.SUBJECT_ALTERNATIVE_NAME]:
        return "has other extensions than its names"
    names = csr.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    if _sorted(names) != sorted(wanted.names):
        return "is for other names"
    subject = list(csr.subject)
    if any(part.oid != NameOID.COMMON_NAME or part.value not in wanted.names for part in subject) or len(subject) > 1:
        return "has another subject"
    return None


def _is_kind(key: object, kind: KeyType) -> bool:
    if kind in _CURVES:
        return isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, _CURVES[kind])
    if not isinstance(key, rsa.RSAPublicKey):
        return False
    return f"rsa{key.key_size}" == kind and key.public_numbers().e == EXPONENT


def _sorted(names: x509.SubjectAlternativeName) -> list[str]:
    """As identifiers are written here; another kind of name is none of ours, whatever it says."""
    found = []
    for name in names:
        if isinstance(name, x509.DNSName):
            found.append(name.value)
        elif isinstance(name, x509.IPAddress):
            found.append(str(address_of(str(name.value)) or name.value))
        else:
            found.append("")
    return sorted(found)
