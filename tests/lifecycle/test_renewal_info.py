"""What becomes of the CA's renewal information: one instant in each window, and when the CA is asked again."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from certfleet.acme_ca.ari import RenewalInfo
from certfleet.acme_ca.presets import resolve_ca
from certfleet.errors import AcmeProblem, CAError, CAMisbehaved, CAUnreachable, SlowedDown
from certfleet.lifecycle.orders.replacement import in_window, not_replacing
from certfleet.lifecycle.renewals.renewal import LOOK_AGAIN, Due, NotDue, decide, renew_at, renewal_time
from certfleet.lifecycle.renewals.renewal_info import (
    JUST_ISSUED,
    LONGEST,
    SHORTEST,
    WITHOUT_ANSWER,
    answered,
    is_to_be_asked,
    moved,
    unanswered,
)
from certfleet.models import Certificate, KeyType, Renewal
from tests.certificate_records import CA
from tests.lifecycle.test_renewal import APP, START, certificate

NOW = START + timedelta(days=10)
END = START + timedelta(days=90)
MOMENT = st.datetimes(datetime(2025, 12, 1), datetime(2026, 3, 31)).map(lambda moment: moment.replace(tzinfo=UTC))  # noqa: DTZ001
WIDTH = st.timedeltas(timedelta(microseconds=1), timedelta(days=60))
CHANCE = st.floats(0, 1, exclude_max=True)


def info(start: datetime, width: timedelta, retry_at: datetime | None = None, why: str | None = None) -> RenewalInfo:
    return RenewalInfo(start, start + width, why, retry_at)


def decided(found: Certificate, told: Renewal | None, now: datetime, grace: timedelta | None = None) -> Due | NotDue:
    return decide(APP, found, cas=[resolve_ca(CA)], key_type=KeyType.P256, grace=grace, told=told, now=now)


@given(MOMENT, WIDTH, CHANCE, CHANCE, MOMENT)
def test_chosen_once_for_each_window(
    start: datetime, width: timedelta, chance: float, other: float, later: datetime
) -> None:
    """Inside the window and before the certificate's end; the same however often the CA says the same."""
    assume(start < END)
    first = answered(certificate(), None, info(start, width), NOW, chance)
    assert first.at is not None
    assert start <= first.at < min(start + width, END)
    again = answered(certificate(), first, info(start, width), later, other)
    assert again.at == first.at
    failed = unanswered(certificate(), again, CAUnreachable("no"), later)
    assert answered(certificate(), failed, info(start, width), later, other).at == first.at


@given(MOMENT, WIDTH, MOMENT, WIDTH, CHANCE)
def test_drawn_anew_when_the_window_changes(
    start: datetime, width: timedelta, start2: datetime, width2: timedelta, chance: float
) -> None:
    """The new instant lies in the new window, and the journal has a word for it."""
    assume(max(start, start2) < END)
    assume((start, width) != (start2, width2))
    first = answered(certificate(), None, info(start, width), NOW, chance)
    second = answered(certificate(), first, info(start2, width2), NOW, chance)
    assert second.at is not None
    assert start2 <= second.at < start2 + width2
    assert moved(first, second)
    assert moved(second, answered(certificate(), second, info(start2, width2), NOW, chance)) is None
    assert moved(None, first) is None


def test_instants_are_spread_over_the_window() -> None:
    """Uniformly: a thousand certificates fill each tenth of it."""
    start, width = START + timedelta(days=59), timedelta(days=2)
    chosen = [answered(certificate(), None, info(start, width), NOW, n / 1000).at for n in range(1000)]
    tenths = [sum(1 for at in chosen if at and int((at - start) / width * 10 + 1e-9) == tenth) for tenth in range(10)]
    assert tenths == [100] * 10


@given(st.none() | MOMENT, MOMENT)
def test_retry_after_is_bounded(retry_at: datetime | None, now: datetime) -> None:
    """From a minute to a day, whatever the CA says; six hours when it says nothing."""
    found = answered(certificate(), None, info(START + timedelta(days=50), timedelta(days=2), retry_at), now, 0.5)
    wait = found.next_look - now
    assert SHORTEST <= wait <= LONGEST
    if retry_at is None:
        assert wait == WITHOUT_ANSWER
    elif now + SHORTEST <= retry_at <= now + LONGEST:
        assert found.next_look == retry_at


@given(MOMENT, WIDTH, CHANCE, MOMENT, st.none() | MOMENT)
def test_the_next_check_is_never_after_the_instant(
    start: datetime, width: timedelta, chance: float, now: datetime, retry_at: datetime | None
) -> None:
    """A window of three hours, or of a microsecond, is not slept through; twice a day it is looked all the same."""
    assume(start < END)
    assume(start + width > now or now >= START + JUST_ISSUED)
    told = answered(certificate(), None, info(start, width, retry_at), now, chance)
    assert told.at is not None
    found = decided(certificate(), told, now)
    if told.at <= now:
        assert found == Due("renewal")
    else:
        assert isinstance(found, NotDue)
        assert now < found.at <= min(told.at, told.next_look, now + LOOK_AGAIN)


def test_a_window_narrower_than_the_time_between_looks() -> None:
    """160 hours, a window of 3.2, asked every six: the check is at the very instant."""
    short = certificate(timedelta(hours=160))
    start, width = START + timedelta(hours=78.4), timedelta(hours=3.2)
    now = start - timedelta(hours=1)
    told = answered(short, None, info(start, width, now + timedelta(hours=6)), now, 0.5)
    assert told.at == start + width / 2
    assert decided(short, told, now) == NotDue(told.at)


