"""What renewals need for ever."""

from __future__ import annotations

import pytest

from certfleet.limits.buckets import Bucket, Rate
from certfleet.limits.upkeep import DAY, Renewal, upkeep

DOMAIN = Bucket("ca", "certificates-per-domain", "example.com", Rate(50, 7 * DAY, 50))
SET = Bucket("ca", "certificates-per-set", "example.com+0/0", Rate(5, 7 * DAY, 5))


def test_shares_add_up() -> None:
    """300 certificates of a domain, each renewed every 60 days, take 5 of the 50/7 tokens a day: 70 %."""
    found = upkeep([Renewal((DOMAIN,), 60 * DAY)] * 300 + [Renewal((SET,), 60 * DAY)])
    assert found.per_day == pytest.approx(301 / 60)
    assert found.shares[DOMAIN] == pytest.approx(0.7)
    assert found.shares[SET] == pytest.approx(1 / 60 / (5 / 7))
    assert (found.sustainable, found.first_to_fail) == (True, DOMAIN)


@pytest.mark.parametrize(("certificates", "sustainable"), [(428, True), (429, False)])
def test_the_last_certificate_that_can_be_renewed_for_ever(certificates: int, sustainable: bool) -> None:  # noqa: FBT001
    """50 in 7 days are 428.6 in 60."""
    assert upkeep([Renewal((DOMAIN,), 60 * DAY)] * certificates).sustainable is sustainable


def test_exactly_all_tokens_is_enough() -> None:
    """A sum of many small shares is not taken for more than it is."""
    assert upkeep([Renewal((DOMAIN,), 49 * DAY)] * 350).sustainable


def test_nothing_to_renew() -> None:
    """Nothing fails first."""
    assert (upkeep([]).per_day, upkeep([]).first_to_fail, upkeep([]).sustainable) == (0, None, True)
