"""Which buckets an order, a new account, a failed validation or a request spends or checks at a CA.

When the CA counts what (letsencrypt.org/docs/rate-limits; Boulder's package ratelimits):

    newAccount          spends registrations per address and range; they are given back when it fails
    newOrder            spends orders per account; asks domains, exact set, failures and pausing for one token
    certificate issued  spends domains (unless the exact set was issued in the last 120 days) and exact set
    failed validation   spends failures and pausing; a valid one fills pausing again

All of an order's tokens are taken here before newOrder: `OrderBuckets.admission` goes into Buckets.spend.
Then `ordered` is settled when newOrder has answered, `issued` when the certificate is there. What was not
counted is refunded: all when newOrder was refused or never sent, `issued` when the order ended without one.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import timedelta
from ipaddress import IPv6Address

from certfleet.identifiers import address_of
from certfleet.limits.buckets import Bucket, Charge, Rate
from certfleet.limits.names import REGISTRATION_PREFIX, authorized, canonical, covering, exact_set, network
from certfleet.limits.presets import NEVER_PUBLISHED, Limit, Limits

RENEWAL_WINDOW = timedelta(days=120)
"""An exact set that was issued within this is a renewal (letsencrypt.org/docs/rate-limits, "exemptions")."""


ANY_ADDRESS = "any"
"""The one egress address of a fleet whose machines do not say theirs."""
OF_ONE_ORDER = frozenset({Limit.SET, Limit.FAILURES, Limit.PAUSING})
"""Limits whose buckets an order mostly has for itself: they hold it up, and nobody behind it."""


@dataclass(frozen=True, slots=True)
class OrderBuckets:
    """The buckets of one order, by when the CA counts them."""

    checked: tuple[Bucket, ...] = ()
    """Have to hold a token; none is taken."""
    ordered: tuple[Bucket, ...] = ()
    """Spent by newOrder."""
    issued: tuple[Bucket, ...] = ()
    """Asked at newOrder, spent at issuance: reserved here from admission on."""
    uncontrolled: tuple[Bucket, ...] = ()
    """Spent at issuance without being asked before: for Buckets.count when the certificate is there."""

    @property
    def admission(self) -> tuple[Charge, ...]:
        """What has to be spent before newOrder."""
        taken = tuple(Charge(bucket) for bucket in self.ordered + self.issued)
        return taken + tuple(Charge(bucket, check=True) for bucket in self.checked)


def order_buckets(
    limits: Limits,
    *,
    account: str,
    identifiers: Iterable[str],
    same_set: bool = False,
    ari: bool = False,
) -> OrderBuckets:
    """The buckets of an order of `account` (its id here) for these identifiers; exemptions where the CA has them.

    `same_set`: this exact set was issued by this CA within RENEWAL_WINDOW. `ari`: newOrder says `replaces`, and the
    CA will take it so (RFC 9773 §5): same account, one identifier shared, no other replacement order (pending ones
    count), and now lies in [start, end) of the suggested window. Revoking moves that window into the past.
    """
    names = tuple(dict.fromkeys(canonical(identifier) for identifier in identifiers))
    bases = tuple(dict.fromkeys(authorized(name) for name in names))
    renewal = same_set and limits.same_set_exempt
    sets = _bucket(limits, Limit.SET, exact_set(names))
    reserved, uncontrolled = ((), ()) if renewal else _domains(limits, account, names)
    pausing = _each(limits, Limit.PAUSING, account, bases)
    if ari and limits.ari_exempt:
        return OrderBuckets(checked=pausing, uncontrolled=(*reserved, *uncontrolled, *sets))
    return OrderBuckets(
        checked=_each(limits, Limit.FAILURES, account, bases) + pausing,
        ordered=() if renewal else orders_bucket(limits, account),
        issued=reserved + sets,
        uncontrolled=uncontrolled,
    )


def orders_bucket(limits: Limits, account: str) -> tuple[Bucket, ...]:
    """New orders of the account."""
    return _bucket(limits, Limit.ORDERS, account, limits.by_account.get((Limit.ORDERS, account)))


def failure_buckets(limits: Limits, account: str, identifier: str) -> tuple[Bucket, ...]:
    """Spent (Buckets.count) by each failed validation of the identifier; deactivating a pending one counts as that."""
    base = (authorized(identifier),)
    return _each(limits, Limit.FAILURES, account, base) + _each(limits, Limit.PAUSING, account, base)


def pausing_bucket(limits: Limits, account: str, identifier: str) -> tuple[Bucket, ...]:
    """Filled again (Buckets.reset) by a valid authorization of the identifier."""
    return _each(limits, Limit.PAUSING, account, (authorized(identifier),))


def registration_buckets(limits: Limits, address: str | None) -> tuple[Bucket, ...]:
    """Spent by newAccount from this egress address, given back when it fails. Raises ValueError for no address."""
    if address is None:
        return _bucket(limits, Limit.REGISTRATIONS_PER_ADDRESS, ANY_ADDRESS)
    ip = address_of(address)
    if ip is None:
        raise ValueError(f"{address!r} is not an IP address")
    found = _bucket(limits, Limit.REGISTRATIONS_PER_ADDRESS, str(ip))
    if isinstance(ip, IPv6Address):
        found += _bucket(limits, Limit.REGISTRATIONS_PER_RANGE, network(ip, REGISTRATION_PREFIX))
    return found


BELOW_ACME = {Limit.REQUESTS_AUTHORIZATION, Limit.REQUESTS_CHALLENGE, Limit.REQUESTS_CERTIFICATE}
"""Endpoints that count as REQUESTS_OTHER at a CA that has no limit of their own for them."""


def request_buckets(limits: Limits, endpoint: Limit, *, address: str, account: str) -> tuple[Bucket, ...]:
    """Spent by one request from this egress address (or, where the CA counts so, of this account).

    `endpoint` is one of Limit.REQUESTS_…: the directory's entry, or what stands below /acme/. The bucket holds half of
    the burst that is published (`_spaced`).
    """
    if endpoint in BELOW_ACME and endpoint not in limits.rates:
        endpoint = Limit.REQUESTS_OTHER
    return _bucket(limits, endpoint, account if limits.per_project else canonical(address))


def _domains(limits: Limits, account: str, names: Iterable[str]) -> tuple[tuple[Bucket, ...], tuple[Bucket, ...]]:
    """Certificates per domain: what is asked and spent, and what is spent only.

    An account with a rate of its own is asked for that; the bucket over all accounts is spent all the same.
    """
    domains = tuple(dict.fromkeys(covering(name) for name in names))
    overall = tuple(
        bucket for domain in domains for bucket in _bucket(limits, Limit.DOMAIN, domain, limits.by_domain.get(domain))
    )
    own = limits.by_account.get((Limit.DOMAIN, account))
    if own is None:
        return overall, ()
    return _each(limits, Limit.DOMAIN_OF_ACCOUNT, account, domains, own), overall


def _each(
    limits: Limits, limit: Limit, account: str, names: Iterable[str], rate: Rate | None = None
) -> tuple[Bucket, ...]:
    return tuple(bucket for name in names for bucket in _bucket(limits, limit, f"{account}/{name}", rate))


def _bucket(limits: Limits, limit: Limit, key: str, rate: Rate | None = None) -> tuple[Bucket, ...]:
    """The bucket, or none where the CA has no such limit."""
    rate = rate or limits.rates.get(limit)
    if rate is None:
        return ()
    return (Bucket(limits.ca, limit.value, key, _spaced(rate) if limit.value.startswith("requests-") else rate),)


def _spaced(rate: Rate) -> Rate:
    """The rate at which requests are sent, so that they arrive at the published one.

    The CA counts when a request arrives, and a network bunches what was sent well spaced: requests that a lost packet
    or a new connection held up arrive together with those behind them. Half of the burst is left for that: at
    250/1s burst 125 everything that is sent within a quarter of a second may arrive at one moment.
    """
    return replace(rate, burst=max(1, rate.burst // 2))


def today(limits: Limits, bucket: Bucket) -> Bucket | None:
    """The bucket with the rate that its limit has now; None when there is no such limit any more."""
    limit, key = Limit(bucket.limit), bucket.key
    if limit in NEVER_PUBLISHED:
        return bucket
    own = {
        Limit.ORDERS: limits.by_account.get((limit, key)),
        Limit.DOMAIN: limits.by_domain.get(key),
        Limit.DOMAIN_OF_ACCOUNT: limits.by_account.get((Limit.DOMAIN, key.partition("/")[0])),
    }
    found = _bucket(limits, limit, key, own.get(limit))
    return found[0] if found else None


def slow_down_bucket(limits: Limits, address: str | None) -> tuple[Bucket, ...]:
    """Closed (Buckets.block) when the CA answers 503 with Retry-After: nobody at this egress address asks before."""
    return (Bucket(limits.ca, Limit.SLOW_DOWN.value, address or ANY_ADDRESS, Rate(1, 1_000_000, 1)),)


def refused_bucket(limits: Limits, account: str) -> tuple[Bucket, ...]:
    """Closed (Buckets.block) when the CA answers the account's newOrder 429 and does not say by which limit."""
    return (Bucket(limits.ca, Limit.REFUSED.value, account, Rate(1, 1_000_000, 1)),)


def parse_name(name: str, rate: Rate) -> Bucket:
    """The bucket of this name (Bucket.name). Raises ValueError for anything else."""
    for limit in Limit:
        ca, found, key = name.removeprefix("limit:").partition(f":{limit}:")
        if found and name.startswith("limit:"):
            return Bucket(ca, limit.value, key, rate)
    raise ValueError(f"{name!r} is not the name of a bucket")
