"""A fleet that lives through a year and a half on a simulated clock, before a CA that shortens its certificates.

What decides is the product's: when a check comes and what it decides (lifecycle/renewals/renewal.py), the instant in
the CA's window (renewal_info.py), the hour that is not full (spreading.py), who goes first (urgency.py), which tokens
an order asks for (limits/keys.py) and when it gets them (limits/simulation.py). Simulated are the clock, Redis and the
CA, which has books and windows of its own (tests/ca/), written apart from the product's.

Nothing fails, and a certificate is there when its order is admitted. A look at the CA's renewal information that finds
what the one before it found changes nothing: those that are more than eight hours before the renewal are left out.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from certfleet.acme_ca.ari import RenewalInfo
from certfleet.acme_ca.presets import resolve_ca
from certfleet.lifecycle.orders.admission import is_same_set
from certfleet.lifecycle.orders.replacement import in_window
from certfleet.lifecycle.orders.urgency import urgency
from certfleet.lifecycle.renewals.renewal import SHORT, NotDue, Slot, decide, due_time
from certfleet.lifecycle.renewals.renewal_info import FIRST_LOOK, answered, is_to_be_asked
from certfleet.lifecycle.renewals.spreading import HOUR, choose, earliest, hour_of
from certfleet.limits.buckets import Charge
from certfleet.limits.keys import order_buckets
from certfleet.limits.presets import limits_of
from certfleet.limits.simulation import Simulation, Wish
from certfleet.models import App, Certificate, KeyType, Order, Renewal, from_microseconds, microseconds
from certfleet.properties import effective
from tests.ca.book import Admission, Book
from tests.ca.limits import LETS_ENCRYPT
from tests.ca.renewals import Known, Renewals

START, END = datetime(2026, 12, 1, 9, tzinfo=UTC), datetime(2028, 6, 1, 9, tzinfo=UTC)
"""All apps are enabled at once at the beginning."""
CLASSIC = (
    (START, timedelta(days=90)),
    (datetime(2027, 2, 10, tzinfo=UTC), timedelta(days=64)),
    (datetime(2028, 2, 16, tzinfo=UTC), timedelta(days=45)),
)
"""How long certificates live that are issued from then on (letsencrypt.org/docs/profiles)."""
SHORTLIVED = timedelta(hours=160)
ONE_IN = 10  # apps has the profile shortlived
APPS_PER_DOMAIN = 5
BACKDATED = timedelta(hours=1)
"""Let's Encrypt's certificates begin an hour before they are issued."""
TICK = timedelta(seconds=1)  # from due to ordered
SERVED = timedelta(minutes=5)
"""From ordered to served on every host, at most: until then the certificate before it has to be valid."""
LAST_LOOKS = timedelta(hours=8)
RETRY_AFTER = (4.8, 7.2)
"""Hours between two looks at Let's Encrypt's renewal information: six, and up to a fifth more or less."""
ACCOUNT, EMAIL = "letsencrypt/ops", "ops@site.example.org"
LETSENCRYPT = resolve_ca("letsencrypt")
DIRECTORY = LETSENCRYPT.directory
FIRST_HOUR = hour_of(START)
HOURS = hour_of(END) - FIRST_HOUR


@dataclass(slots=True)
class Life:
    """One app, and its present certificate."""

    app: App
    properties: dict[str, str]
    certificate: Certificate | None = None
    slot: Slot | None = None


@dataclass(slots=True)
class Lived:
    """What became of a fleet."""

    renewals: list[int] = field(default_factory=lambda: [0] * HOURS)
    """By hour since START."""
    need: list[float] = field(default_factory=lambda: [0.0] * HOURS)
    """Likewise: what the certificates need that there are, each renewed after two thirds (half) of its life."""
    settled: int = 0
    """The first of these hours in which every app has a certificate."""
    expired: int = 0
    """Certificates that ended before the next one was served."""
    refused: int = 0
    """Answers of 429, by the CA's own count."""
    exempt: int = 0
    """Renewals that the CA took as replacements in their window."""
    early: int = 0
    """Renewals before their own time."""
    earlier: timedelta = timedelta()
    """By how much, all of them together."""


