"""Revocation lists: which one a certificate names, which ones are believed, and what they say."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from functools import cache

import pytest
from cryptography import x509
from hypothesis import given, settings
from hypothesis import strategies as st

from certfleet.acme_ca.crl import (
    RevocationList,
    Revoked,
    distribution_point,
    is_fetchable,
    issuer_of,
    read_list,
    revoked,
)
from certfleet.errors import CAMisbehaved
from tests.revoking_ca import HOUR, URL, RevokingCA, entry, now, part, point, uris

FLAGS = x509.ReasonFlags
OTHER_URL = "http://lists.example/8.crl"
OTHER_ISSUER = [x509.DirectoryName(x509.Name([]))]


@cache
def ca(name: str = "revoking CA", *, may_sign: bool = True) -> RevokingCA:
    return RevokingCA(name, may_sign=may_sign)


def read(body: bytes, issuer: str | None = None) -> RevocationList:
    return read_list(body, url=URL, issuer=issuer or ca().certificate, now=now())


def told(found: RevocationList) -> dict[str, Revoked | None]:
    """Serial -> what the list says."""
    return {serial: revoked(serial, one) for page in found.pages() for serial, one in page}


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        pytest.param([point(URL)], URL, id="Let's Encrypt's"),
        pytest.param([point("https://a.example/x")], "https://a.example/x", id="https"),
        pytest.param([point("ldap://a.example/x", URL)], URL, id="after one by LDAP"),
        pytest.param([point("ldap://a.example/x"), point(URL)], URL, id="a second point"),
        pytest.param([point(URL), point(OTHER_URL)], URL, id="the first"),
        pytest.param([point(OTHER_URL, crl_issuer=OTHER_ISSUER), point(URL)], URL, id="others sign the first"),
        pytest.param(
            [point(OTHER_URL, reasons=frozenset({FLAGS.key_compromise})), point(URL)], URL, id="the first for a reason"
        ),
        pytest.param([point(crl_issuer=OTHER_ISSUER)], None, id="no URL"),
        pytest.param([point("http://u:p@a.example/x")], None, id="a password in it"),
        pytest.param([point("ftp://a.example/x")], None, id="ftp"),
        pytest.param([], None, id="none"),
    ],
)
def test_the_list_that_a_certificate_names(points: list[x509.DistributionPoint], expected: str | None) -> None:
    """The first that can be fetched, and that the issuer signs for all reasons."""
    found = distribution_point(ca().leaf(points=points))
    assert (found.url if found else None) == expected


def test_a_list_has_one_name() -> None:
    """The same for all certificates of an issuer that name it; another issuer's with this URL is another."""
    names = [distribution_point(leaf) for leaf in (ca().leaf("a.example.com"), ca().leaf("b.example.com"))]
    assert names[0] == names[1] != distribution_point(ca("another").leaf())
    assert names[0] != distribution_point(ca().leaf(points=[point(OTHER_URL)]))


@pytest.mark.parametrize("text", ["", "nonsense", "-----BEGIN CERTIFICATE-----\nMAAA\n-----END CERTIFICATE-----\n"])
def test_what_is_no_certificate_names_none(text: str) -> None:
    """No exception: such a record is kept as it was."""
    assert distribution_point(text) is None
    assert issuer_of(text, text) is None


@given(st.text())
def test_any_text_may_stand_for_a_url(text: str) -> None:
    """Only what goes into a request as it is."""
    assert not is_fetchable(text) or text.startswith(("http://", "https://"))
    assert not is_fetchable(f"http://{text} /x")


def test_the_issuer_is_the_one_that_signed() -> None:
    """Not one of the same name, wherever it stands in the chain."""
    same_name, other = RevokingCA(), ca("another")
    chain = other.certificate + same_name.certificate + ca().certificate
    assert issuer_of(ca().leaf(), chain) == ca().certificate
    assert issuer_of(ca().leaf(), other.certificate + same_name.certificate) is None


@given(
    st.dictionaries(
        st.integers(1, 2**159 - 1), st.sampled_from([None, *FLAGS]).filter(lambda f: f != FLAGS.unspecified)
    )
)
@settings(max_examples=30)
def test_what_a_list_says(entries: dict[int, x509.ReasonFlags | None]) -> None:
    """Every serial as our records write it, its reason in RFC 5280's words; removeFromCRL is no revocation."""
    found = read(ca().list(entries))
    expected = {
        f"{serial:x}": None
        if reason is FLAGS.remove_from_crl
        else Revoked(f"{serial:x}", now() - HOUR, reason.value if reason else "unspecified")
        for serial, reason in entries.items()
    }
    said = told(found)
    assert said.keys() == expected.keys()
    for serial, wanted in expected.items():
        one = said[serial]
        assert (one and one.reason) == (wanted and wanted.reason)
        assert one is None or abs(one.at - (now() - HOUR)) < timedelta(minutes=1)


