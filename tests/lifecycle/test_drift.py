"""What is found when endpoints and hosts are looked at again, and what becomes of an installation by it."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certfleet.errors import HostUnreachable, InstallError
from certfleet.install.answer import AppAnswer, State
from certfleet.lifecycle.hosts import drift, outcomes
from certfleet.lifecycle.hosts.waves import rollout
from certfleet.models import App, Fault, Installation
from tests.certificate_records import record

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SERVED = Installation("blog", "web1", wanted=7, installed=7, served=7, proven=7, asked=NOW)
APP = App("blog", ("blog.example.com",), ("web1",), enabled=True)
CERTIFICATE = record(APP, NOW, generation=7, serial="abc")


def job(installation: Installation) -> outcomes.Job:
    standing = rollout(APP.hosts, {installation.host: installation}, 7, ())
    return outcomes.Job(APP, CERTIFICATE, installation, {}, standing)


@pytest.mark.parametrize(
    ("installation", "expected"),
    [
        pytest.param(SERVED, False, id="asked just now"),
        pytest.param(dataclasses.replace(SERVED, asked=NOW - drift.ASK_EVERY), True, id="asked a while ago"),
        pytest.param(dataclasses.replace(SERVED, asked=None), True, id="never asked, or somebody wants to know"),
        pytest.param(dataclasses.replace(SERVED, served=6, asked=None), False, id="waits for a visit anyway"),
    ],
)
def test_who_is_asked(installation: Installation, *, expected: bool) -> None:
    assert drift.is_to_be_asked(installation, 7, NOW) is expected


def test_what_an_endpoint_says() -> None:
    """All well: only the time is noted. Silence is the host's fault, something else is drift."""
    later = NOW + timedelta(hours=12)
    assert drift.asked(SERVED, None, later) == dataclasses.replace(SERVED, asked=later)
    other = drift.asked(SERVED, InstallError("serves serial 1 (expected 2)"), later)
    assert (other.served, other.proven, other.fault, other.retry_at) == (0, 7, Fault.UNSERVED, None)
    silent = drift.asked(SERVED, HostUnreachable("does not answer"), later)
    assert (silent.served, silent.fault, silent.error) == (0, Fault.DOWN, "does not answer")


@pytest.mark.parametrize(
    ("said", "words"),
    [
        pytest.param(AppAnswer(State.CURRENT, 7, serial="abc"), None, id="as it should be"),
        pytest.param(AppAnswer(State.CURRENT, 5, serial="5"), "generation 5 is current, not 7", id="restored"),
        pytest.param(
            AppAnswer(State.CURRENT, 7, serial="5"), "with another certificate", id="another under its number"
        ),
        pytest.param(AppAnswer(State.EMPTY, 0), "is not there any more", id="empty"),
        pytest.param(AppAnswer(State.FOREIGN, 0), "did not put there", id="foreign"),
        pytest.param(None, "is not there any more", id="gone"),
    ],
)
def test_what_a_host_says(said: AppAnswer | None, words: str | None) -> None:
    """Compared with what was installed there."""
    found = drift.audited(SERVED, said, CERTIFICATE)
    assert (found is None) if words is None else (found is not None and words in found)
    if found is not None:
        wrong = drift.found(SERVED, said, found, NOW)
        assert wrong.installed < 7, "the next visit installs it, and does not only reload"
        assert (wrong.error, wrong.fault) == (found, Fault.UNFIT)


@pytest.mark.parametrize(
    "waiting", [{"error": "no"}, {"wanted": 8}, {"installed": 6}], ids=["failing", "newer wanted", "not installed"]
)
def test_what_waits_for_a_visit_anyway_is_no_drift(waiting: dict[str, object]) -> None:
    installation = dataclasses.replace(SERVED, **waiting)  # type: ignore[arg-type]  # fields by name
    assert drift.audited(installation, None, CERTIFICATE) is None


@given(st.text("abcdefghij0123456789-", min_size=1, max_size=20))
def test_hosts_are_not_all_asked_at_once(host: str) -> None:
    """At least twice a day, and each at its own time."""
    again = drift.audit_at(host, NOW) - NOW
    assert drift.AUDIT_EVERY * (1 - drift.JITTER) <= again <= drift.AUDIT_EVERY
    assert len({drift.audit_at(f"web{number}", NOW) for number in range(100)}) == 100


@pytest.mark.parametrize(
    ("state", "fault"),
    [
        (State.FAILED, Fault.REFUSED),
        (State.FOREIGN, Fault.UNFIT),
        (State.STALE, Fault.UNFIT),
        (State.BROKEN_BEFORE, Fault.UNFIT),
    ],
)
def test_whose_fault_it_is(state: State, fault: Fault) -> None:
    """Only what the web server refused speaks against the certificate."""
    outcome = outcomes.refused(job(SERVED), AppAnswer(state, 6, 6, message="words"), NOW)
    assert (outcome.fault, outcome.installed, outcome.attempts) == (fault, 6, 1)
    assert outcome.retry_at == NOW + timedelta(minutes=1)
    assert (outcome.error or "").strip()


def test_a_host_that_did_nothing() -> None:
    """Out of reach, or in reach and not able to: both say nothing about the certificate."""
    assert outcomes.untaken(job(SERVED), HostUnreachable("refused"), NOW).fault is Fault.DOWN
    assert outcomes.untaken(job(SERVED), InstallError("disk full"), NOW).fault is Fault.UNFIT


def test_the_back_off_ends_at_a_day() -> None:
    """1, 10, 100 minutes, then daily, as often as it takes."""
    installation, waits = SERVED, []
    for _ in range(6):
        installation = outcomes.failure(job(installation), "no", Fault.DOWN, NOW)
        assert installation.retry_at is not None
        waits.append((installation.retry_at - NOW) / timedelta(minutes=1))
    assert waits == [1, 10, 100, 1440, 1440, 1440]


def test_what_is_put_back_says_what_is_served() -> None:
    """The old one, nothing at all, or not even that."""
    first = outcomes.unserved(job(SERVED), AppAnswer(State.INSTALLED, 7, 6), InstallError("serves something else"), NOW)
    assert (first.installed, first.served, first.fault) == (7, 0, Fault.UNSERVED)
    back = outcomes.put_back(first, 6, served=True)
    assert (back.installed, back.served, back.error) == (6, 6, "serves something else; the old one is back")
    silent = outcomes.put_back(first, 6, served=False)
    assert (silent.installed, silent.served) == (6, 0)
    assert (silent.error or "").endswith("the old one is back but not served either")
    nothing = outcomes.put_back(first, 0, served=False)
    assert (nothing.installed, nothing.error) == (0, "serves something else; it was taken away again")
    assert "failed too: no\nanswer" not in (outcomes.not_put_back(first, "no\nanswer").error or "")
