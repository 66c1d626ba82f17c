"""What Celery on Redis does to a fleet, provoked: nothing is lost, nobody stays dead, nothing runs twice at once."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from certfleet.agenda import Agenda, Claim
from certfleet.demo.pebble import child
from certfleet.lifecycle.records import check_member
from certfleet.lifecycle.work import Next, work
from certfleet.models import utcnow
from certfleet.overview import State
from certfleet.store import Store
from tests.rig import LIMIT, Rig, kill, running_rig


@pytest.fixture
async def rig(short_directory: Path) -> AsyncIterator[Rig]:
    """A fleet with two workers."""
    async with running_rig(short_directory, workers=2) as running:
        yield running


async def twelve(rig: Rig) -> list[str]:
    """Twelve apps, enabled."""
    names = [f"shop{number}" for number in range(12)]
    for name in names:
        await rig.add(name)
    await rig.nginx.reload()
    for name in names:
        await rig.client.enable(name)
    return names


async def child_pid(rig: Rig, name: str, other_than: int = 0) -> int:
    """The process id of one of the stack's children, once it runs (again)."""
    for _ in range(600):
        pid = rig.children().get(name, 0)
        if pid not in (0, other_than):
            return pid
        await asyncio.sleep(0.2)
    raise AssertionError(f"the stack has no {name}: {rig.children()}\n{rig.logs()}")


@pytest.mark.parametrize("moment", [0.0, 0.3, 0.6])
async def test_redis_killed_in_the_middle_of_twelve_orders(
    short_directory: Path, monkeypatch: pytest.MonkeyPatch, moment: float
) -> None:
    """Kill -9 of Redis: the stack starts it again, every order ends well, and both workers work afterwards."""
    monkeypatch.setenv("CERTFLEET_LEASE", "10")  # a message that it had given out and not yet noted is lost for one
    async with running_rig(short_directory, workers=2) as rig:
        names = await twelve(rig)
        await asyncio.sleep(moment)
        server = await child_pid(rig, "valkey")
        kill(server)
        await child_pid(rig, "valkey", other_than=server)
        await rig.all_served()
        counts = await rig.ca.counts()
        assert counts["finalize"] - counts["bad_nonce"] <= len(names), "no order was finalized twice"
        # No worker stays dead: each takes messages again.
        for name in ("w1", "w2"):
            await child_pid(rig, name)
        await works_again(rig, "afterwards")


async def works_again(rig: Rig, name: str) -> None:
    await rig.add(name)
    await rig.nginx.reload()
    await rig.client.enable(name)
    await rig.all_served()