def test_an_empty_list_and_times() -> None:
    """No entry at all; when the CA made it, and when there has to be another."""
    made = now() - timedelta(minutes=5)
    found = read(ca().list(made=made, life=timedelta(hours=6)))
    assert (told(found), found.this_update, found.next_update) == ({}, made, made + timedelta(hours=6))


def test_a_list_that_is_out_of_date_still_says_what_it_says() -> None:
    """That it is, is the caller's to tell."""
    found = read(ca().list({5: None}, made=now() - HOUR * 48, life=HOUR))
    assert list(told(found)) == ["5"]


def test_a_whole_list_of_an_issuer_needs_no_part() -> None:
    """Without an issuing distribution point it is for all certificates; with unknown extensions that do not matter."""
    assert list(told(read(ca().list({5: None}, extensions=[])))) == ["5"]
    harmless = [
        (x509.CRLNumber(7), False),
        (x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3"), b"\5\0"), False),
    ]
    assert list(told(read(ca().list({5: None}, extensions=harmless)))) == ["5"]


def test_entries_of_others() -> None:
    """An entry that names another issuer is nobody's of ours; one that cannot be read all the same revokes."""
    other = x509.CertificateIssuer(OTHER_ISSUER)
    broken = x509.UnrecognizedExtension(x509.ObjectIdentifier("2.5.29.21"), b"\x0a\x01\x63")
    said = told(read(ca().list(entries=[entry(5, None, other), entry(6, None, broken)])))
    assert said["5"] is None
    assert said["6"] is not None
    assert said["6"].reason == "unspecified"


UNKNOWN = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\5\0")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: RevokingCA().list(), "its signature is not that of the certificate's issuer"),
        (lambda: ca("another").list(), "the list of another issuer, CN=another; lists that others sign are not"),
        (lambda: ca().list(extensions=[(x509.DeltaCRLIndicator(1), True)]), "it is a delta list"),
        (lambda: ca().list(extensions=[(part(URL, indirect_crl=True), True)]), "several issuers .indirect."),
        (
            lambda: ca().list(extensions=[(part(URL, only_some_reasons=frozenset({FLAGS.key_compromise})), True)]),
            "for some reasons of revocation only",
        ),
        (lambda: ca().list(extensions=[(part(OTHER_URL), True)]), f"another part .* that of {OTHER_URL}"),
        (
            lambda: ca().list(extensions=[(part(URL, only_contains_ca_certs=True), True)]),
            "no list of servers' certificates",
        ),
        (lambda: ca().list(extensions=[(UNKNOWN, True)]), r"nobody here understands .1\.2\.3\.4."),
        (lambda: ca().list(made=now() + HOUR), "from the future"),
        (lambda: b"", "no revocation list in DER"),
        (lambda: b"<html>not here</html>", "no revocation list in DER"),
        (lambda: ca().list()[:-5], "no revocation list in DER"),
    ],
)
def test_lists_that_are_not_believed(make: Callable[[], bytes], words: str) -> None:
    """Each with its sentence."""
    with pytest.raises(CAMisbehaved, match=words):
        read(make())


def test_an_issuer_that_may_not_sign_lists() -> None:
    """Its key usage says so (RFC 5280 §6.3.3 (f))."""
    weak = ca("weak", may_sign=False)
    with pytest.raises(CAMisbehaved, match="may not sign revocation lists"):
        read(weak.list(), weak.certificate)


def test_a_part_may_have_several_names() -> None:
    """One of them has to be the one that the certificate names."""
    assert read(ca().list(extensions=[(part("ldap://a.example/x", URL), True)]))
    relative = x509.RelativeDistinguishedName([x509.NameAttribute(x509.NameOID.COMMON_NAME, "7")])
    with pytest.raises(CAMisbehaved, match="a name without a URL"):
        read(ca().list(extensions=[(part(relative_name=relative), True)]))
    assert uris(URL)[0].value == URL


@cache
def sample() -> bytes:
    return ca().list({5: FLAGS.key_compromise, 2**150: None})


@given(st.data())
def test_no_changed_byte_goes_unnoticed(data: st.DataObject) -> None:
    """Whatever is changed, it is not believed, or says what it said; and nothing else is raised."""
    body = bytearray(sample())
    at = data.draw(st.integers(0, len(body) - 1))
    body[at] ^= data.draw(st.integers(1, 255))
    try:
        found = read(bytes(body))
    except CAMisbehaved:
        return
    # The signature's own wrapping has bits that say nothing; what is signed is as it was.
    assert found.content.tbs_certlist_bytes == x509.load_der_x509_crl(sample()).tbs_certlist_bytes


def test_a_version_that_there_is_not() -> None:
    """Which raises an error of a kind of its own."""
    body = bytearray(sample())
    at = body.index(b"\x02\x01\x01") + 2
    body[at] = 0
    with pytest.raises(CAMisbehaved, match="no revocation list in DER"):
        read(bytes(body))


@given(st.binary(max_size=300))
def test_garbage_is_no_list(body: bytes) -> None:
    with pytest.raises(CAMisbehaved):
        read(body)
    with pytest.raises(CAMisbehaved):
        read(sample() + body + b"\0")
