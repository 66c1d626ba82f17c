"""The limits as data, the keys of buckets, the words of a refusal: no I/O."""

from __future__ import annotations

import json

import pytest

from tests.ca.buckets import Denial
from tests.ca.gcra import SECOND
from tests.ca.limits import (
    CERTIFICATES_PER_DOMAIN,
    CONSECUTIVE_FAILURES,
    FAILED_AUTHORIZATIONS,
    LETS_ENCRYPT,
    ORDERS_PER_ACCOUNT,
    REGISTRATIONS_PER_RANGE,
    REQUESTS,
    Limit,
    checked,
    domain_key,
    pair_key,
    range_key,
    scaled,
    set_key,
)
from tests.ca.problems import TEXTS, busy, duration, too_many


@pytest.mark.parametrize(
    ("identifier", "key"),
    [
        ("www.example.com", "example.com"),
        ("*.A.Example.COM", "example.com"),
        ("shop.example.co.uk", "example.co.uk"),
        ("*.co.uk", "co.uk"),
        ("me.github.io", "me.github.io"),
        ("a.b.demo.test", "demo.test"),
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
    ],
)
def test_what_certificates_are_counted_under(identifier: str, key: str) -> None:
    """eTLD+1 by the whole Public Suffix List, an IPv4 address, an IPv6 /64."""
    assert domain_key(identifier) == key


def test_the_other_keys() -> None:
    """The exact set ignores order and case, an account's name its asterisk; only IPv6 has ranges."""
    assert set_key(["b.example.com", "A.example.com", "b.example.com"]) == "a.example.com,b.example.com"
    assert pair_key("https://ca/1", "*.Example.com") == "https://ca/1 example.com"
    assert range_key("2001:db8:1:2::3") == "2001:db8:1::/48"
    assert range_key("127.0.0.1") is None


def test_the_refills_that_are_documented() -> None:
    """36 s, 12096 s, 12 min, a day, 21.6 s: whole numbers of nanoseconds."""
    seconds = {name: limit.rate.interval / SECOND for name, limit in LETS_ENCRYPT.items()}
    assert seconds[ORDERS_PER_ACCOUNT] == 36
    assert seconds[CERTIFICATES_PER_DOMAIN] == 12_096
    assert seconds[FAILED_AUTHORIZATIONS] == 720
    assert seconds[CONSECUTIVE_FAILURES] == 86_400
    assert seconds[REGISTRATIONS_PER_RANGE] == 21.6


def test_scaling_changes_periods_only() -> None:
    """Requests per second stay, unless they are asked for: machines do not scale."""
    small, smaller = scaled(LETS_ENCRYPT, 0.001), scaled(LETS_ENCRYPT, 0.001, requests=True)
    assert small[ORDERS_PER_ACCOUNT] == Limit(300, 10.8, 300)
    for name, limit in LETS_ENCRYPT.items():
        assert small[name].period == limit.period * (1 if name.startswith(REQUESTS) else 0.001)
        assert smaller[name] == limit._replace(period=limit.period * 0.001)


@pytest.mark.parametrize("limits", [{"orders-per-acount": (1, 1, 1)}, {ORDERS_PER_ACCOUNT: (0, 1, 1)}])
def test_a_limit_that_is_none_is_refused(limits: dict[str, tuple[int, float, int]]) -> None:
    """A misspelt name would let a test pass that tests nothing."""
    with pytest.raises(ValueError, match=r"no such limit|more than nothing"):
        checked(limits)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(10_800, "3h0m0s"), (604_800, "168h0m0s"), (100.8, "1m40.8s"), (10, "10s"), (0.25, "250ms"), (0.0015, "1.5ms")],
)
def test_durations_are_written_as_go_does(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_every_limit_that_refuses_with_429_has_its_words() -> None:
    """All but pausing, which has an answer of its own, and requests per second."""
    unworded = {name for name in LETS_ENCRYPT if name not in TEXTS}
    assert unworded == {CONSECUTIVE_FAILURES, *(name for name in LETS_ENCRYPT if name.startswith(REQUESTS))}


def test_a_refusal_word_for_word() -> None:
    """The name without its account, the wait rounded up, the jitter on top."""
    now = 1_795_600_000 * SECOND
    denial = Denial(FAILED_AUTHORIZATIONS, "https://ca/1 www.example.com", Limit(5, 3600, 5), 100 * SECOND + 1)
    problem = too_many(denial, now)
    assert problem.detail == (
        'too many failed authorizations (5) for "www.example.com" in the last 1h0m0s, '
        "retry after 2026-11-25 09:48:20 UTC: "
        "see https://letsencrypt.org/docs/rate-limits/#authorization-failures-per-identifier-per-account"
    )
    assert problem.retry_after == "101"
    assert too_many(denial, now, jitter=0.03).retry_after == "104"
    answer = problem.response("abc")
    assert isinstance(answer.body, bytes)
    assert json.loads(answer.body)["type"] == "urn:ietf:params:acme:error:rateLimited"
    assert (answer.content_type, answer.headers["Replay-Nonce"]) == ("application/problem+json", "abc")
    assert busy(1).retry_after == "1"
