"""When will these be done? The orders that wait, or the apps of a plan, beside everything that the fleet has to renew.

Read from Redis first, then worked out without it: who wants what (here), when each is admitted (limits/forecast.py),
and what renewals need for ever (limits/upkeep.py). Nothing is changed.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta

from certfleet.acme_ca.account_records import account_id
from certfleet.acme_ca.presets import most_names, resolve_ca
from certfleet.ca_list import first_ca
from certfleet.errors import UsageError
from certfleet.fitting import require_fitting
from certfleet.identifiers import require_public
from certfleet.lifecycle.fleet import Fleet
from certfleet.lifecycle.forecasts.already import as_they_are, changes_nothing
from certfleet.lifecycle.forecasts.estimate import Estimate, estimate_of
from certfleet.lifecycle.forecasts.whatif import DEFAULT, WhatIf, period
from certfleet.lifecycle.orders.urgency import RENEWALS
from certfleet.lifecycle.renewals.renewal import renewal_time
from certfleet.limits.buckets import Bucket, Charge
from certfleet.limits.forecast import forecast
from certfleet.limits.grouping import regroup
from certfleet.limits.keys import (
    OF_ONE_ORDER,
    RENEWAL_WINDOW,
    OrderBuckets,
    order_buckets,
    refused_bucket,
    slow_down_bucket,
)
from certfleet.limits.line import full_times, turns, waiters
from certfleet.limits.presets import Limit, Limits
from certfleet.limits.simulation import Wish
from certfleet.limits.upkeep import Renewal, upkeep
from certfleet.models import App, microseconds
from certfleet.plan import Planned
from certfleet.properties import effective, parse_first_issue, parse_grace, parse_share

PAGE = 500  # apps whose certificates are read at once
SECOND = 1_000_000  # microseconds
FAILED = {Limit.FAILURES, Limit.PAUSING}
"""Limits that names meet only once they have failed."""


@dataclass(frozen=True, slots=True)
class Terms:
    """Under which conditions a certificate is ordered: where, by whom, how urgently."""

    limits: Limits
    account: str
    public: bool
    tenant: str
    first_issue: timedelta | None
    """As which time left a certificate that does not exist counts; None: after every renewal."""
    reserved: float
    """Share of an account's new orders that new names leave alone."""
    closed: tuple[Charge, ...]
    """What the CA has closed by an answer (429, 503), if it has."""
    profile: str
    lifetime: timedelta
    """Of its certificates."""
    most_names: int
    """On each of them."""

    @property
    def period(self) -> int:
        """Microseconds between two renewals."""
        return period(self.lifetime) // timedelta(microseconds=1)

    @property
    def same_set(self) -> bool:
        """Whether renewals come soon enough to be renewals to the CA."""
        return self.limits.same_set_exempt and period(self.lifetime) < RENEWAL_WINDOW


