"""What a signed request says. Signatures are Pebble's business: what it refuses counts nowhere."""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode
from typing import Any, NamedTuple

THUMBPRINT = ("crv", "e", "kty", "n", "x", "y")  # RFC 7638: the members that make a public key what it is


class NewAccount(NamedTuple):
    """A newAccount request."""

    key: str
    """The public key, always written the same way."""
    only_existing: bool


class NewOrder(NamedTuple):
    """A newOrder request."""

    account: str
    """The account's URL."""
    identifiers: tuple[str, ...]
    profile: str | None = None
    replaces: str | None = None
    """The certificate that it is to replace."""


def new_account(body: bytes) -> NewAccount | None:
    """A newAccount as it was sent; None when it is not one."""
    try:
        protected, payload = _decode(body)
        key = json.dumps({name: protected["jwk"].get(name) for name in THUMBPRINT})
        return NewAccount(key, payload.get("onlyReturnExisting") is True)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def new_order(body: bytes) -> NewOrder | None:
    """A newOrder as it was sent; None when it is not one."""
    try:
        protected, payload = _decode(body)
        names = tuple(dict.fromkeys(entry["value"].lower() for entry in payload["identifiers"]))
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    account = protected.get("kid")
    profile, replaces = payload.get("profile"), payload.get("replaces")
    return NewOrder(account, names, profile, replaces) if isinstance(account, str) and names else None


def key_change(body: bytes) -> tuple[str, str] | None:
    """Whose key changes (the account's URL), and to which; None when it is no keyChange (RFC 8555 §7.3.5)."""
    try:
        protected, payload = _decode(body)
        inner = json.loads(urlsafe_b64decode(payload["protected"] + "=="))
        return protected["kid"], json.dumps({name: inner["jwk"].get(name) for name in THUMBPRINT})
    except (ValueError, KeyError, TypeError, AttributeError):
        return None


def answered(body: bytes) -> str | None:
    """The account whose client says that a challenge may be looked at; None when it only asks how that stands."""
    try:
        signed = json.loads(body)
        kid = json.loads(urlsafe_b64decode(signed["protected"] + "=="))["kid"]
    except (ValueError, KeyError, TypeError):
        return None
    return kid if signed.get("payload") and isinstance(kid, str) else None


def _decode(body: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
    signed = json.loads(body)
    protected, payload = (json.loads(urlsafe_b64decode(signed[part] + "==")) for part in ("protected", "payload"))
    return protected, payload
