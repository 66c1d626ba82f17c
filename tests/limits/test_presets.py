"""Limits are data: what CAs publish, read and checked, and what an operator changes about it."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certfleet.acme_ca import presets as acme_presets
from certfleet.errors import UsageError
from certfleet.limits.buckets import Rate
from certfleet.limits.presets import Limit, Limits, limits_of, overridden, override, parse_rate, presets
from tests.limits.conftest import SECOND
from tests.limits.reference import ReferenceBucket

HOUR = 3600 * SECOND
DAY = 24 * HOUR

# limit -> tokens at once, microseconds for one: letsencrypt.org/docs/rate-limits as of August 2026
PRODUCTION = {
    Limit.REGISTRATIONS_PER_ADDRESS: (10, 1080 * SECOND),
    Limit.REGISTRATIONS_PER_RANGE: (500, 21_600_000),
    Limit.ORDERS: (300, 36 * SECOND),
    Limit.DOMAIN: (50, 12_096 * SECOND),
    Limit.SET: (5, 120_960 * SECOND),
    Limit.FAILURES: (5, 720 * SECOND),
    Limit.PAUSING: (1152, DAY),
    Limit.REQUESTS_DIRECTORY: (40, 25_000),
    Limit.REQUESTS_NEW_NONCE: (10, 50_000),
    Limit.REQUESTS_NEW_ACCOUNT: (15, 200_000),
    Limit.REQUESTS_NEW_ORDER: (200, 3_334),
    Limit.REQUESTS_REVOKE_CERT: (100, 100_000),
    Limit.REQUESTS_RENEWAL_INFO: (100, 1_000),
    Limit.REQUESTS_OTHER: (125, 4_000),
}
STAGING = PRODUCTION | {
    Limit.REGISTRATIONS_PER_ADDRESS: (50, 216 * SECOND),
    Limit.ORDERS: (1500, 7_200_000),
    Limit.DOMAIN: (30_000, 34),
    Limit.SET: (30_000, 20_160_000),
    Limit.FAILURES: (200, 18 * SECOND),
    Limit.PAUSING: (3600, 6 * SECOND),
    Limit.REQUESTS_NEW_ORDER: (40, 50_000),
    Limit.REQUESTS_OTHER: (20, 50_000),
}


@pytest.mark.parametrize(("name", "wanted"), [("letsencrypt", PRODUCTION), ("letsencrypt-staging", STAGING)])
def test_lets_encrypts_limits_are_the_published_ones(name: str, wanted: dict[Limit, tuple[int, int]]) -> None:
    """Every limit, its burst and its interval, in both environments."""
    limits = limits_of(name, presets()[name].directory)
    assert {limit: (rate.burst, rate.interval) for limit, rate in limits.rates.items()} == wanted
    assert limits.same_set_exempt
    assert limits.ari_exempt


def test_every_ca_that_can_be_named_has_its_limits() -> None:
    """The directories here are those of the CAs' own presets, so that each finds its limits."""
    for name, preset in acme_presets.presets().items():
        assert presets()[name].directory == preset.directory


def test_a_ca_is_known_by_its_directory() -> None:
    """Somebody who wrote the URL gets the same limits under that name; an unknown CA gets none."""
    url = presets()["google"].directory
    assert limits_of(url, url).rates == limits_of("google", url).rates
    assert limits_of("home", "https://ca.internal/directory") == Limits("home")
    assert limits_of("zerossl", presets()["zerossl"].directory).rates == {}, "none is published"


@pytest.mark.parametrize(
    ("text", "count", "period", "burst"),
    [
        ("50/7d", 50, 7 * DAY, 50),
        (" 20/1s burst 10", 20, SECOND, 10),
        ("3/250ms", 3, 250_000, 3),
        ("100 in 1h", 51, HOUR, 50),
        ("5 in 7d", 4, 7 * DAY, 2),
        ("1 in 1m", 1, 60 * SECOND, 1),
    ],
)
def test_a_rate_is_read_as_people_write_it(text: str, count: int, period: int, burst: int) -> None:
    """Count, length and unit; a burst of its own; or a window."""
    assert parse_rate(text) == Rate(count, period, burst)


