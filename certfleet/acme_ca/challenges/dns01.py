"""dns-01 (RFC 8555 §8.4): which TXT record shows control of a name. The only way to prove a wildcard."""

from __future__ import annotations

import hashlib

from certfleet.acme_ca.challenges.http01 import key_authorization
from certfleet.acme_ca.jws import b64
from certfleet.acme_ca.keys import AccountKey

LABEL = "_acme-challenge"


def record_name(identifier: str) -> str:
    """Where the CA looks: below the name itself, for a wildcard below the name without `*.`."""
    return f"{LABEL}.{identifier.removeprefix('*.')}"


def record_value(token: str, key: AccountKey) -> str:
    """What it looks for: the SHA-256 of the key authorization in base64url, 43 characters."""
    return b64(hashlib.sha256(key_authorization(token, key).encode()).digest()).decode()
