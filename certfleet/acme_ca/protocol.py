"""ACME's objects and requests (RFC 8555 §7), checked at the door: what comes out of here can be relied on."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import urljoin

from acme import messages
from pydantic import BaseModel, Field, StringConstraints, ValidationError

from certfleet.acme_ca.answers import Answer, Problem, parse_problem
from certfleet.acme_ca.chains import Chain, read_chain, require_fit, require_linked
from certfleet.acme_ca.challenges.dns_persist01 import METHOD as DNS_PERSIST01
from certfleet.acme_ca.challenges.dns_persist01 import issuer_names
from certfleet.acme_ca.eab import Binding, bind
from certfleet.acme_ca.jws import b64
from certfleet.acme_ca.keys import AccountKey, PublicHalf
from certfleet.acme_ca.transport import AcmeURL, Transport
from certfleet.errors import AcmeProblem, CAMisbehaved, OrderUnreadable
from certfleet.identifiers import address_of

OrderStatus = Literal["pending", "ready", "processing", "valid", "invalid"]
AuthorizationStatus = Literal["pending", "valid", "invalid", "deactivated", "expired", "revoked"]
ChallengeStatus = Literal["pending", "processing", "valid", "invalid"]

# RFC 8555 §8.1 wants 128 bits of base64url; it becomes a URL's path and a Redis key.
Token = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{16,256}$")]
KINDS = ("http-01", "dns-01", DNS_PERSIST01)
NAMES = 1_000  # identifiers and authorizations of one order at most
ALTERNATES = 10  # chains that are looked at beside the default one


@dataclass(frozen=True, slots=True)
class Signer:
    """An account as requests need it: its key, and its URL at the CA (`kid`)."""

    key: AccountKey
    kid: str


@dataclass(frozen=True, slots=True)
class AcmeOrder:
    """An order as the CA shows it (§7.1.3)."""

    url: str
    status: OrderStatus
    identifiers: tuple[str, ...]
    authorizations: tuple[str, ...]
    finalize: str
    certificate: str | None = None
    error: Problem | None = None
    retry_at: datetime | None = None
    profile: str | None = None
    """What it is made by (draft-ietf-acme-profiles §4); None where the CA does not say."""


@dataclass(frozen=True, slots=True)
class Challenge:
    """One way to prove control of a name (§7.1.5)."""

    url: str
    token: str
    """Empty for dns-persist-01, which has none."""
    status: ChallengeStatus
    error: Problem | None = None
    issuers: tuple[str, ...] = ()
    """Of dns-persist-01: what its record may call the CA; empty: the CA's list cannot be used."""


@dataclass(frozen=True, slots=True)
class Authorization:
    """Whether the account may have certificates for a name (§7.1.4)."""

    url: str
    identifier: str
    status: AuthorizationStatus
    wildcard: bool = False
    http01: Challenge | None = None
    dns01: Challenge | None = None
    dns_persist01: Challenge | None = None
    error: Problem | None = None
    """Why it is invalid: the error of the challenge that failed, whichever kind that was."""
    retry_at: datetime | None = None

    @property
    def name(self) -> str:
        """The identifier as it was asked for; a wildcard's is shown without `*.` (§7.1.4)."""
        return f"*.{self.identifier.removeprefix('*.')}" if self.wildcard else self.identifier

    def offered(self, kind: str) -> Challenge | None:
        """The challenge of this kind; None: the CA does not offer it for this name."""
        return {"http-01": self.http01, "dns-01": self.dns01, DNS_PERSIST01: self.dns_persist01}[kind]


@dataclass(frozen=True, slots=True)
class Issued:
    """A certificate that fits its key and its names."""

    leaf: str
    """PEM"""
    chain: tuple[str, ...]
    """PEM of each intermediate, the leaf's issuer first."""
    serial: str
    """Lower-case hexadecimal without leading zeros."""
    not_before: datetime
    not_after: datetime
    issuer: str = ""
    """The common name of the chain's topmost issuer."""
    issuers: tuple[str, ...] = ()
    """The same of every chain that was looked at, the CA's default first."""


class _Account(BaseModel):
    status: Literal["valid", "deactivated", "revoked"]


class _Identifier(BaseModel):
    type: str
    value: Annotated[str, StringConstraints(min_length=1, max_length=255, to_lower=True)]

    @property
    def name(self) -> str:
        """As we write it: a CA may write an IPv6 address at another length."""
        return str(address_of(self.value) or self.value) if self.type == "ip" else self.value


class _Order(BaseModel):
    status: OrderStatus
    identifiers: list[_Identifier] = Field(max_length=NAMES)
    authorizations: list[AcmeURL] = Field(max_length=NAMES)
    finalize: AcmeURL
    certificate: AcmeURL | None = None
    error: Any = None
    profile: str | None = None


