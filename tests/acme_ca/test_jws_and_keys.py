"""Keys and signatures, checked by the libraries that others use."""

from __future__ import annotations

import json

import pytest
from acme import jws as acme_jws
from acme.challenges import HTTP01
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID
from josepy.b64 import b64decode
from josepy.json_util import decode_b64jose
from josepy.jwk import JWKEC
from josepy.jws import JWS

from certfleet.acme_ca.challenges.http01 import challenge_path, key_authorization
from certfleet.acme_ca.jws import sign
from certfleet.acme_ca.keys import (
    key_pem,
    load_account_key,
    load_key,
    make_account_key,
    make_csr,
    make_key,
    spki_digest,
)
from certfleet.errors import VaultError
from certfleet.models import KeyType

URL = "https://ca.test/order"


def test_josepy_verifies_what_we_sign() -> None:
    """Many signatures (r and s are padded to 32 bytes), by kid and by jwk, with payload and without."""
    key = make_account_key()
    public = JWKEC(key=key.private).public_key()
    for number in range(300):
        payload = b"" if number % 2 else b'{"a":"b"}'
        kid = "https://ca.test/acct/1" if number % 3 else None
        body = sign(key, url=URL, nonce=f"n{number}", payload=payload, kid=kid)
        read = acme_jws.JWS.json_loads(body)
        assert read.verify(public)
        header = read.signature.combined
        assert (header.url, header.kid, read.payload) == (URL, kid, payload)
        assert (header.jwk == public) == (kid is None)
        assert json.loads(b64decode(json.loads(body)["protected"]))["nonce"] == f"n{number}"


def test_a_signature_covers_the_url() -> None:
    """What was signed for one URL does not verify for another."""
    key = make_account_key()
    public = JWKEC(key=key.private).public_key()
    one = json.loads(sign(key, url=URL, nonce="n", payload=b"", kid="k"))
    two = json.loads(sign(key, url=URL + "2", nonce="n", payload=b"", kid="k"))
    assert not JWS.from_json(one | {"protected": two["protected"]}).verify(public)


def test_key_authorization_and_path_are_those_of_the_acme_library() -> None:
    """The same text at the same path."""
    key = make_account_key()
    token = "A" * 43
    theirs = HTTP01(token=decode_b64jose(token))
    assert key_authorization(token, key) == theirs.key_authorization(JWKEC(key=key.private))
    assert challenge_path(token) == theirs.path


def test_an_account_key_survives_its_pem_and_never_shows_itself() -> None:
    """PEM in and out; repr says only the thumbprint's beginning."""
    key = make_account_key()
    again = load_account_key(key_pem(key.private))
    assert (again.jwk, again.thumbprint) == (key.jwk, key.thumbprint)
    assert repr(again) == f"<AccountKey {key.thumbprint[:8]}>"
    assert "d" not in json.loads(key.jwk)


@pytest.mark.parametrize("kind", list(KeyType))
async def test_each_kind_of_key_makes_a_good_csr(kind: KeyType) -> None:
    """Kind and size as asked, PEM in and out, all names as SANs, the first as common name."""
    key = await make_key(kind)
    if isinstance(key, ec.EllipticCurvePrivateKey):
        assert key.curve.name == {"p256": "secp256r1", "p384": "secp384r1"}[kind]
    else:
        assert isinstance(key, rsa.RSAPrivateKey)
        assert f"rsa{key.key_size}" == kind
    assert spki_digest(load_key(key_pem(key))) == spki_digest(key)
    csr = x509.load_der_x509_csr(make_csr(key, ["a.example.com", "b.example.com"]))
    assert csr.is_signature_valid
    names = csr.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["a.example.com", "b.example.com"]
    assert [a.value for a in csr.subject.get_attributes_for_oid(NameOID.COMMON_NAME)] == ["a.example.com"]


async def test_a_name_too_long_for_a_common_name_is_only_a_san() -> None:
    """The first that fits is the common name; with none, there is no common name."""
    key = await make_key(KeyType.P256)
    long = f"{'x' * 60}.example.com"
    assert not x509.load_der_x509_csr(make_csr(key, [long])).subject.rdns
    both = x509.load_der_x509_csr(make_csr(key, [long, "b.example.com"]))
    assert both.subject.rfc4514_string() == "CN=b.example.com"


@pytest.mark.parametrize(
    "pem", [b"", b"nonsense", b"-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n"]
)
def test_what_is_no_key_is_refused_without_being_shown(pem: bytes) -> None:
    """VaultError, and nothing of the secret in it."""
    with pytest.raises(VaultError) as caught:
        load_key(pem)
    assert "c2VjcmV0" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_an_account_key_is_one_that_cas_take() -> None:
    """Another kind of key is not taken for an account's."""
    with pytest.raises(VaultError, match="P-256"):
        load_account_key(key_pem(ec.generate_private_key(ec.SECP521R1())))
