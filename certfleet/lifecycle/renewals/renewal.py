"""When a certificate is renewed, and when a failure is tried again. Decisions only: no clock, no I/O."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from certfleet.ca_list import asked_ca
from certfleet.models import CA, App, Certificate, KeyType, Renewal

SHORT = timedelta(days=10)
"""Below this validity half of it is left at renewal, otherwise a third (letsencrypt.org/docs/integration-guide)."""
JITTER = 0.02
"""Share of the validity by which renewals are spread: the width of Let's Encrypt's own ARI window."""
LOOK_AGAIN = timedelta(hours=12)
"""A check comes at least this often: Let's Encrypt asks to look twice a day."""
LOOK_JITTER = 0.1
"""Share of LOOK_AGAIN by which apps differ: those that were enabled together are not looked at together for ever."""
SHARE_OF_LOOKS, SHORTEST_LOOK = 1 / 20, timedelta(hours=1)
"""Of the validity, when that is less than LOOK_AGAIN: a certificate that lives for days is looked at more often."""
SHARE_OF_TRIES = 1 / 16
"""Of the validity, when that is less than a day: the longest wait between two tries to renew it."""
BACK_OFF = (timedelta(minutes=1), timedelta(minutes=10), timedelta(minutes=100), timedelta(days=1))
"""After a failure: what Let's Encrypt's integration guide asks of clients; daily from then on."""


def renew_at(certificate: Certificate, grace: timedelta | None) -> datetime:
    """The instant of renewal: `grace` before the end (None: a third of the validity, half under 10 days).

    Spread by up to 2 % of the validity, earlier, the same for the same certificate each time it is asked.
    """
    validity = certificate.not_after - certificate.not_before
    if grace is None:
        grace = validity / (2 if validity < SHORT else 3)
    # A grace as long as the validity would renew for ever: the first half of a certificate's life is its own.
    grace = min(grace, validity / 2)
    return certificate.not_after - grace - validity * JITTER * _spread(certificate)


def current(certificate: Certificate, told: Renewal | None) -> Renewal | None:
    """What was said of this very certificate, and not of the one before."""
    return told if told is not None and told.generation == certificate.generation else None


@dataclass(frozen=True, slots=True)
class Slot:
    """The time that a renewal was given among those of the whole fleet (spreading.py)."""

    generation: int
    """Of the certificate that it is for."""
    due: datetime
    """When it would be renewed if it was the only one."""
    at: datetime
    """Never after `due`; before it, where too many are renewed at that time."""


def due_time(certificate: Certificate, grace: timedelta | None, told: Renewal | None) -> datetime:
    """When it would be renewed if it was the only one: the instant chosen from the CA's window, else `renew_at`.

    A `grace` that a person has set may bring it forward and never delays it: a window that moved into the past says
    that the certificate is about to be revoked.
    """
    told = current(certificate, told)
    if told is None or told.at is None:
        return renew_at(certificate, grace)
    return told.at if grace is None else min(told.at, renew_at(certificate, grace))


def renewal_time(
    certificate: Certificate, grace: timedelta | None, told: Renewal | None, slot: Slot | None = None
) -> datetime:
    """The instant of renewal: that of its slot, as long as what the slot was chosen by still holds."""
    due = due_time(certificate, grace, told)
    return slot.at if slot is not None and holds(slot, certificate, due) else due


def holds(slot: Slot, certificate: Certificate, due: datetime) -> bool:
    """Whether the slot is for this certificate and for what is its own time now."""
    return (slot.generation, slot.due) == (certificate.generation, due)


def _spread(certificate: Certificate) -> float:
    """From 0 to 1, the same for the same certificate."""
    return int.from_bytes(hashlib.sha256(certificate.serial.encode()).digest()[:4]) / 2**32


def retry_after(attempts: int, longest: timedelta = BACK_OFF[-1]) -> timedelta:
    """How long to wait after the `attempts`-th failure in a row (1 is the first), at most `longest`."""
    return min(BACK_OFF[min(max(attempts, 1), len(BACK_OFF)) - 1], longest)


def longest_back_off(certificate: Certificate | None) -> timedelta:
    """How long a failing renewal of this certificate waits at most: a day, for one of 160 hours ten.

    Half of such a certificate's life is left at renewal: with daily tries three would have to do.
    """
    if certificate is None:
        return BACK_OFF[-1]
    validity = certificate.not_after - certificate.not_before
    return min(BACK_OFF[-1], max(validity * SHARE_OF_TRIES, BACK_OFF[-2]))


def _look_interval(certificate: Certificate) -> timedelta:
    """How often it is looked at: twice a day, one of 160 hours every eight; never more than once an hour."""
    validity = certificate.not_after - certificate.not_before
    return min(LOOK_AGAIN, max(validity * SHARE_OF_LOOKS, SHORTEST_LOOK))


@dataclass(frozen=True, slots=True)
class Due:
    """An order is due now, because of `reason` (a word for people)."""

    reason: str


@dataclass(frozen=True, slots=True)
class NotDue:
    """Nothing to do before `at`."""

    at: datetime


def decide(  # noqa: C901, PLR0911  one line per reason reads best
    app: App,
    certificate: Certificate | None,
    *,
    cas: Sequence[CA],
    key_type: KeyType,
    grace: timedelta | None,
    told: Renewal | None,
    now: datetime,
    profile: str = "",
    slot: Slot | None = None,
    key_on: str = "",
) -> Due | NotDue:
    """Whether the app needs an order now; `told`: what the CA said; the others are its settings.

    `slot`: the time that its renewal was given among all others. `key_on`: the host that is to make the key; empty:
    none is.
    """
    if certificate is None:
        return Due("first issue")
    if certificate.revoked is not None:
        return Due("revoked by the CA" if certificate.unasked else "revoked")
    if certificate.withdrawn:
        return Due(certificate.withdrawn)
    if set(certificate.identifiers) != set(app.identifiers):
        return Due("names changed")
    wanted = asked_ca(cas, certificate.passed_over)  # one that stood in for another is good until its renewal
    if wanted is None or certificate.ca != wanted.directory:
        return Due("CA changed")
    if certificate.key_type != key_type:
        return Due("key type changed")
    if (certificate.unoffered or certificate.profile) != profile:
        return Due("profile changed")
    if certificate.key_on != key_on:
        return Due("key place changed")
    at = renewal_time(certificate, grace, told, slot)
    if at <= now:
        return Due("renewal")
    look = now + _look_interval(certificate) * (1 - LOOK_JITTER * _spread(certificate))
    said = current(certificate, told)
    if said is not None and said.next_look > now:
        look = min(look, said.next_look)
    # The CA's window may be narrower than the time between two looks: it is renewed at `at`, whenever they are.
    return NotDue(min(at, look))
