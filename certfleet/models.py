"""The words of the fleet as data: apps, hosts, CAs, accounts, orders, certificates, installations.

Plain dataclasses; `dump` and `load` turn them into the JSON that Redis keeps. Input from people is
validated before it becomes one of these (inventory.py), CA answers in acme_ca/. Times are UTC and aware.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from functools import partial
from typing import Any, TypeVar

from pydantic import TypeAdapter


class KeyType(StrEnum):
    """Kinds of certificate key; the values are what the property `key-type` takes."""

    P256 = "p256"
    P384 = "p384"
    RSA2048 = "rsa2048"
    RSA3072 = "rsa3072"
    RSA4096 = "rsa4096"


@dataclass(frozen=True, slots=True)
class App:
    """A named set of identifiers that share one certificate, and the hosts it is installed on."""

    name: str
    identifiers: tuple[str, ...]
    """DNS names as A-labels, lower case, and IP addresses, in the order given; the first name is the common name."""
    hosts: tuple[str, ...]
    shown: tuple[str, ...] = ()
    """The same names as the person typed them (IDN)."""
    enabled: bool = False
    properties: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Hop:
    """A machine on the way to a host, which passes the connection on (a jump host)."""

    login: str
    """user@host[:port]"""
    host_keys: tuple[str, ...] = ()
    """As `Host.host_keys`."""


@dataclass(frozen=True, slots=True)
class Places:
    """Where the preset `files` shows certificates, beside the root: paths of symlinks, {app} for the app's name."""

    fullchain: str = ""
    chain: str = ""
    """The intermediates alone."""
    combined: str = ""
    """Chain and key in one file."""
    key: str = ""
    owner: str = ""
    """user or user:group that the files belong to; empty: whoever installs them."""
    file_mode: str = ""
    """Of the files without the key, such as 0644; empty: 0600."""
    key_mode: str = ""
    """Of the files with the key, such as 0640; empty: 0600."""


@dataclass(frozen=True, slots=True)
class Host:
    """A machine that serves apps."""

    name: str
    driver: str = "local"
    preset: str = "nginx"
    address: str = "127.0.0.1"
    """Where the live endpoint is asked for its certificate."""
    root: str = "/var/lib/certfleet/installed"
    """The directory on the host that holds `<app>/<generation>/` and `<app>/current`."""
    test_command: tuple[str, ...] = ()
    """Replaces the preset's own configuration test (for example a second nginx with its own `-c`)."""
    reload_command: tuple[str, ...] = ()
    webroot: str = "/var/www/certfleet"
    """Where challenges are written when they go by `webroot`; <it>/.well-known/acme-challenge/ is served."""
    places: Places = field(default_factory=Places)
    zone: str | None = None
    login: str = ""
    """Where SSH goes: user@host[:port]."""
    host_keys: tuple[str, ...] = ()
    """The pinned public keys, each "type base64" as OpenSSH writes it; every other one is refused."""
    jump: tuple[Hop, ...] = ()
    """The machines that the connection goes through, the nearest to us first."""


@dataclass(frozen=True, slots=True)
class CA:
    """An ACME directory, and what has to be known about it beforehand."""

    name: str
    directory: str
    bundle: str | None = None
    """PEM of the roots to trust instead of the system's."""
    hosts: tuple[str, ...] = ()
    """Further hosts whose URLs are followed; the directory's own always is."""
    public: bool = True
    """A public CA certifies only names under a public suffix."""
    requests_in_flight: int = 32
    """How many requests one worker process may have open at this CA; more only cost connections and nonces."""


@dataclass(frozen=True, slots=True)
class Account:
    """One ACME account per (CA, e-mail)."""

    id: str
    ca: str
    email: str
    sealed_key: str
    url: str | None = None
    """The account URL, the `kid` of every later request (RFC 8555 §6.2); None until the CA made it."""
    sealed_next: str | None = None
    """The key that it is to have from now on, there before the CA hears of it; which one the CA has is asked there."""
    deactivated: datetime | None = None
    """When the operator ended it."""
    former: tuple[str, ...] = ()
    """Thumbprints (RFC 7638) of its keys before this one, the newest first: records of dns-persist-01 may name them."""
    moved: str = ""
    """The e-mail address under which it is kept now: this is only the way there, without a key."""


@dataclass(frozen=True, slots=True)
class ExternalAccount:
    """What a CA gave its customer to make ACME accounts with (external account binding, RFC 8555 §7.3.4)."""

    ca: str
    """URL of the directory."""
    email: str
    """Of the ACME account that it is for."""
    kid: str
    sealed_key: str
    """The MAC key."""


@dataclass(frozen=True, slots=True)
class InstallerKey:
    """The fleet's one SSH key, ed25519; hosts let it run the receiver and nothing else."""

    public: str
    """As a line of authorized_keys."""
    sealed_key: str


class OrderState(StrEnum):
    """What an order waits for, as people see it; the CA's own status is asked anew each time."""

    NEW = "new"
    PENDING = "pending"
    FINALIZING = "finalizing"
    RETRY = "retry"
    LIMITED = "limited"
    """Held up by a limit of the CA's: not a failure."""
    AWAY = "away"
    """Waits for a CA that does not answer: it goes on when that does, as all others do."""
    PARKED = "parked"
    """Waits for a person."""


class Cause(StrEnum):
    """Why an order was passed on to the next CA of its app's list."""

    LIMITED = "limited"
    """Tokens come later than the CA's turn ends."""
    AWAY = "away"
    """The CA did not answer, or not as one that works, for as long as its turn."""
    REFUSED = "refused"
    """It will not certify these names, or not for this account."""
    PAUSED = "paused"
    """It has paused a name of the account's: only a person can end that."""


@dataclass(frozen=True, slots=True)
class Passed:
    """A CA of the app's list that was passed over."""

    ca: str
    """Name of the preset, or URL of the directory."""
    cause: Cause
    why: str
    """For a person."""
    at: datetime
    until: datetime | None = None
    """When it was thought to be able to; None: nobody knew."""


@dataclass(slots=True)
class Order:
    """Our record of one ACME order, from the wish to the stored certificate."""

    id: str
    app: str
    ca: str
    email: str
    identifiers: tuple[str, ...]
    key_type: KeyType
    reason: str
    created: datetime
    state: OrderState = OrderState.NEW
    url: str | None = None
    authorizations: tuple[str, ...] = ()
    finalize: str | None = None
    tokens: tuple[str, ...] = ()
    """Challenge tokens that the responder answers for; taken away with the order."""
    answered: tuple[str, ...] = ()
    """Challenge URLs that the CA has been told to look at."""
    since: datetime | None = None
    """When the CA made its present order."""
    sealed_key: str | None = None
    """The certificate's key; there before finalize is sent, so that a crash never orphans a certificate."""
    key_on: str = ""
    """The host that makes the key, and has the only copy; empty: it is made here."""
    csr: str = ""
    """What that host made of its key: PKCS #10 in DER, base64. There before finalize, as `sealed_key` is."""
    attempts: int = 0
    unanswered: int = 0
    """Steps in a row to which the CA gave no answer, while others were answered."""
    failing_since: datetime | None = None
    """The first failure that only the owner can mend; None: there was none since somebody looked."""
    retry_at: datetime | None = None
    error: str | None = None
    held: str | None = None
    """What the CA makes it wait for until `retry_at`, for a person: a limit, not a failure."""
    urgent: bool = False
    """In the emergency lane: before every other order that waits for the same limit."""
    profile: str = ""
    """What is asked for in newOrder; empty: the CA's default."""
    replaces: str = ""
    """The certificate that newOrder says it replaces (RFC 9773 §5); empty: none."""
    exempt: bool = False
    """As such the CA exempts it from its limits."""
    ordinary: bool = False
    """The CA did not take it as a replacement: it is not asked to again."""
    passed_over: tuple[Passed, ...] = ()
    """The CAs of the app's list that were asked before this one."""
    turn_ends: datetime | None = None
    """From then on the next CA is asked; None: nothing has held it up at this one."""
    settled: bool = False
    """No CA has tokens in time: it waits for those of this one, where they come first."""
    rounds: int = 0
    """How often every CA of the list was asked in vain."""
    unoffered: str = ""
    """The profile that is wished for and that this CA of the list does not offer; `profile` is empty then."""