@dataclass(slots=True)
class _Desk:
    """What has been asked for so far."""

    fleet: Fleet
    asked: WhatIf
    everywhere: Mapping[str, str]
    now: int
    """Unix microseconds, by Redis's clock."""
    emails: dict[str, str] = field(default_factory=dict)
    """Of accounts, by id."""
    renewals: list[Renewal] = field(default_factory=list)
    """Every certificate that there is or will be."""
    background: list[Wish] = field(default_factory=list)
    """Whoever takes tokens meanwhile."""
    levels: dict[Bucket, int] = field(default_factory=dict)
    lifetimes: dict[tuple[str, str], timedelta] = field(default_factory=dict)
    """By CA and profile, of those that there are."""
    planned: Counter[str] = field(default_factory=Counter)
    """Apps of the plan, or those that are replaced, by CA."""
    existing: Counter[str] = field(default_factory=Counter)
    """Other apps of the fleet that are renewed, by CA."""
    _after: dict[str, tuple[tuple[Charge, ...], Terms]] = field(default_factory=dict)
    _terms: dict[tuple[str, ...], Terms] = field(default_factory=dict)

    async def terms(self, values: Mapping[str, str], app: str) -> Terms:
        """What holds for an app with these effective properties. Raises UsageError."""
        names = ("ca", "ca-bundle", "email", "tenant", "first-issue", "reserved-for-renewals", "profile")
        key = tuple(values[name] for name in names)
        if key not in self._terms:
            self._terms[key] = await self._new_terms(values, app)
        return self._terms[key]

    async def _new_terms(self, values: Mapping[str, str], app: str) -> Terms:
        if not values["email"]:
            wanted = f"app {app} has none: give --email ops@example.com, or `certfleet set email=ops@example.com`"
            raise UsageError("email", None, wanted)
        ca = first_ca(values)  # nobody can say beforehand what others of a list would have to take
        limits = self.asked.limits((await self.fleet.limits.of(ca.name, ca.directory)).limits)
        account = account_id(ca, values["email"])
        self.emails[account] = values["email"]
        gates = (*slow_down_bucket(limits, self.fleet.settings.egress_address), *refused_bucket(limits, account))
        await self.look(gates)
        profile, lifetime = values["profile"], self.asked.lifetime(ca.name, values["profile"])
        self.lifetimes[ca.name, profile] = lifetime
        return Terms(
            limits=replace(limits, rates={limit: rate for limit, rate in limits.rates.items() if limit not in FAILED}),
            account=account,
            public=ca.public,
            tenant=values["tenant"],
            first_issue=parse_first_issue(values["first-issue"]),
            reserved=parse_share(values["reserved-for-renewals"]),
            closed=tuple(Charge(gate, check=True) for gate in gates if gate in self.levels),
            profile=profile,
            lifetime=lifetime,
            most_names=most_names(ca, profile),
        )

    async def look(self, buckets: Iterable[Bucket]) -> None:
        """Read how full these buckets are."""
        each = {(bucket.ca, bucket.limit, bucket.key): bucket for bucket in buckets}
        now, found = await full_times(self.fleet.store, list(each.values()))
        self.levels |= {bucket: full for bucket, full in found.items() if full > now}

    def wish(self, label: str, names: Sequence[str], terms: Terms, *, same_set: bool = False) -> Wish:
        """A first certificate (`same_set`: not the first) that is wanted now, and renewed ever after."""
        buckets = order_buckets(terms.limits, account=terms.account, identifiers=names, same_set=same_set)
        self.renewed(label, buckets, terms)
        if same_set:
            party, score, reserved = RENEWALS, self.now / SECOND, 0.0
        elif terms.first_issue is not None:
            party, score, reserved = RENEWALS, self.now / SECOND + terms.first_issue.total_seconds(), 0.0
        else:
            party, score, reserved = f"t:{terms.tenant}", self.now / SECOND, terms.reserved
        ordered = [Charge(bucket, keep=int(bucket.rate.burst * reserved)) for bucket in buckets.ordered]
        issued = [Charge(bucket) for bucket in buckets.issued]
        return Wish(label, party, score, (*ordered, *issued, *terms.closed), self.now)

    def renewed(self, label: str, first: OrderBuckets, terms: Terms) -> bool:
        """Count the renewals of a certificate whose first order asks these; whether they take what others wait for."""
        taken, uncontrolled = first.ordered + first.issued, first.uncontrolled
        if terms.same_set:  # order_buckets(..., same_set=True)
            taken, uncontrolled = tuple(bucket for bucket in first.issued if bucket.limit == Limit.SET), ()
        self.renewals.append(Renewal(taken + uncontrolled, terms.period))
        if terms.same_set or all(bucket.limit in OF_ONE_ORDER for bucket in taken):
            return False
        self._after[label] = tuple(Charge(bucket) for bucket in taken), terms
        return True

    def renewal(self, label: str, at: int, not_after: float) -> Wish:
        """The next renewal of a certificate, due at that time."""
        return Wish(label, RENEWALS, not_after, self._after[label][0], at)

    def follow(self, wish: Wish, admitted: int) -> Wish | None:
        """The renewal of what was just ordered, where it takes what others wait for."""
        if wish.app not in self._after:
            return None
        terms = self._after[wish.app][1]
        not_after = admitted / SECOND + terms.lifetime.total_seconds()
        return self.renewal(wish.app, admitted + terms.period, not_after)


@dataclass(frozen=True, slots=True)
class _About:
    """Whose end is told."""

    wishes: list[Wish]
    members: list[tuple[str, list[int]]]
    """Each app and which wishes are its; none: it has its certificate, or is about to."""
    already: int
    """Apps of the plan that are in the fleet as it wants them."""
    waiting: list[Wish]
    """Every order that waits and counts, asked about or not."""


