"""Tokens and places in line, when another process changes something meanwhile, or a worker dies between two writes."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from certfleet.acme_ca.account_records import AccountRecords
from certfleet.acme_ca.presets import resolve_ca
from certfleet.client import Client
from certfleet.lifecycle.orders.admission import admission
from certfleet.lifecycle.orders.advance import advance
from certfleet.lifecycle.orders.gate import open_gate
from certfleet.lifecycle.orders.ordering import make_order
from certfleet.lifecycle.orders.setback import troubled
from certfleet.lifecycle.orders.trouble import Parked
from certfleet.lifecycle.records import order_member
from certfleet.lifecycle.work import Next
from certfleet.lifecycle.workbench import Workbench, open_workbench
from certfleet.limits.keys import order_buckets, orders_bucket
from certfleet.limits.line import Lines
from certfleet.limits.rooms import Candidate, Rooms, Standing, gate_member
from certfleet.models import Account, App, utcnow
from certfleet.properties import effective
from certfleet.settings import Settings
from certfleet.store import Store
from certfleet.vault import ensure_key

CA = "https://ca.test/dir"
DOMAIN = "certificates-per-domain"


async def enter(bench: Workbench, app: str, account: str = "account") -> Standing:
    """An order of this app asks for a certificate of the one domain."""
    fleet = bench.fleet
    known = await fleet.limits.of(CA, CA)
    buckets = order_buckets(known.limits, account=account, identifiers=[f"{app}.example.com"])
    await fleet.agenda.schedule(f"order:{app}", utcnow())
    claim = await fleet.agenda.claim(f"order:{app}")
    assert claim is not None
    asking = Candidate(app, "1", account, known.version, "r", 1, buckets)
    standing = await fleet.rooms.enter(claim, asking)
    await fleet.agenda.finish(claim, utcnow() + timedelta(days=1))
    return standing


async def test_a_wider_limit_is_known_to_the_gate_at_once(settings: Settings, store: Store) -> None:
    """The worker has looked at the limits just before they were widened: it opens by those of now, not of then."""
    ensure_key(settings)
    async with open_workbench(settings) as worker, open_workbench(settings) as operator:
        await Client(operator.fleet).set_limits({DOMAIN: "1/7d"}, ca=CA)
        assert [await enter(worker, app) for app in ("a", "b")] == [Standing.ADMITTED, Standing.WAITING]
        [room] = await Lines(store).rooms()
        await Client(operator.fleet).set_limits({DOMAIN: "2/7d"}, ca=CA)
        gate = await worker.fleet.agenda.claim(gate_member(room))
        assert gate is not None
        assert (await open_gate(worker, gate)).members == ("order:b",)


@pytest.mark.parametrize("scope", [{"domain": "example.com"}, {"account": "account"}, {}])
async def test_what_is_issued_is_counted_by_any_limit(settings: Settings, store: Store, scope: dict[str, str]) -> None:
    """Also where all that is known of the CA holds for one domain or account, or was taken away meanwhile."""
    del store  # emptied
    ensure_key(settings)
    async with open_workbench(settings) as bench:
        fleet, client = bench.fleet, Client(bench.fleet)
        await fleet.inventory.add_app(App("a", ("a.example.com",), (), properties={"email": "ops@example.com"}))
        told = dict(scope)
        if "account" in told:
            told["account"] = "ops@example.com"
        await client.set_limits({DOMAIN: "1/7d"}, ca=CA, **told)
        app = await fleet.inventory.app("a")
        properties = effective(app.properties | {"ca": CA}, {})
        await make_order(fleet, app, properties, "first issue", utcnow())
        claim = await fleet.agenda.claim(order_member("a"))
        order = await fleet.records.order("a")
        assert claim is not None
        assert order is not None
        asked = await admission(bench, claim, order, properties, ca=resolve_ca(CA), served=None)
        assert await asked.enter(ordered=True) is Standing.ADMITTED
        await asked.ordered(Standing.ADMITTED)
        if not scope:
            await client.set_limits({DOMAIN: ""}, ca=CA)
            asked = await admission(bench, claim, order, properties, ca=resolve_ca(CA), served=None)
        await asked.issued()
        assert await fleet.store.redis.keys("*admission:*") == []
        [state] = await fleet.store.redis.mget(await fleet.store.redis.keys("*:limit:*"))
        assert state.split()[1] == "0", "nothing is reserved"
        assert int(state.split()[0]) > 0, "and it was counted"


async def test_an_app_that_is_gone_keeps_no_token(settings: Settings, store: Store) -> None:
    """Whoever removed it died half-way, and its place in the line was left: its turn comes, and is the next one's."""
    ensure_key(settings)
    async with open_workbench(settings) as worker:
        await Client(worker.fleet).set_limits({DOMAIN: "1/7d"}, ca=CA)
        assert [await enter(worker, app) for app in ("a", "gone", "next")] == ["admitted", "waiting", "waiting"]
        [room] = await Lines(store).rooms()
        await worker.fleet.rooms.leave("a")
        for app in ("gone", "next"):
            gate = await worker.fleet.agenda.claim(gate_member(room))
            assert gate is not None
            called = await open_gate(worker, gate)
            assert called.members == (f"order:{app}",)
            await worker.fleet.agenda.finish(gate, called.at)
            order = await worker.fleet.agenda.claim(f"order:{app}")
            assert order is not None
            assert await advance(worker, order) == Next(None)
        assert await store.redis.keys("*admission:*") == []


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize("enabled", [True, False], ids=["parked", "disabled"])
async def test_an_order_that_does_not_go_on_keeps_no_token(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, *, enabled: bool
) -> None:
    """Parked, or given up with its app, by a worker that died before it gave the tokens back: the next one does."""
    ensure_key(settings)
    async with open_workbench(settings) as worker:
        fleet = worker.fleet
        await Client(fleet).set_limits({DOMAIN: "1/7d"}, ca=CA)
        app = App("blog", ("blog.example.com",), (), enabled=enabled)
        await fleet.inventory.add_app(app)
        await make_order(fleet, app, effective({"ca": CA}, {}), "first issue", utcnow())
        assert await enter(worker, "blog") == "admitted"
        order = await fleet.records.order("blog")
        claim = await fleet.agenda.claim("order:blog")
        assert order is not None
        assert claim is not None
        with monkeypatch.context() as patch:
            patch.setattr(Rooms, "leave", dies)
            paused = Parked("the CA has paused a name")
            step = troubled(worker, claim, app, paused) if enabled else advance(worker, claim)
            with pytest.raises(asyncio.CancelledError):
                await step
        assert await advance(worker, claim) == Next(None)
        assert await enter(worker, "other") == "admitted"


async def test_an_account_keeps_its_tokens_under_another_address(settings: Settings, store: Store) -> None:
    """Its order asks anew under the new address, and gives back what it had; nothing stays reserved for nobody."""
    ensure_key(settings)
    async with open_workbench(settings) as worker:
        fleet, old = worker.fleet, Account("old", CA, "ops@example.com", "", url="https://ca.test/account/1")
        await Client(fleet).set_limits({"orders-per-account": "2/1d"}, ca=CA)
        assert await enter(worker, "blog", "old") == "admitted"
        await AccountRecords(store).move(old, "new", "dev@example.com")
        assert await enter(worker, "blog", "new") == "admitted"
        await fleet.rooms.leave("blog")
        limits = (await fleet.limits.of(CA, CA)).limits
        found = await worker.buckets.look([*orders_bucket(limits, "old"), *orders_bucket(limits, "new")])
        assert [one.remaining for one in found] == [2, 2]


async def dies(*_: object) -> None:
    """As when the worker is killed before it comes to that."""
    raise asyncio.CancelledError
