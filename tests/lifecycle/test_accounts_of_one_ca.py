"""Accounts made beforehand, and the address of one CA's account changed alone, by way of the client at Pebble."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from certfleet.acme_ca.account_records import known_account
from certfleet.acme_ca.presets import resolve_ca
from certfleet.client import Client, open_client
from certfleet.demo.pebble import DemoCA, pebble
from certfleet.demo.ports import free_port
from certfleet.errors import OwnerError, UsageError
from certfleet.models import CA, Host
from certfleet.settings import Settings
from certfleet.store import Store

EMAIL, OTHER = "ops@example.com", "certs@example.com"


@dataclass
class Desk:
    """A client whose fleet is set to a Pebble."""

    client: Client
    pebble: DemoCA

    @property
    def ca(self) -> CA:
        return resolve_ca(self.pebble.directory, bundle=self.pebble.bundle)

    async def url(self, email: str) -> str | None:
        found = await known_account(self.client._fleet.store, self.ca, email)
        return found.url if found is not None else None

    async def events(self) -> list[str]:
        return [entry.event for entry in await self.client._fleet.journal.latest("")]


@pytest.fixture
async def desk(settings: Settings, store: Store, tmp_path: Path) -> AsyncIterator[Desk]:
    del store  # emptied
    async with pebble(tmp_path, http_port=free_port()) as ca, open_client(settings) as client:
        await client.set_properties({"ca": ca.directory, "ca-bundle": ca.bundle, "email": EMAIL})
        yield Desk(client, ca)


async def test_made_before_its_first_order(desk: Desk) -> None:
    """On the operator's word on the CA's terms; once; its URL is told, as a CAA record names it."""
    with pytest.raises(OwnerError, match="needs your word on the CA's terms of service"):
        await desk.client.register_account()
    assert await desk.url(EMAIL) is None
    assert "account registered" not in await desk.events()
    done = await desk.client.register_account(agree_tos=True)
    url = await desk.url(EMAIL)
    assert url is not None
    assert done.changed
    assert done.sentence.endswith(f": the account {url} is registered")
    again = await desk.client.register_account(EMAIL, desk.ca.directory)
    assert (again.changed, again.sentence) == (False, done.sentence.replace("is registered", "was registered before"))
    assert (await desk.client.properties())["agree-tos"] == "off", "the word was for this account"
    assert (await desk.client.register_account(OTHER, agree_tos=True)).changed
    assert (await desk.events()).count("account registered") == 2
    with pytest.raises(UsageError, match="email: 'nonsense' is not an e-mail address"):
        await desk.client.register_account("nonsense")


async def test_the_address_at_one_ca_alone(desk: Desk) -> None:
    """Its apps follow, each by a property of its own; the address for all, and apps at other CAs, keep the old one."""
    await desk.client.register_account(agree_tos=True)
    url = await desk.url(EMAIL)
    await desk.client.add_host(Host("web1"))
    at_letsencrypt = {"ca": "letsencrypt-staging"}
    for name, properties in (
        ("blog", {}),
        ("shop", {"email": EMAIL}),
        ("wiki", at_letsencrypt),
        ("other", {"email": OTHER}),
    ):
        await desk.client.add_app(name, [f"{name}.example.com"], ["web1"], properties)
    with pytest.raises(UsageError, match=r"account: .* is none at letsencrypt-staging"):
        await desk.client.change_account_email(EMAIL, "new@example.com", "letsencrypt-staging")
    done = await desk.client.change_account_email(EMAIL, "new@example.com", desk.ca.directory)
    assert f"{EMAIL} is new@example.com now at {desk.ca.name}; 2 apps follow" in done.sentence
    assert done.sentence.endswith(f"the one for all apps is {EMAIL} still")
    found = {app.name: (await desk.client.properties(app.name))["email"] for app in await desk.client.apps()}
    assert found == {"blog": "new@example.com", "shop": "new@example.com", "wiki": EMAIL, "other": OTHER}
    assert (await desk.client.properties())["email"] == EMAIL
    assert await desk.url("new@example.com") == url
    again = await desk.client.change_account_email(EMAIL, "new@example.com", desk.ca.directory)
    assert "0 apps follow" in again.sentence


async def test_the_address_at_every_ca(desk: Desk) -> None:
    """Without a CA named, every account with the address moves, as it always did."""
    await desk.client.register_account(agree_tos=True)
    done = await desk.client.change_account_email(EMAIL, OTHER)
    assert done.sentence == f"{EMAIL} is {OTHER} now at {desk.ca.name}; 0 apps follow"
    assert (await desk.client.properties())["email"] == OTHER