async def estimate(
    fleet: Fleet, asked: WhatIf, plan: Sequence[Planned] | None = None, *, replaced: Sequence[App] = ()
) -> Estimate:
    """When the apps of the plan are done; without one, the orders that wait now. Raises UsageError.

    `replaced`, instead of a plan: apps that have a certificate, and are to get another one now.
    """
    now, _ = await full_times(fleet.store, [])
    desk = _Desk(fleet, asked, await fleet.inventory.properties(), now)
    about = await _about(desk, plan, replaced)
    shared = (one.bucket for wish in about.wishes for one in wish.charges if one.bucket.limit not in OF_ONE_ORDER)
    await desk.look([*shared, *(one.bucket for wish in about.waiting for one in wish.charges)])
    lifetimes = _lifetimes(desk)
    whose = await turns(fleet.store)

    def work() -> Estimate:
        found = forecast(about.wishes, desk.levels, now, background=desk.background, follow=desk.follow, turns=whose)
        needs = upkeep(desk.renewals)
        return estimate_of(
            found,
            needs,
            apps=about.members,
            already=about.already,
            emails=desk.emails,
            now=now,
            lifetimes=lifetimes,
        )

    return await asyncio.to_thread(work)  # seconds for a large plan: the caller's loop goes on meanwhile


def _lifetimes(desk: _Desk) -> dict[str, timedelta]:
    """By profile, at the CA of most apps of the plan; without one, of most of the fleet.

    Profiles that are asked of other CAs only are told of too, each as the CA has it that more apps have.
    """
    everywhere = first_ca(effective(desk.asked.properties, desk.everywhere)).name
    cas = sorted(
        {everywhere, *desk.planned, *desk.existing},
        key=lambda ca: (-desk.planned[ca], -desk.existing[ca], ca != everywhere, ca),
    )
    found = {DEFAULT: desk.asked.lifetime(cas[0])}
    for ca in cas:
        for (at, profile), lifetime in desk.lifetimes.items():
            if at == ca:
                found.setdefault(profile, lifetime)
    return found


async def _about(desk: _Desk, plan: Sequence[Planned] | None, replaced: Sequence[App]) -> _About:
    """Who is asked about; everybody else goes to the background. An app is counted once, whatever there is of it."""
    waiting = await _waiting(desk)
    named = {row.app: row for row in plan or ()}
    anew = {app.name for app in replaced}
    kept = await _existing(desk, waiting=waiting.keys(), planned=named, without=anew)
    anew |= named.keys() - kept
    waiting = {name: wish for name, wish in waiting.items() if name not in anew}
    if replaced:
        wishes, members = await _replaced(desk, replaced)
    else:
        wishes, members = await _planned(desk, [row for row in plan or () if row.app not in kept])
    for name, wish in waiting.items():
        if name in kept or (plan is None and not replaced):
            members.append((name, [len(wishes)]))
            wishes.append(wish)
        else:
            desk.background.append(wish)
    members += [(name, []) for name in kept if name not in waiting]
    return _About(wishes, members, len(kept), list(waiting.values()))


async def _waiting(desk: _Desk) -> dict[str, Wish]:
    """The orders in the waiting rooms by app, under the limits that are asked about."""
    found: list[Wish] = []
    limits: dict[str, Limits] = {}
    for one in await waiters(desk.fleet.store):
        charges: list[Charge] = []
        for charge in one.charges:
            ca = charge.bucket.ca
            if ca not in limits:
                limits[ca] = desk.asked.limits((await desk.fleet.limits.of(ca, _directory(ca))).limits)
            if (kept := desk.asked.charge(charge, limits[ca])) is not None:
                charges.append(kept)
        found.append(Wish(f"app {one.app}", one.party, one.rank, tuple(charges), one.entered))
    return {wish.app.removeprefix("app "): wish for wish in sorted(found, key=lambda wish: (wish.at, wish.app))}


def _directory(ca: str) -> str:
    try:
        return resolve_ca(ca).directory
    except UsageError:  # a preset that there was in an earlier version
        return ca


async def _replaced(desk: _Desk, apps: Sequence[App]) -> tuple[list[Wish], list[tuple[str, list[int]]]]:
    """The orders that replace these apps' certificates."""
    wishes = []
    for number, app in enumerate(apps):
        terms = await desk.terms(effective(app.properties, desk.everywhere), app.name)
        desk.planned[terms.limits.ca] += 1
        wishes.append(desk.wish(f"plan {number}", app.identifiers, terms, same_set=True))
    return wishes, [(app.name, [number]) for number, app in enumerate(apps)]


