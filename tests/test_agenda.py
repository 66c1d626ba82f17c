"""The agenda never loses a member, and never lets two hold one inside a lease."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest
import redis.asyncio
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from certfleet.agenda import AHEAD, Agenda, Claim
from certfleet.errors import LeaseLost
from certfleet.models import from_microseconds, microseconds, utcnow
from certfleet.store import Store

LEASE = 10_000_000  # microseconds
MEMBERS = [f"check:app{number}" for number in range(4)]
Result = TypeVar("Result")


class AgendaMachine(RuleBasedStateMachine):
    """Random schedules, claims, completions, crashes and clock moves, beside a model in plain Python."""

    socket: Path
    claims = Bundle("claims")

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        client = redis.asyncio.Redis(unix_socket_path=str(self.socket), decode_responses=True)
        self.redis = client
        self.now = 1_700_000_000_000_000
        self.agenda = Agenda(Store(client, "machine:"), LEASE / 1_000_000, clock=lambda: self.now)
        self.wanted: dict[str, int] = {}
        """Members that must come due, and the latest time by which they must be claimable."""
        self.holders: dict[str, tuple[int, int]] = {}
        """Member -> (fence, end of lease) of the last claim that was neither finished nor lost."""
        self.fences: dict[str, int] = {}
        """Member -> the newest fence given out for it."""
        self.do(self.empty())

    def do(self, coroutine: Coroutine[Any, Any, Result]) -> Result:
        return self.loop.run_until_complete(coroutine)

    def teardown(self) -> None:
        self.do(self.redis.aclose())
        self.loop.close()

    async def empty(self) -> None:
        await self.redis.flushall()

    def held(self, member: str) -> bool:
        return member in self.holders and self.holders[member][1] > self.now

    def took(self, claim: Claim) -> Claim:
        assert not self.held(claim.member), "two hold one member inside a lease"
        assert claim.fence > self.fences.get(claim.member, 0), "a fence is newer than every earlier one"
        self.fences[claim.member] = claim.fence
        self.holders[claim.member] = claim.fence, self.now + LEASE
        self.wanted[claim.member] = self.now + LEASE
        return claim

    @rule(member=st.sampled_from(MEMBERS), delay=st.integers(-5, 30))
    def schedule(self, member: str, delay: int) -> None:
        at = self.now + delay * 1_000_000
        self.do(self.agenda.schedule(member, from_microseconds(at)))
        # A held member may have to wait for its holder's lease at most.
        latest = max(at, self.holders[member][1]) if self.held(member) else at
        self.wanted[member] = min(latest, self.wanted.get(member, latest))

    @rule(target=claims, limit=st.integers(1, 5))
    def due(self, limit: int) -> Claim:
        late = [member for member, at in self.wanted.items() if at <= self.now and not self.held(member)]
        found = self.do(self.agenda.due(limit))
        for claim in found:
            self.took(claim)
        assert len(found) >= min(limit, len(late)), "what is due is claimed"
        return found[0] if found else Claim("check:nobody", 1)

    @rule(target=claims, member=st.sampled_from(MEMBERS))
    def claim(self, member: str) -> Claim:
        claim = self.do(self.agenda.claim(member))
        if claim is None:
            assert self.held(member) or member not in self.wanted, "a free member can be claimed"
            return Claim("check:nobody", 1)
        return self.took(claim)

    @rule(target=claims, member=st.sampled_from(MEMBERS))
    def claim_due(self, member: str) -> Claim:
        at = self.do(self.agenda.time_of(member))
        claim = self.do(self.agenda.claim_due(member))
        due = at is not None and microseconds(at) <= self.now + AHEAD
        assert (claim is not None) == (due and not self.held(member)), "a hint finds what is due, and nothing else"
        return Claim("check:nobody", 1) if claim is None else self.took(claim)

    @rule(target=claims, claim=claims)
    def begin(self, claim: Claim) -> Claim:
        mine = self.holders.get(claim.member, (0, 0))
        begun = self.do(self.agenda.begin(claim))
        if begun is None:
            assert not (self.held(claim.member) and mine[0] == claim.fence), "the message's own claim can begin"
            return claim
        assert mine[0] == claim.fence, "a message begins once, and only while its claim holds"
        assert self.held(claim.member)
        self.holders.pop(claim.member)
        return self.took(begun)

    @rule(claim=claims, again=st.one_of(st.none(), st.integers(0, 30)))
    def finish(self, claim: Claim, again: int | None) -> None:
        mine = self.holders.get(claim.member, (0, 0))
        at = None if again is None else self.now + again * 1_000_000
        woken = self.woken(claim.member)
        done = self.do(self.agenda.finish(claim, None if at is None else from_microseconds(at)))
        assert done == (mine[0] == claim.fence and mine[1] > self.now), "only the present holder finishes"
        if done:
            self.holders.pop(claim.member)
            times = [time for time in (at, woken) if time is not None]
            if times:
                self.wanted[claim.member] = min(times)
            else:
                self.wanted.pop(claim.member, None)

    def woken(self, member: str) -> int | None:
        text = self.do(self.agenda._redis.hget("machine:agenda:leases", member))
        wake = int(text.split()[2]) if text else 0
        return wake or None

    @rule(claim=claims)
    def extend(self, claim: Claim) -> None:
        fence, till = self.holders.get(claim.member, (0, 0))
        ours = fence == claim.fence and till > self.now
        if not ours:
            with pytest.raises(LeaseLost):
                self.do(self.agenda.extend(claim))
        else:
            self.do(self.agenda.extend(claim))
            self.holders[claim.member] = fence, self.now + LEASE
            self.wanted[claim.member] = self.now + LEASE

    @rule(seconds=st.integers(0, 25))
    def time_passes(self, seconds: int) -> None:
        self.now += seconds * 1_000_000

    @rule(seconds=st.integers(1, 8))
    def clock_is_set_back(self, seconds: int) -> None:
        self.now -= seconds * 1_000_000

    @rule(member=st.sampled_from(MEMBERS))
    def holder_crashes(self, member: str) -> None:
        """Nothing is called: whoever held it is gone, and the lease runs out by itself."""

    @invariant()
    def nothing_is_lost(self) -> None:
        for member, latest in self.wanted.items():
            at = self.do(self.agenda.time_of(member))
            assert at is not None, f"{member} is lost"
            assert microseconds(at) <= max(latest, self.now + LEASE), f"{member} comes due too late"


def test_no_member_is_lost_and_none_is_held_twice(redis_socket: Path) -> None:
    """Whatever happens in whatever order: every wanted member stays claimable, by one at a time."""
    AgendaMachine.socket = redis_socket
    run_state_machine_as_test(
        AgendaMachine,
        settings=settings(max_examples=60, stateful_step_count=40, suppress_health_check=list(HealthCheck)),
    )


async def test_a_message_that_comes_twice_begins_once(store: Store) -> None:
    """A broker may deliver a message again: the second finds its claim taken over."""
    agenda = Agenda(store, 60)
    await agenda.schedule("check:blog", utcnow())
    [message] = await agenda.due(10)
    assert await agenda.begin(message) is not None
    assert await agenda.begin(message) is None


async def test_a_call_whose_answer_was_lost_is_given_the_same_claim_again(store: Store) -> None:
    """Redis did it and was killed before it answered: redis-py says it again, word for word."""
    agenda = Agenda(store, 60)
    repeated = Agenda(replace(store, redis=Repeating(store.redis)), 60)
    members = ["check:blog", "check:shop"]
    for member in members:
        await agenda.schedule(member, utcnow())
    found = await repeated.due(10)
    assert sorted(claim.member for claim in found) == members
    begun = await repeated.begin(found[0])
    assert begun is not None
    await agenda.extend(begun)
    assert await agenda.begin(found[0]) is None, "another worker's call is another call"
    assert await agenda.finish(begun, utcnow())
    claim = await repeated.claim(begun.member)
    assert claim is not None
    assert await agenda.claim(begun.member) is None
    assert await agenda.due(10) == []
    assert await agenda.finish(claim, None)


class Repeating:
    """A client that loses the first answer to each script, and sends it again as redis-py does."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def register_script(self, text: str) -> Any:
        script = self._client.register_script(text)

        async def twice(**words: Any) -> Any:
            await script(**words)
            return await script(**words)

        return twice


