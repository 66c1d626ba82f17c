"""What a test may do to the CA: steal tokens, order answers, slow it down, pause names; and requests per second."""

from __future__ import annotations

import ssl

import aiohttp
import pytest

from certfleet.acme_ca.protocol import new_order
from certfleet.errors import AcmeProblem
from tests.ca.conftest import Customer
from tests.ca.limits import CERTIFICATES_PER_DOMAIN, LETS_ENCRYPT, ORDERS_PER_ACCOUNT, scaled
from tests.ca.strict import StrictCA

pytestmark = pytest.mark.asyncio(loop_scope="module")

TIMEOUT = aiohttp.ClientTimeout(total=60)
LONG = 36_000.0  # seconds: nothing comes back during a test


async def fetch(ca: StrictCA, path: str, method: str = "GET") -> tuple[int, dict[str, str], str]:
    """One bare request: status, headers, text."""
    context = ssl.create_default_context(cadata=ca.bundle)
    url = ca.directory.removesuffix("/dir") + path
    async with (
        aiohttp.ClientSession(headers={"User-Agent": "test"}, timeout=TIMEOUT) as session,
        session.request(method, url, ssl=context) as answer,
    ):
        return answer.status, dict(answer.headers), await answer.text()


async def test_somebody_else_spends_behind_our_back(customer: Customer) -> None:
    """The client is refused for tokens that it never had."""
    await customer.ca.set_limits({ORDERS_PER_ACCOUNT: (300, LONG, 300), CERTIFICATES_PER_DOMAIN: (5, LONG, 5)})
    assert await customer.ca.steal(ORDERS_PER_ACCOUNT, customer.signer.kid, 299) == 299
    assert await customer.ca.steal(CERTIFICATES_PER_DOMAIN, "example.com", 99) == 5
    assert "example.com" in (await customer.refused("a.example.com")).detail
    await customer.issue("a.example.org")
    assert "this account" in (await customer.refused("b.example.org")).detail
    assert (await customer.ca.book()).buckets[CERTIFICATES_PER_DOMAIN]["example.com"].remaining == 0


async def test_the_real_table_leaves_an_ordinary_client_alone(customer: Customer) -> None:
    """All limits at once, periods a thousandth: three certificates, no refusal; the book knows every bucket."""
    await customer.ca.set_limits(scaled(LETS_ENCRYPT, 0.001), jitter=0.03)
    for name in "abc":
        await customer.issue(f"{name}.example.com")
    book = await customer.ca.book()
    assert not book.refusals
    assert [entry.identifiers for entry in book.issuances] == [(f"{name}.example.com",) for name in "abc"]
    assert book.buckets[CERTIFICATES_PER_DOMAIN]["example.com"].remaining == 47


@pytest.mark.parametrize(
    ("status", "kind", "retry_after"),
    [(429, "rateLimited", "120"), (429, "rateLimited", None), (503, "rateLimited", "7"), (500, "serverInternal", "60")],
)
async def test_ordered_answers(customer: Customer, status: int, kind: str, retry_after: str | None) -> None:
    """The next two newOrders are answered as told, with a nonce that is good; then all is as before."""
    await customer.ca.answer_orders(2, status, type=kind, detail="never heard of", retry_after=retry_after)
    for _ in range(2):
        problem = await customer.refused("a.example.com")
        assert (problem.status, problem.type, problem.detail) == (status, kind, "never heard of")
        assert (problem.retry_at is None) == (retry_after is None)
    nonces = customer.transport.requests["newNonce"]
    await new_order(customer.transport, customer.signer, ["a.example.com"])
    assert customer.transport.requests["newNonce"] == nonces
    book = await customer.ca.book()
    assert [(entry.limit, entry.status) for entry in book.refusals] == [("planned", status)] * 2
    assert book.refusals_within_refill() == {}
    assert (book.rate_limited_answers, book.slow_downs) == (2 * (status == 429), 2 * (status == 503))


