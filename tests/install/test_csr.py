"""What a host sends as the request for a certificate: exactly what was asked for, or a refusal."""

from __future__ import annotations

import base64
from collections.abc import Callable
from functools import cache
from ipaddress import ip_address

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import AttributeOID, NameOID
from hypothesis import example, given
from hypothesis import strategies as st

from certfleet.acme_ca.keys import make_csr
from certfleet.errors import InstallError
from certfleet.identifiers import address_of
from certfleet.install.csr import Wanted, checked_csr
from certfleet.models import KeyType

NAMES = ("blog.example.test", "*.example.test", "192.0.2.7", "2001:db8::7")
Builder = x509.CertificateSigningRequestBuilder
Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey


@cache
def key_of(kind: str) -> Key:
    """One key of each kind, made once: some that nobody asks for."""
    curves: dict[str, Callable[[], ec.EllipticCurve]] = {
        "p256": ec.SECP256R1,
        "p384": ec.SECP384R1,
        "p521": ec.SECP521R1,
        "k256": ec.SECP256K1,
    }
    if kind in curves:
        return ec.generate_private_key(curves[kind]())
    if kind == "ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    bits, _, exponent = kind.removeprefix("rsa").partition("e")
    return rsa.generate_private_key(int(exponent or 65_537), int(bits))


def wanted(names: tuple[str, ...] = NAMES, kind: KeyType = KeyType.P256) -> Wanted:
    return Wanted("blog", "1", kind, names)


def san(*names: x509.GeneralName) -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName(names)


OURS = san(
    x509.DNSName("blog.example.test"),
    x509.DNSName("*.example.test"),
    x509.IPAddress(ip_address("192.0.2.7")),
    x509.IPAddress(ip_address("2001:db8::7")),
)


def request(
    kind: str = "p256",
    *,
    subject: x509.Name | None = None,
    names: x509.SubjectAlternativeName | None = OURS,
    more: Callable[[Builder], Builder] = lambda builder: builder,
) -> bytes:
    """A request in DER, in order but for what is said."""
    common = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "blog.example.test")])
    builder = Builder().subject_name(common if subject is None else subject)
    if names is not None:
        builder = builder.add_extension(names, critical=False)
    key = key_of(kind)
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return more(builder).sign(key, algorithm).public_bytes(Encoding.DER)


def check(der: bytes, asked: Wanted | None = None) -> bytes:
    return checked_csr(base64.b64encode(der).decode(), asked or wanted())


def test_what_was_asked_for() -> None:
    """Taken as it is, with a common name or without any."""
    for der in (request(), request(subject=x509.Name([]))):
        assert check(der) == der


LABEL = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,10}[a-z0-9])?", fullmatch=True)
NAME = st.builds(
    lambda wild, labels: ("*." if wild else "") + ".".join([*labels, "test"]),
    st.booleans(),
    st.lists(LABEL, min_size=1, max_size=3),
)
ADDRESS = st.ip_addresses().map(str).map(lambda text: str(address_of(text)))
IDENTIFIERS = st.lists(st.one_of(NAME, ADDRESS), min_size=1, max_size=6, unique=True).map(tuple)


@given(IDENTIFIERS, IDENTIFIERS, st.randoms())
def test_any_names(ours: tuple[str, ...], theirs: tuple[str, ...], random: object) -> None:
    """A request for these names is taken in whatever order, and one for others is not."""
    key = key_of("p256")
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    shuffled = list(ours)
    getattr(random, "shuffle")(shuffled)  # noqa: B009  hypothesis gives it no type
    assert check(make_csr(key, shuffled), wanted(ours))
    if set(theirs) != set(ours):
        with pytest.raises(InstallError, match="it is for other names"):
            check(make_csr(key, theirs), wanted(ours))


@pytest.mark.parametrize(
    "kind", ["p256", "p384", "rsa2048", "rsa1024", "rsa3072", "rsa2048e3", "p521", "k256", "ed25519"]
)
@pytest.mark.parametrize("asked", [KeyType.P256, KeyType.P384, KeyType.RSA2048])
def test_kinds_of_key(kind: str, asked: KeyType) -> None:
    """The one that was asked for, with the exponent that everybody uses, and no other."""
    if kind == asked:
        assert check(request(kind), wanted(kind=asked))
    else:
        with pytest.raises(InstallError, match=f"it has no {asked} key"):
            check(request(kind), wanted(kind=asked))