async def test_what_is_asked_for_while_it_is_held_comes_due_afterwards(store: Store) -> None:
    """A wish that comes while somebody works on the member is not lost when that somebody says "tomorrow"."""
    agenda = Agenda(store, 60)
    await agenda.schedule("host:web1", utcnow())
    claim = await agenda.claim("host:web1")
    assert claim is not None
    await agenda.schedule("host:web1", utcnow())
    assert await agenda.due(10) == []
    await agenda.finish(claim, utcnow() + timedelta(days=1))
    assert [found.member for found in await agenda.due(10)] == ["host:web1"]


async def test_microseconds_survive_lua(store: Store) -> None:
    """Times pass through Lua's doubles and back without losing a microsecond."""
    agenda = Agenda(store, 60)
    moment = from_microseconds(1_795_000_000_123_457)
    await agenda.schedule("check:blog", moment)
    assert await agenda.time_of("check:blog") == moment


@pytest.mark.parametrize("count", [1000])
async def test_a_tick_costs_what_is_due_not_what_exists(store: Store, count: int) -> None:
    """Claiming takes as many commands with a thousand members as with one."""
    agenda = Agenda(store, 60)
    tomorrow = utcnow() + timedelta(days=1)
    await asyncio.gather(*(agenda.schedule(f"check:app{number}", tomorrow) for number in range(count)))
    await agenda.schedule("check:due", utcnow() - timedelta(seconds=1))
    before = (await store.redis.info("commandstats")).get("cmdstat_evalsha", {}).get("calls", 0)
    assert [claim.member for claim in await agenda.due(100)] == ["check:due"]
    after = (await store.redis.info("commandstats"))["cmdstat_evalsha"]["calls"]
    assert after - before == 1
    assert await agenda.size() == count + 1
