"""Renewal information of the strict CA (RFC 9773): windows, and which order replaces which certificate.

Knows certificates by what Pebble's answers show: an order's answer names its certificate, a download is the
certificate. Knows nothing of HTTP; times are Unix seconds.
"""

from __future__ import annotations

from base64 import urlsafe_b64encode
from collections import Counter, deque
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple

from cryptography import x509

from tests.ca.problems import Problem
from tests.ca.report import Replacement

SHORT = 10 * 86_400.0
"""Seconds of validity below which Let's Encrypt's window is centred on half of it, else on two thirds."""
WIDTH = 0.02
"""Of the validity."""
RETRY_AFTER = "21600"


class Known(NamedTuple):
    """A certificate."""

    account: str
    identifiers: tuple[str, ...]
    begins: float
    ends: float


class Window(NamedTuple):
    """What is suggested."""

    start: float
    end: float
    explanation: str | None = None


@dataclass(slots=True)
class Made:
    """An order, as it was seen last."""

    account: str
    identifiers: tuple[str, ...]
    url: str
    body: bytes
    status: str = "pending"


class Verdict(NamedTuple):
    """What `replaces` of a newOrder comes to."""

    problem: Problem | None
    exempt: bool = False


@dataclass(slots=True)
class Renewals:
    """Everything that the CA knows of renewals."""

    on: bool = False
    retry_after: str = RETRY_AFTER
    share: float | None = None
    """Where in the validity a window begins; None: as Let's Encrypt has it."""
    width: float = WIDTH
    conflict: str = "alreadyReplaced"
    """The type of the 409; newer Pebbles say `malformed`."""
    faults: deque[Problem | str] = field(default_factory=deque)
    """What the next questions are answered: a problem, or a body."""
    asked: Counter[str] = field(default_factory=Counter)
    """Questions by certificate."""
    certificates: dict[str, Known] = field(default_factory=dict)
    windows: dict[str, Window] = field(default_factory=dict)
    made: dict[str, Made] = field(default_factory=dict)
    replacements: dict[str, Replacement] = field(default_factory=dict)
    """By order."""
    _downloads: dict[str, str] = field(default_factory=dict)

    def window(self, name: str) -> Window | None:
        """The certificate's window; None: there is no such certificate."""
        known = self.certificates.get(name)
        if known is None:
            return None
        if name in self.windows:
            return self.windows[name]
        validity = known.ends - known.begins
        centre = 1 / 2 if validity < SHORT else 2 / 3
        start = centre - self.width / 2 if self.share is None else self.share
        return Window(known.begins + validity * start, known.begins + validity * (start + self.width))

    def move(self, identifier: str, window: Window) -> str:
        """Another window for the newest certificate of this name; that certificate."""
        [*_, name] = [name for name, known in self.certificates.items() if identifier in known.identifiers]
        self.windows[name] = window
        return name

    def claim(self, identifier: str, order: str, now: float) -> None:
        """An order that there is replaces the newest certificate of this name instead of its own."""
        [*_, name] = [name for name, known in self.certificates.items() if identifier in known.identifiers]
        made = self.made[order]
        self.replacements[order] = Replacement(now, made.account, made.identifiers, name, order, exempt=False)

    def judge(self, account: str, identifiers: tuple[str, ...], replaces: str, now: float) -> Verdict:
        """As Boulder looks at `replaces`: whose, which names, whether there is one; exempt inside the window."""
        known = self.certificates.get(replaces)
        if known is None:
            return Verdict(Problem(404, "malformed", "Certificate replaced by this order was not found"))
        if known.account != account:
            return Verdict(Problem(403, "unauthorized", "Requester account did not request the certificate replaced"))
        if set(known.identifiers).isdisjoint(identifiers):
            return Verdict(Problem(400, "malformed", "Certificate replaced by this order has no identifier of it"))
        for order, entry in self.replacements.items():
            if entry.replaces == replaces and self.made[order].status != "invalid":
                detail = f"Cannot replace certificate {replaces}: order {order} does so already"
                return Verdict(Problem(409, self.conflict, detail))
        window = self.window(replaces)
        return Verdict(None, window is not None and window.start <= now < window.end)

    def reused(self, account: str, identifiers: tuple[str, ...]) -> Made | None:
        """The order that the CA answers instead of making one: same account and names, pending or ready."""
        for made in reversed(self.made.values()):
            if made.status in {"pending", "ready"} and (made.account, set(made.identifiers)) == (
                account,
                set(identifiers),
            ):
                return made
        return None

    def order_made(self, order: str, made: Made, replaces: str | None, *, exempt: bool, now: float) -> None:
        """Pebble took it."""
        self.made[order] = made
        if replaces is not None:
            self.replacements[order] = Replacement(now, made.account, made.identifiers, replaces, order, exempt)

    def order_seen(self, order: str, document: dict[str, Any], body: bytes) -> None:
        """An answer shows an order."""
        if (made := self.made.get(order)) is None:
            return
        made.status, made.body = document["status"], body
        if isinstance(document.get("certificate"), str):
            self._downloads[document["certificate"].rpartition("/")[2]] = order
        if made.status == "valid" and order in self.replacements:
            self.replacements[order] = self.replacements[order]._replace(issued=True)

    def downloaded(self, certificate: str, body: bytes) -> None:
        """An answer is a certificate."""
        if (order := self._downloads.get(certificate)) is None:
            return
        made, leaf = self.made[order], x509.load_pem_x509_certificate(body)
        begins, ends = leaf.not_valid_before_utc.timestamp(), leaf.not_valid_after_utc.timestamp()
        self.certificates[_name(leaf)] = Known(made.account, made.identifiers, begins, ends)


def as_json(window: Window) -> dict[str, Any]:
    """As a CA writes it (RFC 9773 §4.2), with Go's nanoseconds."""
    times = [f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%dT%H:%M:%S.%f}789Z" for moment in window[:2]]
    found: dict[str, Any] = {"suggestedWindow": dict(zip(("start", "end"), times, strict=True))}
    return found | ({"explanationURL": window.explanation} if window.explanation else {})


def _name(leaf: x509.Certificate) -> str:
    # RFC 9773 §4.1, written apart from the product's: the serial as DER has it, tag and length cut off.
    authority = leaf.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
    serial = f"{leaf.serial_number:x}"
    content = bytes.fromhex("0" * (len(serial) % 2) + serial)
    content = b"\0" + content if content[0] & 0x80 else content
    assert authority is not None
    return ".".join(urlsafe_b64encode(part).decode().rstrip("=") for part in (authority, content))
