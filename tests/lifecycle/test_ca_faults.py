"""Whatever goes wrong with one answer of the CA: one certificate, one finalize, few requests, and soon.

In simulated time before a real CA whose front spoils the answer (tests/ca/faults.py).
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import aiohttp
import pytest

from certfleet.acme_ca import transport
from certfleet.acme_ca.accounts import account_id
from certfleet.acme_ca.pace import poll
from certfleet.acme_ca.presets import resolve_ca
from certfleet.client import Client
from certfleet.limits.keys import order_buckets, orders_bucket
from certfleet.overview import State
from tests.ca.faults import How
from tests.lifecycle.simulated import Simulation, sim, where

__all__ = ["sim", "where"]  # fixtures
pytestmark = pytest.mark.asyncio(loop_scope="module")

WARM = 9  # requests for one name with a new account: directory, nonce and account, then six or seven
MINUTES = timedelta(minutes=3)


async def issued_once(
    sim: Simulation, app: str = "blog", *, orders: int = 1, extra: int = 12, within: timedelta = MINUTES
) -> None:
    """The app has its certificate in time, by so many orders, for few requests more than usual, and nothing is left."""
    before = sim.clock.now()
    await sim.ca.reset()
    await sim.add(app)
    await sim.run(within)
    certificate = await sim.certificate(app)
    assert certificate.generation == 1
    assert certificate.issued - before <= within
    book, counts = await sim.book(), await sim.ca.counts()
    mine = certificate.identifiers
    assert len([one for one in book.issuances if one.identifiers == mine]) == 1, "the CA issued no other"
    assert len([one for one in book.accepted if one.identifiers == mine]) <= orders
    assert sum(counts.values()) <= WARM + extra, counts
    view = await sim.view(app)
    assert (view.error, view.next_try, view.waits_for, view.away_since) == (None, None, None, None)


FIRST = ("directory", "newNonce", "newAccount")
"""What a process asks once."""
EACH = ("newOrder", "authorization", "challenge", "order", "finalize", "certificate")
ONCE: dict[str, dict[str, Any]] = {
    "500": {"how": "status", "status": 500},
    "500 and when to come again": {"how": "status", "status": 500, "retry_after": "60"},
    "502, a page": {"how": "page", "status": 502},
    "503": {"how": "status", "status": 503},
    "503 and when to come again": {"how": "status", "status": 503, "retry_after": "1"},
    "504": {"how": "status", "status": 504},
    "cut": {"how": "cut"},
    "cut, and done": {"how": "cut-after"},
    "cut in the middle": {"how": "cut-body"},
    "not JSON": {"how": "body", "text": "{nonsense"},
    "another type": {"how": "body", "text": '["an", "array"]'},
    "half of it": {"how": "truncate"},
    "another content type": {"how": "type", "text": "text/html"},
    "five bad nonces": {"how": "bad-nonce", "count": 5},
    "no nonce": {"how": "no-nonce"},
}


@pytest.mark.parametrize("name", ONCE)
async def test_an_answer_goes_wrong(sim: Simulation, name: str) -> None:
    """In whatever way, and whichever request it is: first the three that begin it all, then one by one."""
    for kind in FIRST if name != "five bad nonces" else FIRST[-1:]:  # the others are not signed
        await sim.ca.fail(kind, **ONCE[name])
    await issued_once(sim, "first", extra=24, within=timedelta(minutes=15))
    await sim.ca.heal()
    for kind in EACH:
        await sim.ca.fail(kind, **ONCE[name])
        # An order whose URL nobody could read is made once more: Pebble, unlike Boulder, does not give the same again.
        lost = kind == "newOrder" and name in {"cut, and done", "cut in the middle"}
        await issued_once(sim, kind.lower(), orders=2 if lost else 1)
        assert sum((await sim.ca.heal()).values()) == ONCE[name].get("count", 1), f"{kind} did not go wrong"


@pytest.mark.parametrize("how", ["hang", "drip"])
async def test_an_answer_that_takes_too_long(sim: Simulation, monkeypatch: pytest.MonkeyPatch, how: How) -> None:
    """The time-out (here a fraction of a second) is for the whole answer; the CA has done what it was asked."""
    monkeypatch.setattr(transport, "TIMEOUT", aiohttp.ClientTimeout(total=0.6))
    await sim.ca.fail("directory", how, seconds=1.2)
    await issued_once(sim, "first")
    for kind in EACH:
        await sim.ca.fail(kind, how, seconds=1.2)
        await issued_once(sim, kind.lower(), orders=2 if kind == "newOrder" else 1)


async def test_a_storm_of_bad_nonces(sim: Simulation) -> None:
    """Forty in a row, in the middle of an order: it is kept, and goes on when the CA takes nonces again."""
    await sim.ca.fail("finalize", "bad-nonce", 40)
    await issued_once(sim, orders=1, extra=2 * 40 + 12)


async def test_a_finalize_that_is_seen_late(sim: Simulation) -> None:
    """Its answer is lost, and the CA shows the order as ready for a while: that one is waited for, no other is made."""
    await sim.ca.fail("finalize", "cut-after")
    for status in ("processing", "valid"):
        await sim.ca.fail("order", "edit", fields={"status": "ready"}, when=status)
    await sim.add("blog")
    await sim.run(timedelta(seconds=30))
    await sim.ca.heal()
    await sim.run(timedelta(minutes=2))
    assert (await sim.certificate("blog")).generation == 1
    counts = await sim.ca.counts()
    assert (counts["newOrder"], counts["finalize"]) == (1, 3)
    assert len((await sim.book()).issuances) == 1


@pytest.mark.parametrize("status", ["pending", "ready", "processing"])
async def test_an_order_goes_invalid(sim: Simulation, status: str) -> None:
    """At each state: another order after the first back-off, and no more than that."""
    where = {"pending": "newOrder", "ready": "order", "processing": "finalize"}[status]
    gone = {"status": "invalid", "error": {"type": "urn:ietf:params:acme:error:serverInternal", "detail": "lost"}}
    await sim.ca.fail(where, "edit", 1, fields=gone, when=status)
    await sim.add("blog")
    await sim.run(timedelta(seconds=30))
    view = await sim.view("blog")
    assert "the CA refused: serverInternal: lost" in (view.error or "")
    await sim.run(timedelta(minutes=2))
    assert (await sim.certificate("blog")).generation == 1
    counts = await sim.ca.counts()
    assert counts["newOrder"] == 2
    assert sum(counts.values()) <= 2 * WARM + 2


@pytest.mark.parametrize(
    ("status", "late"),
    [("invalid", False), ("expired", False), ("deactivated", False), ("revoked", False), ("deactivated", True)],
)
async def test_a_dead_authorization(
    sim: Simulation, monkeypatch: pytest.MonkeyPatch, status: str, *, late: bool
) -> None:
    """The CA shows the order as pending for ever: it is given up and made anew, before it was proven or after."""
    monkeypatch.setattr(
        poll, "__kwdefaults__", {"budget": 0.1, "retry_at": None}
    )  # seconds that a look at a slow order may last
    if late:
        await sim.ca.fail("order", "edit", 1, fields={"status": "pending"}, when="ready")
    await sim.ca.fail("authorization", "edit", 1, fields={"status": status}, skip=int(late))
    await sim.add("blog")
    await sim.run(timedelta(minutes=10))
    assert (await sim.certificate("blog")).generation == 1
    counts = await sim.ca.counts()
    assert counts["newOrder"] == 2
    assert counts["finalize"] == 1
    assert sum(counts.values()) <= 60, counts


async def test_an_order_is_gone(sim: Simulation) -> None:
    """404 for its URL: another one, at once."""
    await sim.ca.fail("order", "status", status=404)
    await issued_once(sim, orders=2, within=timedelta(seconds=30))


SPOILT: dict[str, dict[str, Any]] = {
    "404": {"how": "status", "status": 404},
    "no certificate": {"how": "body", "text": "<html>welcome</html>"},
    "cut in the middle": {"how": "truncate"},
    "cut behind its leaf, once": {"how": "leaf"},
}


@pytest.mark.parametrize("name", SPOILT)
@pytest.mark.parametrize("count", [1, 3])
async def test_a_download_that_fails(sim: Simulation, name: str, count: int) -> None:
    """The certificate is issued: it is fetched again and again, and no other is ordered; its chain is whole."""
    if name.endswith("once"):
        count = 1
    await sim.ca.fail("certificate", count=count, **SPOILT[name])
    await issued_once(sim, within=timedelta(minutes=15))
    certificate = await sim.certificate("blog")
    [chain] = (await sim.bench.fleet.records.chains([certificate])).values()
    assert chain.count("-----BEGIN CERTIFICATE-----") == chain.count("-----END CERTIFICATE-----") >= 1


async def test_what_cannot_be_fetched_counts(sim: Simulation) -> None:
    """While the download fails its tokens stay spent: the CA counted them. In the end one more is made."""
    await Client(sim.bench.fleet).set_limits({"certificates-per-domain": "2/7d"}, ca=sim.ca.directory)
    await sim.ca.fail("certificate", "status", 5, status=404)
    await sim.add("blog")
    for minutes in (1, 5, 60):
        await sim.run(timedelta(minutes=minutes))
        assert await left(sim) == 1, f"after {minutes} more minutes"
        assert len((await sim.book()).issuances) == 1
    assert "issued, but cannot be fetched" in ((await sim.view("blog")).error or "")
    await sim.run(timedelta(days=2))
    assert (await sim.certificate("blog")).generation == 1
    assert await left(sim) == 0
    assert len((await sim.book()).issuances) == 2


async def left(sim: Simulation) -> int | None:
    """How many certificates there may be for the app's domain."""
    ca = resolve_ca(sim.ca.directory)
    limits = (await sim.bench.fleet.limits.of(ca.name, ca.directory)).limits
    asked = order_buckets(limits, account=account_id(ca, "ops@example.com"), identifiers=["blog.blog.test"])
    [domain] = await sim.bench.buckets.look(asked.issued)
    return domain.remaining


