"""The limits of each CA: what it publishes (presets.toml), and what an operator knows better (overrides).

Unknown CAs have no limits here; what they answer is believed all the same.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from enum import StrEnum
from functools import cache
from importlib.resources import files
from types import MappingProxyType
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, model_validator
from pydantic_core import ValidationError

from certfleet.errors import UsageError
from certfleet.identifiers import normalise
from certfleet.limits.buckets import Rate
from certfleet.limits.names import address_of, covering

MICROSECONDS = {"ms": 1_000, "s": 1_000_000, "m": 60_000_000, "h": 3_600_000_000, "d": 86_400_000_000}
RATE = re.compile(
    r"(?P<count>\d{1,9})(?P<kind>/| in )(?P<length>\d{1,9})(?P<unit>ms|s|m|h|d)( burst (?P<burst>\d{1,9}))?"
)
WANTED = "is not a rate; write for example 50/7d, 20/1s burst 10, or 100 in 1h (units: ms, s, m, h, d)"


class Limit(StrEnum):
    """What a CA may limit; letsencrypt.org/docs/rate-limits has the words."""

    REGISTRATIONS_PER_ADDRESS = "registrations-per-address"
    REGISTRATIONS_PER_RANGE = "registrations-per-range"
    """New accounts per IPv6 /48."""
    ORDERS = "orders-per-account"
    DOMAIN = "certificates-per-domain"
    """Per registered domain, IPv4 address or IPv6 /64, over all accounts."""
    DOMAIN_OF_ACCOUNT = "certificates-per-domain-and-account"
    """The same for one account: only where an override of DOMAIN names the account."""
    SET = "certificates-per-set"
    """Per exact set of identifiers."""
    FAILURES = "failed-authorizations"
    PAUSING = "consecutive-failures"
    """A CA that this bucket runs dry at pauses the identifier until a person asks for it again."""
    REQUESTS_DIRECTORY = "requests-directory"
    REQUESTS_NEW_NONCE = "requests-new-nonce"
    REQUESTS_NEW_ACCOUNT = "requests-new-account"
    REQUESTS_NEW_ORDER = "requests-new-order"
    REQUESTS_REVOKE_CERT = "requests-revoke-cert"
    REQUESTS_RENEWAL_INFO = "requests-renewal-info"
    REQUESTS_AUTHORIZATION = "requests-authorization"
    REQUESTS_CHALLENGE = "requests-challenge"
    REQUESTS_CERTIFICATE = "requests-certificate"
    REQUESTS_OTHER = "requests-other"
    """Everything below the CA's /acme/ that has no limit of its own."""


def parse_rate(text: object) -> Rate:
    """A rate as presets.toml and the command line write it. Raises ValueError with a sentence.

    Whoever counts in windows (`100 in 1h`) sees tokens that a bucket holds at the start and those that it gains
    within the window; burst and rate are chosen so that both together never exceed the count.
    """
    if isinstance(text, Rate):
        return text
    match = RATE.fullmatch(text.strip()) if isinstance(text, str) else None
    if match is None or (match["kind"] != "/" and match["burst"]):
        raise ValueError(f"{text!r} {WANTED}")
    count, period = int(match["count"]), int(match["length"]) * MICROSECONDS[match["unit"]]
    if match["kind"] == "/":
        return Rate(count=count, period=period, burst=int(match["burst"] or count))
    burst = max(1, count // 2)
    return Rate(count=count - burst + 1 if count else 0, period=period, burst=burst)


ParsedRate = Annotated[Rate, BeforeValidator(parse_rate)]


def _published(limit: Limit) -> Limit:
    if limit is Limit.DOMAIN_OF_ACCOUNT:
        raise ValueError(f"is not set by itself; give {Limit.DOMAIN} an account")
    return limit


Settable = Annotated[Limit, AfterValidator(_published)]


def _check_counted(domain: str) -> None:
    counted = covering(domain)
    try:
        name = domain if address_of(domain.removesuffix("/64")) else normalise(domain)
    except UsageError as error:
        raise ValueError(str(error)) from None
    if name != domain or counted != domain:
        raise ValueError(f"{domain!r} is counted under {counted}; set that")


class Preset(BaseModel):
    """What presets.toml says about one CA."""

    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=lambda name: name.replace("_", "-"))

    directory: str = Field(pattern="^https://")
    source: str = Field(pattern="^https://")
    """Where the CA, or somebody who asked it, says so."""
    as_of: date
    same_set_exempt: bool = False
    ari_exempt: bool = False
    per_project: bool = False
    limits: dict[Settable, ParsedRate] = {}


class Override(BaseModel):
    """A rate that the CA granted, or that the operator wants: for a CA, or for one account or domain there."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    ca: str = Field(min_length=1)
    """The CA's name (models.CA)."""
    limit: Settable
    rate: ParsedRate
    account: str | None = Field(default=None, min_length=1)
    domain: str | None = None
    """A registered domain, an IPv4 address or an IPv6 /64."""

    @model_validator(mode="after")
    def _scope(self) -> Override:
        if self.account is not None and self.limit not in (Limit.ORDERS, Limit.DOMAIN):
            raise ValueError(f"{self.limit} is not set per account; {Limit.ORDERS} and {Limit.DOMAIN} are")
        if self.domain is None:
            return self
        if self.limit is not Limit.DOMAIN:
            raise ValueError(f"{self.limit} is not set per domain; {Limit.DOMAIN} is")
        if self.account is not None:
            raise ValueError("give an account or a domain, not both")
        _check_counted(self.domain)
        return self


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits that hold at one CA."""

    ca: str
    rates: Mapping[Limit, Rate] = field(default_factory=dict)
    same_set_exempt: bool = False
    ari_exempt: bool = False
    per_project: bool = False
    by_account: Mapping[tuple[Limit, str], Rate] = field(default_factory=dict)
    by_domain: Mapping[str, Rate] = field(default_factory=dict)
    """Certificates per domain."""


@cache
def presets() -> Mapping[str, Preset]:
    """The presets by the CA's name."""
    text = (files("certfleet.limits") / "presets.toml").read_text(encoding="utf-8")
    return MappingProxyType(TypeAdapter(dict[str, Preset]).validate_python(tomllib.loads(text)))


def limits_of(ca: str, directory: str) -> Limits:
    """What the CA of this name and directory publishes; none when it is not known."""
    for preset in presets().values():
        if preset.directory == directory:
            return Limits(
                ca=ca,
                rates=MappingProxyType(dict(preset.limits)),
                same_set_exempt=preset.same_set_exempt,
                ari_exempt=preset.ari_exempt,
                per_project=preset.per_project,
            )
    return Limits(ca=ca)


def override(**words: Any) -> Override:
    """An override from words of a person. Raises UsageError that names the field and what would be right."""
    try:
        return Override(**words)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        name = str(fault["loc"][0]) if fault["loc"] else "limit"
        raise UsageError(name, None, fault["msg"].removeprefix("Value error, ")) from None


def overridden(limits: Limits, overrides: Iterable[Override]) -> Limits:
    """The limits with those overrides that are for this CA; of two for the same, the later one holds."""
    rates, by_account, by_domain = dict(limits.rates), dict(limits.by_account), dict(limits.by_domain)
    for one in overrides:
        if one.ca != limits.ca:
            continue
        if one.account is not None:
            by_account[one.limit, one.account] = one.rate
        elif one.domain is not None:
            by_domain[one.domain] = one.rate
        else:
            rates[one.limit] = one.rate
    return replace(limits, rates=rates, by_account=by_account, by_domain=by_domain)