OTHERS: dict[str, tuple[Callable[[], bytes], str]] = {
    "a name less": (lambda: request(names=san(*list(OURS)[1:]), subject=x509.Name([])), "is for other names"),
    "a name more": (lambda: request(names=san(*OURS, x509.DNSName("bank.example.test"))), "is for other names"),
    "a name twice": (lambda: request(names=san(*OURS, x509.DNSName("blog.example.test"))), "is for other names"),
    "an e-mail address": (lambda: request(names=san(*OURS, x509.RFC822Name("a@example.test"))), "is for other names"),
    "a URI": (
        lambda: request(names=san(*OURS, x509.UniformResourceIdentifier("https://a.test"))),
        "is for other names",
    ),
    "an address as a name": (
        lambda: request(names=san(*list(OURS)[:3], x509.DNSName("2001:db8::7x"))),
        "is for other names",
    ),
    "a network": (
        lambda: request(names=san(*list(OURS)[:3], x509.RegisteredID(x509.ObjectIdentifier("1.2.3")))),
        "is for other names",
    ),
    "no names": (lambda: request(names=None), "has other extensions than its names"),
    "a CA": (
        lambda: request(
            more=lambda b: b.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        ),
        "has other extensions than its names",
    ),
    "must staple": (
        lambda: request(
            more=lambda b: b.add_extension(x509.TLSFeature([x509.TLSFeatureType.status_request]), critical=False)
        ),
        "has other extensions than its names",
    ),
    "another common name": (
        lambda: request(subject=x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "bank.example.test")])),
        "has another subject",
    ),
    "an organisation": (
        lambda: request(subject=x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "blog.example.test")])),
        "has another subject",
    ),
    "two common names": (
        lambda: request(
            subject=x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name) for name in NAMES[:2]]),
        ),
        "has another subject",
    ),
    "a password": (
        lambda: request(more=lambda b: b.add_attribute(AttributeOID.CHALLENGE_PASSWORD, b"secret")),
        "has attributes of its own",
    ),
}


@pytest.mark.parametrize("other", list(OTHERS))
def test_what_was_not_asked_for(other: str) -> None:
    """Refused, with what is wrong."""
    made, said = OTHERS[other]
    with pytest.raises(InstallError, match=said):
        check(made())


def test_somebody_elses_key() -> None:
    """Signed by another key than the one in it: whoever sent it does not have that key."""
    der = bytearray(request())
    der[-1] ^= 1
    with pytest.raises(InstallError, match=r"is not signed with its own key|cannot be read"):
        check(bytes(der))
    ours, theirs = request(), request("k256")
    with pytest.raises(InstallError):
        check(ours[:-64] + theirs[-64:])


@given(st.binary(max_size=200))
def test_no_request(data: bytes) -> None:
    """Whatever comes is refused in one sentence."""
    with pytest.raises(InstallError, match="cannot be read"):
        check(data)


@given(st.text(max_size=50))
def test_no_base64(text: str) -> None:
    """The same for what is not even that."""
    with pytest.raises(InstallError, match="cannot be read"):
        checked_csr(text, wanted())


@given(st.integers(0, 10_000), st.integers(1, 255))
@example(9, 1)  # the version, which cryptography refuses in a way of its own
def test_any_byte_changed(at: int, by: int) -> None:
    """One byte of it is another: refused, since its signature covers all that it says.

    DER tells how many bits of the signature's last byte are unused; nobody looks at that, and it says nothing.
    """
    whole = request()
    der = bytearray(whole)
    der[at % len(der)] ^= by
    try:
        check(bytes(der))
    except InstallError:
        return
    before, after = x509.load_der_x509_csr(whole), x509.load_der_x509_csr(bytes(der))
    assert (after.tbs_certrequest_bytes, after.signature) == (before.tbs_certrequest_bytes, before.signature)
