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
from typing import Annotated, Any, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    TypeAdapter,
    model_validator,
)
from pydantic_core import ValidationError

from certfleet.errors import UsageError
from certfleet.identifiers import address_of, normalise
from certfleet.limits.buckets import Rate
from certfleet.limits.names import covering

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
    SLOW_DOWN = "slow-down"
    """What the CA answered 503 to: nothing more from this address before the time it named."""
    REFUSED = "refused"
    """What the CA answered 429 to without saying which limit: not published, only believed."""
    REQUESTS_OTHER = "requests-other"
    """Everything below the CA's /acme/ that has no limit of its own."""


class Switch(StrEnum):
    """What is so or not at a CA; presets.toml and letsencrypt.org/docs/rate-limits have the words."""

    SAME_SET_EXEMPT = "same-set-exempt"
    """A renewal of the exact same set is exempt from orders per account and certificates per domain."""
    ARI_EXEMPT = "ari-exempt"
    """An order with `replaces` (RFC 9773) is exempt from nearly everything."""
    PER_PROJECT = "per-project"
    """Requests are counted per account's project, not per address."""


NEVER_PUBLISHED = frozenset({Limit.REFUSED, Limit.SLOW_DOWN})
"""What certfleet believes of a CA's answers, beside the limits."""


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


def write_rate(rate: Rate) -> str:
    """The rate as `parse_rate` reads it. Raises ValueError for a period of no whole milliseconds."""
    for unit, length in reversed(MICROSECONDS.items()):
        if rate.period % length == 0:
            burst = "" if rate.burst == rate.count else f" burst {rate.burst}"
            return f"{rate.count}/{rate.period // length}{unit}{burst}"
    raise ValueError(f"a period of {rate.period} microseconds cannot be written")


ParsedRate = Annotated[Rate, BeforeValidator(parse_rate), PlainSerializer(write_rate, return_type=str)]


def _published(limit: Limit) -> Limit:
    if limit is Limit.DOMAIN_OF_ACCOUNT:
        raise ValueError(f"{limit.value!r} is not set by itself; give {Limit.DOMAIN} an account")
    if limit in NEVER_PUBLISHED:
        raise ValueError(f"{limit.value!r} is what a CA answers, and cannot be set")
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


class Scope(BaseModel):
    """What a rate is set for: one limit of a CA, or of one account or domain there."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    ca: str = Field(min_length=1)
    """The CA's name (models.CA)."""
    limit: Settable
    account: str | None = Field(default=None, min_length=1)
    """The account's id, as buckets have it."""
    email: str | None = None
    """Whose account that is, for people."""
    domain: str | None = None
    """A registered domain, an IPv4 address or an IPv6 /64."""

    @property
    def name(self) -> str:
        """The same for the same scope; names of CAs, accounts and domains have no blanks."""
        words = [self.ca, self.limit.value]
        words += ["account", self.account] if self.account else ["domain", self.domain] if self.domain else []
        return " ".join(words)

    @model_validator(mode="after")
    def _scope(self) -> Self:
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


class Override(Scope):
    """A rate that the CA granted, or that the operator wants: for a CA, or for one account or domain there."""

    rate: ParsedRate


class Switched(BaseModel):
    """A switch that the operator has set: what a preset says of a CA that has one."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    ca: str = Field(min_length=1)
    switch: Switch
    on: bool

    @property
    def name(self) -> str:
        """As that of a scope."""
        return f"{self.ca} {self.switch}"


Told = Override | Switched
"""What the operator can say about a CA's limits."""


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


def preset_of(directory: str) -> Preset | None:
    """The preset of the CA with this directory."""
    return next((preset for preset in presets().values() if preset.directory == directory), None)


def limits_of(ca: str, directory: str) -> Limits:
    """What the CA of this name and directory publishes; none when it is not known."""
    preset = preset_of(directory)
    if preset is None:
        return Limits(ca=ca)
    return Limits(
        ca=ca,
        rates=MappingProxyType(dict(preset.limits)),
        same_set_exempt=preset.same_set_exempt,
        ari_exempt=preset.ari_exempt,
        per_project=preset.per_project,
    )


ScopeKind = TypeVar("ScopeKind", bound=Scope)


def scope(kind: type[ScopeKind], **words: Any) -> ScopeKind:
    """A scope or override from words of a person. Raises UsageError with the field and what would be right."""
    try:
        return kind(**words)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        name = str(fault["loc"][0]) if fault["loc"] else "limit"
        if fault["type"] == "enum":
            known = [limit for limit in Limit if limit not in (Limit.DOMAIN_OF_ACCOUNT, *NEVER_PUBLISHED)]
            raise UsageError(name, fault["input"], f"is not one of {', '.join([*known, *Switch])}") from None
        raise UsageError(name, None, fault["msg"].removeprefix("Value error, ")) from None


def override(**words: Any) -> Override:
    """An override from words of a person. Raises UsageError with the field and what would be right."""
    return scope(Override, **words)


def overridden(limits: Limits, told: Iterable[Told]) -> Limits:
    """The limits with what was told about this CA; of two for the same, the later one holds."""
    rates, by_account, by_domain = dict(limits.rates), dict(limits.by_account), dict(limits.by_domain)
    switches: dict[str, Any] = {}
    for one in told:
        if one.ca != limits.ca:
            continue
        if isinstance(one, Switched):
            switches[field_of(one.switch)] = one.on
        elif one.account is not None:
            by_account[one.limit, one.account] = one.rate
        elif one.domain is not None:
            by_domain[one.domain] = one.rate
        else:
            rates[one.limit] = one.rate
    return replace(limits, rates=rates, by_account=by_account, by_domain=by_domain, **switches)


def field_of(switch: Switch) -> str:
    """The field of Limits that a switch is."""
    return switch.value.replace("-", "_")
