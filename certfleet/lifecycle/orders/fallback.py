"""When an order of an app with a list of CAs goes on to the next one, and what it is there. Decisions only: no I/O.

    held up at a CA ── refused for good, or paused ──────────────────────────▶ next CA
          │ tokens, or a CA that is away: likely back after its turn ──────────▶ next CA
          │ the same, likely back in its turn: waits ── its turn ends ─────────▶ next CA
          ▼
    the list is at its end ── tokens are late at some CA ──▶ settled: waits where they come first, then asks all again
                           └─ else ─────────────────────────▶ back-off, then the first CA again

What only the owner of the names can mend (a name that points away) is mended by no other CA: it passes nothing on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from certfleet.ca_list import asked_ca
from certfleet.errors import AcmeProblem, CAError, CARefuses, SlowedDown
from certfleet.lifecycle.orders.trouble import OrderInvalid, Parked, Unanswered, is_owners
from certfleet.lifecycle.orders.wishes import without_url
from certfleet.models import CA, Cause, Certificate, Order, Passed

WITHOUT_CERTIFICATE = timedelta(hours=1)
"""A CA's turn while there is no valid certificate for the names."""
REFUSING = (Cause.REFUSED, Cause.PAUSED)
"""No waiting helps."""
SHORTEST = timedelta(seconds=10)
"""No turn is shorter, however soon the certificate ends."""
REFUSALS = frozenset(
    {
        *("caa", "rejectedIdentifier", "unsupportedIdentifier", "invalidProfile", "badCSR", "badPublicKey"),
        *("externalAccountRequired", "userActionRequired", "unauthorized"),
    }
)
"""Problems that are this CA's last word on the names, the key or our account (RFC 8555 §6.7, profiles draft §5);
`unauthorized` is about the account when it answers a request of ours (§7.3.6)."""
OF_A_NAME = frozenset({"caa", "rejectedIdentifier", "unsupportedIdentifier"})
"""The same where they stand in an order or authorization that failed: there `unauthorized` is about the challenge."""
LONGEST_REASON = 1500  # characters; it is kept with the certificate, and a CA's link is not to be cut


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Why an order does not come on at its CA."""

    cause: Cause
    why: str
    likely_back: datetime | None = None
    """When it is likely to come on; None: nobody can tell."""
    since: datetime | None = None
    """Since when the CA is away for the whole fleet: it is thought to be away for as long again."""


def obstacle_of(error: Exception) -> Obstacle | None:  # noqa: PLR0911  one line per fault reads best
    """What a failed step says of the CA; None: nothing, another CA would not help.

    A time that the CA named is when it is likely back; our own back-off says nothing of it.
    """
    match error:
        case Parked():
            return Obstacle(Cause.PAUSED, str(error))
        case CARefuses():
            return Obstacle(Cause.REFUSED, str(error))
        case OrderInvalid():
            return Obstacle(Cause.REFUSED, str(error)) if error.types & OF_A_NAME else None
        case SlowedDown():
            return Obstacle(Cause.LIMITED, str(error), error.retry_at)
        case AcmeProblem(type="rateLimited"):
            return Obstacle(Cause.LIMITED, str(error), error.retry_at)
        case AcmeProblem(retry_at=None) if _refuses(error):
            return Obstacle(Cause.REFUSED, str(error))
        case Unanswered(outage=outage):
            return Obstacle(Cause.AWAY, str(error), error.retry_at, since=outage.since if outage else None)
        case CAError() if not is_owners(error):
            return Obstacle(Cause.AWAY, str(error), error.retry_at)
        case _:
            return None


def _refuses(problem: AcmeProblem) -> bool:
    of_names = {part.type for part in problem.subproblems}
    return problem.type in REFUSALS or bool(of_names & OF_A_NAME)


@dataclass(frozen=True, slots=True)
class Stays:
    """The order stays with its CA."""

    order: Order
    by: datetime
    """When it would go on, if nothing changed."""


@dataclass(frozen=True, slots=True)
class GoesOn:
    """Another order takes its place now, without a back-off."""

    order: Order
    passed: Passed
    """The CA that it leaves."""


@dataclass(frozen=True, slots=True)
class Failed:
    """No CA of the list issues now."""

    order: Order
    """For when it is tried again."""
    sentence: str
    owners: bool
    """Only the owner of the names can mend it, at every CA."""
    parked: bool = False
    """Every CA waits for a person."""


@dataclass(frozen=True, slots=True)
class Choice:
    """What there is to choose from, and when."""

    cas: Sequence[CA]
    served: Certificate | None
    """The app's present certificate."""
    now: datetime
    name: str
    """Of the order that takes the place of the present one, if one does."""


def decide(order: Order, obstacle: Obstacle, choice: Choice) -> Stays | GoesOn | Failed:
    """What an order comes to that met an obstacle at its CA."""
    order, ends = _in_turn(order, obstacle, choice)
    if not _leaves(order, obstacle, ends, choice.now):
        return Stays(order, _by(obstacle, ends, choice.now))
    passed = Passed(order.ca, obstacle.cause, obstacle.why[:LONGEST_REASON], choice.now, obstacle.likely_back)
    whole = (*order.passed_over, passed)
    following = asked_ca(choice.cas, whole)
    if following is not None:
        return GoesOn(_at(order, following, whole, choice), passed)
    return _at_the_end(replace(order, passed_over=whole), passed, choice)


