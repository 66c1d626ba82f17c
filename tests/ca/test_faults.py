"""Every way in which the CA's front can spoil an answer, as a bare client sees it."""

from __future__ import annotations

import time
from typing import Any

import aiohttp
import pytest
from cryptography import x509

from certfleet.acme_ca.protocol import get_authorization, get_order, new_order
from certfleet.errors import AcmeProblem, CAMisbehaved, CAUnreachable
from tests.acme_ca.flow import issue
from tests.ca import test_control
from tests.ca.conftest import Customer
from tests.ca.faults import PAGE, How
from tests.ca.test_control import fetch

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.mark.parametrize(
    ("words", "status", "retry_after", "text"),
    [
        ({"how": "status", "status": 500}, 500, None, "serverInternal"),
        ({"how": "status", "status": 503, "retry_after": "7"}, 503, "7", "serverInternal"),
        ({"how": "page", "status": 502}, 502, None, PAGE),
        ({"how": "body", "text": "{"}, 200, None, "{"),
        ({"how": "bad-nonce"}, 400, None, "badNonce"),
    ],
)
async def test_other_answers(
    customer: Customer, words: dict[str, Any], status: int, retry_after: str | None, text: str
) -> None:
    """For so many requests of that kind, and no others; then all is as before."""
    await customer.ca.fail("directory", count=2, **words)
    assert (await fetch(customer.ca, "/nonce-plz"))[0] < 300
    for _ in range(2):
        found = await fetch(customer.ca, "/dir")
        assert (found[0], found[1].get("Retry-After")) == (status, retry_after)
        assert text in found[2]
    assert "newOrder" in (await fetch(customer.ca, "/dir"))[2]
    assert await customer.ca.heal() == {f"directory {words['how']}": 2}


@pytest.mark.parametrize("how", ["cut", "cut-after", "cut-body"])
async def test_cut_connections(customer: Customer, how: How) -> None:
    """Before Pebble hears of it, after it has done it, in the middle of its answer."""
    await customer.ca.fail("newOrder", how)
    with pytest.raises(CAUnreachable):
        await new_order(customer.transport, customer.signer, ["a.example.com"])
    assert len((await customer.ca.book()).accepted) == (how != "cut")
    await new_order(customer.transport, customer.signer, ["a.example.com"])


@pytest.mark.parametrize("how", ["hang", "drip"])
async def test_slow_answers(customer: Customer, monkeypatch: pytest.MonkeyPatch, how: How) -> None:
    """As slow as told, and whole."""
    await customer.ca.fail("directory", how, seconds=0.4)
    began = time.monotonic()
    assert "newOrder" in (await fetch(customer.ca, "/dir"))[2]
    assert time.monotonic() - began > 0.3
    await customer.ca.fail("directory", how, seconds=5)
    monkeypatch.setattr(test_control, "TIMEOUT", aiohttp.ClientTimeout(total=0.2))
    with pytest.raises(TimeoutError):
        await fetch(customer.ca, "/dir")


@pytest.mark.parametrize(("how", "says"), [("truncate", "cannot be read"), ("leaf", "")])
async def test_spoilt_chains(customer: Customer, how: How, says: str) -> None:
    """Half of the text; the leaf alone. What is asked for again is whole."""
    await customer.ca.fail("certificate", how)
    if says:
        with pytest.raises(CAMisbehaved, match=says):
            await issue(customer.transport, customer.signer, ["a.example.com"], customer.served)
    else:
        issued = await issue(customer.transport, customer.signer, ["a.example.com"], customer.served)
        assert issued.chain
    assert (await customer.ca.heal()) == {f"certificate {how}": 1}


async def test_edited_objects_stay_so(customer: Customer) -> None:
    """An order that is invalid from a certain state on, and an authorization that is gone; others are not touched."""
    await customer.ca.fail("order", "edit", fields={"status": "invalid"}, when="pending", skip=1)
    first, second = [await new_order(customer.transport, customer.signer, [f"{name}.example.com"]) for name in "ab"]
    seen = [(await get_order(customer.transport, customer.signer, first.url)).status for _ in range(3)]
    assert seen == ["pending", "invalid", "invalid"]
    assert (await get_order(customer.transport, customer.signer, second.url)).status == "pending"
    await customer.ca.fail(
        "authorization", "edit", fields={"status": "deactivated"}, path=second.authorizations[0][-8:]
    )
    urls = (first.authorizations[0], second.authorizations[0], second.authorizations[0])
    dead = [(await get_authorization(customer.transport, customer.signer, url)).status for url in urls]
    assert dead == ["pending", "deactivated", "deactivated"]
    await customer.ca.heal()
    assert (await get_order(customer.transport, customer.signer, first.url)).status == "pending"


async def test_nonces(customer: Customer) -> None:
    """Refused with a fresh one; or none given, so that the next has to be asked for."""
    transport, signer = customer.transport, customer.signer
    await customer.ca.reset()
    await customer.ca.fail("newOrder", "bad-nonce", 3)
    await new_order(transport, signer, ["a.example.com"])
    nonces, refused = transport.requests["newNonce"], (await customer.ca.counts())["bad_nonce"]
    assert refused >= 3, "Pebble itself refuses one now and then"
    assert transport.requests["newOrder"] == refused + 1
    transport._nonces.clear()
    await customer.ca.fail("newOrder", "no-nonce")
    for _ in range(2):
        await new_order(transport, signer, ["b.example.com"])
    assert transport.requests["newNonce"] == nonces + 2
    await customer.ca.fail("newOrder", "bad-nonce", 12)
    with pytest.raises(AcmeProblem, match="badNonce"):
        await new_order(transport, signer, ["b.example.com"])


async def test_another_content_type(customer: Customer) -> None:
    """Only that; and a way that there is not is refused."""
    await customer.ca.fail("directory", "type", text="text/html")
    _, headers, text = await fetch(customer.ca, "/dir")
    assert headers["Content-Type"].startswith("text/html")
    assert "newOrder" in text
    with pytest.raises(ValueError, match="nothing"):
        await customer.ca._control("fault", kind="directory", how="cut", count=1, nothing=1)


async def test_certificates_of_any_length(customer: Customer) -> None:
    """Signed anew with the profile's validity, by the CA's clock, the same at each download; names and key stay."""
    ca = customer.ca
    root = x509.load_pem_x509_certificate((await ca.reissue({"shortlived": 160 * 3600.0})).encode())
    try:
        await ca.set_clock(86_400.0 * 30)
        issued = await issue(customer.transport, customer.signer, ["a.example.com"], customer.served)
        assert (issued.not_after - issued.not_before).days == 89, "no profile has ninety days"
        assert 28 < (issued.not_before.timestamp() - time.time()) / 86_400 < 30
        leaf, issuer = (x509.load_pem_x509_certificate(pem.encode()) for pem in (issued.leaf, *issued.chain))
        leaf.verify_directly_issued_by(issuer)
        issuer.verify_directly_issued_by(root)
    finally:
        await ca.plain()
