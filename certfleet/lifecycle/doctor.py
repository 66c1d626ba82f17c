"""What is in the way of an app's certificate, point by point, before anybody orders one.

Asks DNS, each CA of the app's list, its web servers and the books. Nothing is ordered or registered. Only `stops`
points keep an order from being sent (preflight.py); the others say what is likely to fail, or to wait.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from ipaddress import ip_address

from certfleet.acme_ca import protocol
from certfleet.acme_ca.account_records import account_id, known_account
from certfleet.acme_ca.account_requests import is_deactivated
from certfleet.acme_ca.accounts import require_active
from certfleet.acme_ca.caa import judge
from certfleet.acme_ca.challenges.dns_persist01 import METHOD as DNS_PERSIST01
from certfleet.acme_ca.keys import load_account_key
from certfleet.acme_ca.presets import most_names
from certfleet.acme_ca.protocol import Signer
from certfleet.acme_ca.transport import Transport
from certfleet.ca_list import cas_of
from certfleet.errors import AcmeProblem, CAError, CARefuses, OwnerError, VaultError
from certfleet.lifecycle.challenges.standing import sightings
from certfleet.lifecycle.challenges.trial import served_everywhere
from certfleet.lifecycle.challenges.watching import warning
from certfleet.lifecycle.fleet import Fleet
from certfleet.lifecycle.orders.preflight import (
    BY_ADDRESS,
    Preflight,
    first_few,
    forbidden,
    is_address,
    missing,
    preflight,
)
from certfleet.lifecycle.workbench import Workbench, open_workbench
from certfleet.limits.buckets import Bucket
from certfleet.limits.keys import RENEWAL_WINDOW, order_buckets, refused_bucket, slow_down_bucket
from certfleet.limits.words import meaning
from certfleet.models import CA, Account, App, Fault, Host, utcnow
from certfleet.properties import effective
from certfleet.vault import ensure_key

CAA = "caa"
ANOTHER = "set another email, which makes another account"


@dataclass(frozen=True, slots=True)
class Finding:
    """One point of the doctor's."""

    name: str
    ok: bool
    stops: bool
    """No order is sent because of this."""
    message: str
    """What was seen; for a point that is not ok, what to do about it too."""
    ca: str | None = None
    """The CA that it is about; None: it is the same for each of the app's list."""


def _fine(name: str, message: str) -> Finding:
    return Finding(name, ok=True, stops=False, message=message)


def _wrong(name: str, message: str, *, stops: bool = False) -> Finding:
    return Finding(name, ok=False, stops=stops, message=message)


@dataclass(frozen=True, slots=True)
class Case:
    """One app at one of its CAs, and everything that its points need."""

    bench: Workbench
    app: App
    hosts: Mapping[str, Host]
    properties: Mapping[str, str]
    ca: CA
    transport: Transport
    account: Account | None
    flight: Preflight
    failure: CAError | None
    """Why the CA does not answer; asked once."""

    @property
    def names(self) -> list[str]:
        """The app's DNS names."""
        return [name for name in self.app.identifiers if not is_address(name)]

    @property
    def stops(self) -> bool:
        """Whether what is certain keeps an order from being sent."""
        return self.properties["preflight"] == "on"


async def diagnose(fleet: Fleet, app: App) -> list[Finding]:
    """Every point of an app. Raises ConfigurationError without the vault's key, which opens the account's."""
    ensure_key(fleet.settings)
    async with open_workbench(fleet.settings) as bench:
        properties = effective(app.properties, await fleet.inventory.properties())
        cases = await asyncio.gather(*(_case(bench, app, properties, ca) for ca in cas_of(properties)))
        asked = [(point, case) for point in POINTS for case in (cases if _is_of_a_ca(point, cases[0]) else cases[:1])]
        found = list(await asyncio.gather(*(_asked(point, case) for point, case in asked)))
    free = [one for one in found if one.ca is not None and one.name == CAA and not one.stops]
    return [replace(one, stops=one.stops and not free) if one.ca is not None else one for one in found]


