"""One address for accounts at two real CAs is changed: all of them, or none, or the rest when asked again."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from certfleet.acme_ca import account_changes
from certfleet.acme_ca.account_records import AccountRecords, account_id, known_account
from certfleet.acme_ca.account_requests import change_contact
from certfleet.acme_ca.presets import resolve_ca
from certfleet.acme_ca.protocol import Signer
from certfleet.acme_ca.transport import Transport
from certfleet.errors import CAUnreachable, OwnerError, UsageError
from certfleet.models import Account
from certfleet.settings import Settings
from tests.lifecycle.two_cas import Place, Two, fleet_of_two, two_cas

pytestmark = pytest.mark.asyncio(loop_scope="module")
OLD, NEW = "ops@example.com", "certs@example.com"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def place() -> AsyncIterator[Place]:
    """The CAs of the module."""
    directory = Path(tempfile.mkdtemp(prefix="certfleet-", dir="/tmp"))
    async with two_cas(directory) as running:
        yield running
    shutil.rmtree(directory)


@pytest_asyncio.fixture(loop_scope="module")
async def two(place: Place, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Two]:
    """A fleet with one app, which has both CAs."""
    async with fleet_of_two(place, settings, monkeypatch) as fleet:
        await fleet.client.add_app("blog", ["blog.example.com"], ["web1"])
        yield fleet


async def registered(two: Two) -> None:
    for ca in two.names:
        await two.client.register_account(OLD, ca, agree_tos=True)


async def kept(two: Two) -> list[tuple[str, str]]:
    """CA and address of every account, in the order of the list."""
    return sorted([(one.ca, one.email) for one in await two.client.accounts()], key=lambda of: two.names.index(of[0]))


async def unregistered(two: Two, ca: str) -> Account:
    """What an order leaves that came when the CA was down."""
    name = account_id(resolve_ca(ca), OLD)
    return await AccountRecords(two.bench.fleet.store).create(Account(name, ca, OLD, two.bench.vault.seal(b"key")))


async def test_an_account_that_was_never_registered_is_left_out(two: Two) -> None:
    """Its CA, which is down still, is not asked; the other account is changed, and the apps follow."""
    first, second = two.names
    await two.client.register_account(OLD, second, agree_tos=True)
    left = await unregistered(two, first)
    await two.place.first.shut()
    done = await two.client.change_account_email(OLD, NEW)
    assert done.sentence == f"{OLD} is {NEW} now at {second}; 1 apps follow"
    assert await kept(two) == [(first, OLD), (second, NEW)]
    assert await AccountRecords(two.bench.fleet.store).get(left.id) == left
    assert (await two.client.properties("blog"))["email"] == NEW
    await two.place.first.open()
    await two.client.register_account(NEW, first, agree_tos=True)
    with pytest.raises(UsageError, match=rf"account: '{OLD}' is none"):
        await two.client.change_account_email(OLD, NEW, first)


async def test_an_account_that_was_ended_is_left_out(two: Two) -> None:
    """Its apps were told to have another address: it is not in the way of that. Alone, it is said what it is."""
    first, second = two.names
    await registered(two)
    await two.client.deactivate_account(OLD, first)
    assert (await two.client.change_account_email(OLD, NEW)).sentence.startswith(f"{OLD} is {NEW} now at {second}; ")
    assert await kept(two) == [(first, OLD), (second, NEW)]
    with pytest.raises(OwnerError, match="was deactivated on"):
        await two.client.change_account_email(OLD, NEW, first)


@pytest.mark.parametrize("which", [0, 1])
async def test_nothing_is_changed_while_one_cannot_be(two: Two, which: int) -> None:
    """Whichever it is: a CA is down, or has an account with the new address. Afterwards it goes through."""
    await registered(two)
    door = (two.place.first, two.place.second)[which]
    before = await kept(two)
    await door.shut()
    with pytest.raises(CAUnreachable):
        await two.client.change_account_email(OLD, NEW)
    await door.open()
    assert await kept(two) == before
    await two.client.register_account(NEW, two.names[which], agree_tos=True)
    before = await kept(two)
    with pytest.raises(UsageError, match=f"is there already at {two.names[which]}"):
        await two.client.change_account_email(OLD, NEW)
    assert await kept(two) == before
    assert (await two.client.properties())["email"] == OLD
    other = "third@example.com"
    assert (await two.client.change_account_email(OLD, other)).sentence.endswith("; 1 apps follow")
    assert [email for _, email in await kept(two)].count(other) == 2


async def test_asked_again_it_does_the_rest(two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    """One CA goes away in between: the doctor follows the account that has moved, and the next try moves the other."""
    await registered(two)
    asked: list[str] = []

    async def once(transport: Transport, signer: Signer, email: str) -> None:
        asked.append(transport.ca.name)
        if len(asked) > 1:
            raise CAUnreachable("gone")
        await change_contact(transport, signer, email)

    with monkeypatch.context() as patch:
        patch.setattr(account_changes, "change_contact", once)
        with pytest.raises(CAUnreachable, match="gone"):
            await two.client.change_account_email(OLD, NEW)
    done, rest = asked
    assert sorted(await kept(two)) == sorted([(done, NEW), (rest, OLD)])
    said = {one.ca: one for one in await two.client.doctor("blog") if one.name == "account"}
    for name in asked:
        account = await known_account(two.bench.fleet.store, resolve_ca(name), OLD)
        assert account is not None
        assert (said[name].ok, said[name].message) == (True, account.url)
    again = await two.client.change_account_email(OLD, NEW)
    assert again.sentence.endswith("; 1 apps follow")
    assert [email for _, email in await kept(two)] == [NEW, NEW]
    assert (await two.client.properties("blog"))["email"] == NEW
