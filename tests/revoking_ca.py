"""A small CA that names revocation lists in its certificates, makes such lists, and serves them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property

from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.acme_ca.flow import serving

HOUR = timedelta(hours=1)
URL = "http://lists.example/7.crl"
Reasons = Mapping[int, x509.ReasonFlags | None]
"""Serial -> why; None: the entry does not say."""


def now() -> datetime:
    """To the second, as certificates have it."""
    return datetime.now(UTC).replace(microsecond=0)


def uris(*urls: str) -> list[x509.GeneralName]:
    """URLs as names."""
    return [x509.UniformResourceIdentifier(url) for url in urls]


def point(*urls: str, **parts: object) -> x509.DistributionPoint:
    """One distribution point (RFC 5280 §4.2.1.13)."""
    plain: dict[str, object] = {"full_name": uris(*urls) or None, "relative_name": None, "reasons": None}
    return x509.DistributionPoint(**(plain | {"crl_issuer": None} | parts))  # type: ignore[arg-type]  # by name


def part(*urls: str, **parts: object) -> x509.IssuingDistributionPoint:
    """Which part of the issuer's lists one is (RFC 5280 §5.2.5), as Let's Encrypt says it."""
    plain: dict[str, object] = {"full_name": uris(*urls) or None, "relative_name": None, "only_some_reasons": None}
    flags = ("only_contains_ca_certs", "only_contains_attribute_certs", "indirect_crl")
    plain |= dict.fromkeys(flags, False) | {"only_contains_user_certs": True}
    if parts.get("only_contains_ca_certs") or parts.get("only_contains_attribute_certs"):
        plain["only_contains_user_certs"] = False
    return x509.IssuingDistributionPoint(**(plain | parts))  # type: ignore[arg-type]  # by name


@dataclass(frozen=True)
class RevokingCA:
    """An issuer with a name and a key of its own."""

    name: str = "revoking CA"
    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    may_sign: bool = True
    """Whether its key usage has cRLSign."""

    @property
    def subject(self) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self.name)])

    @cached_property
    def certificate(self) -> str:
        """PEM."""
        usage = dict.fromkeys(
            ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement"), False
        )
        usage |= {"encipher_only": False, "decipher_only": False, "key_cert_sign": True, "crl_sign": self.may_sign}
        built = (
            self._builder(self.subject, self.key.public_key(), x509.random_serial_number(), HOUR * 24)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(x509.KeyUsage(**usage), critical=True)
        )
        return pem(built.sign(self.key, hashes.SHA256()))

    def leaf(
        self,
        name: str = "blog.example.com",
        *,
        points: Sequence[x509.DistributionPoint] = (point(URL),),
        serial: int | None = None,
        public: ec.EllipticCurvePublicKey | None = None,
        authority: x509.AuthorityKeyIdentifier | None = None,
    ) -> str:
        """PEM of a certificate for a name."""
        public = public or ec.generate_private_key(ec.SECP256R1()).public_key()
        authority = authority or x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())
        builder = (
            self._builder(x509.Name([]), public, serial or x509.random_serial_number(), HOUR)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=True)
            .add_extension(authority, critical=False)
        )
        if points:
            builder = builder.add_extension(x509.CRLDistributionPoints(points), critical=False)
        return pem(builder.sign(self.key, hashes.SHA256()))

    def _builder(
        self, subject: x509.Name, public: ec.EllipticCurvePublicKey, serial: int, life: timedelta
    ) -> x509.CertificateBuilder:
        return x509.CertificateBuilder(self.subject, subject, public, serial, now() - HOUR, now() + life)

    def list(
        self,
        revoked: Reasons | None = None,
        *,
        extensions: Iterable[tuple[x509.ExtensionType, bool]] = ((part(URL), True),),
        entries: Sequence[x509.RevokedCertificate] = (),
        made: datetime | None = None,
        life: timedelta = timedelta(days=7),
    ) -> bytes:
        """A list in DER; extensions each with whether it is critical."""
        made = made or now() - timedelta(minutes=1)
        found = [*entries, *(entry(serial, reason) for serial, reason in (revoked or {}).items())]
        kept = [x509.Extension(one.oid, critical, one) for one, critical in extensions]
        # The constructor, not `add_revoked_certificate`, which copies what there is each time.
        built = x509.CertificateRevocationListBuilder(self.subject, made, made + life, kept, found)
        return built.sign(self.key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


def pem(certificate: x509.Certificate) -> str:
    """As text."""
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def entry(
    serial: int, reason: x509.ReasonFlags | None = None, *more: x509.ExtensionType, at: datetime | None = None
) -> x509.RevokedCertificate:
    """One line of a list."""
    builder = x509.RevokedCertificateBuilder(serial, at or now() - HOUR)
    for extension in ([x509.CRLReason(reason)] if reason else []) + list(more):
        builder = builder.add_extension(extension, critical=False)
    return builder.build()


@dataclass
class ListServer:
    """Serves what it is given, with an ETag of its content."""

    port: int = 0
    content: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    """How each question was answered: `200`, `304`, …"""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/7.crl"

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """The content, or that it is as it was."""
        etag = f'"{hash(self.content):x}"'
        status = self.status
        if status == 200 and request.headers.get("If-None-Match") == etag:
            status = 304
        self.asked.append(str(status))
        body = self.content if status == 200 else b""
        return web.Response(status=status, body=body, headers={"ETag": etag} | self.headers)


@asynccontextmanager
async def list_server() -> AsyncIterator[ListServer]:
    """On a free port of this machine."""
    served = ListServer()
    async with serving(served.answer) as port:
        served.port = port
        yield served
