"""An order passed on, step by step, at CAs that nobody may ask: their ports are closed, every request would fail."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from certfleet.agenda import Claim
from certfleet.demo.pebble import make_tls
from certfleet.demo.ports import free_port
from certfleet.dns.provider import TXTRecord
from certfleet.errors import AcmeProblem, CARefuses, CAUnreachable, LeaseLost, OwnerError
from certfleet.lifecycle.challenges.written import Written, field_of
from certfleet.lifecycle.orders.ordering import LONG_AGO, make_order
from certfleet.lifecycle.orders.outage import told
from certfleet.lifecycle.orders.passing import held_up
from certfleet.lifecycle.orders.trouble import Parked, Unanswered
from certfleet.lifecycle.records import order_member
from certfleet.lifecycle.work import CASlow, Next, Waiting
from certfleet.limits.buckets import Bucket, Charge, Rate
from certfleet.models import App, Cause, OrderState, utcnow
from certfleet.overview import State
from certfleet.properties import effective
from certfleet.settings import Settings
from tests.lifecycle.two_cas import Steps, open_steps

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
DOMAIN = "certificates-per-domain"
A, B = (f"https://127.0.0.1:{free_port()}/dir" for _ in range(2))


@pytest.fixture
async def steps(settings: Settings, short_directory: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Steps]:
    """A fleet whose apps have both CAs."""
    async with open_steps(settings, monkeypatch) as opened:
        bundle = make_tls(short_directory)
        await opened.client.set_properties({"ca": f"{A},{B}", "ca-bundle": bundle, "preflight": "off"})
        yield opened


async def ordered(steps: Steps) -> App:
    """An app with an order that nobody has looked at."""
    app = await steps.enabled()
    await make_order(steps.bench.fleet, app, await properties(steps), "first issue", utcnow())
    return app


async def properties(steps: Steps) -> dict[str, str]:
    return effective((await steps.client.app("blog")).properties, await steps.bench.fleet.inventory.properties())


async def stopped(steps: Steps, why: Exception) -> Next:
    """What becomes of the order when a step stopped like this."""
    agenda = steps.bench.fleet.agenda
    await agenda.schedule(order_member("blog"), LONG_AGO)
    claim = await agenda.claim(order_member("blog"))
    assert claim is not None
    found = await held_up(steps.bench, claim, await steps.client.app("blog"), await properties(steps), why)
    await agenda.finish(claim, found.at)
    return found


async def spent(steps: Steps, ca: str, days: int) -> None:
    """The CA gives one certificate for the domain in so many days, and has just given it."""
    await steps.client.set_limits({DOMAIN: f"1/{days}d"}, ca=ca)
    bucket = Bucket(ca, DOMAIN, "example.com", Rate(1, days * 86_400_000_000, 1))
    await steps.bench.buckets.count([Charge(bucket)])


async def test_an_app_of_one_ca_knows_no_turns(steps: Steps) -> None:
    """A list of one is as it ever was: the back-off, the limit's own time."""
    await steps.client.set_property("ca", A)
    await ordered(steps)
    at = utcnow() + 9 * DAY
    assert await stopped(steps, CASlow(at)) == Next(at)
    await stopped(steps, CARefuses("never"))
    order = await steps.order()
    assert (order.state, order.error, order.ca, order.turn_ends) == (OrderState.RETRY, "never", A, None)


async def test_a_turn_is_kept_and_ends_every_wait(steps: Steps) -> None:
    """The order is looked at again when the turn ends, however long the CA asks to wait, or our own back-off is."""
    await ordered(steps)
    found = await stopped(steps, CASlow(utcnow() + 9 * DAY))
    order = await steps.order()
    assert order.turn_ends is not None
    assert found.at == order.turn_ends
    soon = utcnow() + timedelta(seconds=3)
    assert (await stopped(steps, CASlow(soon))).at == soon
    for _ in range(4):
        found = await stopped(steps, CAUnreachable("no answer"))
        assert found.at is not None
        assert found.at <= order.turn_ends
    assert (await steps.order()).attempts == 4
    assert (await steps.order()).turn_ends == order.turn_ends
    steps.later(HOUR)
    assert (await stopped(steps, CASlow(soon))).at == pytest.approx(steps.now(), abs=timedelta(minutes=1))
    assert (await steps.order()).ca == B


@pytest.mark.parametrize("why", [OwnerError("points away"), Waiting(utcnow() + DAY)], ids=["owner", "own wait"])
async def test_what_is_not_the_cas_passes_nothing_on(steps: Steps, why: Exception) -> None:
    """A name that points away for a month stays where it is, and its turn begins when the CA is at fault."""
    await ordered(steps)
    await stopped(steps, CAUnreachable("no answer"))
    steps.later(30 * DAY)
    await stopped(steps, why)
    order = await steps.order()
    assert (order.ca, order.passed_over) == (A, ())
    if isinstance(why, OwnerError):
        assert order.turn_ends is None
        await stopped(steps, CAUnreachable("no answer"))
        assert (await steps.order()).ca == A


async def test_nobody_has_tokens_in_time(steps: Steps) -> None:
    """No CA is asked for anything: it waits in the line where its turn comes first, and all are asked again in time."""
    await spent(steps, A, 60)
    await spent(steps, B, 30)
    await steps.enabled()
    view = await steps.until(lambda view: view.state is State.LIMITED and view.asked_ca == B)
    order = await steps.order()
    assert (order.settled, view.place, view.error) == (True, 1, None)
    assert [(one.ca, one.cause) for one in view.passed_over] == [(A, Cause.LIMITED)]
    assert order.turn_ends is not None
    assert order.turn_ends - utcnow() == pytest.approx(15 * DAY, abs=HOUR)
    assert (await steps.events())[-1].startswith(f"passed on: from {A} to {B}: waiting for certificates per")
    assert len(await steps.bench.fleet.store.redis.hgetall("certfleet:rooms")) == 1, "it stands in one line"
    await steps.look()
    assert await steps.order() == order, "a look changes nothing"
    steps.later(16 * DAY)
    await steps.look()
    assert (await steps.order()).ca == A
    await steps.look()
    assert (await steps.order()).ca == B
    await steps.look()
    assert (await steps.order()).settled


