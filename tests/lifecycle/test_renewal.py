"""When certificates are renewed: decisions as a table, and what holds for every certificate."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certfleet.acme_ca.presets import resolve_ca
from certfleet.lifecycle.renewals.renewal import (
    BACK_OFF,
    JITTER,
    LOOK_AGAIN,
    Due,
    NotDue,
    decide,
    longest_back_off,
    renew_at,
    retry_after,
)
from certfleet.models import App, Certificate, KeyType
from tests.certificate_records import CA, record

START = datetime(2026, 1, 1, tzinfo=UTC)
APP = App("blog", ("blog.example.com", "www.example.com"), ("web1",), enabled=True)


def certificate(validity: timedelta = timedelta(days=90), serial: str = "1234") -> Certificate:
    return record(APP, START, not_after=START + validity, serial=serial)


def decision(
    found: Certificate | None,
    *,
    app: App = APP,
    ca: str = CA,
    key_type: KeyType = KeyType.P256,
    grace: timedelta | None = None,
    day: float = 1,
    profile: str = "",
) -> Due | NotDue:
    now = START + timedelta(days=day)
    return decide(app, found, cas=[resolve_ca(ca)], key_type=key_type, grace=grace, told=None, now=now, profile=profile)


@pytest.mark.parametrize(
    ("given_", "expected"),
    [
        pytest.param({"found": None}, "first issue", id="no certificate"),
        pytest.param({"app": replace(APP, identifiers=("blog.example.com",))}, "names changed", id="a name less"),
        pytest.param(
            {"app": replace(APP, identifiers=(*APP.identifiers, "x.example.com"))}, "names changed", id="a name more"
        ),
        pytest.param({"app": replace(APP, identifiers=APP.identifiers[::-1])}, None, id="another order of names"),
        pytest.param({"ca": "https://other.example/directory"}, "CA changed", id="another CA"),
        pytest.param({"key_type": KeyType.RSA2048}, "key type changed", id="another kind of key"),
        pytest.param({"profile": "shortlived"}, "profile changed", id="another profile"),
        pytest.param({"found": replace(certificate(), revoked=START)}, "revoked", id="revoked"),
        pytest.param({"found": replace(certificate(), withdrawn="replaced")}, "replaced", id="withdrawn"),
        pytest.param(
            {"found": replace(certificate(), withdrawn="compromised", leaked=True)}, "compromised", id="its key leaked"
        ),
        pytest.param({"day": 57}, None, id="more than a third left"),
        pytest.param({"day": 60}, "renewal", id="a third left"),
        pytest.param({"day": 100}, "renewal", id="expired"),
        pytest.param({"day": 57, "grace": timedelta(days=40)}, "renewal", id="a longer graceperiod"),
        pytest.param({"day": 70, "grace": timedelta(days=10)}, None, id="a shorter graceperiod"),
        pytest.param({"day": 2.5, "found": certificate(timedelta(days=6))}, None, id="short: more than half left"),
        pytest.param({"day": 3, "found": certificate(timedelta(days=6))}, "renewal", id="short: half left"),
    ],
)
def test_decisions(given_: dict[str, object], expected: str | None) -> None:
    """Whether an order is due, and the word that people read."""
    found = decision(**({"found": certificate()} | given_))  # type: ignore[arg-type]
    assert (found.reason if isinstance(found, Due) else None) == expected


VALIDITY = st.timedeltas(min_value=timedelta(minutes=1), max_value=timedelta(days=400))
GRACE = st.none() | st.timedeltas(min_value=timedelta(seconds=1), max_value=timedelta(days=9999))
SERIAL = st.text("0123456789abcdef", min_size=1, max_size=40)


@given(VALIDITY, GRACE, SERIAL)
def test_renewed_before_the_end_never_in_the_first_half(
    validity: timedelta, grace: timedelta | None, serial: str
) -> None:
    """Whatever the graceperiod: never after it expired, and (jitter apart) never while half its life is before it."""
    at = renew_at(certificate(validity, serial), grace)
    assert at < START + validity
    assert at >= START + validity / 2 - validity * JITTER
    assert at == renew_at(certificate(validity, serial), grace), "the same each time it is asked"


@given(VALIDITY, SERIAL)
def test_jitter_is_bounded(validity: timedelta, serial: str) -> None:
    """By default a third is left (half below ten days), and at most 2 % of the life more."""
    left = START + validity - renew_at(certificate(validity, serial), None)
    share = 1 / 2 if validity < timedelta(days=10) else 1 / 3
    assert share - 1e-6 <= left / validity <= share + JITTER + 1e-6


def test_jitter_spreads() -> None:
    """Certificates issued together are not renewed together."""
    moments = {renew_at(certificate(serial=str(number)), None) for number in range(1000)}
    assert len(moments) == 1000
    assert max(moments) - min(moments) > timedelta(days=90) * JITTER * 0.9


@given(VALIDITY, GRACE, SERIAL, st.floats(0, 400))
def test_a_look_that_finds_nothing_comes_again(
    validity: timedelta, grace: timedelta | None, serial: str, day: float
) -> None:
    """The next look is after now, at the renewal, and at least twice a day."""
    now = START + timedelta(days=day)
    found = decision(certificate(validity, serial), grace=grace, day=day)
    if isinstance(found, NotDue):
        assert now < found.at <= now + LOOK_AGAIN
        assert found.at <= renew_at(certificate(validity, serial), grace)


@given(st.integers(-5, 1000))
def test_back_off_grows_and_ends_daily(attempts: int) -> None:
    """1, 10, 100 minutes, then daily for ever."""
    assert retry_after(attempts) in BACK_OFF
    assert retry_after(attempts) <= retry_after(attempts + 1)
    assert [retry_after(n) for n in (1, 2, 3, 4, 99)] == [*BACK_OFF, BACK_OFF[-1]]


@pytest.mark.parametrize(("hours", "least"), [(160, 10), (90 * 24, 20)])
def test_a_failing_renewal_has_tries_enough(hours: int, least: int) -> None:
    """From its renewal to its end, whatever its life: a certificate of 160 hours does not get by with three tries."""
    short = certificate(timedelta(hours=hours))
    longest, now, tries = longest_back_off(short), renew_at(short, None), 0
    while now < short.not_after:
        tries += 1
        now += retry_after(tries, longest)
    assert tries >= least
    assert longest >= BACK_OFF[-2]
    assert longest_back_off(None) == BACK_OFF[-1]


def test_a_certificate_of_days_is_looked_at_more_often() -> None:
    """One of 160 hours every eight, one of 90 days twice a day, one of minutes not more than hourly."""
    for validity, hours in ((timedelta(hours=160), 8), (timedelta(days=90), 12), (timedelta(hours=10), 1)):
        found = decision(certificate(validity), day=0)
        assert isinstance(found, NotDue)
        assert START + timedelta(hours=hours) * 0.9 <= found.at <= START + timedelta(hours=hours)
