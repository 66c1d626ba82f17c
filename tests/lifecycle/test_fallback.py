"""When an order goes on to the next CA of its app's list: every fault as a table, and what holds whatever CAs do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from certfleet.acme_ca.presets import resolve_ca
from certfleet.ca_list import asked_ca
from certfleet.errors import (
    AcmeProblem,
    CAMisbehaved,
    CARefuses,
    CAUnreachable,
    DNSProviderError,
    OwnerError,
    SlowedDown,
    Subproblem,
    VaultError,
)
from certfleet.lifecycle.orders.fallback import (
    SHORTEST,
    WITHOUT_CERTIFICATE,
    Choice,
    Failed,
    GoesOn,
    Obstacle,
    Stays,
    decide,
    obstacle_of,
    told,
)
from certfleet.lifecycle.orders.trouble import OrderInvalid, Parked
from certfleet.lifecycle.orders.wishes import as_wished
from certfleet.lifecycle.renewals.renewal import retry_after
from certfleet.models import App, Cause, Certificate, KeyType, Order, OrderState, Passed
from certfleet.properties import effective

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LATER = NOW + timedelta(hours=3)
SECOND, HOUR, DAY = timedelta(seconds=1), timedelta(hours=1), timedelta(days=1)
URLS = [f"https://ca{number}.example/dir" for number in "abcde"]
A, B, C, *_ = URLS
CAS = [resolve_ca(url) for url in URLS]
APP = App("blog", ("blog.example.com",), ("web1",), enabled=True)
ORDER = Order("1", "blog", A, "ops@example.com", APP.identifiers, KeyType.P256, "renewal", NOW)
SERVED = Certificate("blog", 1, A, APP.identifiers, KeyType.P256, "1", NOW - 60 * DAY, NOW + 30 * DAY, NOW, "", "", "")
AWAY = Obstacle(Cause.AWAY, "no answer")
REFUSED = Obstacle(Cause.REFUSED, "never")
PAUSED = Obstacle(Cause.PAUSED, "paused, see https://ca.example/?jwt=x")


def limited(until: datetime | None) -> Obstacle:
    return Obstacle(Cause.LIMITED, "waiting for tokens", until)


def problem(status: int, kind: str, retry_at: datetime | None = None, *parts: str) -> AcmeProblem:
    subproblems = tuple(Subproblem(part, "why", "blog.example.com") for part in parts)
    return AcmeProblem(status=status, type=kind, detail="the CA's words", retry_at=retry_at, subproblems=subproblems)


@pytest.mark.parametrize(
    ("error", "cause", "likely_back"),
    [
        pytest.param(CAUnreachable("refused"), Cause.AWAY, None, id="connection"),
        pytest.param(CAMisbehaved("nonsense"), Cause.AWAY, None, id="nonsense"),
        pytest.param(problem(500, "serverInternal"), Cause.AWAY, None, id="500"),
        pytest.param(problem(503, "serverInternal", LATER), Cause.AWAY, LATER, id="503, told until when"),
        pytest.param(problem(400, "malformed"), Cause.AWAY, None, id="a request that it does not take"),
        pytest.param(problem(400, "accountDoesNotExist"), Cause.AWAY, None, id="the account is made anew"),
        pytest.param(problem(429, "rateLimited", LATER), Cause.LIMITED, LATER, id="429"),
        pytest.param(problem(429, "rateLimited"), Cause.LIMITED, None, id="429, not told until when"),
        pytest.param(SlowedDown("new accounts", LATER), Cause.LIMITED, LATER, id="no token for an account"),
        pytest.param(problem(400, "rejectedIdentifier"), Cause.REFUSED, None, id="a name that it never certifies"),
        pytest.param(problem(403, "caa"), Cause.REFUSED, None, id="CAA"),
        pytest.param(problem(400, "unsupportedIdentifier"), Cause.REFUSED, None, id="no addresses"),
        pytest.param(problem(400, "malformed", None, "rejectedIdentifier"), Cause.REFUSED, None, id="one name of many"),
        pytest.param(problem(400, "invalidProfile"), Cause.REFUSED, None, id="profile"),
        pytest.param(problem(400, "badCSR"), Cause.REFUSED, None, id="the kind of key"),
        pytest.param(problem(401, "unauthorized"), Cause.REFUSED, None, id="the account"),
        pytest.param(problem(403, "userActionRequired"), Cause.REFUSED, None, id="new terms"),
        pytest.param(CARefuses("no external account"), Cause.REFUSED, None, id="what we know beforehand"),
        pytest.param(OrderInvalid("CAA", ["caa"]), Cause.REFUSED, None, id="an order that failed by CAA"),
        pytest.param(Parked("paused"), Cause.PAUSED, None, id="paused"),
        pytest.param(OrderInvalid("points away", ["unauthorized"]), None, None, id="a challenge that failed"),
        pytest.param(OrderInvalid("no answer", ["connection", "dns"]), None, None, id="nobody there"),
        pytest.param(problem(400, "dns"), None, None, id="DNS"),
        pytest.param(OwnerError("no such domain"), None, None, id="no such domain"),
        pytest.param(DNSProviderError("no"), None, None, id="the DNS provider"),
        pytest.param(VaultError("another key"), None, None, id="our own"),
    ],
)
def test_what_a_fault_says_of_the_ca(error: Exception, cause: Cause | None, likely_back: datetime | None) -> None:
    """Whether another CA would help, and until when this one will not; what only an owner mends passes nothing on."""
    found = obstacle_of(error)
    assert (found.cause if found else None) == cause
    if found is not None:
        assert found.likely_back == likely_back
        assert getattr(error, "waits_for", str(error)) in found.why


def choice(
    served: Certificate | None = SERVED, now: datetime = NOW, cas: Sequence[str] = URLS[:2], name: str = "2"
) -> Choice:
    return Choice([resolve_ca(url) for url in cas], served, now, name)


@pytest.mark.parametrize(
    ("served", "turn"),
    [
        pytest.param(SERVED, 15 * DAY, id="half of what is left"),
        pytest.param(None, HOUR, id="no certificate"),
        pytest.param(replace(SERVED, not_after=NOW), HOUR, id="expired"),
        pytest.param(replace(SERVED, revoked=NOW), HOUR, id="revoked"),
        pytest.param(replace(SERVED, leaked=True), HOUR, id="its key leaked"),
        pytest.param(replace(SERVED, identifiers=("www.example.com",)), HOUR, id="a new name"),
        pytest.param(replace(SERVED, not_after=NOW + timedelta(seconds=2)), SHORTEST, id="at the last moment"),
    ],
)
def test_a_turn(served: Certificate | None, turn: timedelta) -> None:
    """It begins with the first obstacle, and is not made longer by the next."""
    first = decide(ORDER, AWAY, choice(served))
    assert isinstance(first, Stays)
    assert first.order.turn_ends == NOW + turn
    again = decide(first.order, AWAY, choice(served, NOW + turn / 2))
    assert isinstance(again, Stays)
    assert again.order.turn_ends == NOW + turn
    over = decide(again.order, AWAY, choice(served, NOW + turn))
    assert isinstance(over, GoesOn)
    assert over.order.turn_ends is None
    assert over.order.passed_over == (Passed(A, Cause.AWAY, "no answer", NOW + turn),)


@pytest.mark.parametrize(
    ("obstacle", "leaves"),
    [
        pytest.param(REFUSED, True, id="refused"),
        pytest.param(PAUSED, True, id="paused"),
        pytest.param(AWAY, False, id="away, nobody knows for how long"),
        pytest.param(replace(AWAY, likely_back=NOW + 15 * DAY), False, id="back in time"),
        pytest.param(replace(AWAY, likely_back=NOW + 16 * DAY), True, id="back too late"),
        pytest.param(limited(NOW + 15 * DAY), False, id="tokens in time"),
        pytest.param(limited(NOW + 16 * DAY), True, id="tokens too late"),
        pytest.param(limited(None), False, id="limited, nobody knows for how long"),
    ],
)
def test_what_is_not_waited_for(obstacle: Obstacle, *, leaves: bool) -> None:
    """What is certain to last longer than the turn is left at once."""
    assert isinstance(decide(ORDER, obstacle, choice()), GoesOn) is leaves


def test_away_for_so_long_is_away_for_as_long_again() -> None:
    """A CA that was away before the turn began: the half of what is left is not waited for; when that is, is told."""
    since = NOW - timedelta(minutes=10)
    stays = decide(ORDER, replace(AWAY, since=since), choice(None))
    assert isinstance(stays, Stays)
    assert stays.by == NOW + timedelta(minutes=25)
    again = decide(stays.order, replace(AWAY, since=since), choice(None, stays.by))
    assert isinstance(again, Stays)
    assert again.by == stays.order.turn_ends
    assert isinstance(decide(stays.order, replace(AWAY, since=since), choice(None, stays.by + SECOND)), GoesOn)
    assert isinstance(decide(ORDER, replace(AWAY, since=NOW - 2 * HOUR), choice(None)), GoesOn)


def test_the_order_for_the_next_ca_is_a_new_one() -> None:
    """Nothing of the first CA's goes along: order, key, what it replaces, what it held it up; the wish does."""
    there = replace(
        ORDER,
        url="https://ca/1",
        authorizations=("https://ca/2",),
        finalize="https://ca/3",
        answered=("https://ca/4",),
        since=NOW,
        sealed_key="key",
        state=OrderState.LIMITED,
        replaces="certificate",
        exempt=True,
        attempts=3,
        retry_at=LATER,
        held="waiting",
        turn_ends=LATER,
        urgent=True,
        profile="shortlived",
        failing_since=NOW,
    )
    found = decide(there, REFUSED, choice())
    assert isinstance(found, GoesOn)
    assert found.passed == Passed(A, Cause.REFUSED, "never", NOW)
    assert found.order == replace(
        ORDER, id="2", ca=B, passed_over=(found.passed,), urgent=True, profile="shortlived", failing_since=NOW
    )


