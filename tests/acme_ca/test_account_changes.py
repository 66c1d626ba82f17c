"""Another key, another address, the end of an account, and accounts of other clients, at Pebble."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from josepy.jwk import JWKEC, JWKRSA

from certfleet.acme_ca import account_changes
from certfleet.acme_ca.account_changes import AccountChanges
from certfleet.acme_ca.account_files import read_account_key
from certfleet.acme_ca.account_requests import change_contact
from certfleet.acme_ca.accounts import Accounts, account_id
from certfleet.acme_ca.keys import key_pem, load_account_key, signing_key
from certfleet.acme_ca.presets import resolve_ca
from certfleet.acme_ca.protocol import Signer, new_account, new_order
from certfleet.acme_ca.transport import Transport
from certfleet.demo.pebble import DemoCA, pebble
from certfleet.demo.ports import free_port
from certfleet.errors import AcmeProblem, OwnerError, UsageError
from certfleet.models import Account, load, microseconds, utcnow
from certfleet.settings import Settings
from certfleet.store import Store
from certfleet.vault import Vault, ensure_key
from tests.acme_ca.flow import scripted

EMAIL, OTHER = "ops@example.com", "dev@example.com"


@dataclass
class Desk:
    """A Pebble, and one process with an account there."""

    settings: Settings
    store: Store
    vault: Vault
    ca: DemoCA
    transport: Transport
    accounts: Accounts
    changes: AccountChanges

    async def signer(self, email: str = EMAIL, accounts: Accounts | None = None) -> Signer:
        """The account as orders use it."""
        return (await (accounts or self.accounts).account_for(self.transport, email, agree_tos=True))[1]

    async def record(self, email: str = EMAIL) -> Account:
        """The record as Redis has it."""
        name = account_id(self.transport.ca, email)
        return load(Account, await self.store.redis.get(self.store.key("account", name)))

    async def takes(self, signer: Signer) -> bool:
        """Whether the CA takes an order signed like this."""
        try:
            await new_order(self.transport, signer, ["a.example.com"])
        except AcmeProblem:
            return False
        return True


@asynccontextmanager
async def desk_at(settings: Settings, store: Store, directory: Path) -> AsyncIterator[Desk]:
    ensure_key(settings)
    vault = Vault(settings)
    async with (
        pebble(directory, http_port=free_port()) as ca,
        Transport(resolve_ca(ca.directory, bundle=ca.bundle)) as transport,
    ):
        accounts = Accounts(store, vault)
        yield Desk(settings, store, vault, ca, transport, accounts, AccountChanges(accounts, vault, transport))


@pytest.fixture
async def desk(settings: Settings, store: Store, tmp_path: Path) -> AsyncIterator[Desk]:
    """Everything of this test's own."""
    async with desk_at(settings, store, tmp_path) as opened:
        yield opened


async def test_a_new_key_for_the_same_account(desk: Desk) -> None:
    """The CA takes the new key and not the old one; a process that knew the old one uses the new one at once."""
    elsewhere = Accounts(desk.store, desk.vault)
    before = await desk.signer()
    assert (await desk.signer(accounts=elsewhere)).key.thumbprint == before.key.thumbprint
    await desk.changes.roll_over(EMAIL)
    for accounts in (desk.accounts, elsewhere):
        after = await desk.signer(accounts=accounts)
        assert after.kid == before.kid
        assert after.key.thumbprint != before.key.thumbprint
        assert await desk.takes(after)
    assert not await desk.takes(before)
    assert (await desk.record()).sealed_next is None


@pytest.mark.parametrize("when", ["before", "after"])
async def test_killed_in_the_middle_of_a_rollover(desk: Desk, when: str, tmp_path: Path) -> None:
    """Whichever key the CA has then, the account goes on with it, and the next rollover ends in one key for both."""
    before, known = await desk.signer(), await desk.record()
    killed_rollover(desk, when, tmp_path)
    left = await desk.record()
    assert left.sealed_next is not None, "the new key was not kept before the CA was asked"
    assert left.sealed_key == known.sealed_key
    following = load_account_key(desk.vault.open(left.sealed_next))
    assert await desk.takes(replace(before, key=following)) is (when == "after")
    assert await desk.takes(before) is (when == "before")

    # A refused request is what makes an order look.
    assert await desk.accounts.changed(desk.transport, known) is (when == "after")
    assert await desk.takes(await desk.signer())
    await desk.changes.roll_over(EMAIL)
    after = await desk.signer()
    assert await desk.takes(after)
    assert after.kid == before.kid
    assert after.key.thumbprint != before.key.thumbprint
    assert (await desk.record()).sealed_next is None
    assert before.key.thumbprint in (await desk.record()).former, "records of dns-persist-01 may be by it"


