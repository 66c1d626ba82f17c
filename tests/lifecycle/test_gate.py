"""The gate of a waiting room and the steps that follow, when another process changes something or dies meanwhile."""

from __future__ import annotations

from datetime import timedelta

from certfleet.client import Client
from certfleet.lifecycle.orders.advance import advance
from certfleet.lifecycle.orders.gate import open_gate
from certfleet.lifecycle.work import Next
from certfleet.lifecycle.workbench import Workbench, open_workbench
from certfleet.limits.keys import order_buckets
from certfleet.limits.line import Lines
from certfleet.limits.rooms import Candidate, Standing, gate_member
from certfleet.models import utcnow
from certfleet.settings import Settings
from certfleet.store import Store
from certfleet.vault import ensure_key

CA = "https://ca.test/dir"
DOMAIN = "certificates-per-domain"


async def enter(bench: Workbench, app: str) -> Standing:
    """An order of this app asks for a certificate of the one domain."""
    fleet = bench.fleet
    known = await fleet.limits.of(CA, CA)
    buckets = order_buckets(known.limits, account="account", identifiers=[f"{app}.example.com"])
    await fleet.agenda.schedule(f"order:{app}", utcnow())
    claim = await fleet.agenda.claim(f"order:{app}")
    assert claim is not None
    asking = Candidate(app, "1", "w", known.version, "r", 1, buckets)
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