class _Challenge(BaseModel):
    type: str = ""
    url: AcmeURL
    token: Token | None = None
    status: ChallengeStatus
    error: Any = None


class _Authorization(BaseModel):
    identifier: _Identifier
    status: AuthorizationStatus
    wildcard: bool = False
    challenges: list[dict[str, Any]] = Field(max_length=100)


Document = TypeVar("Document", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Registered:
    """What came of newAccount."""

    url: str
    new: bool
    """False: this key had an account already."""


async def new_account(
    transport: Transport, key: AccountKey, email: str, *, agree_tos: bool, binding: Binding | None = None
) -> Registered:
    """Register, or find what this key registered before (§7.3.1). Safe to repeat."""
    payload = messages.NewRegistration.from_data(email=email, terms_of_service_agreed=agree_tos).to_json()
    url = (await transport.directory()).new_account
    if binding is not None:
        payload["externalAccountBinding"] = bind(binding, key, url)
    answer = await transport.post(url, payload, key, kind="newAccount")
    return Registered(_location(transport, answer, "newAccount"), new=answer.status == HTTPStatus.CREATED)


async def account_status(transport: Transport, signer: Signer) -> str:
    """What the CA says of an account (§7.1.2): valid, deactivated or revoked. Raises AcmeProblem for one it forgot."""
    answer = await transport.post(signer.kid, None, signer.key, kid=signer.kid, kind="account")
    return _parse(_Account, answer, "account").status


async def new_order(
    transport: Transport, signer: Signer, identifiers: Sequence[str], *, profile: str = "", replaces: str = ""
) -> AcmeOrder:
    """Ask for a certificate with these DNS names (§7.4) and IP addresses (RFC 8738), by a profile or the CA's default.

    The CA may answer with an order it already has. `replaces` names the certificate that it is to replace (RFC 9773 §5,
    acme_ca/ari.py); empty: none. Raises OrderUnreadable when only the order's URL can be read.
    """
    payload = messages.NewOrder(identifiers=[_identifier(name) for name in identifiers]).to_json()
    payload |= {name: value for name, value in (("profile", profile), ("replaces", replaces)) if value}
    url = (await transport.directory()).new_order
    answer = await transport.post(url, payload, signer.key, kid=signer.kid, kind="newOrder")
    where = _location(transport, answer, "newOrder")
    try:
        order = _order(answer, where)
    except CAMisbehaved as error:
        raise OrderUnreadable(str(error), where) from error
    if set(order.identifiers) != set(identifiers):
        raise CAMisbehaved(f"the CA made an order for {', '.join(order.identifiers)} instead of the names asked for")
    if profile and order.profile not in (profile, None):
        raise CAMisbehaved(f"the CA made an order by the profile {order.profile[:64]!r} instead of {profile}")
    return order


def _identifier(name: str) -> messages.Identifier:
    kind = messages.IDENTIFIER_FQDN if address_of(name) is None else messages.IDENTIFIER_IP
    return messages.Identifier(typ=kind, value=name)


async def get_order(transport: Transport, signer: Signer, url: str) -> AcmeOrder:
    """Look at an order."""
    return _order(await transport.post(url, None, signer.key, kid=signer.kid, kind="order"), url)


async def get_authorization(transport: Transport, signer: Signer, url: str) -> Authorization:
    """Look at one name's authorization (§7.5)."""
    answer = await transport.post(url, None, signer.key, kid=signer.kid, kind="authorization")
    found = _parse(_Authorization, answer, "authorization")
    offered = {kind: entry for entry in found.challenges if (kind := entry.get("type")) in KINDS}
    errors = [parse_problem(entry.get("error")) for entry in found.challenges]
    return Authorization(
        url=url,
        identifier=found.identifier.name,
        status=found.status,
        wildcard=found.wildcard,
        http01=_challenge(offered["http-01"]) if "http-01" in offered else None,
        dns01=_challenge(offered["dns-01"]) if "dns-01" in offered else None,
        dns_persist01=_readable(offered[DNS_PERSIST01]) if DNS_PERSIST01 in offered else None,
        error=next((error for error in errors if error is not None), None),
        retry_at=answer.retry_at,
    )


async def answer_challenge(transport: Transport, signer: Signer, url: str) -> Challenge:
    """Tell the CA to look (§7.5.1). Raises AcmeProblem when it has been told before and has finished looking."""
    return _challenge((await transport.post(url, {}, signer.key, kid=signer.kid, kind="challenge")).json())


async def finalize(transport: Transport, signer: Signer, order: AcmeOrder, csr: bytes) -> AcmeOrder:
    """Send the certificate signing request (DER) of a `ready` order (§7.4).

    Raises AcmeProblem `orderNotReady` for an order in any other state: look at the order before.
    """
    payload = {"csr": b64(csr).decode()}
    answer = await transport.post(order.finalize, payload, signer.key, kid=signer.kid, kind="finalize")
    return _order(answer, order.url)


async def download(
    transport: Transport,
    signer: Signer,
    url: str,
    *,
    key: PublicHalf,
    identifiers: Sequence[str],
    preferred: str = "",
) -> Issued:
    """Fetch a certificate with its chain (§7.4.2). Raises CAMisbehaved unless it is for this key and these names.

    `preferred`: the common name of the topmost issuer of the chain that is wanted; without such a chain, the default.
    """
    answer = await transport.post(url, None, signer.key, kid=signer.kid, kind="certificate")
    chain = read_chain(answer.body)
    if not chain.above:  # few CAs issue below a root; a chain that was cut behind its leaf looks like that
        again = await transport.post(url, None, signer.key, kid=signer.kid, kind="certificate")
        chain = read_chain(again.body)
    require_fit(chain.leaf, key, identifiers)
    require_linked(chain)
    issuers = [chain.issuer]
    if preferred and chain.issuer != preferred:
        async for other in _alternates(transport, signer, url, answer, chain):
            issuers.append(other.issuer)
            if other.issuer == preferred:
                chain = other
                break
    leaf, above = chain.pem()
    return Issued(
        leaf=leaf,
        chain=above,
        serial=f"{chain.leaf.serial_number:x}",
        not_before=chain.leaf.not_valid_before_utc,
        not_after=chain.leaf.not_valid_after_utc,
        issuer=chain.issuer,
        issuers=tuple(issuers),
    )


async def _alternates(
    transport: Transport, signer: Signer, url: str, answer: Answer, default: Chain
) -> AsyncIterator[Chain]:
    """The other chains of a certificate, by the links of its answer (§7.4.2); what is none is passed over.

    A chain that cannot be had is no reason to do without the certificate. Raises CAUnreachable, SlowedDown.
    """
    for link in answer.links.get("alternate", ())[:ALTERNATES]:
        try:
            found = await transport.post(urljoin(url, link), None, signer.key, kid=signer.kid, kind="certificate")
            chain = read_chain(found.body)
            require_linked(chain)
        except (AcmeProblem, CAMisbehaved, ValueError):  # the last: a link that is no URL
            continue
        if chain.leaf == default.leaf:
            yield chain


def _location(transport: Transport, answer: Answer, request: str) -> str:
    if answer.location is None:
        raise CAMisbehaved(f"the CA answered {request} without a Location")
    transport.check_url(answer.location)
    return answer.location


def _parse(kind: type[Document], answer: Answer, what: str) -> Document:
    try:
        return kind.model_validate_json(answer.body)
    except ValidationError as error:
        raise _misbehaved(what, error) from None


def _misbehaved(what: str, error: ValidationError) -> CAMisbehaved:
    fields = ", ".join(sorted({str(e["loc"][0]) if e["loc"] else "JSON" for e in error.errors()}))
    return CAMisbehaved(f"the CA sent an {what} that RFC 8555 does not allow (wrong or missing: {fields})")


def _order(answer: Answer, url: str) -> AcmeOrder:
    found = _parse(_Order, answer, "order")
    return AcmeOrder(
        url=url,
        status=found.status,
        identifiers=tuple(identifier.name for identifier in found.identifiers),
        authorizations=tuple(found.authorizations),
        finalize=found.finalize,
        certificate=found.certificate,
        error=parse_problem(found.error),
        retry_at=answer.retry_at,
        profile=found.profile,
    )


def _readable(value: object) -> Challenge | None:
    # Of a kind whose form still changes: whoever proves names in another way does without it.
    try:
        return _challenge(value)
    except CAMisbehaved:
        return None


def _challenge(value: object) -> Challenge:
    try:
        found = _Challenge.model_validate(value)
    except ValidationError as error:
        raise _misbehaved("challenge", error) from None
    if found.token is None and found.type in ("http-01", "dns-01"):
        raise CAMisbehaved(f"the CA sent a challenge {found.type} without a token, which RFC 8555 does not allow")
    # Two spellings are in use: version 02 of the draft, and those before it.
    named = value.get("issuerDomainNames", value.get("issuer-domain-names")) if isinstance(value, dict) else None
    return Challenge(
        url=found.url,
        token=found.token or "",
        status=found.status,
        error=parse_problem(found.error),
        issuers=issuer_names(named),
    )