async def _asked(point: Pointer, case: Case) -> Finding:
    found = await point(case)
    return replace(found, ca=case.ca.name) if _is_of_a_ca(point, case) else found


def _is_of_a_ca(point: Pointer, case: Case) -> bool:
    """Whether it is asked for each CA of the app's list."""
    return point in OF_A_CA or (point is _challenge and case.flight.method == DNS_PERSIST01)


async def _case(bench: Workbench, app: App, properties: Mapping[str, str], ca: CA) -> Case:
    fleet = bench.fleet
    transport, email = bench.transport(ca), properties["email"]
    failure: CAError | None = None
    try:
        await transport.directory()
    except CAError as error:
        failure = error
    return Case(
        bench,
        app,
        hosts=await fleet.inventory.find_hosts(app.hosts),
        properties=properties,
        ca=ca,
        transport=transport,
        account=await known_account(fleet.store, ca, email),
        flight=preflight(fleet.store, bench.lookup, transport, ca=ca, email=email, properties=properties),
        failure=failure,
    )


async def _directory(case: Case) -> Finding:
    """The CA answers."""
    if case.failure is not None:
        return _wrong("directory", f"{case.failure}; orders are tried again until it answers")
    return _fine("directory", case.ca.directory)


async def _account(case: Case) -> Finding:
    """The account is one that the CA takes orders from (RFC 8555 §7.1.2)."""
    name = "account"
    if case.account is None or case.account.url is None:
        return _fine(name, f"none for {case.properties['email']} at this CA yet: it is made with the first order")
    try:
        require_active(case.account)  # what orders fail with, whatever the CA says of it
        return await _at_the_ca(case, case.account, case.account.url)
    except CARefuses as error:
        return _wrong(name, str(error))
    except VaultError as error:
        return _wrong(name, f"{error} Without it nothing can be ordered")
    except CAError as error:
        return _wrong(name, f"{error}{_remedy(error)}")


async def _at_the_ca(case: Case, account: Account, url: str) -> Finding:
    """What the CA says of the account. Raises VaultError, CAError."""
    name = "account"
    if case.failure is not None:
        return _wrong(name, "not asked: the CA does not answer")
    key = load_account_key(case.bench.vault.open(account.sealed_key))
    status = await protocol.account_status(case.transport, Signer(key, url))
    if status != "valid":
        return _wrong(name, f"{url} is {status} at the CA: {ANOTHER}")
    return _fine(name, url)


def _remedy(error: CAError) -> str:
    """What comes of it that the CA does not know the account, or has ended it by itself; else nothing is certain."""
    if isinstance(error, AcmeProblem) and error.type == "accountDoesNotExist":
        return "; an account that the CA has forgotten is made anew with the next order"
    return f": {ANOTHER}" if isinstance(error, AcmeProblem) and is_deactivated(error) else ""


async def _number(case: Case) -> Finding:
    """The CA takes so many names on one certificate."""
    profile, count = case.properties.get("profile", ""), len(case.app.identifiers)
    most = most_names(case.ca, profile)
    said = f"{count} of at most {most}" + (f" by the profile {profile}" if profile else "")
    if count > most:
        return _wrong("number of names", f"{said}: divide them among several apps")
    return _fine("number of names", said)


async def _exist(case: Case) -> Finding:
    """Every name is in DNS."""
    name = "names in dns"
    zones = await asyncio.gather(*(case.bench.lookup.missing(one.removeprefix("*.")) for one in case.names))
    gone = [missing(one, zone) for one, zone in zip(case.names, zones, strict=True) if zone is not None]
    by_address = case.flight.method in BY_ADDRESS
    if gone:
        return _wrong(name, first_few(gone), stops=case.stops and by_address)
    unknown = [why for why in (await _addresses(case)).values() if isinstance(why, str)]
    if unknown and by_address:
        return _wrong(name, f"{first_few(unknown)}: the CA has to find an A or AAAA record")
    return _fine(name, f"{len(case.names)} of {len(case.names)} exist")