async def test_every_worker_killed_in_the_middle_of_twelve_orders(
    short_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kill -9 of both workers: the stack starts them again, and each order goes on where it was."""
    monkeypatch.setenv("CERTFLEET_LEASE", "5")  # claims of the dead last for one lease
    async with running_rig(short_directory, workers=2) as rig:
        names = await twelve(rig)
        await asyncio.sleep(0.3)
        workers = [await child_pid(rig, name) for name in ("w1", "w2")]
        for pid in workers:
            kill(pid)
        await rig.all_served()
        counts = await rig.ca.counts()
        assert counts["certificate"] - counts["bad_nonce"] <= len(names) + 12, "at most each was fetched again"


async def test_an_emptied_broker_only_delays(short_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every message is deleted while workers are away: what was due comes again from the agenda."""
    monkeypatch.setenv("CERTFLEET_LEASE", "3")
    async with running_rig(short_directory, workers=2) as rig:
        for name in ("w1", "w2"):  # SIGSTOP: they hold nothing, and take nothing
            os.kill(await child_pid(rig, name), signal.SIGSTOP)
        names = await twelve(rig)
        redis = rig.client._fleet.store.redis
        async for key in redis.scan_iter(match="certfleet:broker:*"):
            if "_kombu" not in key:
                await redis.delete(key)
        for name in ("w1", "w2"):
            os.kill(await child_pid(rig, name), signal.SIGCONT)
        await rig.all_served()
        assert (await rig.ca.counts())["newOrder"] >= len(names)


async def test_a_message_that_comes_twice_runs_once(store: Store) -> None:
    """The broker may deliver again what was acknowledged too late: the second finds the claim gone."""
    agenda = Agenda(store, 60)
    await agenda.schedule(check_member("blog"), utcnow())
    [message] = await agenda.due(1)
    runs = 0

    async def step(_: object, claim: Claim) -> Next:
        nonlocal runs
        runs += 1
        assert claim.fence > message.fence
        await asyncio.sleep(0.2)
        return Next(None)

    class Bench:
        """Only what `work` touches."""

        class fleet:  # noqa: N801  an attribute's name
            """The books."""

    Bench.fleet.agenda = agenda  # type: ignore[attr-defined]
    await asyncio.gather(*(work(Bench, [message], step) for _ in range(5)))  # type: ignore[arg-type]
    await work(Bench, [message], step)  # type: ignore[arg-type]
    assert runs == 1


async def test_two_beats_never_both_tick(rig: Rig) -> None:
    """A second beat waits for the lock; when the first stands still it goes on, and the first gives way."""
    beat = (sys.executable, "-m", "celery", "-A", "workers.schedule:app", "beat", "--pidfile=", "--loglevel", "WARNING")
    redis = rig.client._fleet.store.redis
    holder = await redis.get("certfleet:beat:lock")
    assert holder is not None
    async with child(beat, rig.directory / "second.log", rig.environment()) as second:
        await asyncio.sleep(7)  # longer than a lock that nobody extends
        assert second.returncode is None, (rig.directory / "second.log").read_text()
        assert await redis.get("certfleet:beat:lock") == holder, "the second beat waits"
        # The first is stopped in its tracks: its lock runs out, the second takes it and ticks.
        first = await child_pid(rig, "beat")
        os.kill(first, signal.SIGSTOP)
        deadline = time.monotonic() + LIMIT
        while await redis.get("certfleet:beat:lock") in (holder, None):
            assert time.monotonic() < deadline, "nobody took the lock over"
            await asyncio.sleep(0.2)
        # The first wakes up: its lock is somebody else's, so it ends instead of ticking, and waits its turn again.
        os.kill(first, signal.SIGCONT)
        await child_pid(rig, "beat", other_than=first)
        await works_again(rig, "after")


async def test_a_stolen_message_does_no_harm(rig: Rig) -> None:
    """Messages that nobody of ours wrote are refused by one line in the log; the worker works on."""
    redis = rig.client._fleet.store.redis
    from celery import Celery  # noqa: PLC0415  only here

    from certfleet.broker import EXCHANGE, broker_configuration  # noqa: PLC0415

    with Celery("stranger", set_as_current=False) as app:
        app.conf.update(broker_configuration(rig.settings))
        for message in ({"../etc": 1}, {"blog": -1}, {"blog": "x"}, "blog", ["blog"], None, {"a" * 64: 1}):
            app.send_task("certfleet.expiry.check", kwargs={"apps": message}, exchange=EXCHANGE, routing_key="expiry")
        app.send_task("os.system", args=["true"], exchange=EXCHANGE, routing_key="expiry")
    await works_again(rig, "blog")
    refused = sum(
        (rig.settings.home / "log" / f"{name}.log").read_text().count("message refused") for name in ("w1", "w2")
    )
    assert refused == 7
    assert await redis.exists("certfleet:app:blog")


async def test_an_app_removed_in_the_middle_is_gone(rig: Rig) -> None:
    """Nothing of it comes back: no order, no certificate, no place on the agenda; only its last number is kept."""
    names = await twelve(rig)
    await asyncio.sleep(0.2)
    await rig.client.remove_app(names[0])
    await rig.until("served", lambda views: all(v.state is State.SERVED for v in views) and len(views) == 11)
    redis = rig.client._fleet.store.redis
    for _ in range(600):
        left = [key async for key in redis.scan_iter(match="certfleet:*:shop0") if ":generation:" not in key]
        if not left and await redis.zscore("certfleet:agenda", "order:shop0") is None:
            break
        await asyncio.sleep(0.1)
    assert left == []
    assert await redis.zscore("certfleet:agenda", "check:shop0") is None


async def test_an_app_that_is_added_again_is_served_again(rig: Rig) -> None:
    """Its hosts still have the old generations: the new certificate is numbered above them."""
    await works_again(rig, "blog")
    await rig.client.renew(["blog"], force=True)
    await rig.until("renewed", lambda views: views[0].generation == 2 and views[0].state is State.SERVED)
    await rig.client.remove_app("blog")
    await works_again(rig, "blog")
    view = await rig.view("blog")
    assert view.generation == 3
    await rig.sees({"blog.demo.test": view.serial})
