"""Account keys as other clients keep them.

certbot           accounts/<server>/directory/<id>/private_key.json         JWK (RFC 7517), RSA or EC
lego              accounts/<server>/<email>/keys/<email>.key                PEM, EC or RSA
dokku-letsencrypt below the app's `letsencrypt` directory                   lego's
acme.sh           ca/<server>/directory/account.key                         PEM, EC (with its parameters) or RSA
"""

from __future__ import annotations

import json
import re
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from josepy.errors import Error as JoseError
from josepy.jwk import JWK

from certfleet.acme_ca.keys import AccountKey, key_pem, load_account_key
from certfleet.errors import UsageError, VaultError

LARGEST = 65_536  # bytes; the largest such file is a few KB
_PEM = re.compile(rb"-----BEGIN ((?:[A-Z]+ )?PRIVATE KEY)-----.+?-----END \1-----", re.DOTALL)
WANTED = "certbot's private_key.json, or lego's or acme.sh's key in PEM"


def read_account_key(content: bytes) -> AccountKey:
    """The account key in the file of another client. Raises UsageError, which never shows what is in it."""
    if len(content) > LARGEST:
        raise UsageError("file", None, f"is longer than {LARGEST} bytes: give {WANTED}")
    try:
        private = _jwk(content) if content.lstrip().startswith(b"{") else _pem(content)
        return load_account_key(key_pem(private))
    except VaultError as error:
        raise UsageError("file", None, str(error)) from None


def _pem(content: bytes) -> ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey:
    found = _PEM.search(content)  # `openssl ecparam -genkey` writes the curve's parameters before it
    if found is None:
        raise UsageError("file", None, f"holds no private key without a password: give {WANTED}")
    try:
        return _known(serialization.load_pem_private_key(found[0] + b"\n", password=None))
    except (ValueError, TypeError):
        raise UsageError("file", None, f"holds a private key that cannot be read: give {WANTED}") from None


def _jwk(content: bytes) -> ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey:
    try:
        value = json.loads(content)
        jwk: Any = JWK.from_json(value)
        private = getattr(jwk.key, "_wrapped", jwk.key)  # josepy wraps keys so that they can be compared
    except (ValueError, TypeError, AttributeError, RecursionError, JoseError):
        raise UsageError("file", None, f"holds JSON that is no key: give {WANTED}") from None
    return _known(private)


def _known(key: object) -> ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey:
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise UsageError("file", None, f"holds no private RSA or EC key: give {WANTED}")
    return key