class SimulatedCA:
    """Let's Encrypt as it counts, what its certificates live, and when it wants them renewed."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._book, self._windows = Book(), Renewals(on=True)
        self._book.buckets.configure(LETS_ENCRYPT)

    def order(self, app: App, before: Certificate | None, now: datetime) -> tuple[bool, bool]:
        """Whether newOrder is taken, and whether as a replacement in its window."""
        moment, nanoseconds = now.timestamp(), microseconds(now) * 1_000
        window = self._windows.window(before.serial) if before else None
        exempt = window is not None and window.start <= moment < window.end
        answer = self._book.order_wanted(ACCOUNT, app.identifiers, nanoseconds, replacement=exempt)
        if not isinstance(answer, Admission):
            return False, exempt
        self._book.order_made(answer, app.name, [], nanoseconds)
        self._book.order_seen(app.name, "valid", nanoseconds)
        return True, exempt

    def issue(self, app: App, profile: str, before: Certificate | None, now: datetime) -> Certificate:
        """The next certificate."""
        lifetime = SHORTLIVED if profile else next(span for since, span in reversed(CLASSIC) if since <= now)
        begins = now - BACKDATED
        certificate = Certificate(
            app=app.name,
            generation=before.generation + 1 if before else 1,
            ca=DIRECTORY,
            identifiers=app.identifiers,
            key_type=KeyType.P256,
            serial=f"{self._chance.getrandbits(128):x}",
            not_before=begins,
            not_after=begins + lifetime,
            issued=now,
            leaf="",
            chain="",
            sealed_key="",
            profile=profile,
        )
        known = Known(ACCOUNT, app.identifiers, begins.timestamp(), certificate.not_after.timestamp())
        self._windows.certificates[certificate.serial] = known
        if before is not None:
            del self._windows.certificates[before.serial]
        return certificate

    def renewal_info(self, certificate: Certificate, now: datetime) -> RenewalInfo:
        """What it suggests."""
        window = self._windows.window(certificate.serial)
        assert window is not None
        start, end = datetime.fromtimestamp(window.start, UTC), datetime.fromtimestamp(window.end, UTC)
        return RenewalInfo(start, end, None, now + timedelta(hours=self._chance.uniform(*RETRY_AFTER)))


class Year:
    """A fleet and its year."""

    def __init__(self, apps: int, seed: int, *, spread: bool) -> None:
        """`spread`: as the product does it; else each renewal keeps its own time."""
        self._chance = random.Random(seed)  # noqa: S311  no secret
        self._spread = spread
        self._ca = SimulatedCA(self._chance)
        self._limits = limits_of("letsencrypt", DIRECTORY)
        self._lives = {life.app.name: life for life in (_life(number, apps) for number in range(apps))}
        self._without = apps
        self._planned = [0] * (HOURS + CLASSIC[0][1] // timedelta(hours=1))
        self._change_of_need = [0.0] * HOURS
        self._charges: dict[tuple[str, bool, bool], tuple[Charge, ...]] = {}
        self._lived = Lived()

    def live(self) -> Lived:
        """From the first orders to the end."""
        wishes = [self._wish(life, "first issue", START, None) for life in self._lives.values()]
        self._chance.shuffle(wishes)
        # A simulation ends when those that were asked about are done: the one that is, is the end.
        end = microseconds(END) - 1
        asked = Wish("", "r", 0.0, (), end)
        Simulation([asked, *wishes], {}, microseconds(START), asked=1, follow=self._follow).run(end)
        lived, need = self._lived, 0.0
        lived.expired += sum(
            life.certificate is None or life.certificate.not_after < END for life in self._lives.values()
        )
        for hour, change in enumerate(self._change_of_need):
            need += change
            lived.need[hour] = need
        return lived

    def _follow(self, wish: Wish, at: int) -> Wish | None:
        """The order is admitted: its certificate, and the order that renews that."""
        if not wish.app:
            return None
        life, now = self._lives[wish.app], from_microseconds(at)
        hour, before = hour_of(now) - FIRST_HOUR, life.certificate
        taken, exempt = self._ca.order(life.app, before, now)
        self._lived.refused += not taken
        if before is None:
            self._without -= 1
            self._lived.settled = hour + 1
        else:
            self._renewed(life, before, now, exempt=exempt)
        life.certificate = self._ca.issue(life.app, life.properties["profile"], before, now)
        self._change_of_need[hour] += _needs(life.certificate) - (_needs(before) if before else 0.0)
        told, due = self._checked(life, life.certificate, now + FIRST_LOOK)
        return self._wish(life, "renewal", due + TICK, told)

    def _renewed(self, life: Life, before: Certificate, now: datetime, *, exempt: bool) -> None:
        lived = self._lived
        lived.renewals[hour_of(now) - FIRST_HOUR] += 1
        lived.expired += before.not_after < now + SERVED
        lived.exempt += exempt
        if life.slot is not None and life.slot.at < life.slot.due:
            lived.early += 1
            lived.earlier += life.slot.due - life.slot.at

    def _checked(self, life: Life, certificate: Certificate, now: datetime) -> tuple[Renewal, datetime]:
        """The checks of a certificate, from the first one on: what the CA said last, and when an order is due."""
        told: Renewal | None = None
        life.slot = None
        while True:
            if told is None or is_to_be_asked(certificate, told, now):
                told = answered(certificate, told, self._ca.renewal_info(certificate, now), now, self._chance.random())
            if self._spread and life.slot is None:
                life.slot = self._find_slot(certificate, due_time(certificate, None, told), now)
            decision = decide(
                life.app,
                certificate,
                cas=(LETSENCRYPT,),
                key_type=KeyType.P256,
                grace=None,
                told=told,
                now=now,
                profile=life.properties["profile"],
                slot=life.slot,
            )
            if not isinstance(decision, NotDue):
                return told, now
            at = life.slot.at if life.slot else due_time(certificate, None, told)
            now = max(decision.at, at - LAST_LOOKS)

    def _find_slot(self, certificate: Certificate, due: datetime, now: datetime) -> Slot:
        first = earliest(certificate, due, now)
        planned = self._planned[hour_of(first) - FIRST_HOUR : hour_of(due) - FIRST_HOUR + 1]
        at = choose(first, due, planned, self._chance.random())
        self._planned[hour_of(at) - FIRST_HOUR] += 1
        return Slot(certificate.generation, due, at)

    def _wish(self, life: Life, reason: str, at: datetime, told: Renewal | None) -> Wish:
        """The order as it stands before the limits."""
        order = Order("", life.app.name, "letsencrypt", EMAIL, life.app.identifiers, KeyType.P256, reason, at)
        where = urgency(order, life.certificate, life.properties)
        same_set = is_same_set(order, life.certificate, DIRECTORY, at)
        charges = self._asks(life.app, same_set, in_window(told, at))
        return Wish(life.app.name, where.party, where.rank, charges, microseconds(at))

    def _asks(self, app: App, same_set: bool, exempt: bool) -> tuple[Charge, ...]:  # noqa: FBT001
        key = (app.name, same_set, exempt)
        if key not in self._charges:
            buckets = order_buckets(
                self._limits, account=ACCOUNT, identifiers=app.identifiers, same_set=same_set, ari=exempt
            )
            self._charges[key] = tuple(Charge(bucket) for bucket in buckets.ordered + buckets.issued)
        return self._charges[key]


def _life(number: int, apps: int) -> Life:
    domain = f"site{number % -(-apps // APPS_PER_DOMAIN)}.org"
    profile = {"profile": "shortlived"} if number % ONE_IN == 0 else {}
    app = App(f"app{number}", (f"app{number}.{domain}",), ("web1",), properties=profile, enabled=True)
    return Life(app, effective(app.properties, {"email": EMAIL}))


def _needs(certificate: Certificate) -> float:
    """Renewals an hour."""
    validity = certificate.not_after - certificate.not_before
    period = validity * (1 / 2 if validity < SHORT else 2 / 3) - BACKDATED
    return timedelta(microseconds=HOUR) / period
