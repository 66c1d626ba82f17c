"""Steps of a revocation with a CA that only the test knows: what it answers, and what happens meanwhile."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

import pytest

from certfleet.acme_ca.account_records import account_id
from certfleet.acme_ca.keys import AccountKey, key_pem, make_account_key, make_key
from certfleet.acme_ca.presets import resolve_ca
from certfleet.acme_ca.protocol import Signer
from certfleet.acme_ca.reasons import Reason
from certfleet.agenda import Claim
from certfleet.errors import AcmeProblem, CAUnreachable
from certfleet.lifecycle.orders.ordering import LONG_AGO
from certfleet.lifecycle.revocations import revocation
from certfleet.lifecycle.revocations.book import Revocation, revoke_member
from certfleet.lifecycle.revocations.revocation import revoke
from certfleet.lifecycle.revocations.withdrawal import ask_revocation
from certfleet.lifecycle.work import work
from certfleet.lifecycle.workbench import Workbench, open_workbench
from certfleet.models import Account, App, KeyType, dump, utcnow
from certfleet.settings import Settings
from certfleet.store import Store
from certfleet.vault import ensure_key
from tests.certificate_records import CA, record

BLOG = App("blog", ("blog.example.com",), ("web1",), enabled=True)


async def nothing() -> None:
    """Nobody does anything meanwhile."""


@dataclass
class RevokeCert:
    """The CA's revokeCert: what is asked of it, what it answers, what happens while it is asked."""

    asked: list[Reason] = field(default_factory=list)
    answers: list[Exception] = field(default_factory=list)
    by: list[object] = field(default_factory=list)
    """Who asked."""
    meanwhile: Callable[[], Awaitable[object]] = nothing

    async def __call__(self, _: object, by: object, __: str, reason: Reason) -> None:
        self.by.append(by)
        self.asked.append(reason)
        await self.meanwhile()
        if self.answers:
            raise self.answers.pop(0)


@pytest.fixture
async def bench(settings: Settings, store: Store) -> AsyncIterator[Workbench]:
    """An app with a certificate whose account is gone."""
    del store  # emptied
    ensure_key(settings)
    async with open_workbench(settings) as opened:
        await opened.fleet.inventory.add_app(BLOG)
        key = opened.vault.seal(key_pem(await make_key(KeyType.P256)))
        found = record(BLOG, utcnow(), sealed_key=key, email="ops@example.com")
        await opened.fleet.store.redis.set(opened.fleet.store.key("certificate", "blog"), dump(found))
        yield opened


@pytest.fixture
def ca(monkeypatch: pytest.MonkeyPatch) -> RevokeCert:
    found = RevokeCert()
    monkeypatch.setattr(revocation, "revoke_certificate", found)
    return found


async def look(bench: Workbench) -> None:
    await bench.fleet.agenda.schedule(revoke_member("blog"), LONG_AGO)
    await work(bench, [Claim(revoke_member("blog"), 0)], revoke)


async def wishes(bench: Workbench) -> list[Revocation]:
    return await bench.fleet.revocations.of("blog")


@pytest.mark.parametrize("answers", [[], [CAUnreachable("no answer")]])
async def test_what_is_asked_for_while_the_ca_is_asked_is_not_lost(
    bench: Workbench, ca: RevokeCert, answers: list[Exception]
) -> None:
    """The step that is at the CA with another reason, or waits in vain for its answer, does not write over the wish."""
    await ask_revocation(bench.fleet, BLOG, Reason.SUPERSEDED)
    ca.answers = answers
    ca.meanwhile = lambda: ask_revocation(bench.fleet, BLOG, Reason.KEY_COMPROMISE)
    await look(bench)
    [wish] = await wishes(bench)
    assert (wish.reason, wish.attempts) == (Reason.KEY_COMPROMISE, 0)
    ca.meanwhile = nothing
    await look(bench)
    assert await wishes(bench) == []
    assert ca.asked == [Reason.SUPERSEDED, Reason.KEY_COMPROMISE]


@pytest.mark.parametrize("refusal", ["unauthorized", "accountDoesNotExist"])
async def test_an_account_that_took_the_place_of_another_leaves_the_certificates_own_key(
    bench: Workbench, ca: RevokeCert, refusal: str
) -> None:
    """The one that ordered it was ended, and another imported for its address, which the CA refuses."""
    key = bench.vault.seal(key_pem(make_account_key().private))
    at = resolve_ca(CA)
    account = Account(account_id(at, "ops@example.com"), at.name, "ops@example.com", key, url=f"{CA}/2")
    await bench.accounts.records.create(account)
    await ask_revocation(bench.fleet, BLOG, Reason.KEY_COMPROMISE)
    ca.answers = [AcmeProblem(status=403, type=refusal, detail="it is not yours")]
    await look(bench)
    assert await wishes(bench) == []
    assert [type(by) for by in ca.by] == [Signer, AccountKey]