async def test_a_rollover_after_a_killed_one_sends_no_second_change(desk: Desk, tmp_path: Path) -> None:
    """What the CA has done already is found out and kept."""
    await desk.signer()
    killed_rollover(desk, "after", tmp_path)
    following = (await desk.record()).sealed_next
    await desk.changes.roll_over(EMAIL)
    assert desk.ca.log.read_text().count("POST /rollover-account-key ->") <= 2, "one, and perhaps a bad nonce"
    assert (await desk.record()).sealed_key == following


def killed_rollover(desk: Desk, when: str, directory: Path) -> None:
    words = (when, desk.ca.directory, str(directory / "bundle.pem"), EMAIL)
    redis = desk.settings.redis_url
    assert redis is not None
    ran = subprocess.run(
        [sys.executable, "-m", "tests.acme_ca.killed_rollover", *words],
        env=os.environ | {"CERTFLEET_HOME": str(desk.settings.home), "CERTFLEET_REDIS_URL": redis.get_secret_value()},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ran.returncode == -signal.SIGKILL, ran.stderr


async def test_another_address(desk: Desk) -> None:
    """The CA and the record have it, the old address leads there, and what was counted for the account is kept."""
    before, old = await desk.signer(), await desk.record()
    full = microseconds(utcnow()) + 3_600_000_000
    await desk.store.redis.set(f"certfleet:limit:{desk.ca.directory}:orders-per-account:{old.id}", f"{full} 1")
    moved = await desk.changes.change_email(EMAIL, OTHER)
    assert await contacts(desk, before) == [f"mailto:{OTHER}"]
    assert (await desk.signer(OTHER)).kid == before.kid
    assert (await desk.signer(EMAIL)).kid == before.kid, "an order under way still has the old one"
    counted = f"certfleet:limit:{desk.ca.directory}:orders-per-account:{moved.id}"
    assert await desk.store.redis.get(counted) == f"{full} 0", "what is reserved is given back under the old name"
    assert 0 < await desk.store.redis.pttl(counted) <= 3_600_000
    assert (await desk.record()).sealed_key == ""
    assert await desk.changes.change_email(EMAIL, OTHER) == await desk.record(OTHER), "asked for again"
    await desk.changes.change_email(OTHER, EMAIL)
    assert (await desk.signer(EMAIL)).kid == before.kid, "and back"
    await desk.signer("third@example.com")
    with pytest.raises(UsageError, match="is there already"):
        await desk.changes.change_email(EMAIL, "third@example.com")


async def contacts(desk: Desk, signer: Signer) -> list[str]:
    answer = await desk.transport.post(signer.kid, None, signer.key, kid=signer.kid)
    found: list[str] = answer.json()["contact"]
    return found


async def test_a_rollover_while_the_address_is_changed(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """The account is kept under its new address with the key that the CA has by then."""
    before = await desk.signer()
    asked = change_contact

    async def meanwhile(transport: Transport, signer: Signer, email: str) -> None:
        await asked(transport, signer, email)
        await desk.changes.roll_over(EMAIL)

    monkeypatch.setattr(account_changes, "change_contact", meanwhile)
    moved = await desk.changes.change_email(EMAIL, OTHER)
    after = await desk.signer(OTHER)
    assert moved == await desk.record(OTHER)
    assert after.kid == before.kid
    assert after.key.thumbprint != before.key.thumbprint
    assert await desk.takes(after)


async def test_the_end_of_an_account(desk: Desk) -> None:
    """The CA refuses it, apps are told why and what to do, and asking again harms nothing."""
    signer = await desk.signer()
    for _ in range(2):
        await desk.changes.deactivate(EMAIL)
    assert not await desk.takes(signer)
    for accounts in (desk.accounts, Accounts(desk.store, desk.vault)):
        with pytest.raises(OwnerError, match=rf"{EMAIL} at .* was deactivated on .* `email`"):
            await desk.signer(accounts=accounts)
    with pytest.raises(OwnerError, match="was deactivated"):
        await desk.changes.roll_over(EMAIL)
    with pytest.raises(UsageError, match="is none"):
        await desk.changes.deactivate(OTHER)


def certbot_rsa() -> bytes:
    return json.dumps(JWKRSA(key=rsa.generate_private_key(65_537, 2048)).to_json()).encode()


def certbot_ec() -> bytes:
    return json.dumps(JWKEC(key=ec.generate_private_key(ec.SECP256R1())).to_json()).encode()


def lego() -> bytes:
    return openssl("ecparam", "-name", "secp384r1", "-genkey", "-noout")


def acme_sh() -> bytes:
    return openssl("ecparam", "-name", "prime256v1", "-genkey")


def acme_sh_rsa() -> bytes:
    return openssl("genrsa", "-traditional", "2048")


def openssl(*words: str) -> bytes:
    return subprocess.run(["openssl", *words], capture_output=True, check=True, timeout=60).stdout


@pytest.mark.parametrize("made", [certbot_rsa, certbot_ec, lego, acme_sh, acme_sh_rsa])
async def test_an_account_of_another_client(desk: Desk, made: object) -> None:
    """Its key finds its URL at the CA, signs orders, and can be rolled over to one of ours."""
    content = made()  # type: ignore[operator]
    key = read_account_key(content)
    url = (await new_account(desk.transport, key, EMAIL, agree_tos=True)).url
    account, new = await desk.changes.take_over(EMAIL, key)
    assert (account.url, new) == (url, True)
    signer = await desk.signer()
    assert (signer.kid, signer.key.thumbprint) == (url, key.thumbprint)
    assert await desk.takes(signer)
    assert (await desk.changes.take_over(EMAIL, key))[1] is False, "it is used already"
    text = await desk.store.redis.get(desk.store.key("account", account.id))
    assert "PRIVATE" not in text
    await desk.changes.roll_over(EMAIL)
    assert await desk.takes(await desk.signer())
    assert isinstance((await desk.signer()).key.private, ec.EllipticCurvePrivateKey)


async def test_an_import_that_cannot_be(desk: Desk) -> None:
    """A key that the CA does not know, and an address that has another account: nothing is changed."""
    stranger = read_account_key(acme_sh())
    with pytest.raises(UsageError, match="knows no account with it"):
        await desk.changes.take_over(EMAIL, stranger)
    assert await desk.store.redis.keys("certfleet:account:*") == []
    await desk.signer()
    before = await desk.record()
    await new_account(desk.transport, stranger, EMAIL, agree_tos=True)
    with pytest.raises(UsageError, match="has another account"):
        await desk.changes.take_over(EMAIL, stranger)
    assert await desk.record() == before
    await desk.changes.deactivate(EMAIL)
    assert (await desk.changes.take_over(EMAIL, stranger))[1], "in the place of one that was ended"
    assert await desk.takes(await desk.signer())


async def test_an_account_is_kept_under_one_address(desk: Desk) -> None:
    """A second one would keep the old key after a rollover by the first. It is refused, with who has the account."""
    key = read_account_key(acme_sh())
    await new_account(desk.transport, key, EMAIL, agree_tos=True)
    await desk.changes.take_over(EMAIL, key)
    before = await desk.record()
    said = rf"email: '{OTHER}' cannot .* {before.url} .*, {EMAIL} has it: .*`certfleet account email {EMAIL} {OTHER}`"
    with pytest.raises(UsageError, match=said):
        await desk.changes.take_over(OTHER, key)
    await desk.accounts.forget(before)  # the CA does not know it; with the next order it is this account again
    with pytest.raises(UsageError, match=said):
        await desk.changes.take_over(OTHER, key)
    await desk.signer()
    assert await desk.record() == before
    assert len(await desk.store.redis.keys("certfleet:account:*")) == 1
    await desk.changes.change_email(EMAIL, OTHER)
    with pytest.raises(UsageError, match=rf"'{EMAIL}' cannot have .*, {OTHER} has it"):
        await desk.changes.take_over(EMAIL, key)
    assert (await desk.record()).moved == OTHER, "the way is there still"
    assert (await desk.changes.take_over(OTHER, key))[1] is False


async def test_records_that_are_in_no_way_of_an_import(desk: Desk) -> None:
    """Those of another key, of another CA, with a key that nobody can open, and ended ones."""
    key = read_account_key(acme_sh())
    url = (await new_account(desk.transport, key, EMAIL, agree_tos=True)).url
    ca, sealed = desk.transport.ca.name, desk.vault.seal(key_pem(key.private))
    for record in (
        Account("1", ca, "1@example.com", desk.vault.seal(key_pem(read_account_key(lego()).private))),
        Account("2", ca, "2@example.com", "no longer sealed by a key of ours"),
        Account("3", ca, "3@example.com", sealed, url, deactivated=utcnow()),
        Account("4", "letsencrypt", "4@example.com", sealed, url),
    ):
        await desk.accounts.records.create(record)
    assert (await desk.changes.take_over(EMAIL, key))[1]
    assert await desk.takes(await desk.signer())


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "holds no private key"),
        (b"{}", "holds JSON that is no key"),
        (b'{"kty": "oct", "k": "c2VjcmV0"}', "holds no private RSA or EC key"),
        (b"[" * 100_000, "is longer than"),
        (b"-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n", "cannot be read"),
        (key_pem(ec.generate_private_key(ec.SECP521R1())), "has to be P-256, P-384, or RSA"),
        (key_pem(rsa.generate_private_key(65_537, 2560)), "has to be P-256, P-384, or RSA"),
    ],
    ids=["nothing", "no key", "a secret", "long", "nonsense", "P-521", "RSA 2560"],
)
def test_files_that_hold_no_account_key(content: bytes, said: str) -> None:
    """One sentence, which shows nothing of the file."""
    with pytest.raises(UsageError, match=said) as caught:
        read_account_key(content)
    assert "c2VjcmV0" not in str(caught.value)