@pytest.mark.parametrize(
    "text", ["", "50", "50/7", "50/7w", "-1/7d", "0/7d", "1/0s", "50/7d burst 0", "9 in 1h burst 2"]
)
def test_a_rate_that_is_none_is_refused_with_what_would_be_right(text: str) -> None:
    """Nothing is guessed."""
    with pytest.raises(ValueError, match=r"50/7d|at least 1"):
        parse_rate(text)


@given(count=st.integers(1, 60), waits=st.lists(st.integers(0, 3 * SECOND), max_size=120))
def test_a_window_is_never_overrun(count: int, waits: list[int]) -> None:
    """However the spending falls, no span of the window's length sees more than its count; so do all at full speed."""
    rate = parse_rate(f"{count} in 10s")
    for pauses in (waits, [rate.interval] * 150):
        bucket, now, spent = ReferenceBucket(rate.interval, rate.burst), 10**15, []
        for pause in pauses:
            while bucket.spend(now, 1).allowed:
                spent.append(now)
            now += pause
        for first, last in zip(spent, spent[count:], strict=False):
            assert last - first >= 10 * SECOND
        assert all(one <= other for one, other in pairwise(spent))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"limit": "orders"}, "limit: "),
        ({"limit": "certificates-per-domain-and-account"}, "give certificates-per-domain an account"),
        ({"rate": "lots"}, "rate: 'lots' is not a rate; write for example 50/7d"),
        ({"account": ""}, "account: "),
        ({"limit": "certificates-per-set", "account": "acc"}, "certificates-per-set is not set per account"),
        ({"domain": "example.com"}, "orders-per-account is not set per domain"),
        ({"limit": "certificates-per-domain", "domain": "example.com", "account": "acc"}, "not both"),
        ({"limit": "certificates-per-domain", "domain": "www.example.com"}, "is counted under example.com; set that"),
        ({"limit": "certificates-per-domain", "domain": "Example.com"}, "is counted under example.com; set that"),
        ({"limit": "certificates-per-domain", "domain": "2001:db8::1"}, "is counted under 2001:db8::/64; set that"),
        ({"limit": "certificates-per-domain", "domain": "a b"}, "is not a DNS name"),
        ({"ca": ""}, "ca: "),
        ({"colour": "red"}, "colour: "),
    ],
)
def test_a_bad_override_is_refused_in_one_sentence(words: dict[str, str], said: str) -> None:
    """The field, what was wrong and what would be right."""
    good = {"ca": "letsencrypt", "limit": "orders-per-account", "rate": "600/3h"}
    with pytest.raises(UsageError) as refused:
        override(**good | words)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_overrides_hold_for_their_ca_and_the_later_one_wins() -> None:
    """The preset itself is never changed."""
    limits = limits_of("letsencrypt", presets()["letsencrypt"].directory)
    changed = overridden(
        limits,
        [
            override(ca="letsencrypt", limit="orders-per-account", rate="600/3h"),
            override(ca="letsencrypt", limit="orders-per-account", rate="900/3h"),
            override(ca="letsencrypt-staging", limit="orders-per-account", rate="1/3h"),
            override(ca="letsencrypt", limit="certificates-per-domain", rate="70/7d", domain="2001:db8::/64"),
        ],
    )
    assert changed.rates[Limit.ORDERS].burst == 900
    assert changed.by_domain == {"2001:db8::/64": Rate(70, 7 * DAY, 70)}
    assert {**changed.rates, Limit.ORDERS: limits.rates[Limit.ORDERS]} == limits.rates
    assert limits.rates[Limit.ORDERS].burst == 300


def test_an_unknown_ca_gets_limits_by_overrides() -> None:
    """A private CA's operator knows them."""
    limits = overridden(Limits("home"), [override(ca="home", limit="requests-new-order", rate="5/1s")])
    assert limits.rates == {Limit.REQUESTS_NEW_ORDER: Rate(5, SECOND, 5)}
