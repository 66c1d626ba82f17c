"""Reading the CA's headers and problem documents."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta, timezone
from email.utils import format_datetime
from string import ascii_letters, digits

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certfleet.acme_ca.answers import (
    LONGEST_WAIT,
    TEXT_LENGTH,
    Answer,
    parse_links,
    parse_nonce,
    parse_problem,
    parse_retry_after,
    problem_of,
)
from certfleet.errors import CAMisbehaved, Subproblem

BASE64URL = {*ascii_letters, *digits, *"-_"}
NOW = datetime(2026, 8, 1, 12, 0, 0, tzinfo=UTC)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)
PROBLEMS = st.fixed_dictionaries({}, optional=dict.fromkeys(("type", "detail", "title", "subproblems"), JSON))


@given(st.integers(0, 31_000_000))
def test_retry_after_in_seconds_is_that_many_from_now(seconds: int) -> None:
    """Whole seconds count from the moment of the answer."""
    assert parse_retry_after(f" {seconds} ", NOW) == NOW + timedelta(seconds=seconds)


@given(st.datetimes(datetime(2026, 1, 1), datetime(2027, 1, 1)).map(lambda d: d.replace(microsecond=0, tzinfo=UTC)))  # noqa: DTZ001  made aware right there
def test_retry_after_as_a_date_is_that_moment(moment: datetime) -> None:
    """An HTTP date is taken as it stands, in UTC, from whatever zone."""
    assert parse_retry_after(format_datetime(moment, usegmt=True), NOW) == moment
    elsewhere = moment.astimezone(timezone(timedelta(hours=2)))
    assert parse_retry_after(format_datetime(elsewhere), NOW) == moment


@given(st.text())
def test_retry_after_never_raises_and_is_aware_and_bounded(header: str) -> None:
    """Whatever a CA writes there is a bounded, aware moment or nothing."""
    moment = parse_retry_after(header, NOW)
    assert moment is None or (moment.tzinfo is UTC and moment <= NOW + LONGEST_WAIT)


@pytest.mark.parametrize("header", [None, "", "soon", "-5", "1.5", "12 Foo 2026", "Thu, 99 Jan 2026 00:00:00 GMT"])
def test_retry_after_that_is_neither_is_ignored(header: str | None) -> None:
    """Neither seconds nor a date: no wish."""
    assert parse_retry_after(header, NOW) is None


@pytest.mark.parametrize("header", ["999999999", "Fri, 31 Dec 9999 23:59:59 GMT"])
def test_retry_after_in_the_far_future_is_cut(header: str) -> None:
    """A mistake of the CA's never parks an order for ever."""
    assert parse_retry_after(header, NOW) == NOW + LONGEST_WAIT


def test_links_are_sorted_by_relation() -> None:
    """Several headers, several links in one, relations quoted or not, several relations of one link."""
    found = parse_links(
        [
            '<https://ca/dir>;rel="index"',
            '<https://ca/cert/1>; rel="alternate", <https://ca/cert/2>;title="a, b" ; rel=alternate',
            '<https://ca/tos>; rel="terms-of-service help"',
        ]
    )
    assert found == {
        "index": ("https://ca/dir",),
        "alternate": ("https://ca/cert/1", "https://ca/cert/2"),
        "terms-of-service": ("https://ca/tos",),
        "help": ("https://ca/tos",),
    }


@given(st.lists(st.text(alphabet='<>;="rel, ahtps:/\\'), max_size=4))
def test_links_never_raise(headers: list[str]) -> None:
    """Nonsense is left out."""
    assert all(url for urls in parse_links(headers).values() for url in urls)


@given(st.text() | st.none())
def test_a_nonce_is_base64url_or_nothing(header: str | None) -> None:
    """Nothing that needs quoting ever gets into a signed header."""
    nonce = parse_nonce(header)
    assert nonce is None or (nonce == header and set(nonce) <= BASE64URL)


def test_a_problem_keeps_all_its_parts() -> None:
    """Type without its prefix, detail, subproblems with identifiers, Retry-After, Location, status."""
    retry_at = NOW + timedelta(minutes=5)
    document = {
        "type": "urn:ietf:params:acme:error:rateLimited",
        "detail": "too many",
        "subproblems": [
            {"type": "urn:ietf:params:acme:error:caa", "detail": "no", "identifier": {"type": "dns", "value": "a.test"}}
        ],
    }
    problem = problem_of(429, json.dumps(document).encode(), retry_at=retry_at, location="https://ca/order/1")
    assert (problem.status, problem.type, problem.detail) == (429, "rateLimited", "too many")
    assert problem.subproblems == (Subproblem("caa", "no", "a.test"),)
    assert (problem.retry_at, problem.location) == (retry_at, "https://ca/order/1")
    assert str(problem) == "the CA answered 429 rateLimited: too many; a.test: no"


@given(
    st.integers(400, 599),
    PROBLEMS.map(lambda d: json.dumps(d).encode()) | st.binary() | JSON.map(json.dumps).map(str.encode),
)
def test_any_body_becomes_a_printable_bounded_error(status: int, body: bytes) -> None:
    """HTML from a load balancer, half a document, somebody's terminal escapes: always a sentence."""
    problem = problem_of(status, body)
    assert problem.status == status
    assert problem.type
    assert problem.detail.isprintable()
    assert len(problem.detail) <= TEXT_LENGTH
    assert str(problem).isprintable()


@given(JSON)
def test_only_an_object_is_a_problem(value: object) -> None:
    """Anything else inside an order's `error` is no error."""
    assert (parse_problem(value) is not None) == isinstance(value, dict)


def test_an_answer_that_is_not_json_is_the_cas_fault() -> None:
    """`json` raises CAMisbehaved, for deep nesting too."""
    for body in (b"<html>", b"\xff", b"[" * 100_000):
        with pytest.raises(CAMisbehaved):
            Answer(200, body).json()
