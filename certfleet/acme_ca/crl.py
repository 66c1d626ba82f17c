"""Certificate revocation lists (CRLs, RFC 5280 §5): where a certificate's is, and what one says. No I/O.

A list is believed when it is the complete one of the point that the certificate names, or the one part of it that
belongs there (Let's Encrypt divides each issuer's among many URLs, github.com/letsencrypt/boulder, docs/CRLS.md), and
the certificate's own issuer has signed it. Delta lists, lists that somebody else signs (indirect) and lists of some
reasons only are not: the sentence says so.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.x509.oid import ExtensionOID

from certfleet.errors import CAMisbehaved

URL = re.compile(r"https?://[!-~]{1,2040}")  # printable ASCII without a space: goes into a request line as it is
PAGE = 2_000  # entries read at once: a thread is not busy with more than a millisecond or two
AHEAD = timedelta(minutes=10)  # a list may be from a clock that is fast by so much
UNDERSTOOD = frozenset({ExtensionOID.ISSUING_DISTRIBUTION_POINT, ExtensionOID.DELTA_CRL_INDICATOR})
"""Extensions of a list that may be critical (RFC 5280 §5.2)."""
REMOVED = x509.ReasonFlags.remove_from_crl.value
UNSPECIFIED = x509.ReasonFlags.unspecified.value
UNREADABLE = (ValueError, TypeError, x509.InvalidVersion, x509.DuplicateExtension, x509.UnsupportedGeneralNameType)


@dataclass(frozen=True, slots=True)
class Point:
    """Where the list is that a certificate would stand in."""

    url: str
    name: str
    """The same for every certificate of one issuer that names this URL: 32 hexadecimal digits."""


@dataclass(frozen=True, slots=True)
class Revoked:
    """What a list says of one certificate."""

    serial: str
    """Lower-case hexadecimal without leading zeros."""
    at: datetime
    reason: str
    """As RFC 5280 §5.3.1 spells it; `unspecified` where it says nothing."""


@dataclass(frozen=True, slots=True)
class RevocationList:
    """A list that may be believed."""

    this_update: datetime
    next_update: datetime | None
    """When a newer one has to be there; None: the CA does not say."""
    content: x509.CertificateRevocationList

    def pages(self) -> Iterator[list[tuple[str, x509.RevokedCertificate]]]:
        """All entries with their serials, some at a time; whole lists are never in memory as objects."""
        entries = iter(self.content)
        while page := [(f"{entry.serial_number:x}", entry) for entry in islice(entries, PAGE)]:
            yield page


def distribution_point(leaf: str) -> Point | None:
    """The list of a certificate (PEM): the first that can be fetched by http or https; None: it names no such.

    RFC 5280 §4.2.1.13. Points whose list somebody else signs, or that are for some reasons only, are passed over.
    """
    try:
        certificate = x509.load_pem_x509_certificate(leaf.encode())
        points = certificate.extensions.get_extension_for_class(x509.CRLDistributionPoints).value
        keys = [one.value for one in certificate.extensions if isinstance(one.value, x509.AuthorityKeyIdentifier)]
        issuer = certificate.issuer.public_bytes()
    except (x509.ExtensionNotFound, *UNREADABLE):
        return None
    for point in points:
        if point.crl_issuer or point.reasons or not point.full_name:
            continue
        for url in _urls(point.full_name):
            if is_fetchable(url):
                key = (keys[0].key_identifier if keys else None) or b""
                name = hashlib.sha256(b"\0".join((url.encode(), key, issuer))).hexdigest()[:32]
                return Point(url, name)
    return None


def is_fetchable(url: str) -> bool:
    """Whether this is a URL that we ask: http or https, a host, and no password in it."""
    try:
        parts = urlsplit(url)
        return URL.fullmatch(url) is not None and bool(parts.hostname) and "@" not in parts.netloc and parts.port != 0
    except ValueError:
        return False


def issuer_of(leaf: str, candidates: str) -> str | None:
    """Of the certificates in `candidates` (PEM) the one that has signed the leaf, as PEM; None: none of them."""
    try:
        certificate = x509.load_pem_x509_certificate(leaf.encode())
        above = x509.load_pem_x509_certificates(candidates.encode())
    except UNREADABLE:
        return None
    for one in above:
        try:
            certificate.verify_directly_issued_by(one)
        except (InvalidSignature, UnsupportedAlgorithm, *UNREADABLE):
            continue
        return one.public_bytes(serialization.Encoding.PEM).decode()
    return None


def read_list(body: bytes, *, url: str, issuer: str, now: datetime) -> RevocationList:
    """A list as it came from `url`, in DER (RFC 5280 §4.2.1.13). Raises CAMisbehaved for one not to be believed.

    `issuer`: PEM of the certificate whose key has to have signed it. A list that is out of date is not refused: what
    it says of certificates holds on, only that of others it says nothing any more.
    """
    try:
        content = x509.load_der_x509_crl(body)
        _require_signed(content, x509.load_pem_x509_certificate(issuer.encode()))
        _require_complete(content.extensions, url)
        this_update, next_update = content.last_update_utc, content.next_update_utc
    except UNREADABLE as error:
        raise CAMisbehaved(f"it is no revocation list in DER that can be read ({error})") from None
    if this_update > now + AHEAD:
        raise CAMisbehaved(f"it is from the future, {this_update:%Y-%m-%d %H:%M} UTC: is this machine's clock right?")
    return RevocationList(this_update, next_update, content)


def revoked(serial: str, entry: x509.RevokedCertificate) -> Revoked | None:
    """What an entry says of its certificate; None: that it is not revoked, or nothing of this issuer's.

    An entry whose extensions cannot be read still says that it is revoked (RFC 5280 §5.3).
    """
    reason = UNSPECIFIED
    try:
        for extension in entry.extensions:
            if isinstance(extension.value, x509.CertificateIssuer):
                return None
            if isinstance(extension.value, x509.CRLReason):
                reason = extension.value.reason.value
    except UNREADABLE:
        reason = UNSPECIFIED
    return None if reason == REMOVED else Revoked(serial, entry.revocation_date_utc, reason)


def _require_signed(content: x509.CertificateRevocationList, issuer: x509.Certificate) -> None:
    """RFC 5280 §6.3.3 (f), (g): by the issuer of that name, which may sign lists, with its key."""
    if content.issuer != issuer.subject:
        who = _printable(content.issuer.rfc4514_string())
        raise CAMisbehaved(f"it is the list of another issuer, {who}; lists that others sign are not supported")
    if not _may_sign(issuer):
        raise CAMisbehaved("the certificate's issuer may not sign revocation lists (its key usage has no cRLSign)")
    key = issuer.public_key()
    if not isinstance(
        key, rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | ed448.Ed448PublicKey
    ):
        raise CAMisbehaved("the certificate's issuer has a kind of key that cannot be checked")
    try:
        signed = content.is_signature_valid(key)
    except UnsupportedAlgorithm as error:
        raise CAMisbehaved(f"its signature cannot be checked ({error})") from None
    if not signed:
        raise CAMisbehaved("its signature is not that of the certificate's issuer")


def _may_sign(issuer: x509.Certificate) -> bool:
    for extension in issuer.extensions:
        if isinstance(extension.value, x509.KeyUsage):
            return extension.value.crl_sign
    return True


def _require_complete(extensions: x509.Extensions, url: str) -> None:
    """RFC 5280 §6.3.3 (b) and §5.2: all that the certificate's point has to say, and nothing unknown that matters."""
    for extension in extensions:
        if extension.critical and extension.oid not in UNDERSTOOD:
            raise CAMisbehaved(f"it has an extension that nobody here understands ({extension.oid.dotted_string})")
        if isinstance(extension.value, x509.DeltaCRLIndicator):
            raise CAMisbehaved("it is a delta list, which tells only what is new; these are not supported")
        if isinstance(extension.value, x509.IssuingDistributionPoint):
            _require_this_part(extension.value, url)


def _require_this_part(part: x509.IssuingDistributionPoint, url: str) -> None:
    """RFC 5280 §5.2.5."""
    if part.indirect_crl:
        raise CAMisbehaved("it holds certificates of several issuers (indirect); these lists are not supported")
    if part.only_some_reasons:
        raise CAMisbehaved("it is for some reasons of revocation only; these lists are not supported")
    if part.only_contains_ca_certs or part.only_contains_attribute_certs:
        raise CAMisbehaved("it is no list of servers' certificates")
    if part.relative_name or (part.full_name and url not in _urls(part.full_name)):
        named = _printable(", ".join(_urls(part.full_name or ()))) or "a name without a URL"
        raise CAMisbehaved(f"it is another part of the issuer's lists than the certificate names: that of {named}")


def _urls(names: Sequence[x509.GeneralName]) -> list[str]:
    return [name.value for name in names if isinstance(name, x509.UniformResourceIdentifier)]


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text[:200])