def test_the_profile_is_wished_for_at_the_next_ca_again() -> None:
    """What one CA did not have the next may have."""
    found = decide(replace(ORDER, unoffered="shortlived"), REFUSED, choice())
    assert isinstance(found, GoesOn)
    assert (found.order.profile, found.order.unoffered) == ("shortlived", "")


def at_the_last(obstacle: Obstacle, *before: Passed, rounds: int = 0) -> Stays | GoesOn | Failed:
    return decide(replace(ORDER, ca=B, passed_over=before, rounds=rounds), obstacle, choice(None))


def test_everybody_refuses() -> None:
    """With every CA's reason; the first is asked again after a back-off that grows with each round."""
    found = at_the_last(REFUSED, Passed(A, Cause.REFUSED, "not for you", NOW), rounds=2)
    assert isinstance(found, Failed)
    assert found.sentence == f"no CA of the list issues it: {A}: not for you; {B}: never"
    assert (found.owners, found.parked) == (True, False)
    assert (found.order.ca, found.order.passed_over, found.order.attempts, found.order.rounds) == (A, (), 2, 3)
    mixed = at_the_last(REFUSED, Passed(A, Cause.AWAY, "no answer", NOW))
    assert isinstance(mixed, Failed)
    assert mixed.owners is False, "a CA that is away for a month parks nobody"


