"""A fleet before a CA with limits: it waits instead of asking, and believes what it is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from certfleet.overview import Overview, State
from tests.lifecycle.test_faults import child_pid
from tests.rig import Rig, kill, running_rig

DOMAIN = "certificates-per-domain"
ORDERS = "orders-per-account"


@asynccontextmanager
async def limited(
    directory: Path, *, mirrored: bool = True, workers: int = 1, **limits: tuple[int, float, int]
) -> AsyncIterator[Rig]:
    """A fleet before a CA with these limits; with underscores for hyphens."""
    named = {name.replace("_", "-"): limit for name, limit in limits.items()}
    async with running_rig(directory, bad_nonce_percent=0, limits=named, mirrored=mirrored, workers=workers) as rig:
        yield rig


async def enable(rig: Rig, names: Sequence[str], domain: str = "demo.test", **properties: str) -> None:
    for name in names:
        await rig.add(name, [f"{name}.{domain}"], **properties)
    await rig.nginx.reload()
    for name in names:
        await rig.client.enable(name)


def states(views: Sequence[Overview]) -> list[State]:
    return [view.state for view in views]


async def test_who_waits_knows_for_what_and_until_when(short_directory: Path) -> None:
    """Two tokens, four apps: two are served, two wait in a line that `ls` and `info` show; nobody is refused."""
    async with limited(short_directory, certificates_per_domain=(1, 3600.0, 2)) as rig:
        await enable(rig, ["a", "b", "c", "d"])
        views = await rig.until("two served", lambda views: states(views).count(State.SERVED) == 2)
        waiting = sorted((view for view in views if view.state is State.LIMITED), key=lambda view: view.place or 0)
        assert [(view.place, view.places) for view in waiting] == [(1, 2), (2, 2)]
        assert all(view.waits_for == "certificates per registered domain demo.test" for view in waiting)
        first, second = (view.waits_until for view in waiting)
        assert first is not None
        assert second is not None
        assert (second - first).total_seconds() == pytest.approx(3600, abs=1)
        assert all(view.error is None and view.next_try is None for view in waiting)
        out = rig.run("ls").stdout
        assert "waiting for certificates per registered domain demo.test, at 20" in out
        assert ", 2nd of 2" in out
        assert "limited" in rig.run("info", waiting[0].name).stdout
        table = rig.run("limits").stdout
        assert "certificates per registered domain demo.test" in table
        assert "0 of 2" in table
        assert (await rig.strict.book()).rate_limited_answers == 0


async def test_the_emergency_lane_and_a_wider_limit(short_directory: Path) -> None:
    """`--urgent` goes first; a limit that the operator widens lets everybody in within seconds."""
    async with limited(short_directory, certificates_per_domain=(1, 3600.0, 1)) as rig:
        await enable(rig, ["a", "b", "c"])
        await rig.until("one served", lambda views: states(views).count(State.LIMITED) == 2)
        last = max([await rig.view(name) for name in "abc"], key=lambda view: view.place or 0)
        assert last.place == 2
        assert rig.run("renew", last.name, "--urgent").returncode == 0
        await rig.until("moved up", lambda views: any(v.name == last.name and v.place == 1 for v in views))
        await rig.strict.set_limits({DOMAIN: (10, 36_000.0, 10)}, same_set_exempt=False)
        assert rig.run("limits", "set", f"{DOMAIN}=10/10h").returncode == 0
        await rig.all_served()
        assert (await rig.strict.book()).rate_limited_answers == 0


async def test_tokens_that_somebody_else_spent(short_directory: Path) -> None:
    """The CA's bucket is emptied behind our back: one 429 tells it, everybody waits as long as it said."""
    async with limited(short_directory, certificates_per_domain=(1, 6.0, 4)) as rig:
        assert await rig.strict.steal(DOMAIN, "demo.test", 4) == 4
        await enable(rig, ["a", "b", "c", "d"])
        await rig.until("learnt", lambda views: any(view.waits_until for view in views))
        await rig.all_served()
        book = await rig.strict.book()
        assert book.rate_limited_answers >= 1
        assert max(book.refusals_within_refill().values()) == 1, "each refusal is learnt from"


async def test_a_limit_that_nobody_knew_of(short_directory: Path) -> None:
    """No preset, nothing set: the first 429 names a time, and the whole account waits for it; all are served."""
    async with limited(short_directory, mirrored=False, orders_per_account=(1, 3.0, 2)) as rig:
        await enable(rig, ["a", "b", "c", "d", "e"])
        await rig.all_served(90)
        book = await rig.strict.book()
        assert book.rate_limited_answers >= 1
        assert book.rate_limited_answers <= 8, "a trickle, not a storm"


async def test_a_429_that_says_nothing(short_directory: Path) -> None:
    """No Retry-After, no known text: a state with a time in an hour, not an error and not a retry loop."""
    async with limited(short_directory) as rig:
        await rig.strict.answer_orders(1, 429, type="urn:ietf:params:acme:error:rateLimited", detail="not now")
        await enable(rig, ["a"])
        [view] = await rig.until("limited", lambda views: states(views) == [State.LIMITED])
        assert view.error is None
        assert view.waits_until is not None
        assert (await rig.ca.counts())["newOrder"] == 1
        history = await rig.client.history("a")
        assert [entry.event for entry in history].count("rate limited") == 1