async def _planned(desk: _Desk, plan: Sequence[Planned]) -> tuple[list[Wish], list[tuple[str, list[int]]]]:
    """The certificates that the plan needs, and which of them each app needs."""
    terms: list[Terms] = []
    known: dict[tuple[tuple[str, str], ...], Terms] = {}
    everywhere = {**desk.everywhere, **desk.asked.properties}
    for row in plan:
        given = tuple(row.own.items())
        if given not in known:
            known[given] = await desk.terms(effective(row.own, everywhere), row.app)
        terms.append(known[given])
        _require_fitting(row, terms[-1], desk.asked)
    desk.planned.update(one.limits.ca for one in terms)
    if desk.asked.names_per_certificate is None:
        wishes = [desk.wish(f"plan {n}", row.identifiers, terms[n]) for n, row in enumerate(plan)]
        return wishes, [(row.app, [n]) for n, row in enumerate(plan)]
    members: list[tuple[str, list[int]]] = [(row.app, []) for row in plan]
    # Terms are the same object where everything is the same: CA, account, tenant.
    sets = [(id(own), row.identifiers) for own, row in zip(terms, plan, strict=True)]
    wishes = []
    for number, group in enumerate(regroup(sets, desk.asked.names_per_certificate)):
        wishes.append(desk.wish(f"plan {number}", tuple(group.names), terms[group.members[0]]))
        for member in group.members:
            members[member][1].append(number)
    return wishes, members


def _require_fitting(row: Planned, terms: Terms, asked: WhatIf) -> None:
    """Raise UsageError for names that the CA or the profile does not take, or not so many."""
    ca = terms.limits.ca
    try:
        require_fitting(row.app, [(name, name) for name in row.identifiers], ca, terms.profile)
        if terms.public:
            for name in row.identifiers:
                require_public(name, name)
    except UsageError as error:  # in a plan of thousands it has to say where
        raise UsageError("plan", None, f"app {row.app}: {error}") from None
    if (wanted := asked.names_per_certificate) is not None and wanted > terms.most_names:
        profile = f"profile {terms.profile}" if terms.profile else "default profile"
        told = f"is more than {ca} takes by the {profile} of app {row.app}: at most {terms.most_names}"
        raise UsageError("names-per-certificate", wanted, told)


async def _existing(
    desk: _Desk, *, waiting: Collection[str], planned: Mapping[str, Planned], without: Collection[str]
) -> set[str]:
    """Count the renewals of the apps that are enabled; those that others wait for take part when they fall due.

    Of apps that are planned only if they are as the plan wants them; these are named. `waiting`, `without`: names.
    """
    kept: set[str] = set()
    async for page in _pages(desk.fleet):
        wanted = _unchanged(desk, page, planned)
        found = await as_they_are(desk.fleet, page, wanted=wanted, waiting=waiting, now=desk.now) if wanted else set()
        kept |= found
        graces: dict[str, timedelta | None] = {}
        for app in page:
            if app.name not in found and (not app.enabled or app.name in planned or app.name in without):
                continue
            properties = effective(app.properties, desk.everywhere)
            label, terms = f"app {app.name}", await desk.terms(properties, app.name)
            (desk.planned if app.name in found else desk.existing)[terms.limits.ca] += 1
            first = order_buckets(terms.limits, account=terms.account, identifiers=app.identifiers)
            if desk.renewed(label, first, terms) and app.name not in waiting:
                graces[app.name] = parse_grace(properties["graceperiod"])
        told = await desk.fleet.records.renewals(graces)
        slots = await desk.fleet.spreading.slots(graces)
        for name, certificate in (await desk.fleet.records.certificates(graces)).items():
            at = microseconds(renewal_time(certificate, graces[name], told.get(name), slots.get(name)))
            desk.background.append(desk.renewal(f"app {name}", at, certificate.not_after.timestamp()))
    return kept


def _unchanged(desk: _Desk, apps: Sequence[App], planned: Mapping[str, Planned]) -> dict[str, Planned]:
    """What is planned of those that the plan does not change. Shared certificates would all be others."""
    if not planned or desk.asked.names_per_certificate is not None:
        return {}
    given = desk.asked.properties
    return {
        app.name: row
        for app in apps
        if (row := planned.get(app.name)) and changes_nothing(row, app, given, desk.everywhere)
    }


async def _pages(fleet: Fleet) -> AsyncIterator[list[App]]:
    page: list[App] = []
    async for app in fleet.inventory.apps():
        page.append(app)
        if len(page) == PAGE:
            yield page
            page = []
    if page:
        yield page