async def test_another_key_type_while_the_ca_has_the_order(sim: Simulation) -> None:
    """The order begins anew, and comes to its end: it had its newOrder's turn, and gets another."""
    await Client(sim.bench.fleet).set_limits({"certificates-per-domain": "2/7d"}, ca=sim.ca.directory)
    await sim.ca.fail("certificate", "status", 1, status=404)
    await sim.add("blog")
    await sim.run(timedelta(seconds=2))
    assert "issued, but cannot be fetched" in ((await sim.view("blog")).error or "")
    await sim.bench.fleet.inventory.set_properties({"key-type": "p384"})
    await sim.run(MINUTES)
    assert (await sim.certificate("blog")).generation == 1


async def test_what_was_finalized_counts_when_it_begins_anew(sim: Simulation) -> None:
    """The CA has the CSR, its answer is lost, and another key type is wanted: both certificates cost a token."""
    await Client(sim.bench.fleet).set_limits({"certificates-per-domain": "2/7d"}, ca=sim.ca.directory)
    await sim.ca.fail("finalize", "cut-after", 1)
    await sim.add("blog")
    await sim.run(timedelta(seconds=2))
    await sim.bench.fleet.inventory.set_properties({"key-type": "p384"})
    await sim.run(MINUTES)
    assert (await sim.certificate("blog")).generation == 1
    assert len((await sim.book()).issuances) == 2
    assert await left(sim) == 0