def _in_turn(order: Order, obstacle: Obstacle, choice: Choice) -> tuple[Order, datetime]:
    """The order in its CA's turn, and when that ends.

    A turn begins with the first obstacle, and is not made longer by the next. One that is settled waits for tokens
    alone: for anything else an ordinary turn begins.
    """
    if order.settled and order.turn_ends is not None and obstacle.cause is Cause.LIMITED:
        return order, order.turn_ends
    ends = _turn_ends(order, choice)
    if order.turn_ends is not None and not order.settled:
        ends = min(ends, order.turn_ends)
    return replace(order, turn_ends=ends, settled=False), ends


def _turn_ends(order: Order, choice: Choice) -> datetime:
    """When a turn ends that begins now: with half of the time that is left until the served certificate does.

    After an hour when there is none that is valid for all names of the order.
    """
    served, now = choice.served, choice.now
    if served is None or served.revoked is not None or served.leaked or now >= served.not_after:
        return now + WITHOUT_CERTIFICATE
    if not set(order.identifiers) <= set(served.identifiers):
        return now + WITHOUT_CERTIFICATE
    return now + max((served.not_after - now) / 2, SHORTEST)


def _leaves(order: Order, obstacle: Obstacle, ends: datetime, now: datetime) -> bool:
    """Whether another CA is asked now."""
    if obstacle.cause in REFUSING or now >= ends:
        return True
    back = [obstacle.likely_back] if obstacle.likely_back else []
    back += [now + (now - obstacle.since)] if obstacle.since else []
    return not order.settled and max(back, default=now) > ends


def _by(obstacle: Obstacle, ends: datetime, now: datetime) -> datetime:
    """When an order that stays would leave: at the end of its turn, or when its CA has been away for half of that."""
    half = obstacle.since + (ends - obstacle.since) / 2 if obstacle.since else ends
    return half if now < half else ends


def _at(order: Order, ca: CA, passed: Sequence[Passed], choice: Choice) -> Order:
    """The order as a new one for a CA: nothing goes along of what another has made, nor what that replaces."""
    return replace(
        without_url(order),
        id=choice.name,
        ca=ca.name,
        passed_over=tuple(passed),
        profile=order.unoffered or order.profile,
        unoffered="",
        attempts=order.rounds,
        unanswered=0,
        turn_ends=None,
        settled=False,
        retry_at=None,
        error=None,
        held=None,
    )


def _at_the_end(order: Order, last: Passed, choice: Choice) -> Stays | GoesOn | Failed:
    """What becomes of an order whose `passed_over` has every CA of the list, its own `last`."""
    passed = order.passed_over
    lasting = [one for one in passed if one.cause is Cause.PAUSED]
    first = asked_ca(choice.cas, lasting)
    if first is None:
        sentence = "; ".join(f"{one.ca}: {one.why}" for one in passed)
        return Failed(_at(order, choice.cas[0], (), choice), sentence, owners=True, parked=True)
    again = _at(order, first, lasting, choice)
    if order.settled:  # it has waited long enough where tokens come first: all are asked again
        return GoesOn(again, last)
    late = [one for one in passed if one.cause is Cause.LIMITED and one.until is not None]
    if late:
        return _settled(order, min(late, key=_until), last, choice)
    sentence = "no CA of the list issues it: " + "; ".join(f"{one.ca}: {told(one)}" for one in passed)
    owners = all(one.cause in REFUSING for one in passed)
    return Failed(replace(again, rounds=order.rounds + 1), sentence, owners=owners)


def _settled(order: Order, best: Passed, last: Passed, choice: Choice) -> Stays | GoesOn:
    """It waits where tokens come first; one that is there already keeps its place in the waiting room."""
    index = next(index for index, ca in enumerate(choice.cas) if ca.name == best.ca)
    before = {ca.name for ca in choice.cas[:index]}
    passed = tuple(one for one in order.passed_over if one.ca in before)
    ends = _turn_ends(order, choice)
    if not any(one.cause is Cause.AWAY for one in order.passed_over):  # which may be back any time
        ends = max(ends, choice.now + (_until(best) - choice.now) / 2)  # not hour by hour in a wait of months
    if best.ca == order.ca:
        return Stays(replace(order, passed_over=passed, settled=True, turn_ends=ends), ends)
    moved = _at(order, choice.cas[index], passed, choice)
    return GoesOn(replace(moved, settled=True, turn_ends=ends), last)


def _until(passed: Passed) -> datetime:
    return passed.until or passed.at


def told(passed: Passed) -> str:
    """Why, for whoever may read the journal: a CA's link to end a pause carries a token."""
    return "it has paused a name: `certfleet info` says which" if passed.cause is Cause.PAUSED else passed.why