async def test_nobody_answers(steps: Steps) -> None:
    """Each has its hour; then one sentence with both reasons, a back-off, and the first again."""
    await ordered(steps)
    for ca in (A, B):
        await steps.look()
        assert (await steps.order()).ca == ca
        assert (await steps.order()).error is not None
        steps.later(HOUR)
        await steps.look()
    order = await steps.order()
    assert (order.ca, order.state, order.rounds, order.attempts, order.passed_over) == (A, OrderState.RETRY, 1, 1, ())
    assert order.error is not None
    assert order.error.startswith("no CA of the list issues it: ")
    assert order.error.count("cannot be reached") == 2
    assert order.retry_at is not None
    assert order.retry_at - steps.now() == pytest.approx(timedelta(minutes=1), abs=timedelta(seconds=30))
    assert order.failing_since is None
    assert (await steps.events())[-1] == f"order failed: {order.error}"


async def test_everybody_refuses_until_it_is_parked(steps: Steps) -> None:
    """What only the owner can mend at every CA is left to a person as at one; who looks begins at the first."""
    await ordered(steps)
    never = AcmeProblem(status=400, type="rejectedIdentifier", detail="policy")
    await stopped(steps, never)
    assert (await steps.order()).ca == B
    await stopped(steps, never)
    order = await steps.order()
    assert (order.ca, order.rounds) == (A, 1)
    assert order.failing_since is not None
    steps.later(31 * DAY)
    await stopped(steps, never)
    await stopped(steps, never)
    order = await steps.order()
    assert order.state is OrderState.PARKED
    assert order.error is not None
    assert order.error.count("policy") == 2
    assert order.error.endswith("then `certfleet renew blog`")
    await steps.client.renew(["blog"])
    order = await steps.order()
    assert (order.ca, order.state, order.rounds, order.passed_over) == (A, OrderState.NEW, 0, ())


async def test_paused_everywhere(steps: Steps) -> None:
    """Parked at once, with both links; where one only is paused it is left out until a person has looked."""
    await ordered(steps)
    pause = Parked("the CA has paused it: ask for it again at https://ca.example/?jwt=secret")
    await stopped(steps, pause)
    await stopped(steps, CARefuses("never"))
    order = await steps.order()
    assert (order.ca, order.state, [one.ca for one in order.passed_over]) == (B, OrderState.RETRY, [A])
    await stopped(steps, pause)
    order = await steps.order()
    assert order.state is OrderState.PARKED
    assert order.error is not None
    assert order.error.count("jwt=secret") == 2
    assert not any("jwt" in event for event in await steps.events())


async def test_a_person_who_says_renew_has_the_first_asked_again(steps: Steps) -> None:
    """Unless the second has made an order already: that one goes on."""
    await ordered(steps)
    await stopped(steps, CARefuses("no external account"))
    assert (await steps.order()).ca == B
    await steps.client.renew(["blog"])
    await stopped(steps, CAUnreachable("no answer"))
    assert (await steps.order()).ca == A


async def test_records_of_the_first_cas_challenge_are_removed(steps: Steps) -> None:
    """TXT records belong to an order of one CA: they are looked at as soon as another is asked."""
    app = await ordered(steps)
    record = TXTRecord("_acme-challenge.blog.example.com", "value", "example.com", "_acme-challenge.blog.example.com")
    written = {field_of(record): Written(record, "cf", f"{A}/order", since=utcnow())}
    await steps.bench.fleet.written.keep(app.name, written)
    assert (await stopped(steps, CARefuses("never"))).members == ("dns:blog",)
    assert await steps.bench.fleet.agenda.time_of("dns:blog") is not None


async def test_a_worker_that_was_too_slow_passes_nothing_on(steps: Steps) -> None:
    """Its claim is somebody else's: the order stays as that one has it."""
    app = await ordered(steps)
    before = await steps.order()
    for why in (CARefuses("never"), CASlow(utcnow() + DAY)):
        with pytest.raises(LeaseLost):
            await held_up(steps.bench, Claim(order_member("blog"), 0), app, await properties(steps), why)
        assert await steps.order() == before


async def test_a_ca_that_is_away_for_the_whole_fleet(steps: Steps) -> None:
    """Away for half of the order's turn it is thought away beyond its end: the next CA is asked, without a try."""
    await ordered(steps)
    fleet = steps.bench.fleet
    began = utcnow()
    for number in range(3):
        await fleet.outages.failed(A, f"other{number}", 0.0, None)
    outage = await fleet.outages.of(A)
    assert outage is not None
    away = Unanswered(told(outage), outage)
    found = await stopped(steps, away)
    order = await steps.order()
    assert (order.state, order.ca, order.attempts) == (OrderState.AWAY, A, 0)
    assert order.turn_ends is not None
    half = began + (order.turn_ends - began) / 2
    assert found.at == pytest.approx(half, abs=timedelta(seconds=5)), "looked at again when that is to be decided"
    steps.later(HOUR / 2 + timedelta(seconds=10))
    await stopped(steps, away)
    order = await steps.order()
    assert (order.state, order.ca) == (OrderState.NEW, B)
    [passed] = order.passed_over
    assert (passed.ca, passed.cause) == (A, Cause.AWAY)
    assert passed.why.startswith("the CA does not answer since")