async def test_a_paused_name_is_parked_until_a_person_has_acted(short_directory: Path) -> None:
    """The CA's link is shown, nothing is tried again, the journal does not have it; after `renew` it goes on."""
    async with limited(short_directory, consecutive_failures=(1, 3600.0, 10)) as rig:
        await rig.strict.pause("a.demo.test")
        await enable(rig, ["a", "b"])
        views = await rig.until("parked", lambda views: states(views) == [State.PARKED, State.SERVED])
        assert views[0].error is not None
        assert "https://" in views[0].error
        assert "jwt=" in views[0].error
        assert "certfleet renew a" in views[0].error
        assert all("jwt" not in entry.detail for entry in await rig.client.history("a"))
        before = (await rig.ca.counts())["newOrder"]
        await rig.client.renew([])
        await asyncio.sleep(2)
        assert (await rig.ca.counts())["newOrder"] == before, "nobody asks again by itself"
        await rig.strict.unpause("a.demo.test")
        await rig.client.renew(["a"])
        await rig.all_served()


async def test_a_503_slows_everything_down(short_directory: Path) -> None:
    """Retry-After for one request holds for every request to that CA; afterwards all go on."""
    async with limited(short_directory, orders_per_account=(100, 1.0, 100)) as rig:
        await enable(rig, ["warm"])
        await rig.all_served()
        await rig.strict.slow_down(6)
        await enable(rig, [f"a{number}" for number in range(10)])
        views = await rig.until("held", lambda views: states(views).count(State.LIMITED) >= 1)
        assert not any(view.error for view in views)
        await rig.all_served()
        assert (await rig.strict.book()).slow_downs <= 12, "each process learns it once, and what was under way"


async def test_failed_validations_are_counted(short_directory: Path) -> None:
    """After as many failures as the CA allows the next order waits instead of asking."""
    async with limited(short_directory, failed_authorizations=(1, 3600.0, 1)) as rig:
        await rig.client.set_property("self-check", "off")
        await rig.client.add_app("away", ["away.demo.test"], ["web1"])  # no site: nobody answers the challenge
        await rig.client.enable("away")
        await rig.until("failed", lambda views: states(views) == [State.FAILING])
        await rig.client.renew(["away"])
        [view] = await rig.until("waits", lambda views: states(views) == [State.LIMITED])
        assert view.waits_for == "failed authorizations away.demo.test"
        assert (await rig.strict.book()).rate_limited_answers == 0


async def test_an_app_that_goes_away_leaves_its_place_and_its_tokens(short_directory: Path) -> None:
    """Removed or disabled while it waits or holds tokens: whoever is next goes on."""
    async with limited(short_directory, certificates_per_domain=(1, 3600.0, 1)) as rig:
        await rig.client.add_app("holder", ["holder.demo.test"], ["web1"])  # no site: our own look fails
        await rig.client.enable("holder")
        await rig.until("holds the token", lambda views: states(views) == [State.FAILING])
        await enable(rig, ["next", "third"])
        await rig.until("both wait", lambda views: states(views).count(State.LIMITED) == 2)
        waiting = sorted([await rig.view(name) for name in ("next", "third")], key=lambda view: view.place or 0)
        await rig.client.remove_app(waiting[1].name)
        await rig.client.disable("holder")
        await rig.until("the next is served", lambda views: State.SERVED in states(views))
        redis = rig.client._fleet.store.redis
        for _ in range(600):
            if not await redis.keys("certfleet:admission:*"):
                break
            await asyncio.sleep(0.1)
        assert await redis.keys("certfleet:admission:*") == []
        assert await redis.hgetall("certfleet:rooms") == {}


async def test_kill_everything_while_a_crowd_waits(short_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kill -9 of workers, of the clock and of Redis, again and again: nobody is lost, nobody is refused."""
    monkeypatch.setenv("CERTFLEET_LEASE", "3")
    per_domain, per_account = (1, 0.7, 3), (1, 0.4, 4)
    async with limited(
        short_directory, workers=2, certificates_per_domain=per_domain, orders_per_account=per_account
    ) as rig:
        names = [f"a{number:02}" for number in range(40)]
        for number, name in enumerate(names):
            await rig.add(name, [f"{name}.d{number % 3}.test"])
        await rig.nginx.reload()
        for name in names:
            await rig.client.enable(name)
        for victim in ("w1", "valkey", "clock", "w2", "valkey", "w1"):
            await asyncio.sleep(1.5)
            kill(await child_pid(rig, victim))
        await rig.until("all issued", lambda views: all(view.generation for view in views), 120)
        book = await rig.strict.book()
        assert book.rate_limited_answers == 0
        assert book.overshoots == (), "no bucket was overspent"
        assert len({issuance.identifiers for issuance in book.issuances}) == len(names)
        await rig.all_served()
        assert await rig.client._fleet.store.redis.keys("certfleet:admission:*") == []
