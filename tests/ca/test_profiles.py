"""The test CA's profiles: listed, asked for, shown, refused, as draft-ietf-acme-profiles says."""

from __future__ import annotations

import pytest

from certfleet.acme_ca.protocol import get_order, new_order
from certfleet.errors import AcmeProblem
from tests.ca.conftest import Customer

pytestmark = pytest.mark.asyncio(loop_scope="module")

OFFERED = {"classic": "https://ca.example/classic", "shortlived": "six days"}


async def test_listed_asked_for_and_shown(customer: Customer) -> None:
    """In the directory, in the order when it is made and when it is looked at; the first is the default."""
    await customer.ca.offer(OFFERED)
    customer.transport.doubt_directory()
    assert (await customer.transport.directory()).meta.profiles == OFFERED
    for asked, made in (("shortlived", "shortlived"), ("", "classic")):
        order = await new_order(customer.transport, customer.signer, [f"{made}.example.com"], profile=asked)
        assert order.profile == made
        assert (await get_order(customer.transport, customer.signer, order.url)).profile == made
    assert await customer.ca.asked_profiles() == ["shortlived", None]


async def test_an_unknown_one_is_refused(customer: Customer) -> None:
    """With the draft's own problem type; nothing was made, and the next order goes through."""
    await customer.ca.offer(OFFERED, hidden=["classic"])
    for wrong in ("tlsserver", "classic"):
        with pytest.raises(AcmeProblem) as caught:
            await new_order(customer.transport, customer.signer, ["a.example.com"], profile=wrong)
        assert (caught.value.status, caught.value.type) == (400, "invalidProfile")
    book = await customer.ca.book()
    assert [refusal.limit for refusal in book.refusals] == ["profile", "profile"]
    await new_order(customer.transport, customer.signer, ["a.example.com"], profile="shortlived")
    assert await customer.ca.asked_profiles() == ["shortlived"]


async def test_a_ca_without_profiles(customer: Customer) -> None:
    """Lists none and shows none."""
    await customer.ca.offer({})
    customer.transport.doubt_directory()
    assert (await customer.transport.directory()).meta.profiles == {}
    assert (await new_order(customer.transport, customer.signer, ["a.example.com"])).profile is None