def test_a_ca_that_has_paused_a_name_is_not_asked_again_by_itself() -> None:
    """It stays passed over in the next round; when every CA has, a person has to come. The link is in no journal."""
    pause = Passed(A, Cause.PAUSED, PAUSED.why, NOW)
    found = at_the_last(REFUSED, pause)
    assert isinstance(found, Failed)
    assert (found.order.ca, found.order.passed_over, found.parked) == (B, (pause,), False)
    assert "jwt" not in found.sentence
    every = at_the_last(PAUSED, pause)
    assert isinstance(every, Failed)
    assert (every.order.ca, every.order.passed_over, every.parked) == (A, (), True)
    assert every.sentence.count("jwt") == 2
    assert "jwt" not in told(pause)


def test_tokens_are_late_everywhere() -> None:
    """It waits where they come first instead of going round; half of the way, then all are asked again."""
    soon, late = NOW + 2 * DAY, NOW + 4 * DAY
    moved = at_the_last(limited(late), Passed(A, Cause.LIMITED, "later", NOW, soon))
    assert isinstance(moved, GoesOn)
    assert (moved.order.ca, moved.order.passed_over, moved.order.settled) == (A, (), True)
    assert moved.order.turn_ends == NOW + DAY
    first = Passed(A, Cause.LIMITED, "later", NOW, late)
    stays = at_the_last(limited(soon), first)
    assert isinstance(stays, Stays)
    assert (stays.order.id, stays.order.ca, stays.order.passed_over, stays.order.settled) == ("1", B, (first,), True)
    # A place in a line that it was told to wait in is kept until then, and not longer.
    still = decide(stays.order, limited(late), choice(None, NOW + HOUR))
    assert still == stays
    again = decide(stays.order, limited(late), choice(None, NOW + DAY))
    assert isinstance(again, GoesOn)
    assert (again.order.ca, again.order.passed_over, again.order.settled) == (A, (), False)


