"""CAA records: whether a name's owner lets this CA, this account and this way of proof issue (RFC 8659, RFC 8657).

The look-up is handed in; everything else decides without I/O. What only the CA can know is left open (None).
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

CRITICAL = 128
"""The flag of a record that has to be understood by whoever issues (RFC 8659 §4.1)."""
UNDERSTOOD = frozenset({"issue", "issuewild", "iodef", "issuemail", "contactemail", "contactphone"})
"""Tags that say nothing unknown: RFC 8659 §4, RFC 9495, CA/Browser Forum Baseline Requirements A.1."""
SHOWN = 200  # characters of somebody else's record

_LABEL = r"[A-Za-z0-9](?:-*[A-Za-z0-9])*"  # RFC 8659 §4.2: `label`, and `tag` of a parameter
_DOMAIN = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_PARAMETER = re.compile(rf"({_LABEL})[ \t]*=[ \t]*([\x21-\x3a\x3c-\x7e]*)")
_METHODS = re.compile(rf"(?:{_LABEL},)*{_LABEL}")  # RFC 8657 §4
_BLANK = " \t"


@dataclass(frozen=True, slots=True)
class CAARecord:
    """One record; the tag in lower case (RFC 8659 §4.1)."""

    flags: int
    tag: str
    value: str

    def __str__(self) -> str:
        value = "".join(c if c.isascii() and c.isprintable() else "?" for c in self.value[:SHOWN])
        return f'CAA {self.flags} {self.tag} "{value}"'


@dataclass(frozen=True, slots=True)
class Issuer:
    """Whom an `issue` or `issuewild` record lets issue, and under which conditions."""

    domain: str
    """In lower case; empty: nobody, which is also what a record says that cannot be read."""
    parameters: tuple[tuple[str, str], ...] = ()

    def of(self, tag: str) -> list[str]:
        """The values of a parameter; its tag counts in any case."""
        return [value for known, value in self.parameters if known == tag]


@dataclass(frozen=True, slots=True)
class Applicant:
    """Who wants a certificate, by which way of proof."""

    issuers: tuple[str, ...]
    """What the CA is called in CAA records (`caaIdentities`, RFC 8555 §7.1.1); empty: it does not say."""
    account: str | None
    """The account's URL; None: not known."""
    method: str
    """http-01, dns-01, …"""


@dataclass(frozen=True, slots=True)
class Judgement:
    """Whether the owner lets the applicant have it; None: only the CA can tell."""

    allowed: bool | None
    reason: str = ""


Look = Callable[[str], Awaitable[Sequence[CAARecord]]]
"""The CAA records at one name, aliases followed; empty: there are none. Raises OSError: nobody answered."""


async def relevant(name: str, look: Look) -> tuple[str, tuple[CAARecord, ...]]:
    """The records that count for a name, and where they stand: the nearest on the way to the root (RFC 8659 §3).

    A wildcard's way begins below its `*`. Raises OSError: DNS did not answer where it had to.
    """
    labels = name.removeprefix("*.").split(".")
    for start in range(len(labels)):
        domain = ".".join(labels[start:])
        if records := await look(domain):
            return domain, tuple(records)
    return "", ()


def parse_issuer(value: str) -> Issuer:
    """The value of an `issue` or `issuewild` record (RFC 8659 §4.2); whatever does not fit lets nobody issue."""
    first, *rest = value.split(";")
    domain = first.strip(_BLANK)
    if domain and not _DOMAIN.fullmatch(domain):
        return Issuer("")
    if len(rest) == 1 and not rest[0].strip(_BLANK):
        return Issuer(domain.lower())
    parameters = []
    for part in rest:
        found = _PARAMETER.fullmatch(part.strip(_BLANK))
        if not found:
            return Issuer("")
        parameters.append((found[1].lower(), found[2]))
    return Issuer(domain.lower(), tuple(parameters))


def judge(name: str, where: str, records: Sequence[CAARecord], applicant: Applicant) -> Judgement:
    """What the records that count for a name say to an applicant."""
    wild = name.startswith("*.") and any(record.tag == "issuewild" for record in records)
    found = [record for record in records if record.tag == ("issuewild" if wild else "issue")]
    answers = [(record, _one(parse_issuer(record.value), applicant)) for record in found]
    unknown = [record for record in records if record.flags & CRITICAL and record.tag not in UNDERSTOOD]
    if found and all(answer.allowed is False for _, answer in answers):
        told = "; ".join(f"{record} {answer.reason}" for record, answer in answers)
        return Judgement(allowed=False, reason=f"{where}: {told}")
    if unknown:
        told = f"{where}: {unknown[0]} has to be understood by the CA, and certfleet does not know it"
        return Judgement(allowed=None, reason=told)
    if not found or any(answer.allowed for _, answer in answers):
        return Judgement(allowed=True, reason="; ".join(f"{where}: {record}" for record in found))
    record, answer = next((record, answer) for record, answer in answers if answer.allowed is None)
    return Judgement(allowed=None, reason=f"{where}: {record} {answer.reason}")


def _one(issuer: Issuer, applicant: Applicant) -> Judgement:
    """What one record says."""
    if not issuer.domain:
        return Judgement(allowed=False, reason="lets nobody issue")
    if applicant.issuers and issuer.domain not in applicant.issuers:
        return Judgement(allowed=False, reason=f"lets {issuer.domain} issue, not {' or '.join(applicant.issuers)}")
    for answer in (_method(issuer, applicant), _account(issuer, applicant)):
        if answer.allowed is not True:
            return answer
    if not applicant.issuers:
        wanted = f"lets {issuer.domain} issue, and this CA does not say what it is called there"
        return Judgement(allowed=None, reason=wanted)
    return Judgement(allowed=True)


def _method(issuer: Issuer, applicant: Applicant) -> Judgement:
    """RFC 8657 §4: given twice, or not as it has to be written, it fits nobody."""
    values = issuer.of("validationmethods")
    if not values:
        return Judgement(allowed=True)
    fits = len(values) == 1 and _METHODS.fullmatch(values[0]) and applicant.method in values[0].split(",")
    return Judgement(allowed=bool(fits), reason="" if fits else f"does not let names be proven by {applicant.method}")


def _account(issuer: Issuer, applicant: Applicant) -> Judgement:
    """RFC 8657 §3: given twice it fits nobody."""
    values = issuer.of("accounturi")
    if not values:
        return Judgement(allowed=True)
    if len(values) > 1:
        return Judgement(allowed=False, reason="names two accounts, which lets none issue")
    if applicant.account is None:
        return Judgement(allowed=None, reason="is for one account, and ours is not registered yet")
    if values[0] != applicant.account:
        return Judgement(allowed=False, reason=f"is for another account than ours, {applicant.account}")
    return Judgement(allowed=True)
