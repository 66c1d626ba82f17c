"""Each limit before a real Pebble: refuses what is over it, as documented, and nothing else."""

from __future__ import annotations

import asyncio
import re
import time
from datetime import UTC, datetime

import pytest

from certfleet.acme_ca.keys import make_account_key
from certfleet.acme_ca.protocol import answer_challenge, get_authorization, get_order, new_account, new_order
from certfleet.errors import AcmeProblem
from tests.acme_ca.flow import signer_at
from tests.ca.conftest import Customer, until
from tests.ca.limits import (
    CERTIFICATES_PER_DOMAIN,
    CERTIFICATES_PER_SET,
    CONSECUTIVE_FAILURES,
    FAILED_AUTHORIZATIONS,
    ORDERS_PER_ACCOUNT,
    REGISTRATIONS_PER_ADDRESS,
    REGISTRATIONS_PER_RANGE,
    pair_key,
)
from tests.ca.proxy import ADDRESS_HEADER

pytestmark = pytest.mark.asyncio(loop_scope="module")

LONG = 36_000.0  # seconds: nothing comes back during a test


def documented(problem: AcmeProblem, text: str, anchor: str) -> None:
    """A 429 with Boulder's words, and a Retry-After that fits its own text."""
    assert (problem.status, problem.type) == (429, "rateLimited")
    pattern = (
        f"{re.escape(text)}, retry after (.*) UTC: see https://letsencrypt\\.org/docs/rate-limits/#{re.escape(anchor)}"
    )
    found = re.fullmatch(pattern, problem.detail)
    assert found, problem.detail
    told = datetime.strptime(found[1], "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC)
    assert problem.retry_at is not None
    assert abs((problem.retry_at - told).total_seconds()) < 5


async def fail(customer: Customer, name: str) -> None:
    """A validation for which nothing is served, until its failure shows."""
    while True:
        [url] = (await new_order(customer.transport, customer.signer, [name])).authorizations
        authorization = await get_authorization(customer.transport, customer.signer, url)
        if authorization.status == "pending":
            break
        # Pebble reuses a valid one now and then, and nothing would be validated; it cannot be told not to.
        await deactivate(customer, url)
    assert authorization.http01 is not None
    await answer_challenge(customer.transport, customer.signer, authorization.http01.url)
    await until("invalid", lambda: get_authorization(customer.transport, customer.signer, url))


async def deactivate(customer: Customer, url: str) -> None:
    """An authorization that is good for no order any more (RFC 8555 §7.5.2)."""
    await customer.transport.post(url, {"status": "deactivated"}, customer.signer.key, kid=customer.signer.kid)


async def test_orders_per_account(customer: Customer) -> None:
    """The third of two is refused, another account is not; a refused one counts nothing and Pebble never sees it."""
    await customer.ca.set_limits({ORDERS_PER_ACCOUNT: (2, LONG, 2)})
    await customer.issue("a.example.com")
    await customer.issue("b.example.com")
    for _ in range(2):
        problem = await customer.refused("c.example.com")
        documented(problem, "too many new orders (2) from this account in the last 10h0m0s", "new-orders-per-account")
    await new_order(customer.transport, await signer_at(customer.transport), ["c.example.com"])
    await customer.issue("a.example.com")
    book = await customer.ca.book()
    assert [entry.exempt for entry in book.accepted] == [False, False, False, True]
    assert [entry[1:6] for entry in book.refusals] == [
        (429, ORDERS_PER_ACCOUNT, customer.signer.kid, customer.signer.kid, ("c.example.com",))
    ] * 2
    assert book.rate_limited_answers == (await customer.ca.counts())["rate_limited_answers"] == 2
    assert book.refusals_within_refill() == {(ORDERS_PER_ACCOUNT, customer.signer.kid): 2}
    assert book.buckets[ORDERS_PER_ACCOUNT][customer.signer.kid].remaining == 0


async def test_a_token_comes_back(customer: Customer) -> None:
    """After its interval there is one order, and not two."""
    await customer.ca.set_limits({ORDERS_PER_ACCOUNT: (1, 2.0, 2)})
    for _ in range(2):
        await new_order(customer.transport, customer.signer, ["a.example.com"])
    problem = await customer.refused("a.example.com")
    assert problem.retry_at is not None
    full_at = (await customer.ca.book()).buckets[ORDERS_PER_ACCOUNT][customer.signer.kid].full_at
    await asyncio.sleep(full_at - 2 + 0.01 - time.time())
    await new_order(customer.transport, customer.signer, ["a.example.com"])
    await customer.refused("a.example.com")


async def test_a_token_goes_back_when_pebble_refuses(customer: Customer) -> None:
    """An order that cannot be, and nonces that Pebble does not take (5 %): nothing of it counts."""
    await customer.ca.set_limits({ORDERS_PER_ACCOUNT: (30, LONG, 30)})
    for _ in range(5):
        with pytest.raises(AcmeProblem, match="malformed"):
            await new_order(customer.transport, customer.signer, ["not a name"])
    for _ in range(30):
        await new_order(customer.transport, customer.signer, ["a.example.com"])
    await customer.refused("a.example.com")


async def test_certificates_per_domain(customer: Customer) -> None:
    """Over all accounts; a further one for the same names is exempt, here and at issuance."""
    await customer.ca.set_limits({CERTIFICATES_PER_DOMAIN: (2, LONG, 2)})
    await customer.issue("a.example.co.uk")
    await customer.issue("a.example.co.uk")
    customer.signer = await signer_at(customer.transport)
    await customer.issue("b.example.co.uk")
    documented(
        await customer.refused("x.example.org", "c.example.co.uk"),
        'too many certificates (2) already issued for "example.co.uk" in the last 10h0m0s',
        "new-certificates-per-registered-domain",
    )
    await customer.issue("b.example.co.uk")
    book = await customer.ca.book()
    assert [(entry.domains, entry.exempt) for entry in book.issuances] == [
        (("example.co.uk",), exempt) for exempt in (False, True, False, True)
    ]
    assert not book.overshoots


async def test_certificates_per_set(customer: Customer) -> None:
    """No exemption from this one; the order and the case of names are nothing."""
    await customer.ca.set_limits({CERTIFICATES_PER_SET: (2, LONG, 2)})
    await customer.issue("a.example.com", "b.example.com")
    await customer.issue("b.example.com", "a.example.com")
    documented(
        await customer.refused("a.example.com", "b.example.com"),
        "too many certificates (2) already issued for this exact set of identifiers in the last 10h0m0s",
        "new-certificates-per-exact-set-of-identifiers",
    )
    await customer.issue("a.example.com")


async def test_parallel_orders_overshoot(customer: Customer) -> None:
    """The CA checks at newOrder and spends at finalize: what it has no token for is issued all the same."""
    await customer.ca.set_limits({CERTIFICATES_PER_DOMAIN: (1, LONG, 1)})
    names = ("a.example.com", "b.example.com")
    orders = [await new_order(customer.transport, customer.signer, [name]) for name in names]
    for order in orders:
        await customer.finish(order)
    await customer.refused("c.example.com")
    book = await customer.ca.book()
    assert [entry.identifiers for entry in book.issuances] == [(name,) for name in names]
    assert [entry[1:] for entry in book.overshoots] == [(CERTIFICATES_PER_DOMAIN, "example.com")]


async def test_failed_authorizations(customer: Customer) -> None:
    """For this account and this name; a pending authorization that is given up counts the same."""
    await customer.ca.set_limits({FAILED_AUTHORIZATIONS: (2, LONG, 2)})
    await fail(customer, "a.example.com")
    order = await new_order(customer.transport, customer.signer, ["a.example.com"])
    await deactivate(customer, order.authorizations[0])
    documented(
        await customer.refused("b.example.com", "a.example.com"),
        'too many failed authorizations (2) for "a.example.com" in the last 10h0m0s',
        "authorization-failures-per-identifier-per-account",
    )
    await customer.issue("b.example.com")
    assert [entry.identifier for entry in (await customer.ca.book()).failures] == ["a.example.com"] * 2


async def test_a_client_that_looks_at_the_order_only(customer: Customer) -> None:
    """The failure counts when the order shows it, and once."""
    await customer.ca.set_limits({FAILED_AUTHORIZATIONS: (2, LONG, 2)})
    order = await new_order(customer.transport, customer.signer, ["a.example.com"])
    authorization = await get_authorization(customer.transport, customer.signer, order.authorizations[0])
    assert authorization.http01 is not None
    await answer_challenge(customer.transport, customer.signer, authorization.http01.url)
    await until("invalid", lambda: get_order(customer.transport, customer.signer, order.url))
    await get_authorization(customer.transport, customer.signer, order.authorizations[0])
    assert [entry.identifier for entry in (await customer.ca.book()).failures] == ["a.example.com"]


async def test_pausing(customer: Customer) -> None:
    """After too many failures in a row: a link and no Retry-After, until a person has been there."""
    await customer.ca.set_limits({CONSECUTIVE_FAILURES: (1, LONG, 2)})
    await fail(customer, "a.example.com")
    await customer.issue("a.example.com")
    for _ in range(2):
        await fail(customer, "a.example.com")
    problem = await customer.refused("b.example.com", "a.example.com")
    assert (problem.status, problem.type, problem.retry_at) == (429, "rateLimited", None)
    origin = re.escape(customer.ca.directory.removesuffix("/dir"))
    assert re.fullmatch(
        "Your account is temporarily prevented from requesting certificates for a.example.com and possibly others. "
        f"Please visit: {origin}/sfe/v1/unpause\\?jwt=[\\w-]+",
        problem.detail,
    )
    assert (await customer.ca.book()).paused == (pair_key(customer.signer.kid, "a.example.com"),)
    await customer.ca.unpause("a.example.com")
    await customer.issue("a.example.com")


async def test_registrations(customer: Customer) -> None:
    """New accounts per address; one that exists costs nothing, whether the CA or only Pebble knows it."""
    await customer.ca.set_limits({REGISTRATIONS_PER_ADDRESS: (2, LONG, 2)})
    for _ in range(5):
        await new_account(customer.transport, customer.signer.key, "ops@example.com", agree_tos=True)
    key = make_account_key()
    with pytest.raises(AcmeProblem):
        await new_account(customer.transport, key, "ops@example.com", agree_tos=False)
    for _ in range(2):
        await signer_at(customer.transport)
    with pytest.raises(AcmeProblem) as caught:
        await signer_at(customer.transport)
    documented(
        caught.value,
        "too many new registrations (2) from this IP address in the last 10h0m0s",
        "new-registrations-per-ip-address",
    )
    await new_account(customer.transport, customer.signer.key, "ops@example.com", agree_tos=True)
    assert (await customer.ca.book()).refusals[0].key == "127.0.0.1"


async def test_registrations_per_range(customer: Customer) -> None:
    """A header says where a request pretends to come from."""
    await customer.ca.set_limits({REGISTRATIONS_PER_ADDRESS: (1, LONG, 1), REGISTRATIONS_PER_RANGE: (2, LONG, 2)})
    for last in (1, 2):
        customer.transport._session.headers[ADDRESS_HEADER] = f"2001:db8:7::{last}"
        await signer_at(customer.transport)
    customer.transport._session.headers[ADDRESS_HEADER] = "2001:db8:7:ffff::3"
    with pytest.raises(AcmeProblem) as caught:
        await signer_at(customer.transport)
    documented(
        caught.value,
        "too many new registrations (2) from this /48 subnet of IPv6 addresses in the last 10h0m0s",
        "new-registrations-per-ipv6-range",
    )
    customer.transport._session.headers[ADDRESS_HEADER] = "2001:db8:8::1"
    await signer_at(customer.transport)