def test_a_ca_that_may_be_back_any_time_is_asked_each_hour() -> None:
    """Of two, one is away and one has tokens in days: it waits there for an hour only."""
    stays = at_the_last(limited(NOW + 4 * DAY), Passed(A, Cause.AWAY, "no answer", NOW))
    assert isinstance(stays, Stays)
    assert stays.order.turn_ends == NOW + WITHOUT_CERTIFICATE
    # And where it is settled, another obstacle than tokens begins an ordinary turn.
    gone = decide(replace(stays.order, turn_ends=NOW + 9 * DAY), AWAY, choice(None))
    assert isinstance(gone, Stays)
    assert (gone.order.settled, gone.order.turn_ends) == (False, NOW + WITHOUT_CERTIFICATE)


WISH = effective({"ca": ",".join(URLS[:3]), "email": ORDER.email}, {})
PASSED_A = Passed(A, Cause.AWAY, "no answer", NOW)


@pytest.mark.parametrize(
    ("listed", "ca", "passed"),
    [
        pytest.param([A, B], B, (PASSED_A,), id="as it was"),
        pytest.param([A, B, C], B, (PASSED_A,), id="one more behind"),
        pytest.param([C, A, B], C, (PASSED_A,), id="another one first"),
        pytest.param([A], A, (), id="only what was passed over"),
        pytest.param([B, A], B, (PASSED_A,), id="turned round"),
        pytest.param([C], C, (), id="another list"),
    ],
)
def test_a_changed_list(listed: list[str], ca: str, passed: tuple[Passed, ...]) -> None:
    """The order goes on where the list of today has it; what its CA has made is kept only while that is the same."""
    there = replace(ORDER, ca=B, url="https://ca/1", passed_over=(PASSED_A,), turn_ends=LATER)
    found = as_wished(there, APP, effective({"ca": ",".join(listed), "email": ORDER.email}, {}))
    assert (found.ca, found.passed_over) == (ca, passed)
    assert (found.url is not None) == (ca == B)
    assert (found.turn_ends is not None) == (ca == B)


def test_other_names_begin_at_the_first_ca() -> None:
    """What was refused before says nothing of them."""
    there = replace(ORDER, ca=B, passed_over=(PASSED_A,), unoffered="shortlived")
    wished = as_wished(there, replace(APP, identifiers=("www.example.com",)), WISH | {"profile": "shortlived"})
    assert (wished.ca, wished.passed_over, wished.profile, wished.unoffered) == (A, (), "shortlived", "")
    assert as_wished(there, APP, WISH | {"profile": "shortlived"}) is there


