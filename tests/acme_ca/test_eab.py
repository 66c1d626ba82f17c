"""External account binding (RFC 8555 §7.3.4): the arithmetic against the acme library's, the rest against Pebble."""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from acme.messages import ExternalAccountBinding
from josepy.jwk import JWKEC

from certfleet.acme_ca.accounts import Accounts, account_id
from certfleet.acme_ca.eab import Binding, bind, parse_binding
from certfleet.acme_ca.keys import make_account_key
from certfleet.acme_ca.presets import resolve_ca
from certfleet.acme_ca.protocol import get_order, new_order
from certfleet.acme_ca.transport import Transport
from certfleet.demo.pebble import pebble
from certfleet.demo.ports import free_port
from certfleet.errors import AcmeProblem, OwnerError, UsageError
from certfleet.lifecycle.external import keep
from certfleet.lifecycle.fleet import open_fleet
from certfleet.settings import Settings
from certfleet.store import Store
from certfleet.vault import Vault, ensure_key

MAC = urlsafe_b64encode(b"0123456789abcdef0123456789abcdef").decode().rstrip("=")
EMAIL = "ops@example.com"


@asynccontextmanager
async def strict_about_it(
    directory: Path, store: Store, settings: Settings
) -> AsyncIterator[tuple[Accounts, Transport]]:
    """A Pebble that knows one customer and makes accounts for nobody else."""
    ensure_key(settings)
    known = {"externalAccountBindingRequired": True, "externalAccountMACKeys": {"kid-1": MAC}}
    async with (
        pebble(directory, http_port=free_port(), settings=known) as ca,
        Transport(resolve_ca(ca.directory, bundle=ca.bundle)) as transport,
    ):
        yield Accounts(store, Vault(settings)), transport


async def tell(settings: Settings, transport: Transport, kid: str, key: str) -> None:
    """What a person does."""
    async with open_fleet(settings) as fleet:
        await keep(fleet, transport.ca, EMAIL, kid, key)


def test_it_is_what_the_acme_library_makes() -> None:
    """Payload and signature; the protected header says the same."""
    account, url = make_account_key(), "https://ca.example/new-account"
    ours = bind(Binding("kid-1", b"0123456789abcdef0123456789abcdef"), account, url)
    directory = {"newAccount": url}
    public = JWKEC(key=account.private).public_key()
    theirs = ExternalAccountBinding.from_data(public, "kid-1", MAC, directory, hmac_alg="HS256")
    assert decoded(ours["protected"]) == decoded(theirs["protected"]) | {"url": url}
    assert decoded(ours["payload"]) == decoded(theirs["payload"])


def decoded(part: str) -> dict[str, str]:
    found: dict[str, str] = json.loads(urlsafe_b64decode(part + "=="))
    return found


async def test_without_it_nothing_is_registered(tmp_path: Path, store: Store, settings: Settings) -> None:
    """The sentence says what is missing and how to tell it; the CA is not even asked."""
    async with strict_about_it(tmp_path, store, settings) as (accounts, transport):
        with pytest.raises(OwnerError, match="external account binding") as caught:
            await accounts.account_for(transport, EMAIL, agree_tos=True)
        assert f"certfleet eab set --ca {transport.ca.directory} --email {EMAIL}" in str(caught.value)
        assert "newAccount" not in transport.requests


async def test_with_it_the_account_is_made_and_works(tmp_path: Path, store: Store, settings: Settings) -> None:
    """And the MAC key stands nowhere in Redis as it was told."""
    async with strict_about_it(tmp_path, store, settings) as (accounts, transport):
        await tell(settings, transport, "kid-1", MAC)
        _, signer = await accounts.account_for(transport, EMAIL, agree_tos=True)
        order = await new_order(transport, signer, ["a.example.com"])
        assert (await get_order(transport, signer, order.url)).status == "pending"
        text = await store.redis.get(store.key("eab", account_id(transport.ca, EMAIL)))
        assert "kid-1" in text
        assert MAC not in text


@pytest.mark.parametrize(("kid", "key"), [("kid-1", MAC.replace("M", "N", 1)), ("kid-2", MAC)])
async def test_a_wrong_one_is_refused_and_can_be_put_right(
    tmp_path: Path, store: Store, settings: Settings, kid: str, key: str
) -> None:
    """The CA's own words; the right one then makes the account with the same key."""
    async with strict_about_it(tmp_path, store, settings) as (accounts, transport):
        await tell(settings, transport, kid, key)
        with pytest.raises(AcmeProblem) as caught:
            await accounts.account_for(transport, EMAIL, agree_tos=True)
        assert key not in str(caught.value)
        await tell(settings, transport, "kid-1", MAC)
        account, _ = await accounts.account_for(transport, EMAIL, agree_tos=True)
        assert account.url is not None


@pytest.mark.parametrize(
    ("kid", "key", "field"),
    [
        ("", MAC, "kid"),
        ("two words", MAC, "kid"),
        ("kid", "", "key-file"),
        ("kid", "secret secret secret secret", "key-file"),
        ("kid", "c2hvcnQ", "key-file"),
        ("kid", "A" * 10_000, "key-file"),
        ("kid", "A" * 33, "key-file"),
    ],
)
def test_what_is_no_binding(kid: str, key: str, field: str) -> None:
    """One sentence, which never holds the key."""
    with pytest.raises(UsageError) as caught:
        parse_binding(kid, key)
    assert caught.value.field == field
    assert not key or key not in str(caught.value)


@pytest.mark.parametrize("written", [MAC, f"{MAC}=", f"  {MAC}\n"])
def test_ways_to_write_the_key(written: str) -> None:
    """With padding, without it, with the line's end; and in the other alphabet."""
    assert parse_binding("kid", written).key == b"0123456789abcdef0123456789abcdef"
    assert parse_binding("kid", "+/+/" * 8).key == parse_binding("kid", "-_-_" * 8).key
    assert "0123" not in repr(parse_binding("kid", written))
