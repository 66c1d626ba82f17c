"""A CA that does not answer: who may try, who waits, and that nobody is forgotten."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import pytest
import redis.asyncio
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from certfleet.agenda import Agenda
from certfleet.limits.outages import Outage, Outages, id_of
from certfleet.models import from_microseconds
from certfleet.store import Store
from tests.limits.conftest import SECOND, Watch

CA = "https://ca.example/directory"
MEMBER = f"outage:{id_of(CA)}"
FIRST, LONGEST = 5, 300  # seconds between tries


@pytest.fixture
def agenda(store: Store, watch: Watch) -> Agenda:
    return Agenda(store, 60, watch)


@pytest.fixture
def outages(store: Store, agenda: Agenda, watch: Watch) -> Outages:
    """On the moved clock."""
    return Outages(store, agenda, watch)


async def closed(outages: Outages, *apps: str) -> Outage:
    """Three requests in a row fail: of these apps, or all of one."""
    for number in range(3):
        found = await outages.failed(CA, apps[number % len(apps)], float(number), None)
        assert found.failures == number + 1
        assert found.closed is (number == 2)
    assert found.outage is not None
    return found.outage


async def test_three_in_a_row(outages: Outages, watch: Watch) -> None:
    """Two failures hold nobody, an answer between them begins anew; with the third the others wait."""
    for app in ("a", "b"):
        assert (await outages.failed(CA, app, 1, None)).outage is None
        assert await outages.enter(CA, app, 1) is None
    assert await outages.of(CA) is None
    assert not await outages.answered(CA), "it was not away"
    began = watch()
    await closed(outages, "a", "b", "c")
    found = await outages.enter(CA, "d", 1)
    assert found is not None
    assert found.since == from_microseconds(began)
    assert found.next_try == from_microseconds(began + FIRST * SECOND)
    [shown] = await outages.all()
    assert (shown.directory, shown.since, shown.next_try, shown.waiting) == (CA, found.since, found.next_try, 4)
    assert await outages.enter("https://other.example/", "d", 1) is None, "another CA is another CA"


async def test_tries_become_rarer_and_each_has_its_turn(outages: Outages, agenda: Agenda, watch: Watch) -> None:
    """5, 10, 20, … s, five minutes at last; the most urgent first, and nobody twice before everybody was once."""
    await closed(outages, "a", "b", "c")
    assert await outages.enter(CA, "d", -5) is not None
    order, pauses, began = list[str](), list[int](), watch()
    for _ in range(9):
        at = await agenda.time_of(MEMBER)
        assert at is not None
        watch.now = max(watch.now, round(at.timestamp() * SECOND))
        again, apps = await outages.open(id_of(CA))
        if not apps:
            assert again is not None
            watch.now = round(again.timestamp() * SECOND)
            again, apps = await outages.open(id_of(CA))
        order += apps
        pauses.append(round((watch.now - began) / SECOND))
        began = watch.now
        [app] = apps
        assert await outages.enter(CA, app, 0) is None, "it is its turn"
        assert await outages.enter(CA, "a" if app != "a" else "b", 9) is not None, "and nobody else's"
        assert not (await outages.failed(CA, app, 0 if app != "d" else -5, None)).closed
    assert pauses == [5, 10, 20, 40, 80, 160, 300, 300, 300]
    assert order[0] == "d", "its request has not failed yet"
    assert set(order[:4]) == {"a", "b", "c", "d"}
    assert all(one != other for one, other in pairwise(order))


async def test_all_come_back_most_urgent_first(outages: Outages, agenda: Agenda, watch: Watch) -> None:
    """Each has a time on the agenda, in the order of ranks; the next outage is another one."""
    await closed(outages, "a", "b", "c")
    names = [f"app{number:04}" for number in range(1200)]
    for number, name in enumerate(names):
        await outages.enter(CA, name, -1000.0 - number)
    watch.move(60)
    assert await outages.answered(CA)
    assert not await outages.answered(CA), "it is back already"
    gone: list[str] = []
    for _ in range(4):
        again, apps = await outages.open(id_of(CA))
        gone += apps
        if again is None:
            break
    assert gone == [*reversed(names), "a", "b", "c"]
    watch.move(1)
    due = [claim.name for claim in await agenda.due(2000) if claim.kind == "order"]
    assert due == gone
    assert await outages.of(CA) is None
    assert await outages.enter(CA, "new", 1) is None


async def test_a_relapse_is_the_same_outage(outages: Outages, watch: Watch) -> None:
    """Within ten minutes: since the first time, with the pause that it had. Later it is another."""
    first = await closed(outages, "a", "b", "c")
    watch.move(1000)
    await outages.open(id_of(CA))
    await outages.failed(CA, "a", 0, None)
    await outages.answered(CA)
    watch.move(300)
    again = await closed(outages, "b", "c", "d")
    assert again.since == first.since
    assert again.next_try - from_microseconds(watch()) == timedelta(seconds=10)
    await outages.answered(CA)
    watch.move(601)
    last = await closed(outages, "b", "c", "d")
    assert last.since == from_microseconds(watch())
    assert last.next_try - last.since == timedelta(seconds=FIRST)


async def test_a_relapse_keeps_nobody_who_was_about_to_go(outages: Outages, agenda: Agenda) -> None:
    """One more failure after the answer, before all have been let go: the next answer lets go those who are left."""
    await closed(outages, "a", "b", "c")
    assert await outages.enter(CA, "d", 1) is not None
    assert await outages.answered(CA)
    assert (await outages.failed(CA, "e", 1, None)).outage is None
    claim = await agenda.claim(MEMBER)
    assert claim is not None
    assert await outages.open(id_of(CA)) == (None, ()), "it is doubted"
    await agenda.finish(claim, None)
    assert not await outages.answered(CA)
    assert await agenda.time_of(MEMBER) is not None
    assert await outages.open(id_of(CA)) == (None, ("a", "b", "d", "c")), "the one that failed has a time of its own"


async def test_one_order_alone_proves_nothing(outages: Outages) -> None:
    """As long as one app's requests fail and no other's, another one may show at once that the CA answers."""
    await closed(outages, "poison")
    assert await outages.enter(CA, "poison", 0) is not None
    assert await outages.enter(CA, "good", 0) is None
    assert await outages.enter(CA, "other", 0) is not None, "one at a time"
    assert await outages.answered(CA)


async def test_a_turn_that_leads_nowhere_is_the_next_ones(outages: Outages, watch: Watch) -> None:
    """Nothing was asked (it waits for a token), or its worker died: another one tries, without a longer pause."""
    await closed(outages, "a", "b", "c")
    watch.move(FIRST)
    _, [first] = await outages.open(id_of(CA))
    await outages.unheard(CA, first)
    _, [second] = await outages.open(id_of(CA))
    again, none = await outages.open(id_of(CA))
    assert (none, again) == ((), from_microseconds(watch() + 90 * SECOND))
    watch.move(91)
    _, [third] = await outages.open(id_of(CA))
    assert len({first, second, third}) == 3


async def test_the_ca_may_say_when(outages: Outages, watch: Watch) -> None:
    """Retry-After puts the try off, for an hour at most; and for T more it is thought away."""
    now = from_microseconds(watch())
    for app in ("a", "b"):
        await outages.failed(CA, app, 0, None)
    found = await outages.failed(CA, "c", 0, now + timedelta(minutes=7))
    assert found.outage is not None
    assert found.outage.next_try == now + timedelta(minutes=7)
    assert found.outage.likely_back(now) == now + timedelta(minutes=7)
    later = now + timedelta(hours=2)
    assert found.outage.likely_back(later) == now + timedelta(hours=4)
    await outages.answered(CA)
    watch.move(700)
    for app in ("a", "b"):
        await outages.failed(CA, app, 0, None)
    found = await outages.failed(CA, "c", 0, now + timedelta(days=300))
    assert found.outage is not None
    assert found.outage.next_try == from_microseconds(watch()) + timedelta(hours=1)


Result = TypeVar("Result")
APPS = [f"app{number}" for number in range(5)]


class OutageMachine(RuleBasedStateMachine):
    """A CA that is up or down, apps that want to ask it, workers that die: nobody is forgotten, one tries at a time."""

    socket: Path

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        client = redis.asyncio.Redis(unix_socket_path=str(self.socket), decode_responses=True)
        self.redis, self.watch, self.up = client, Watch(), True
        store = Store(client, "machine:")
        self.agenda = Agenda(store, 60, self.watch)
        self.outages = Outages(store, self.agenda, self.watch)
        self.asking: dict[str, int] = {}
        """Apps with a request under way, since when."""
        self.held: set[str] = set()
        """Those that were told to wait, and have not been let go."""
        self.do(self.empty())

    def do(self, coroutine: Coroutine[Any, Any, Result]) -> Result:
        return self.loop.run_until_complete(coroutine)

    async def empty(self) -> None:
        await self.redis.flushall()

    def teardown(self) -> None:
        self.do(self.redis.aclose())
        self.loop.close()

    @rule(app=st.sampled_from(APPS))
    def wants(self, app: str) -> None:
        if app in self.asking:
            return
        self.outages._looked.clear()  # as in a process of its own
        if self.do(self.outages.enter(CA, app, float(APPS.index(app)))) is None:
            self.asking[app] = self.watch()
            self.held.discard(app)
        else:
            self.held.add(app)

    @rule(app=st.sampled_from(APPS))
    def hears(self, app: str) -> None:
        if self.asking.pop(app, None) is None:
            return
        self.outages._looked.clear()
        if self.up:
            self.do(self.outages.answered(CA))
        elif self.do(self.outages.failed(CA, app, float(APPS.index(app)), None)).outage is not None:
            self.held.add(app)

    @rule(app=st.sampled_from(APPS))
    def asks_nothing(self, app: str) -> None:
        if self.asking.pop(app, None) is not None:
            self.outages._looked.clear()
            self.do(self.outages.unheard(CA, app))

    @rule(app=st.sampled_from(APPS))
    def dies(self, app: str) -> None:
        """Its worker, with the request under way; the agenda brings the order again."""
        self.asking.pop(app, None)

    @rule(up=st.booleans())
    def turns(self, up: bool) -> None:  # noqa: FBT001
        self.up = up

    @rule(seconds=st.sampled_from([1, 5, 60, 299, 700]))
    def time_passes(self, seconds: int) -> None:
        self.watch.move(seconds)
        self.look()

    def look(self) -> None:
        """What the tick does."""
        for claim in self.do(self.agenda.due(100)):
            if claim.kind == "order":
                self.held.discard(claim.name)
                self.do(self.agenda.finish(claim, None))
                self.wants(claim.name)
            else:
                again, _ = self.do(self.outages.open(id_of(CA)))
                self.do(self.agenda.finish(claim, again))

    @invariant()
    def whoever_waits_is_waited_for(self) -> None:
        """While anybody is held there is a time on the agenda that leads to a try, within five minutes and a turn."""
        if not self.held:
            return
        at = self.do(self.agenda.time_of(MEMBER))
        due = [name for name in self.held if self.do(self.agenda.time_of(f"order:{name}"))]
        assert at is not None or len(due) == len(self.held), f"{self.held} are forgotten"
        if at is not None:
            assert at <= from_microseconds(self.watch() + (LONGEST + 90) * SECOND)

    @invariant()
    def everybody_comes_back(self) -> None:
        """When the CA is well and stays so, nobody is held for longer than a pause and a turn each."""
        if not (self.up and self.held and not self.asking):
            return
        for _ in range(3 * len(APPS)):
            self.watch.move(LONGEST)
            self.look()
            for app in list(self.asking):
                self.hears(app)
            if not self.held:
                return
        raise AssertionError(f"{self.held} wait for a CA that answers")


def test_nobody_is_forgotten(redis_socket: Path) -> None:
    """Whatever happens in whichever order."""
    OutageMachine.socket = redis_socket
    run_state_machine_as_test(
        OutageMachine,
        settings=settings(
            max_examples=40,
            stateful_step_count=30,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )
