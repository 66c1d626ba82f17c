"""What is certain before an order is sent: a name that does not exist, an owner who does not let this CA issue.

Whatever is not certain (no answer, a record that only the CA can read) does not hold an order: the CA decides.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address

from certfleet.acme_ca.account_records import known_account
from certfleet.acme_ca.caa import Applicant, CAARecord, Judgement, judge, relevant
from certfleet.acme_ca.lookup import Lookup
from certfleet.acme_ca.transport import Transport
from certfleet.errors import CARefuses, OwnerError
from certfleet.models import CA, Account
from certfleet.store import Store

TOLD = 3  # names whose faults stand in one sentence
BY_ADDRESS = frozenset({"http-01", "tls-alpn-01"})
"""Ways of proof for which the CA connects to the name: it has to exist."""

Registered = Callable[[], Awaitable[Account | None]]


@dataclass(frozen=True, slots=True)
class Seen:
    """What DNS says about one name."""

    name: str
    zone: str | None = None
    """Says that there is no such name."""
    where: str = ""
    """Where the CAA records stand that count for it."""
    records: tuple[CAARecord, ...] = ()
    error: str | None = None
    """Why nobody can say which records count."""


@dataclass(frozen=True, slots=True)
class Preflight:
    """Looks at names as the CA is going to, for one app."""

    lookup: Lookup
    transport: Transport
    account: Registered
    """Our account at the CA, as far as there is one."""
    method: str

    async def check(self, names: Sequence[str]) -> None:
        """Raise OwnerError with the evidence when an order for these names could only fail; CAError.

        CARefuses when nothing but CAA records is in the way: another CA may be named there.
        """
        seen = await asyncio.gather(*(self.look(name) for name in names if not is_address(name)))
        applicant = await self.applicant(seen)
        found = [self._fault(one, applicant) for one in seen]
        if faults := [fault for fault in found if fault is not None]:
            gone = any(one.zone is not None for one in seen)
            raise (OwnerError if gone else CARefuses)(first_few(faults))

    async def look(self, name: str) -> Seen:
        """Ask DNS about a name."""
        if (zone := await self.lookup.missing(name.removeprefix("*."))) is not None and self.method in BY_ADDRESS:
            return Seen(name, zone)
        try:
            where, records = await relevant(name, self.lookup.caa)
        except OSError as error:  # the CA may get an answer
            return Seen(name, error=str(error.strerror))
        return Seen(name, where=where, records=records)

    async def applicant(self, seen: Sequence[Seen]) -> Applicant:
        """Who we are to the CAA records of all names; the CA is asked only where there are some. Raises CAError."""
        values = [record.value.lower() for one in seen for record in one.records]
        if not values:
            return Applicant((), None, self.method)
        identities = (await self.transport.directory()).meta.caa_identities
        account = await self.account() if any("accounturi" in value for value in values) else None
        return Applicant(tuple(i.lower() for i in identities), account.url if account else None, self.method)

    def _fault(self, seen: Seen, applicant: Applicant) -> str | None:
        """What is certainly wrong with a name, and what to do about it; None: nothing."""
        if seen.zone is not None:
            return missing(seen.name, seen.zone)
        judgement = judge(seen.name, seen.where, seen.records, applicant)
        return forbidden(seen.name, judgement) if judgement.allowed is False else None


def preflight(
    store: Store, lookup: Lookup, transport: Transport, *, ca: CA, email: str, properties: Mapping[str, str]
) -> Preflight:
    """For an app with these properties."""
    return Preflight(lookup, transport, lambda: known_account(store, ca, email), properties["challenge"])


def missing(name: str, zone: str) -> str:
    """A name that does not exist, and what to do."""
    return f"{name} does not exist in DNS, says the zone {zone}: add an A or AAAA record, or take the name off the app"


def forbidden(name: str, judgement: Judgement) -> str:
    """A name whose CAA records do not let us, and what to do."""
    return f"{name}: CAA forbids it ({judgement.reason}): change the record, or the app's CA or challenge"


def is_address(name: str) -> bool:
    """Whether an identifier is an IP address, of which DNS knows nothing."""
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def first_few(sentences: Sequence[str]) -> str:
    """The first sentences, and how many more there are."""
    more = [f"and {len(sentences) - TOLD} more"] if len(sentences) > TOLD else []
    return "; ".join([*sentences[:TOLD], *more])
