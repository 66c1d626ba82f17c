"""Challenges that hosts answer themselves (http-01, RFC 8555 §8.3): what the receiver is told, line by line."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from certfleet.errors import InstallError
from certfleet.install.bundle import APP_NAME

PATH = "/.well-known/acme-challenge/"
TOKEN = re.compile(r"[A-Za-z0-9_-]{1,128}")  # base64url, §8.1
THUMBPRINT = re.compile(r"[A-Za-z0-9_-]{43}")  # SHA-256 in base64url, RFC 7638
_NAME = re.compile(r"[a-z0-9.:-]{1,253}")


@dataclass(frozen=True, slots=True)
class Answerer:
    """An app that answers for every token by its account's thumbprint alone."""

    app: str
    thumbprint: str
    names: tuple[str, ...]


def answers(authorizations: Mapping[str, str]) -> bytes:
    """What `challenge` reads: token -> key authorization. Raises InstallError for what no CA gives."""
    for token, text in authorizations.items():
        if not TOKEN.fullmatch(token) or text[: len(token) + 1] != f"{token}." or not _is_thumbprint(text, token):
            raise InstallError("a challenge is not a token and the account's thumbprint; look at the CA")
    return "".join(f"{text}\n" for text in authorizations.values()).encode()


def _is_thumbprint(text: str, token: str) -> bool:
    return THUMBPRINT.fullmatch(text[len(token) + 1 :]) is not None


def tokens(published: Iterable[str]) -> bytes:
    """What `withdraw` reads. Raises InstallError."""
    lines = list(published)
    if not all(TOKEN.fullmatch(token) for token in lines):
        raise InstallError("a challenge's token is not base64url; look at the CA")
    return "".join(f"{token}\n" for token in lines).encode()


def answerers(apps: Iterable[Answerer]) -> bytes:
    """What `snippet` reads. Raises InstallError."""
    lines = []
    for one in apps:
        if not APP_NAME.fullmatch(one.app) or not THUMBPRINT.fullmatch(one.thumbprint) or not one.names:
            raise InstallError(f"{one.app}: there is no challenge snippet without a name and a thumbprint")
        if bad := next((name for name in one.names if not _NAME.fullmatch(name)), None):
            raise InstallError(f"{one.app}: {bad!r} cannot stand in a challenge snippet")
        lines.append(f"{one.app} {one.thumbprint} {' '.join(one.names)}\n")
    return "".join(lines).encode()
