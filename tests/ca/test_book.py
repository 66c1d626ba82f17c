"""The book alone, with a clock of the test's: which event counts where, and for how long."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from tests.ca.book import Admission, Book, Paused
from tests.ca.buckets import Denial
from tests.ca.gcra import SECOND
from tests.ca.limits import (
    CERTIFICATES_PER_DOMAIN,
    CERTIFICATES_PER_SET,
    CONSECUTIVE_FAILURES,
    FAILED_AUTHORIZATIONS,
    ORDERS_PER_ACCOUNT,
    REGISTRATIONS_PER_ADDRESS,
    REGISTRATIONS_PER_RANGE,
    Limit,
    pair_key,
)
from tests.ca.report import Refusal, Report

ME, OTHER = "https://ca/my-account/1", "https://ca/my-account/2"
DAY = 86_400 * SECOND


class Play:
    """A book, and whole orders in it. `now` moves only by hand."""

    def __init__(self, limits: Mapping[str, Limit]) -> None:
        self.book = Book()
        self.book.buckets.configure(limits)
        self.now = 1_795_000_000 * SECOND
        self.number = 0

    def wanted(self, *names: str, account: str = ME) -> Denial | Paused | Admission:
        """What the book says to a newOrder."""
        return self.book.order_wanted(account, names, self.now)

    def ordered(self, *names: str, account: str = ME) -> tuple[str, list[str]]:
        """An order that Pebble took: its name and those of its authorizations."""
        admission = self.wanted(*names, account=account)
        assert isinstance(admission, Admission), admission
        self.number += 1
        authorizations = [f"authorization-{self.number}-{name}" for name in names]
        self.book.order_made(admission, f"order-{self.number}", authorizations, self.now)
        return f"order-{self.number}", authorizations

    def issued(self, *names: str, account: str = ME) -> None:
        """A certificate."""
        order, _ = self.ordered(*names, account=account)
        for status in ("pending", "ready", "processing", "valid", "valid"):
            self.book.order_seen(order, status, self.now)

    def failed(self, name: str, account: str = ME) -> None:
        """A validation that failed, seen three times."""
        order, [authorization] = self.ordered(name, account=account)
        self.book.authorization_seen(authorization, "invalid", self.now, name)
        self.book.authorization_seen(authorization, "invalid", self.now, name)
        self.book.order_seen(order, "invalid", self.now)

    def left(self, limit: str, key: str) -> int:
        """Tokens in a bucket."""
        state = self.book.buckets.look(limit, key, self.now)
        assert state is not None
        return state.remaining


def denied(verdict: object) -> tuple[str, str]:
    """Which bucket refuses."""
    assert isinstance(verdict, Denial), verdict
    return verdict.limit, verdict.key


def test_a_certificate_counts_once_per_domain_and_set_and_not_before_finalize() -> None:
    play = Play({CERTIFICATES_PER_DOMAIN: Limit(50, 604_800, 50), CERTIFICATES_PER_SET: Limit(5, 604_800, 5)})
    order, _ = play.ordered("a.example.com", "b.example.com", "c.example.org")
    play.book.order_seen(order, "ready", play.now)
    assert not play.book.buckets.state(play.now)
    for status in ("processing", "valid"):
        play.book.order_seen(order, status, play.now)
    assert play.left(CERTIFICATES_PER_DOMAIN, "example.com") == 49
    assert play.left(CERTIFICATES_PER_DOMAIN, "example.org") == 49
    assert play.left(CERTIFICATES_PER_SET, "a.example.com,b.example.com,c.example.org") == 4
    [issuance] = play.book.issuances
    assert (issuance.domains, issuance.exempt) == (("example.com", "example.org"), False)


def test_limits_per_domain_and_set_hold_for_all_accounts_and_refill() -> None:
    play = Play({CERTIFICATES_PER_DOMAIN: Limit(2, 20, 2), CERTIFICATES_PER_SET: Limit(1, 100, 1)})
    play.issued("a.example.com")
    play.issued("b.example.com", account=OTHER)
    assert denied(play.wanted("c.example.com")) == (CERTIFICATES_PER_DOMAIN, "example.com")
    assert denied(play.wanted("a.example.com")) == (CERTIFICATES_PER_SET, "a.example.com")
    play.now += 10 * SECOND - 1
    assert denied(play.wanted("c.example.com")) == (CERTIFICATES_PER_DOMAIN, "example.com")
    play.now += 1
    assert isinstance(play.wanted("c.example.com"), Admission)
    assert isinstance(play.wanted("d.example.com"), Admission), "a newOrder only checks"


def test_parallel_orders_overshoot_and_are_not_counted() -> None:
    play = Play({CERTIFICATES_PER_DOMAIN: Limit(2, 20, 2)})
    orders = [play.ordered(f"{name}.example.com")[0] for name in "abc"]
    for order in orders:
        play.book.order_seen(order, "valid", play.now)
    assert [entry[1:] for entry in play.book.overshoots] == [(CERTIFICATES_PER_DOMAIN, "example.com")]
    assert len(play.book.issuances) == 3
    play.now += 10 * SECOND
    assert play.left(CERTIFICATES_PER_DOMAIN, "example.com") == 1


def test_a_renewal_is_exempt_from_two_limits_for_as_long_as_the_window() -> None:
    limits = {
        ORDERS_PER_ACCOUNT: Limit(1, 1e9, 1),
        CERTIFICATES_PER_DOMAIN: Limit(1, 1e9, 1),
        CERTIFICATES_PER_SET: Limit(2, 1e9, 2),
    }
    play = Play(limits)
    play.issued("a.example.com", "b.example.com")
    assert denied(play.wanted("a.example.com"))[0] in limits
    play.issued("B.example.com", "a.example.com", account=OTHER)
    assert [entry.exempt for entry in play.book.accepted] == [False, True]
    assert [entry.exempt for entry in play.book.issuances] == [False, True]
    assert denied(play.wanted("a.example.com", "b.example.com"))[0] == CERTIFICATES_PER_SET
    play.book.buckets.configure({ORDERS_PER_ACCOUNT: limits[ORDERS_PER_ACCOUNT]})
    play.now += 120 * DAY - 1
    assert isinstance(play.wanted("a.example.com", "b.example.com"), Admission)
    play.now += 1
    assert denied(play.wanted("a.example.com", "b.example.com")) == (ORDERS_PER_ACCOUNT, ME)


def test_without_the_exemption_a_renewal_is_an_order_like_any_other() -> None:
    play = Play({ORDERS_PER_ACCOUNT: Limit(1, 100, 1)})
    play.book.same_set_exempt = False
    play.issued("a.example.com")
    assert denied(play.wanted("a.example.com")) == (ORDERS_PER_ACCOUNT, ME)


def test_a_token_goes_back_when_pebble_refuses() -> None:
    play = Play({ORDERS_PER_ACCOUNT: Limit(1, 100, 1)})
    admission = play.wanted("a.example.com")
    assert isinstance(admission, Admission)
    assert denied(play.wanted("a.example.com")) == (ORDERS_PER_ACCOUNT, ME)
    play.book.buckets.give_back(admission.charges, play.now)
    assert isinstance(play.wanted("a.example.com"), Admission)


def test_a_denied_order_costs_nothing_and_hears_of_the_longest_wait() -> None:
    play = Play({ORDERS_PER_ACCOUNT: Limit(2, 20, 2), FAILED_AUTHORIZATIONS: Limit(1, 1_000, 1)})
    play.failed("a.example.com")
    verdict = play.wanted("a.example.com")
    assert denied(verdict) == (FAILED_AUTHORIZATIONS, pair_key(ME, "a.example.com"))
    assert isinstance(verdict, Denial)
    assert verdict.retry_in == 1_000 * SECOND
    assert play.left(ORDERS_PER_ACCOUNT, ME) == 1
    play.issued("b.example.com")
    assert denied(play.wanted("a.example.com"))[0] == FAILED_AUTHORIZATIONS
    assert denied(play.wanted("c.example.com"))[0] == ORDERS_PER_ACCOUNT


def test_failures_count_once_for_one_account_and_one_name() -> None:
    play = Play({FAILED_AUTHORIZATIONS: Limit(2, 100, 2)})
    play.failed("a.example.com")
    assert play.left(FAILED_AUTHORIZATIONS, pair_key(ME, "a.example.com")) == 1
    play.failed("a.example.com")
    assert denied(play.wanted("a.example.com", "b.example.com"))[0] == FAILED_AUTHORIZATIONS
    assert isinstance(play.wanted("b.example.com"), Admission)
    assert isinstance(play.wanted("a.example.com", account=OTHER), Admission)


def test_giving_up_a_pending_authorization_is_a_failure_and_a_valid_one_is_not() -> None:
    play = Play({FAILED_AUTHORIZATIONS: Limit(5, 100, 5)})
    order, [pending, proved] = play.ordered("a.example.com", "b.example.com")
    play.book.authorization_seen(pending, "pending", play.now, "a.example.com")
    play.book.authorization_seen(proved, "valid", play.now, "b.example.com")
    play.book.authorization_seen(pending, "deactivated", play.now, "a.example.com")
    play.book.authorization_seen(proved, "deactivated", play.now, "b.example.com")
    play.book.order_seen(order, "invalid", play.now)
    assert [failure.identifier for failure in play.book.failures] == ["a.example.com"]


def test_a_failure_is_seen_by_the_order_or_the_challenge_as_well() -> None:
    play = Play({FAILED_AUTHORIZATIONS: Limit(5, 100, 5)})
    order, _ = play.ordered("a.example.com")
    play.book.order_seen(order, "invalid", play.now)
    _, [authorization] = play.ordered("b.example.com")
    play.book.challenge_seen("challenge", "pending", play.now, authorization)
    play.book.challenge_seen("challenge", "invalid", play.now, None)
    play.book.challenge_seen("challenge", "invalid", play.now, None)
    assert [failure.identifier for failure in play.book.failures] == ["a.example.com", "b.example.com"]


def test_the_last_failure_pauses_until_a_person_ends_it() -> None:
    play = Play({CONSECUTIVE_FAILURES: Limit(1, 86_400, 3)})
    for _ in range(3):
        play.failed("a.example.com")
    assert play.wanted("b.example.com", "*.a.example.com") == Paused(("*.a.example.com",))
    assert isinstance(play.wanted("a.example.com", account=OTHER), Admission)
    play.now += 5 * DAY
    assert play.wanted("a.example.com") == Paused(("a.example.com",))
    play.book.unpause("A.example.com", play.now)
    assert isinstance(play.wanted("a.example.com"), Admission)


def test_a_success_resets_the_count_towards_pausing() -> None:
    play = Play({CONSECUTIVE_FAILURES: Limit(1, 86_400, 2)})
    play.failed("a.example.com")
    play.issued("a.example.com")
    play.failed("a.example.com")
    assert isinstance(play.wanted("a.example.com"), Admission)


def test_a_name_can_be_paused_for_everybody() -> None:
    play = Play({})
    play.book.pause("A.example.com")
    for account in (ME, OTHER):
        assert play.wanted("a.example.com", account=account) == Paused(("a.example.com",))
    assert isinstance(play.wanted("aa.example.com"), Admission)
    play.book.unpause("a.example.com", play.now)
    assert isinstance(play.wanted("a.example.com"), Admission)


@pytest.mark.parametrize(
    ("addresses", "limit", "key"),
    [
        (["192.0.2.1"] * 3, REGISTRATIONS_PER_ADDRESS, "192.0.2.1"),
        ([f"2001:db8:1:{n}::1" for n in range(4)], REGISTRATIONS_PER_RANGE, "2001:db8:1::/48"),
    ],
)
def test_registrations_per_address_and_range(addresses: Sequence[str], limit: str, key: str) -> None:
    """The last one is refused; an account that exists costs nothing."""
    play = Play({REGISTRATIONS_PER_ADDRESS: Limit(2, 100, 2), REGISTRATIONS_PER_RANGE: Limit(3, 100, 3)})
    *fitting, last = addresses
    for number, address in enumerate(fitting):
        assert not isinstance(play.book.registration_wanted(address, f"key{number}", play.now), Denial)
        play.book.registered(f"key{number}")
    assert denied(play.book.registration_wanted(last, "one more", play.now)) == (limit, key)
    assert play.book.registration_wanted(last, "key0", play.now) == ()


def test_a_limit_that_is_not_configured_does_not_hold() -> None:
    play = Play({})
    for number in range(100):
        play.issued("a.example.com", f"b{number}.example.com")
        play.failed("a.example.com")
    assert play.book.request("127.0.0.1", "directory", play.now) is None
    assert not play.book.overshoots
    with pytest.raises(ValueError, match="does not hold"):
        play.book.steal(ORDERS_PER_ACCOUNT, ME, 1, play.now)


def test_stealing_takes_what_is_there() -> None:
    play = Play({ORDERS_PER_ACCOUNT: Limit(10, 100, 10)})
    assert play.book.steal(ORDERS_PER_ACCOUNT, ME, 7, play.now) == 7
    assert play.book.steal(ORDERS_PER_ACCOUNT, ME, 7, play.now) == 3
    assert denied(play.wanted("a.example.com")) == (ORDERS_PER_ACCOUNT, ME)


def test_how_many_429s_fell_into_one_refill() -> None:
    def refusal(at: float, until: float | None, key: str = "a", status: int = 429) -> Refusal:
        return Refusal(at, status, "orders-per-account", key, until=until)

    def most(*refusals: Refusal) -> dict[tuple[str, str], int]:
        report = Report(0, 0, 0, refusals, (), (), (), (), {}, ())
        return report.refusals_within_refill()

    assert most() == {}
    assert most(refusal(0, 10), refusal(10, 20), refusal(20, 30)) == {("orders-per-account", "a"): 1}
    assert most(refusal(0, 2), refusal(2, 12)) == {("orders-per-account", "a"): 1}, "somebody else took that token"
    assert most(refusal(0, 10), refusal(9, 10), refusal(18, 20), refusal(19.5, 20)) == {("orders-per-account", "a"): 2}
    assert most(refusal(0, 5), refusal(4, 14), refusal(6, 14)) == {("orders-per-account", "a"): 2}
    assert most(refusal(0, 1, status=503), refusal(0.5, None)) == {}
    in_b = [refusal(at, 9, "b") for at in (1, 2, 3)]
    assert most(refusal(0, 9), *in_b)["orders-per-account", "b"] == 3