@given(MOMENT, WIDTH, CHANCE, st.none() | st.timedeltas(timedelta(seconds=1), timedelta(days=400)))
def test_the_instant_is_the_time_of_renewal(
    start: datetime, width: timedelta, chance: float, grace: timedelta | None
) -> None:
    """A graceperiod brings it forward and never delays it; what was said of another certificate does not count."""
    assume(start < END)
    told = answered(certificate(), None, info(start, width), NOW, chance)
    at = renewal_time(certificate(), grace, told)
    assert told.at is not None
    assert at == (told.at if grace is None else min(told.at, renew_at(certificate(), grace)))
    for nothing in (None, replace(told, generation=7), unanswered(certificate(), None, CAUnreachable("no"), NOW)):
        assert renewal_time(certificate(), grace, nothing) == renew_at(certificate(), grace)


def problem(status: int, kind: str = "serverInternal", retry_at: datetime | None = None) -> AcmeProblem:
    return AcmeProblem(status=status, type=kind, detail="no", retry_at=retry_at)


@pytest.mark.parametrize(
    ("errors", "minutes"),
    [
        pytest.param([CAUnreachable("no")] * 6, [1, 10, 100, 360, 360, 360], id="cannot be reached"),
        pytest.param([problem(500)] * 5, [1, 10, 100, 360, 360], id="its own trouble"),
        pytest.param([problem(503, retry_at=NOW + timedelta(minutes=30))], [30], id="it says when"),
        pytest.param([problem(503, retry_at=NOW + timedelta(days=300))], [24 * 60], id="it says when, a year off"),
        pytest.param([SlowedDown("less", NOW + timedelta(minutes=5))], [5], id="slowed down"),
        pytest.param([problem(404, "malformed")] * 2, [360, 360], id="it does not know the certificate"),
        pytest.param([CAMisbehaved("no")] * 2, [360, 360], id="nonsense, or an inverted window"),
    ],
)
def test_without_an_answer(errors: list[CAError], minutes: list[int]) -> None:
    """Soon, then every six hours; what is known stays."""
    told = answered(certificate(), None, info(START + timedelta(days=60), timedelta(days=2)), NOW, 0.3)
    at = told.at
    for error, wait in zip(errors, minutes, strict=True):
        told = unanswered(certificate(), told, error, NOW)
        assert told.next_look == NOW + timedelta(minutes=wait)
        assert told.at == at
    assert answered(certificate(), told, info(START, timedelta(days=2)), NOW, 0.3).failures == 0


def test_a_window_after_the_end_is_no_answer() -> None:
    """The rule without ARI holds: it is renewed in time."""
    told = answered(certificate(), None, info(END, timedelta(days=2)), NOW, 0.3)
    assert (told.start, told.at, told.failures) == (None, None, 1)


def test_a_window_that_was_over_at_issue_is_no_answer() -> None:
    """A CA that says so of every certificate is not asked for another every few seconds; of an older one it counts."""
    past = info(START - timedelta(hours=2), timedelta(hours=1))
    told = answered(certificate(), None, past, START + timedelta(seconds=5), 0.5)
    assert (told.at, told.next_look) == (None, START + timedelta(seconds=5) + WITHOUT_ANSWER)
    later = answered(certificate(), told, past, told.next_look, 0.5)
    assert decided(certificate(), later, told.next_look) == Due("renewal")
    fine = answered(certificate(), None, info(START + timedelta(days=60), timedelta(days=2)), START, 0.5)
    moved_at_once = answered(certificate(), fine, past, START + timedelta(seconds=9), 0.5)
    assert decided(certificate(), moved_at_once, START + timedelta(seconds=9)) == Due("renewal")


@given(CHANCE)
def test_a_window_wider_than_the_certificates_life(chance: float) -> None:
    """As Pebble suggests for a certificate of a minute (a day before and after): the instant lies in its life."""
    short = certificate(timedelta(minutes=1))
    told = answered(short, None, info(START - timedelta(days=1), timedelta(days=2)), START, chance)
    assert told.at is not None
    assert short.issued <= told.at < short.not_after


def test_who_is_asked_about() -> None:
    """When it is time; never for a certificate that has ended."""
    told = Renewal(1, next_look=NOW)
    assert is_to_be_asked(certificate(), None, NOW)
    assert is_to_be_asked(certificate(), told, NOW)
    assert not is_to_be_asked(certificate(), replace(told, next_look=NOW + timedelta(seconds=1)), NOW)
    assert not is_to_be_asked(certificate(), None, END)


def test_the_window_is_open_at_its_end() -> None:
    """[start, end): where the CA exempts a replacement from its limits."""
    told = Renewal(1, NOW, start=NOW, end=NOW + timedelta(hours=1), at=NOW)
    tick = timedelta(microseconds=1)
    inside = [
        in_window(told, NOW + shift) for shift in (-tick, timedelta(), timedelta(hours=1) - tick, timedelta(hours=1))
    ]
    assert inside == [False, True, True, False]
    assert not in_window(None, NOW)
    assert not in_window(Renewal(1, NOW), NOW)


@pytest.mark.parametrize(
    ("refusal", "because"),
    [
        (problem(409, "alreadyReplaced"), True),
        (problem(409, "malformed"), True),
        (problem(404, "malformed"), True),
        (problem(403, "unauthorized"), True),
        (problem(400, "malformed"), True),
        (problem(400, "rejectedIdentifier"), False),
        (problem(403, "caa"), False),
        (problem(400, "accountDoesNotExist"), False),
        (problem(500), False),
    ],
)
def test_refused_because_of_replaces(refusal: AcmeProblem, because: bool) -> None:  # noqa: FBT001
    """What is asked once more without it."""
    assert not_replacing(refusal) is because