def test_a_public_key_alone_is_none() -> None:
    """As in a file of the wrong name."""
    public = JWKEC(key=ec.generate_private_key(ec.SECP256R1())).public_key().to_json()
    with pytest.raises(UsageError, match="holds no private RSA or EC key"):
        read_account_key(json.dumps(public).encode())


async def test_no_account_without_a_word_on_the_terms(desk: Desk) -> None:
    """The refusal shows where the terms are and how to agree; the CA was not asked for an account."""
    await desk.ca.reset()
    with pytest.raises(OwnerError, match="what%20thou%20wilt") as caught:
        await desk.accounts.account_for(desk.transport, EMAIL)
    assert "certfleet set agree-tos=on" in str(caught.value)
    assert (await desk.ca.counts())["newAccount"] == 0
    signer = await desk.signer()
    assert (await desk.accounts.account_for(desk.transport, EMAIL))[1] is signer, "who has one is not asked again"


async def test_a_ca_without_terms_asks_for_nothing(store: Store, settings: Settings, tmp_path: Path) -> None:
    """A private CA's directory need not name any."""
    from aiohttp import web  # noqa: PLC0415

    ensure_key(settings)

    async def made(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=201, headers={"Location": f"https://{request.host}/1", "Replay-Nonce": "n" * 8})

    async with scripted(tmp_path, made) as (script, transport):
        _, signer = await Accounts(store, Vault(settings)).account_for(transport, EMAIL)
        assert signer.kid.endswith("/1")
        assert script.asked[-1] == "POST /account"


@pytest.mark.parametrize("key", [ec.generate_private_key(ec.SECP384R1()), rsa.generate_private_key(65_537, 2048)])
def test_what_is_sent_of_a_key_is_public(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> None:
    """The members of RFC 7518 §6 that are private are not in the JWK."""
    assert json.loads(signing_key(key).jwk).keys() <= {"kty", "crv", "x", "y", "n", "e"}