async def _addresses(case: Case) -> dict[str, list[str] | str]:
    """The addresses of each name, or why there are none."""

    async def one(name: str) -> list[str] | str:
        try:
            return await case.bench.lookup.addresses(name)
        except OSError as error:
            return str(error.strerror)

    names = [name for name in case.names if not name.startswith("*.")]
    return dict(zip(names, await asyncio.gather(*(one(name) for name in names)), strict=True))


async def _here(case: Case) -> Finding:
    """The names' addresses are the hosts'. A proxy in between is no fault, as long as the challenge is answered."""
    name = "dns points here"
    ours = await _ours(case)
    if not ours:
        return _fine(name, "not compared: no host of the app has an address that others see")
    strange = []
    for domain, addresses in (await _addresses(case)).items():
        away = [one for one in addresses if one not in ours] if isinstance(addresses, list) else []
        if away:
            # letsencrypt.org/docs/ipv6-support: IPv6 is preferred.
            six = ", and the CA asks at IPv6 first" if any(":" in one for one in away) else ""
            strange.append(f"{domain} is at {' and '.join(away)}{six}")
    where = " and ".join(sorted(ours))
    if strange:
        wanted = "point it here, or leave it if that is a proxy of yours"
        return _wrong(name, f"{first_few(strange)}; the app's hosts are at {where}: {wanted}")
    return _fine(name, where)


async def _ours(case: Case) -> set[str]:
    """Where the app's hosts are, as others see it; loopback says nothing."""
    ours: set[str] = set()
    for where in {host.address for host in case.hosts.values()} | {case.properties["address"]} - {""}:
        if is_address(where):
            ours.add(str(ip_address(where)))
            continue
        try:
            ours.update(await case.bench.lookup.addresses(where))
        except OSError:
            continue
    return set() if all(ip_address(one).is_loopback for one in ours) else ours


async def _caa(case: Case) -> Finding:
    """The owners of the names let this CA, this account and this way of proof."""
    name = CAA
    seen = await asyncio.gather(*(case.flight.look(one) for one in case.names))
    if case.failure and any(one.records for one in seen):
        return _wrong(name, "there are records, and the CA could not be asked whether they are for it")
    applicant = await case.flight.applicant(seen)
    found = {one.name: judge(one.name, one.where, one.records, applicant) for one in seen}
    if bad := [forbidden(one, judgement) for one, judgement in found.items() if judgement.allowed is False]:
        return _wrong(name, first_few(bad), stops=case.stops)
    unsure = [f"{one}: {judgement.reason}" for one, judgement in found.items() if judgement.allowed is None]
    # RFC 8659 §6.3: a CA that gets no answer may not issue.
    unsure += [f"{one.error}: the CA issues nothing without an answer" for one in seen if one.error]
    if unsure:
        return _wrong(name, first_few(unsure))
    told = dict.fromkeys(judgement.reason for judgement in found.values() if judgement.reason)
    return _fine(name, first_few(list(told)) or "no record: every CA may issue")


async def _challenge(case: Case) -> Finding:
    """A challenge of ours is answered, published the app's own way and fetched as the CA will."""
    name, method = "challenge", case.flight.method
    if method == DNS_PERSIST01:
        return await _standing(case, name)
    if method != "http-01":
        return _fine(name, f"not asked on port {case.properties['http-port']}: names are proven by {method}")
    try:
        key = load_account_key(case.bench.vault.open(case.account.sealed_key)) if case.account else None
    except VaultError as error:
        return _wrong(name, str(error))
    thumbprint = key.thumbprint if key else None
    said = await served_everywhere(case.bench, case.app, case.hosts, case.properties, thumbprint)
    if said.faults:
        return _wrong(name, first_few(said.faults))
    return _fine(name, said.told)


