"""The chains that a CA offers for one certificate (RFC 8555 §7.4.2), told apart by their topmost issuer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.x509.oid import NameOID

from certfleet.acme_ca.keys import PublicHalf, spki_digest
from certfleet.errors import CAMisbehaved
from certfleet.identifiers import address_of

BEGIN, END = b"-----BEGIN CERTIFICATE-----", b"-----END CERTIFICATE-----"
LENGTH = 10  # certificates above the leaf at most
SHOWN = 200  # characters of an issuer's name, which reaches terminals and the journal


@dataclass(frozen=True, slots=True)
class Chain:
    """A certificate and the intermediates that came with it."""

    leaf: x509.Certificate
    above: tuple[x509.Certificate, ...]
    """The leaf's issuer first; most CAs leave the root away."""

    @property
    def issuer(self) -> str:
        """The common name of who signed the topmost certificate: mostly the root, which is not in the chain."""
        topmost = self.above[-1] if self.above else self.leaf
        found = topmost.issuer.get_attributes_for_oid(NameOID.COMMON_NAME)
        text = str(found[0].value)[:SHOWN] if found else ""
        return "".join(c if c.isprintable() else " " for c in text)

    def pem(self) -> tuple[str, tuple[str, ...]]:
        """The leaf, and each intermediate."""
        return _pem(self.leaf), tuple(_pem(certificate) for certificate in self.above)


def read_chain(body: bytes) -> Chain:
    """A chain as the CA sent it, in PEM (RFC 8555 §9.1). Raises CAMisbehaved for what cannot be read, or was cut."""
    # The parser passes over a block without an end: a chain cut in the middle would be one that lacks an issuer.
    if not body.rstrip().endswith(END) or body.count(BEGIN) != body.count(END):
        raise CAMisbehaved("the CA sent a certificate that cannot be read (it is cut off, or there is none)")
    try:
        leaf, *above = x509.load_pem_x509_certificates(body)
    except (ValueError, TypeError) as error:
        raise _unreadable(error) from None
    return Chain(leaf, tuple(above))


def require_linked(chain: Chain) -> None:
    """Raise CAMisbehaved unless each certificate of the chain is issued by the one above it."""
    whole = (chain.leaf, *chain.above)
    if len(chain.above) > LENGTH or any(
        lower.issuer != upper.subject for lower, upper in zip(whole, chain.above, strict=False)
    ):
        raise CAMisbehaved("the CA sent a chain whose certificates do not certify each other")


def require_fit(leaf: x509.Certificate, key: PublicHalf, identifiers: Sequence[str]) -> None:
    """Raise CAMisbehaved unless the certificate is for this key and these names and addresses."""
    try:
        names = _names(leaf)
        same_key = spki_digest(leaf) == spki_digest(key)
    except (ValueError, TypeError, x509.UnsupportedGeneralNameType) as error:
        raise _unreadable(error) from None
    if not same_key:
        raise CAMisbehaved("the CA sent a certificate for another key than the request's")
    if names != {name.lower() for name in identifiers}:
        raise CAMisbehaved(f"the CA sent a certificate for {', '.join(sorted(names))} instead of the names asked for")


def _names(certificate: x509.Certificate) -> set[str]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return set()
    addresses = {str(address) for address in names.get_values_for_type(x509.IPAddress)}
    return {name.lower() for name in names.get_values_for_type(x509.DNSName)} | {
        str(address_of(address) or address) for address in addresses
    }


def _unreadable(error: Exception) -> CAMisbehaved:
    return CAMisbehaved(f"the CA sent a certificate that cannot be read ({error})")


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()