@dataclass(frozen=True)
class Behaviour:
    """What a CA of a simulation does until `good`; from then on it issues. None: never."""

    cause: Cause
    good: datetime | None
    tells: bool
    since: datetime | None = None
    """When it went away."""

    def obstacle(self, now: datetime) -> Obstacle | None:
        if self.good is not None and now >= self.good:
            return None
        likely = self.good if self.tells and self.cause in (Cause.LIMITED, Cause.AWAY) else None
        return Obstacle(self.cause, "so it is", likely, self.since if self.cause is Cause.AWAY else None)


WHEN = st.none() | st.timedeltas(timedelta(0), 40 * DAY).map(lambda span: NOW + span)
BEFORE = st.none() | st.timedeltas(timedelta(0), DAY).map(lambda span: NOW - span)
BEHAVIOUR = st.builds(Behaviour, st.sampled_from(Cause), WHEN, st.booleans(), BEFORE)
WORKS = Behaviour(Cause.AWAY, NOW, tells=False)
LEFT = st.none() | st.timedeltas(timedelta(seconds=30), 60 * DAY)
MOST_STEPS = 10_000  # in forty days of hourly turns there are some four thousand


def run(behaviours: Sequence[Behaviour], left: timedelta | None, end: datetime) -> tuple[datetime | None, Order]:
    """An order among these CAs until it is issued, parked, or `end`; checks what has to hold at each step."""
    cas = CAS[: len(behaviours)]
    properties = effective({"ca": ",".join(ca.name for ca in cas), "email": ORDER.email}, {})
    served = replace(SERVED, not_after=NOW + left) if left else None
    order, now, still = ORDER, NOW, 0
    for step in range(MOST_STEPS):
        assert as_wished(order, APP, properties) is order, "a crash now finds it where it is"
        asked = asked_ca(cas, order.passed_over)
        assert asked is not None
        assert asked.name == order.ca
        obstacle = behaviours[cas.index(asked)].obstacle(now)
        if obstacle is None:
            return now, order
        found = decide(order, obstacle, Choice(cas, served, now, f"{step}"))
        order = found.order
        if isinstance(found, GoesOn):
            still += 1
            assert still <= 2 * len(cas), "no CA is asked again and again at one moment"
            continue
        if isinstance(found, Failed):
            if found.parked:
                return None, order
            at, order = now + retry_after(order.attempts + 1), replace(order, attempts=order.attempts + 1)
        else:
            assert order.turn_ends is not None
            assert order.turn_ends > now
            own = obstacle.likely_back or now + retry_after(order.attempts + 1)
            assert now < found.by <= order.turn_ends
            at, order = min(own, found.by), replace(order, attempts=order.attempts + 1)
        assert at > now
        still, now = 0, at
        if now > end:
            return None, order
    raise AssertionError(f"{MOST_STEPS} steps until {now}")


@settings(max_examples=60)
@given(st.lists(BEHAVIOUR, min_size=1, max_size=4), st.integers(0, 4), LEFT)
def test_one_ca_that_works_is_enough(behaviours: list[Behaviour], place: int, left: timedelta | None) -> None:
    """Whatever the others do: a certificate before the old one ends; without one, an hour for each that is before."""
    behaviours.insert(min(place, len(behaviours)), WORKS)
    issued, order = run(behaviours, left, NOW + 150 * DAY)
    assert issued is not None
    if left is None:
        assert issued <= NOW + WITHOUT_CERTIFICATE * (len(behaviours) - 1)
    elif left > SHORTEST * 2 ** len(behaviours):
        assert issued < NOW + left
    assert order.rounds == 0


@settings(max_examples=60)
@given(st.lists(BEHAVIOUR, min_size=2, max_size=5), LEFT)
def test_whoever_comes_back_issues(behaviours: list[Behaviour], left: timedelta | None) -> None:
    """Some day a CA that was away or limited can again: within the turns of the others and a day's back-off it does."""
    back = [one.good for one in behaviours if one.good is not None and one.cause is not Cause.PAUSED]
    issued, _ = run(behaviours, left, NOW + 150 * DAY)
    if back:
        assert issued is not None
        turns = (left or timedelta()) / 2 + WITHOUT_CERTIFICATE * len(behaviours)
        assert issued <= min(back) + turns * 2 + 40 * DAY
