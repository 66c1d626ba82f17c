"""External account binding (RFC 8555 §7.3.4): an ACME account tied to one that somebody has with the CA already.

The CA gives a key identifier and a MAC key outside of ACME. The MAC key signs the ACME account's public key; it is used
once, in newAccount.
"""

from __future__ import annotations

import binascii
import hmac
import json
import re
from base64 import urlsafe_b64decode
from dataclasses import dataclass, field

from certfleet.acme_ca.jws import b64
from certfleet.acme_ca.keys import AccountKey
from certfleet.errors import CARefuses, UsageError
from certfleet.models import CA

_KID = re.compile(r"[!-~]{1,512}")
SHORTEST, LONGEST = 16, 512  # bytes of a MAC key; HS256 wants 32 (RFC 7518 §3.2), and not every CA keeps to it


@dataclass(frozen=True, slots=True)
class Binding:
    """What the CA gave."""

    kid: str
    key: bytes = field(repr=False)


def parse_binding(kid: str, key: str) -> Binding:
    """What a person was given: the identifier, and the MAC key in base64url (RFC 8555 §7.3.4).

    Standard base64 and padding are taken too, some CAs show it so. Raises UsageError, which never shows the key.
    """
    if not _KID.fullmatch(kid):
        raise UsageError("kid", kid, "is not a key identifier: it is printable ASCII without spaces, as the CA gave it")
    text = key.strip().replace("+", "-").replace("/", "_").rstrip("=")
    wanted = "has to hold the CA's MAC key in base64url, and nothing else; it is not shown here"
    if not re.fullmatch(r"[A-Za-z0-9_-]+", text):
        raise UsageError("key-file", None, wanted)
    try:
        found = urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (binascii.Error, ValueError):
        raise UsageError("key-file", None, wanted) from None
    if not SHORTEST <= len(found) <= LONGEST:
        raise UsageError("key-file", None, f"{wanted} (a key of {SHORTEST} to {LONGEST} bytes)")
    return Binding(kid, found)


def bind(binding: Binding, account: AccountKey, url: str) -> dict[str, str]:
    """The `externalAccountBinding` of a newAccount to this URL: a JWS with HS256 over the account's public key."""
    protected = b64(json.dumps({"alg": "HS256", "kid": binding.kid, "url": url}).encode())
    payload = b64(account.jwk.encode())
    signature = hmac.digest(binding.key, protected + b"." + payload, "sha256")
    return {"protected": protected.decode(), "payload": payload.decode(), "signature": b64(signature).decode()}


def missing(ca: CA, email: str) -> CARefuses:
    """What a person reads when the CA makes no account without one."""
    return CARefuses(
        f"the CA {ca.name} makes no account without an external account binding (EAB): it gives a key identifier and "
        f"a MAC key to its customers; tell them with `certfleet eab set --ca {ca.directory} --email {email} --kid KID "
        "--key-file FILE`"
    )
