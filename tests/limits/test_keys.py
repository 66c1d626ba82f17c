"""Every order, account, failure and request meets the buckets that the CA counts it in, and no others."""

from __future__ import annotations

import pytest

from certfleet.limits.buckets import Bucket, Buckets, Charge
from certfleet.limits.keys import (
    failure_buckets,
    order_buckets,
    orders_bucket,
    pausing_bucket,
    registration_buckets,
    request_buckets,
)
from certfleet.limits.names import authorized, covering, exact_set
from certfleet.limits.presets import Limit, Limits, limits_of, overridden, override, presets

LETSENCRYPT = limits_of("letsencrypt", presets()["letsencrypt"].directory)
GOOGLE = limits_of("google", presets()["google"].directory)
BUYPASS = limits_of("buypass", presets()["buypass"].directory)


def named(buckets: tuple[Bucket, ...]) -> list[tuple[str, str]]:
    return [(bucket.limit, bucket.key) for bucket in buckets]


@pytest.mark.parametrize(
    ("identifier", "counted"),
    [
        ("example.com", "example.com"),
        ("WWW.Example.COM.", "example.com"),
        ("*.blog.example.com", "example.com"),
        ("new.blog.example.co.uk", "example.co.uk"),
        ("blog.somebody.github.io", "somebody.github.io"),
        ("github.io", "github.io"),
        ("co.uk", "co.uk"),
        ("www.city.kawasaki.jp", "city.kawasaki.jp"),
        ("a.b.c.kawasaki.jp", "b.c.kawasaki.jp"),
        ("www.xn--85x722f.xn--55qx5d.cn", "xn--85x722f.xn--55qx5d.cn"),
        ("host.corp.internal", "corp.internal"),
        ("192.0.2.7", "192.0.2.7"),
        ("2001:DB8:0:1:2:3:4:5", "2001:db8:0:1::/64"),
        ("2001:db8:0:1::/64", "2001:db8:0:1::/64"),
        ("::1", "::/64"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
    ],
)
def test_what_an_identifier_is_counted_under(identifier: str, counted: str) -> None:
    """The registered domain by the Public Suffix List, private section included; IPv4 address; IPv6 /64."""
    assert covering(identifier) == counted


def test_the_exact_set_is_the_same_in_any_order_and_case() -> None:
    """Order, case, repetition and an address's spelling are no difference; a wildcard is one."""
    one = exact_set(["www.example.com", "example.com", "2001:DB8::0"])
    assert one == exact_set(["EXAMPLE.com", "2001:db8::", "www.example.com", "example.com"])
    assert one != exact_set(["www.example.com", "example.com"])
    assert exact_set(["*.example.com"]) != exact_set(["example.com"])
    assert exact_set(["www.example.com", "example.com"]).startswith("example.com+1/")


def test_a_first_order_meets_every_limit() -> None:
    """Orders spent at newOrder; domains and set reserved; failures and pausing asked."""
    met = order_buckets(LETSENCRYPT, account="acc", identifiers=["blog.example.com"])
    assert named(met.ordered) == [("orders-per-account", "acc")]
    assert named(met.issued) == [
        ("certificates-per-domain", "example.com"),
        ("certificates-per-set", exact_set(["blog.example.com"])),
    ]
    assert named(met.checked) == [
        ("failed-authorizations", "acc/blog.example.com"),
        ("consecutive-failures", "acc/blog.example.com"),
    ]
    assert met.uncontrolled == ()
    assert [(charge.bucket, charge.check) for charge in met.admission] == [
        *((bucket, False) for bucket in met.ordered + met.issued),
        *((bucket, True) for bucket in met.checked),
    ]


def test_names_under_many_domains_spend_from_each_once() -> None:
    """Every registered domain, address and /64 once, however many names are below it."""
    names = [
        "a.example.com",
        "b.example.com",
        "*.example.org",
        "example.org",
        "192.0.2.1",
        "2001:db8::1",
        "2001:db8::2",
    ]
    met = order_buckets(LETSENCRYPT, account="acc", identifiers=names)
    domains = [bucket.key for bucket in met.issued if bucket.limit == "certificates-per-domain"]
    assert domains == ["example.com", "example.org", "192.0.2.1", "2001:db8::/64"]
    failures = [bucket.key for bucket in met.checked if bucket.limit == "failed-authorizations"]
    assert failures == [
        *(f"acc/{name}" for name in ("a.example.com", "b.example.com", "example.org")),
        *(f"acc/{name}" for name in ("192.0.2.1", "2001:db8::1", "2001:db8::2")),
    ], "a wildcard and its own name are one authorization's identifier"
    keys = [(charge.bucket.limit, charge.bucket.key) for charge in met.admission]
    assert len(set(keys)) == len(keys)


def test_a_renewal_of_the_same_set_meets_neither_orders_nor_domains() -> None:
    """The exact set and failed authorizations still hold."""
    met = order_buckets(LETSENCRYPT, account="acc", identifiers=["example.com"], same_set=True)
    assert met.ordered == met.uncontrolled == ()
    assert named(met.issued) == [("certificates-per-set", exact_set(["example.com"]))]
    assert [limit for limit, _ in named(met.checked)] == ["failed-authorizations", "consecutive-failures"]


def test_an_ari_replacement_meets_only_pausing_and_is_counted_at_issuance() -> None:
    """Nothing is asked; the exact set is spent all the same, and domains where the names changed."""
    same = order_buckets(LETSENCRYPT, account="acc", identifiers=["example.com"], same_set=True, ari=True)
    assert same.ordered == same.issued == ()
    assert named(same.checked) == [("consecutive-failures", "acc/example.com")]
    assert named(same.uncontrolled) == [("certificates-per-set", exact_set(["example.com"]))]
    changed = order_buckets(LETSENCRYPT, account="acc", identifiers=["example.com", "example.net"], ari=True)
    assert changed.ordered == changed.issued == ()
    assert [limit for limit, _ in named(changed.uncontrolled)] == [
        "certificates-per-domain",
        "certificates-per-domain",
        "certificates-per-set",
    ]


def test_a_ca_without_exemptions_exempts_nothing() -> None:
    """What a CA does not promise is not assumed."""
    first = order_buckets(BUYPASS, account="acc", identifiers=["example.com"])
    assert order_buckets(BUYPASS, account="acc", identifiers=["example.com"], same_set=True, ari=True) == first


def test_an_unknown_ca_has_no_buckets() -> None:
    """Orders, accounts, failures and requests pass."""
    nothing = Limits("https://ca.internal/directory")
    assert order_buckets(nothing, account="acc", identifiers=["host.internal"]).admission == ()
    assert registration_buckets(nothing, "2001:db8::1") == ()
    assert failure_buckets(nothing, "acc", "host.internal") == ()
    assert request_buckets(nothing, Limit.REQUESTS_OTHER, address="192.0.2.1", account="acc") == ()


def test_a_failed_validation_counts_for_identifier_and_account() -> None:
    """A wildcard fails for its own name; a valid one fills only the pausing bucket."""
    assert named(failure_buckets(LETSENCRYPT, "acc", "*.example.com")) == [
        ("failed-authorizations", "acc/example.com"),
        ("consecutive-failures", "acc/example.com"),
    ]
    assert named(pausing_bucket(LETSENCRYPT, "acc", "example.com")) == [("consecutive-failures", "acc/example.com")]
    assert authorized("*.Example.com") == "example.com"


def test_a_new_account_counts_per_address_and_per_ipv6_48() -> None:
    """IPv4 has no range."""
    assert named(registration_buckets(LETSENCRYPT, "192.0.2.1")) == [("registrations-per-address", "192.0.2.1")]
    assert named(registration_buckets(LETSENCRYPT, "2001:db8:1:2::3")) == [
        ("registrations-per-address", "2001:db8:1:2::3"),
        ("registrations-per-range", "2001:db8:1::/48"),
    ]
    assert named(registration_buckets(LETSENCRYPT, None)) == [("registrations-per-address", "any")]
    with pytest.raises(ValueError, match="not an IP address"):
        registration_buckets(LETSENCRYPT, "egress")


def test_requests_count_per_address_and_endpoint() -> None:
    """What has no limit of its own below /acme/ shares one; elsewhere it has none."""
    here = {"address": "2001:DB8::1", "account": "acc"}
    order = request_buckets(LETSENCRYPT, Limit.REQUESTS_NEW_ORDER, **here)
    assert named(order) == [("requests-new-order", "2001:db8::1")]
    assert (order[0].rate.interval, order[0].rate.burst) == (3334, 100), "half of the burst is for the network"
    assert named(request_buckets(LETSENCRYPT, Limit.REQUESTS_CHALLENGE, **here)) == [("requests-other", "2001:db8::1")]
    assert named(request_buckets(GOOGLE, Limit.REQUESTS_CHALLENGE, **here)) == [("requests-challenge", "acc")]
    assert request_buckets(BUYPASS, Limit.REQUESTS_RENEWAL_INFO, **here) == ()


def test_an_account_with_its_own_orders_rate() -> None:
    """The same bucket, another rate, for that account alone."""
    limits = overridden(
        LETSENCRYPT, [override(ca="letsencrypt", limit="orders-per-account", rate="600/3h", account="big")]
    )
    assert orders_bucket(limits, "big")[0].rate.burst == 600
    assert orders_bucket(limits, "small")[0].rate.burst == 300


def test_an_account_with_its_own_domain_rate_is_asked_for_that_and_counted_overall() -> None:
    """As the CA does it: the bucket over all accounts is spent without being asked."""
    limits = overridden(
        LETSENCRYPT, [override(ca="letsencrypt", limit="certificates-per-domain", rate="500/7d", account="big")]
    )
    met = order_buckets(limits, account="big", identifiers=["a.example.com"])
    assert named(met.issued)[0] == ("certificates-per-domain-and-account", "big/example.com")
    assert met.issued[0].rate.burst == 500
    assert named(met.uncontrolled) == [("certificates-per-domain", "example.com")]
    other = order_buckets(limits, account="small", identifiers=["a.example.com"])
    assert other.uncontrolled == ()
    assert other.issued[0] == met.uncontrolled[0]


def test_a_domain_with_its_own_rate() -> None:
    """For every account, and for that domain alone."""
    limits = overridden(
        LETSENCRYPT, [override(ca="letsencrypt", limit="certificates-per-domain", rate="300/7d", domain="example.com")]
    )
    met = order_buckets(limits, account="acc", identifiers=["a.example.com", "a.example.org"])
    assert [bucket.rate.burst for bucket in met.issued] == [300, 50, 5]


async def test_fifty_certificates_for_one_domain_and_no_more(buckets: Buckets) -> None:
    """The whole chain from names to tokens: the 51st waits for the domain, a renewal passes, its set holds five."""

    def charges(name: str, *, same_set: bool = False) -> tuple[Charge, ...]:
        return order_buckets(LETSENCRYPT, account="acc", identifiers=[name], same_set=same_set).admission

    for number in range(50):
        assert (await buckets.spend(charges(f"h{number}.example.com"))).allowed
    denied = await buckets.spend(charges("h50.example.com"))
    assert denied.bucket is not None
    assert (denied.allowed, denied.bucket.key, denied.retry_in) == (False, "example.com", 12_096)
    renewals = [await buckets.spend(charges("h1.example.com", same_set=True)) for _ in range(5)]
    assert [one.allowed for one in renewals] == [True] * 4 + [False]
    assert renewals[-1].retry_in == 120_960
