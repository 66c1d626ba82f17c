"""Renewal information (ARI, RFC 9773): when the CA wants a certificate to be renewed, and how it is named there."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from cryptography import x509
from pydantic import AwareDatetime, BaseModel, Field, ValidationError
from pydantic.alias_generators import to_camel

from certfleet.acme_ca.jws import b64
from certfleet.acme_ca.transport import Transport
from certfleet.errors import CAMisbehaved

EXPLANATION_LENGTH = 2_048  # characters of a URL that a person is shown


@dataclass(frozen=True, slots=True)
class RenewalInfo:
    """What the CA says of one certificate (RFC 9773 §4.2)."""

    start: datetime
    end: datetime
    """The suggested window is [start, end); never empty."""
    explanation: str | None
    """A page about why, for a person; it is shown, and never fetched by us."""
    retry_at: datetime | None
    """When the CA wants to be asked again (§4.3)."""


class _Window(BaseModel):
    start: AwareDatetime = Field(strict=True)
    end: AwareDatetime = Field(strict=True)


class _RenewalInfo(BaseModel, alias_generator=to_camel):
    suggested_window: _Window
    explanation_url: object = Field(default=None, alias="explanationURL")


def certificate_id(leaf: str) -> str | None:
    """A certificate's name at its CA (RFC 9773 §4.1), from PEM; None for one that has none or cannot be read.

    Base64url of the authority key identifier and of the serial's DER content (its sign byte kept), a dot between them.
    """
    try:
        certificate = x509.load_pem_x509_certificate(leaf.encode())
        authority = certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
    except (x509.ExtensionNotFound, ValueError):
        return None
    return name_of(authority, certificate.serial_number) if authority else None


def name_of(authority: bytes, serial: int) -> str:
    """The certificate's name, of its authority key identifier and its serial."""
    content = serial.to_bytes(serial.bit_length() // 8 + 1)
    return f"{b64(authority).decode()}.{b64(content).decode()}"


async def renewal_info(transport: Transport, name: str) -> RenewalInfo | None:
    """Ask about the certificate of this name; None: the CA has no renewal information at all.

    Raises CAUnreachable, SlowedDown, AcmeProblem, and CAMisbehaved for an answer that says nothing: an end that is
    not after the start counts as that (RFC 9773 §4.2).
    """
    base = (await transport.directory()).renewal_info
    if base is None:
        return None
    answer = await transport.get(f"{base.removesuffix('/')}/{name}", kind="renewalInfo")
    try:
        found = _RenewalInfo.model_validate_json(answer.body)
    except ValidationError as error:
        fields = ", ".join(sorted({".".join(map(str, e["loc"])) or "JSON" for e in error.errors()}))
        raise CAMisbehaved(
            f"the CA sent renewal information that RFC 9773 does not allow (wrong or missing: {fields})"
        ) from None
    window = found.suggested_window
    if window.end <= window.start:
        raise CAMisbehaved("the CA suggests a renewal window that ends before it begins")
    return RenewalInfo(window.start, window.end, _shown(found.explanation_url), answer.retry_at)


def _shown(url: object) -> str | None:
    """A URL that may reach a terminal; anything else is left out, the window counts all the same."""
    if not isinstance(url, str) or not url.startswith(("https://", "http://")) or len(url) > EXPLANATION_LENGTH:
        return None
    return url if url.isascii() and url.isprintable() and " " not in url else None