async def test_a_refusal_that_exempts_nobody_names_its_bucket(sim: Simulation) -> None:
    """The CA counts a renewal that we took for exempt: its domain waits for a week, other domains do not."""
    week = timedelta(days=7)
    await sim.ca.set_limits({"certificates-per-domain": (1, week.total_seconds(), 1)}, same_set_exempt=False)
    limits = {"certificates-per-domain": "1/7d", "same-set-exempt": "on"}
    await Client(sim.bench.fleet).set_limits(limits, ca=sim.ca.directory)
    await sim.add("blog")
    await sim.run(MINUTES)
    await sim.order("blog")
    await sim.run(MINUTES)
    await sim.add("shop")
    await sim.run(MINUTES)
    assert (await sim.certificate("shop")).generation == 1
    assert (await sim.book()).rate_limited_answers == 1
    await sim.run(week)
    assert (await sim.certificate("blog")).generation == 2


async def test_a_paused_name_costs_no_order(sim: Simulation) -> None:
    """The CA refused newOrder and counted nothing: the account has all its orders left."""
    await Client(sim.bench.fleet).set_limits({"orders-per-account": "2/7d"}, ca=sim.ca.directory)
    await sim.ca.pause("blog.blog.test")
    await sim.add("blog")
    await sim.run(MINUTES)
    await sim.ca.unpause("blog.blog.test")
    assert (await sim.view("blog")).state is State.PARKED
    ca = resolve_ca(sim.ca.directory)
    limits = (await sim.bench.fleet.limits.of(ca.name, ca.directory)).limits
    [found] = await sim.bench.buckets.look(orders_bucket(limits, account_id(ca, "ops@example.com")))
    assert found.remaining == 2
