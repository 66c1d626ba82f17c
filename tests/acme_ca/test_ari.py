"""Renewal information at the door: the certificate's name, and what a CA may answer."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from certfleet.acme_ca.ari import certificate_id, name_of, renewal_info
from certfleet.acme_ca.transport import Transport
from certfleet.errors import AcmeProblem, CAMisbehaved
from certfleet.models import utcnow
from tests.acme_ca.flow import directory_of, scripted

AUTHORITY = bytes.fromhex("69885B6B87464041E1B37B847BA0AE2CDE01C8D4")
SERIAL = 0x87654321
NAME = "aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE"
"""Of RFC 9773 §4.1."""
WINDOW = '"suggestedWindow": {"start": "2026-11-25T04:00:00Z", "end": "2026-11-27T04:00:00Z"}'


def leaf(serial: int, *, authority: bool = True) -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(x509.Name([]))
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(utcnow())
        .not_valid_after(utcnow() + timedelta(days=1))
    )
    if authority:
        builder = builder.add_extension(x509.AuthorityKeyIdentifier(AUTHORITY, None, None), critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


def with_ari(transport: Transport) -> dict[str, str]:
    """A directory that has it."""
    origin = transport.ca.directory.removesuffix("/dir")
    return directory_of(origin) | {"renewalInfo": f"{origin}/ari"}


def test_the_name_of_the_standard() -> None:
    """RFC 9773's own example, from a certificate; the serial keeps its sign byte."""
    assert certificate_id(leaf(SERIAL)) == NAME
    assert name_of(AUTHORITY, SERIAL) == NAME


def test_without_an_authority_key_identifier_it_has_no_name() -> None:
    """Such a certificate is renewed by its validity alone."""
    assert certificate_id(leaf(SERIAL, authority=False)) is None


@given(st.integers(1, 2**159 - 1))
def test_the_serial_is_what_der_has(serial: int) -> None:
    """The bytes between tag, length and the end of the integer in the certificate itself."""
    name = name_of(AUTHORITY, serial)
    der = x509.load_pem_x509_certificate(leaf(serial).encode()).tbs_certificate_bytes
    content = serial.to_bytes(serial.bit_length() // 8 + 1)
    assert bytes([2, len(content)]) + content in der
    assert "=" not in name
    assert certificate_id(leaf(serial)) == name


async def test_asked_and_understood(tmp_path: Path) -> None:
    """GET below the directory's URL, unsigned; window, explanation and Retry-After."""
    reply = web.Response(
        text=f'{{{WINDOW}, "explanationURL": "https://ca.example/why"}}', headers={"Retry-After": "21600"}
    )
    async with scripted(tmp_path, reply) as (script, transport):
        script.directory = with_ari(transport)
        found = await renewal_info(transport, NAME)
    assert script.asked[-1] == f"GET /ari/{NAME}"
    assert found is not None
    assert (found.start, found.end) == (datetime(2026, 11, 25, 4, tzinfo=UTC), datetime(2026, 11, 27, 4, tzinfo=UTC))
    assert found.explanation == "https://ca.example/why"
    assert found.retry_at is not None
    assert timedelta(hours=5.9) < found.retry_at - utcnow() <= timedelta(hours=6)


async def test_a_ca_without_it_is_not_asked(tmp_path: Path) -> None:
    """No renewalInfo in the directory: no request."""
    async with scripted(tmp_path) as (script, transport):
        assert await renewal_info(transport, NAME) is None
        assert script.asked == ["GET /dir"]
        assert not transport.has_renewal_info


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("{}", "suggestedWindow"),
        ("nonsense", "JSON"),
        ('{"suggestedWindow": {"start": "2026-11-25T04:00:00Z"}}', "suggestedWindow.end"),
        ('{"suggestedWindow": {"start": 1, "end": 2}}', "suggestedWindow.start"),
        (
            '{"suggestedWindow": {"start": "2026-11-25T04:00:00", "end": "2026-11-27T04:00:00"}}',
            "suggestedWindow.start",
        ),
        ('{"suggestedWindow": {"start": "2026-11-25T04:00:00Z", "end": "2026-11-25T04:00:00Z"}}', "ends before"),
        ('{"suggestedWindow": {"start": "2026-11-27T04:00:00Z", "end": "2026-11-25T04:00:00Z"}}', "ends before"),
    ],
)
async def test_an_answer_that_says_nothing(tmp_path: Path, body: str, told: str) -> None:
    """One sentence that names what is wrong."""
    async with scripted(tmp_path, web.Response(text=body)) as (script, transport):
        script.directory = with_ari(transport)
        with pytest.raises(CAMisbehaved, match=told):
            await renewal_info(transport, NAME)


@pytest.mark.parametrize(
    "url", ["javascript:alert(1)", "https://ca.example/\\u001b[2J", "https://ca.example/a b", 5, None]
)
async def test_an_explanation_that_nobody_should_see(tmp_path: Path, url: object) -> None:
    """It is left out; the window counts all the same."""
    value = f'"{url}"' if isinstance(url, str) else "5" if url else "null"
    async with scripted(tmp_path, web.Response(text=f'{{{WINDOW}, "explanationURL": {value}}}')) as (script, transport):
        script.directory = with_ari(transport)
        found = await renewal_info(transport, NAME)
    assert found is not None
    assert found.explanation is None


async def test_another_host_is_not_asked(tmp_path: Path) -> None:
    """The directory names a URL elsewhere: it is not followed."""
    async with scripted(tmp_path) as (script, transport):
        script.directory = with_ari(transport) | {"renewalInfo": "https://elsewhere.example/ari"}
        with pytest.raises(CAMisbehaved, match="not https on a host of its own"):
            await renewal_info(transport, NAME)


async def test_an_error_keeps_its_retry_after(tmp_path: Path) -> None:
    """A 500 with Retry-After."""
    async with scripted(tmp_path, web.Response(status=500, headers={"Retry-After": "90"})) as (script, transport):
        script.directory = with_ari(transport)
        with pytest.raises(AcmeProblem) as raised:
            await renewal_info(transport, NAME)
    assert raised.value.retry_at is not None