@dataclass(frozen=True, slots=True)
class Certificate:
    """What was issued: chain, sealed key, validity, generation."""

    app: str
    generation: int
    ca: str
    identifiers: tuple[str, ...]
    key_type: KeyType
    serial: str
    """Lower-case hexadecimal without leading zeros."""
    not_before: datetime
    not_after: datetime
    issued: datetime
    leaf: str
    chain: str
    """Key of the shared intermediates (their SHA-256), see lifecycle/records.py."""
    sealed_key: str
    """Empty: only the host `key_on` has the key."""
    profile: str = ""
    """What was asked for; empty: the CA's default."""
    email: str = ""
    """Of the account that ordered it; empty: it is older than this field."""
    withdrawn: str = ""
    """Why another one has to take its place at once (compromised, replaced, key lost); empty: it need not."""
    revoked: datetime | None = None
    """When the CA revoked it."""
    revoked_for: str = ""
    """Why, as RFC 5280 §5.3.1 spells it."""
    unasked: bool = False
    """The CA did that of its own accord, as its revocation list says."""
    leaked: bool = False
    """Its key is in other hands: it is never used again, whatever `reuse-key` says."""
    account: str = ""
    """URL of the CA's account that it was issued to; empty: it is from before that was noted."""
    passed_over: tuple[Passed, ...] = ()
    """The CAs of the app's list that were asked in vain before this one issued it."""
    unoffered: str = ""
    """As `Order.unoffered`."""
    key_on: str = ""
    """The host that made the key, and has the only copy; empty: it was made here."""


@dataclass(frozen=True, slots=True)
class Renewal:
    """What the CA said of when to renew a certificate (ARI, RFC 9773), and the instant chosen from it."""

    generation: int
    """The certificate that it was said of."""
    next_look: datetime
    """When the CA is asked again."""
    start: datetime | None = None
    """The suggested window is [start, end); None: nothing is known yet."""
    end: datetime | None = None
    at: datetime | None = None
    """Chosen once for each window, at random."""
    explanation: str | None = None
    """A page of the CA's about why."""
    failures: int = 0
    """Looks in a row that brought no answer."""


class Fault(StrEnum):
    """Whose fault it is that a host does not serve what it should; the first two say nothing about the certificate."""

    DOWN = "down"
    """The host could not be reached."""
    UNFIT = "unfit"
    """The host's own state is in the way: its configuration was broken before, a full disk, something foreign."""
    REFUSED = "refused"
    """The web server took the host's configuration before, and not with this certificate."""
    UNSERVED = "unserved"
    """It was installed, and the live endpoint shows something else."""


@dataclass(frozen=True, slots=True)
class Installation:
    """One (app, host) pair: the generation wanted, installed, served."""

    app: str
    host: str
    wanted: int = 0
    installed: int = 0
    served: int = 0
    """What its endpoint showed when it was last asked; 0: nothing of ours."""
    proven: int = 0
    """The newest generation that its endpoint ever showed."""
    error: str | None = None
    fault: Fault | None = None
    """What kind of failure `error` is."""
    attempts: int = 0
    retry_at: datetime | None = None
    """When the next try is due after a failure."""
    changed: datetime | None = None
    asked: datetime | None = None
    """When its endpoint was last asked; None: it is asked with the next check."""


Record = TypeVar("Record")


_adapters: dict[type, TypeAdapter[Any]] = {}


def _adapter(kind: type) -> TypeAdapter[Any]:
    # Building one costs milliseconds; each record type needs it once per process.
    if kind not in _adapters:
        _adapters[kind] = TypeAdapter(kind)
    return _adapters[kind]


def dump(record: object) -> str:
    """The record as the JSON that Redis keeps; empty and default fields are left out to save memory."""
    return _adapter(type(record)).dump_json(record, exclude_defaults=True).decode()


def load(kind: type[Record], text: str | bytes) -> Record:
    """The record back from its JSON. Raises pydantic's ValidationError on anything else."""
    value: Record = _adapter(kind).validate_json(text)
    return value


_now: Callable[[], datetime] = partial(datetime.now, UTC)  # another one in simulations only


def utcnow() -> datetime:
    """Now, in UTC and aware."""
    return _now()


def microseconds(moment: datetime) -> int:
    """Unix time in whole microseconds, the unit of everything that is compared with Redis's clock."""
    whole = moment - datetime(1970, 1, 1, tzinfo=UTC)
    return (whole.days * 86_400 + whole.seconds) * 1_000_000 + whole.microseconds


def from_microseconds(value: int) -> datetime:
    """The moment of a Unix time in whole microseconds."""
    seconds, rest = divmod(value, 1_000_000)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest)
