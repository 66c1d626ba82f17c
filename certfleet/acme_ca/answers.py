"""What the CA answered: headers and problem documents, read with suspicion and without I/O."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from http.client import responses
from typing import Any

from certfleet.errors import AcmeProblem, CAMisbehaved, Subproblem

URN = "urn:ietf:params:acme:error:"
TEXT_LENGTH = 1_000  # characters of a CA's text that we keep
LONGEST_WAIT = timedelta(days=366)  # a Retry-After beyond it is a mistake of the CA's
LONGEST_REST = timedelta(days=1)  # the same where no limit is met: a mistake must not outlast a certificate
SUBPROBLEMS = 100

_NONCE = re.compile(r"[A-Za-z0-9_-]{1,512}")  # RFC 8555 §6.5.1; the length is ours
_LINK = re.compile(r'<([^<>"\s]{1,2048})>((?:\s*;\s*[\w!#$&+.^`|~-]+\s*=\s*(?:"[^"]*"|[^\s;,"]+))*)')
_RELATION = re.compile(r';\s*rel\s*=\s*(?:"([^"]*)"|([^\s;,"]+))', re.IGNORECASE)
_SECONDS = re.compile(r"[0-9]{1,9}")


@dataclass(frozen=True, slots=True)
class Answer:
    """A successful answer (2xx)."""

    status: int
    body: bytes = b""
    location: str | None = None
    retry_at: datetime | None = None
    link_headers: tuple[str, ...] = ()

    @property
    def links(self) -> dict[str, tuple[str, ...]]:
        """Link headers: relation → URLs."""
        return parse_links(self.link_headers)

    def json(self) -> Any:
        """The body as JSON. Raises CAMisbehaved when it is not."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            raise CAMisbehaved("the CA sent something else where RFC 8555 wants JSON") from None


@dataclass(frozen=True, slots=True)
class Problem:
    """A problem document inside another object: why an order, authorization or challenge failed."""

    type: str
    """Without the `urn:ietf:params:acme:error:` prefix where it has one."""
    detail: str
    subproblems: tuple[Subproblem, ...] = ()

    def __str__(self) -> str:
        parts = [self.detail, *(f"{s.identifier or 'one name'}: {s.detail}" for s in self.subproblems)]
        return f"{self.type}: {'; '.join(parts)}"


def parse_nonce(header: str | None) -> str | None:
    """A Replay-Nonce that may go into a request; None for anything else (RFC 8555 §6.5.1: ignore it)."""
    return header if header is not None and _NONCE.fullmatch(header) else None


def parse_retry_after(header: str | None, now: datetime, longest: timedelta = LONGEST_WAIT) -> datetime | None:
    """Retry-After, seconds or an HTTP date (RFC 9110 §10.2.3), as a moment; None when it is neither.

    At most `longest` from now.
    """
    if header is None:
        return None
    text = header.strip()
    if _SECONDS.fullmatch(text):
        return now + min(timedelta(seconds=int(text)), longest)
    try:
        moment = parsedate_to_datetime(text)
        aware = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    return min(aware, now + longest)


def parse_links(headers: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Link headers (RFC 8288) as relation → URLs, in order; what cannot be read is left out."""
    found: dict[str, tuple[str, ...]] = {}
    for header in headers:
        for url, parameters in _LINK.findall(header):
            if relation := _RELATION.search(parameters):
                for name in (relation[1] or relation[2] or "").lower().split():
                    found[name] = (*found.get(name, ()), url)
    return found


def parse_problem(value: object) -> Problem | None:
    """A problem document (RFC 7807, RFC 8555 §6.7), as far as it can be read; None when it is not an object."""
    if not isinstance(value, dict):
        return None
    subproblems = value.get("subproblems")
    return Problem(
        type=_type(value),
        detail=_text(value.get("detail") or value.get("title")) or "without a reason",
        subproblems=tuple(
            Subproblem(
                type=_type(entry),
                detail=_text(entry.get("detail")) or "without a reason",
                identifier=_identifier(entry.get("identifier")),
            )
            for entry in (subproblems[:SUBPROBLEMS] if isinstance(subproblems, list) else ())
            if isinstance(entry, dict)
        ),
    )


def problem_of(
    status: int, body: bytes, *, retry_at: datetime | None = None, location: str | None = None
) -> AcmeProblem:
    """The error for an answer of 400 and above, whatever its body is."""
    try:
        problem = parse_problem(json.loads(body))
    except (ValueError, RecursionError):
        problem = None
    if problem is None:
        phrase = responses.get(status, "unknown status")
        problem = Problem("about:blank", f"{phrase}, without a problem document")
    return AcmeProblem(
        status=status,
        type=problem.type,
        detail=problem.detail,
        retry_at=retry_at,
        subproblems=problem.subproblems,
        location=location,
    )


def _type(document: Mapping[str, object]) -> str:
    return _text(document.get("type")).removeprefix(URN) or "about:blank"


def _identifier(value: object) -> str | None:
    return _text(value.get("value")) or None if isinstance(value, dict) else None


def _text(value: object) -> str:
    # A CA's text reaches terminals and logs: printable and bounded.
    if not isinstance(value, str):
        return ""
    return "".join(c if c.isprintable() else " " for c in value[:TEXT_LENGTH]).strip()