async def _standing(case: Case, name: str) -> Finding:
    """The records that prove the names stand, and will when the certificate is renewed."""
    if case.failure is not None:
        return _wrong(name, "not asked: the CA, which says what the record has to be, does not answer")
    try:
        seen = await sightings(case.bench, case.app, case.ca, case.properties)
    except (CAError, OwnerError, VaultError) as error:
        return _wrong(name, str(error))
    show = f"`certfleet dns-persist show {case.app.name}` has what to put there"
    if faults := [f"{one.want.name}: {one.message}" for one in seen if not one.stands]:
        return _wrong(name, f"{first_few(faults)}; {show}")
    served = await case.bench.fleet.records.certificate(case.app.name)
    if served and (told := warning(case.app, seen, served)):
        return _wrong(name, told)
    return _fine(name, first_few([f"{one.want.name}: {one.message}" for one in seen]))


async def _tokens(case: Case) -> Finding:
    """The CA's limits have room for an order now."""
    name, fleet = "tokens", case.bench.fleet
    limits = (await fleet.limits.of(case.ca.name, case.ca.directory)).limits
    account = account_id(case.ca, case.properties["email"])
    emails = {account: case.properties["email"]}
    asked = order_buckets(limits, account=account, identifiers=case.app.identifiers, same_set=await _is_renewal(case))
    closed = (*slow_down_bucket(limits, fleet.settings.egress_address), *refused_bucket(limits, account))
    charges = replace(asked, checked=(*closed, *asked.checked)).admission
    decision = await case.bench.buckets.check(charges)
    if not decision.allowed and decision.bucket is not None:
        until = f"{decision.retry_at:%Y-%m-%d %H:%M:%S} UTC"
        return _wrong(
            name, f"none for {meaning(decision.bucket, emails)} before {until}: an order waits in line until then"
        )
    left = await _left(case, (*asked.ordered, *asked.issued), emails)
    return _fine(name, left or "no limit of this CA's is known")


async def _is_renewal(case: Case) -> bool:
    """Whether the CA counts an order as a renewal of the exact same set."""
    served = await case.bench.fleet.records.certificate(case.app.name)
    return (
        served is not None
        and served.ca == case.ca.directory
        and set(served.identifiers) == set(case.app.identifiers)
        and utcnow() - served.issued < RENEWAL_WINDOW
    )


async def _left(case: Case, buckets: tuple[Bucket, ...], emails: Mapping[str, str]) -> str:
    """The tokens in each bucket that an order takes one of."""
    seen = await case.bench.buckets.look(buckets) if buckets else []
    each = zip(buckets, seen, strict=True)
    return first_few([f"{look.remaining} of {b.rate.burst} {meaning(b, emails)}" for b, look in each])


async def _reached(case: Case) -> Finding:
    """The hosts could be reached when they were last needed."""
    name = "hosts"
    known = await case.bench.fleet.records.installations(case.app.name)
    down = [
        f"{host}: {known[host].error}" for host in case.app.hosts if host in known and known[host].fault is Fault.DOWN
    ]
    if down:
        return _wrong(name, f"{first_few(down)}; `certfleet host check {down[0].partition(':')[0]}` says more")
    new = [host for host in case.app.hosts if host not in known or known[host].changed is None]
    if new:
        return _fine(name, f"nothing was installed on {first_few(new)} yet: `certfleet host check {new[0]}`")
    return _fine(name, f"{len(case.app.hosts)} could be reached the last time")


Pointer = Callable[[Case], Awaitable[Finding]]
POINTS: tuple[Pointer, ...] = (
    _directory,
    _account,
    _number,
    _exist,
    _here,
    _caa,
    _challenge,
    _tokens,
    _reached,
)
OF_A_CA = {_directory, _account, _number, _caa, _tokens}
"""Asked for each CA of the app's list, as standing records are. An order is sent as long as there is a CA that CAA
records do not forbid."""