async def test_a_slow_down_meets_every_request(customer: Customer) -> None:
    """503 with whole seconds, until it is over; control is not slowed down."""
    await customer.ca.slow_down(100)
    for path in ("/dir", "/nonce-plz", "/roots"):
        status, headers, text = await fetch(customer.ca, path)
        assert status == 503
        assert headers["Content-Type"].startswith("application/problem+json")
        assert 90 <= int(headers["Retry-After"]) <= 100
        assert "urn:ietf:params:acme:error:rateLimited" in text
    assert (await customer.refused("a.example.com")).status == 503
    assert (await customer.ca.counts())["slow_downs"] == 4
    await customer.ca.slow_down(0)
    await customer.issue("a.example.com")


@pytest.mark.parametrize(
    ("path", "limit"),
    [
        ("/dir", "directory"),
        ("/nonce-plz", "new-nonce"),
        ("/sign-me-up", "new-account"),
        ("/order-plz", "new-order"),
        ("/revoke-cert", "revoke-cert"),
        ("/draft-ietf-acme-ari-03/renewalInfo/abc", "renewal-info"),
        ("/my-order/abc", "other"),
        ("/authZ/abc", "other"),
    ],
)
async def test_requests_per_second(customer: Customer, path: str, limit: str) -> None:
    """Each kind of endpoint on its own, per address; what is over it gets 503."""
    name = f"requests-{limit}"
    await customer.ca.set_limits({name: (1, 100, 2)})
    assert 503 not in [(await fetch(customer.ca, path))[0] for _ in range(2)]
    status, headers, text = await fetch(customer.ca, path)
    assert status == 503
    assert 90 <= int(headers["Retry-After"]) <= 100
    assert "urn:ietf:params:acme:error:rateLimited" in text
    assert (await fetch(customer.ca, "/dir" if limit != "directory" else "/nonce-plz"))[0] < 300
    book = await customer.ca.book()
    assert [entry[1:4] for entry in book.refusals] == [(503, name, "127.0.0.1")]
    assert (book.slow_downs, book.rate_limited_answers) == (1, 0)
    assert book.refusals_within_refill() == {}


async def test_a_name_is_paused_for_everybody(customer: Customer) -> None:
    """By hand, without any failure."""
    await customer.ca.pause("a.example.com")
    problem = await customer.refused("a.example.com")
    assert (problem.status, problem.retry_at) == (429, None)
    assert "Please visit: https://127.0.0.1:" in problem.detail
    await customer.ca.unpause("a.example.com")
    await customer.issue("a.example.com")


async def test_wrong_control_is_told(customer: Customer) -> None:
    """A misspelt limit, one that does not hold, an unknown verb."""
    with pytest.raises(ValueError, match="no such limit"):
        await customer.ca.set_limits({"orders": (1, 1, 1)})
    with pytest.raises(ValueError, match="does not hold"):
        await customer.ca.steal(ORDERS_PER_ACCOUNT, customer.signer.kid, 1)
    assert (await fetch(customer.ca, "/rig/other", "POST"))[0] == 404


async def test_forgetting_and_resetting_are_two_things(customer: Customer) -> None:
    """`reset` zeroes counters, `forget` fills buckets and empties the book; limits stay."""
    await customer.ca.set_limits({ORDERS_PER_ACCOUNT: (1, LONG, 1)})
    await customer.issue("a.example.com")
    await customer.refused("b.example.com")
    await customer.ca.reset()
    assert not any((await customer.ca.counts()).values())
    assert len((await customer.ca.book()).refusals) == 1
    await customer.refused("b.example.com")
    await customer.ca.forget()
    book = await customer.ca.book()
    assert not book.refusals + book.accepted + book.issuances
    await customer.issue("b.example.com")
    with pytest.raises(AcmeProblem):
        await new_order(customer.transport, customer.signer, ["c.example.com"])
