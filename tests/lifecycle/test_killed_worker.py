"""kill -9 of the only worker, at every arrow of the order machine: one certificate, and no request too many."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from certfleet.client import open_client
from certfleet.demo.pebble import child
from certfleet.demo.story import furnish
from certfleet.overview import State
from certfleet.vault import ensure_key
from tests.ca.limits import CERTIFICATES_PER_DOMAIN, ORDERS_PER_ACCOUNT
from tests.lifecycle.killed_worker import ARROWS
from tests.rig import Rig, running_rig, written
from workers import embedded_redis

# None that anybody has to wait for: what is looked at is whether ours count as the CA's do, whatever happens.
LIMITS = {ORDERS_PER_ACCOUNT: (1, 3600.0, 100), CERTIFICATES_PER_DOMAIN: (1, 3600.0, 100)}
LEASE = "2"  # seconds: how long a dead worker's claims last


@asynccontextmanager
async def fleet_without_workers(rig: Rig) -> AsyncIterator[Rig]:
    """Redis, responder and beat, but workers only as the test starts them."""
    ensure_key(rig.settings)
    environment = {
        "CERTFLEET_HOME": str(rig.settings.home),
        "CERTFLEET_RESPONDER_PORT": str(rig.settings.responder_port),
        "CERTFLEET_NAMESERVERS": f'["{rig.ca.dns}"]',
        "CERTFLEET_LEASE": LEASE,
    }
    beat = (sys.executable, "-m", "celery", "-A", "workers.schedule:app", "beat", "--pidfile=", "--loglevel", "WARNING")
    server = await embedded_redis.start(rig.settings)
    try:
        async with (
            child((sys.executable, "-m", "workers.responder"), rig.directory / "responder.log", environment),
            child(beat, rig.directory / "beat.log", environment),
            open_client(rig.settings) as client,
        ):
            await furnish(client, rig.settings, rig.ca, rig.nginx, 0)
            await client.set_limits(written(LIMITS), ca=rig.ca.directory)
            yield Rig(rig.directory, rig.ca, rig.nginx, rig.settings, client, 0)
    finally:
        await server.stop(10)


class KilledWorkers:
    """Starts the self-killing worker again whenever it has died; one at a time."""

    def __init__(self, rig: Rig, marks: Path) -> None:
        self.rig, self.marks = rig, marks
        self.deaths = 0

    async def run(self) -> None:
        environment = self.rig.environment() | {
            "CERTFLEET_NAMESERVERS": f'["{self.rig.ca.dns}"]',
            "CERTFLEET_LEASE": LEASE,
        }
        command = (sys.executable, "-m", "tests.lifecycle.killed_worker", str(self.marks))
        while True:
            async with child(command, self.rig.directory / "worker.log", environment) as process:
                if await process.wait() == -9:
                    self.deaths += 1


def pebble_saw(rig: Rig) -> tuple[int, int]:
    """NewOrder and finalize requests by Pebble's own log."""
    text = rig.ca.log.read_text(errors="replace")
    return text.count("POST /order-plz ->"), text.count("POST /finalize-order/ ->")


@pytest.mark.timeout(420)
@pytest.mark.parametrize("numbers", [range(0, len(ARROWS), 2), range(1, len(ARROWS), 2)], ids=["even", "odd"])
async def test_one_certificate_whatever_arrow_the_worker_dies_at(short_directory: Path, numbers: range) -> None:
    """After each death the order ends in one certificate, with one finalize, and one newOrder once its URL was kept.

    Half of the arrows each, so that the two can run beside each other.
    """
    marks = short_directory / "marks"
    marks.mkdir()
    async with (
        running_rig(short_directory, bad_nonce_percent=0, stack=False, limits=LIMITS) as bare,
        fleet_without_workers(bare) as rig,
    ):
        for number in numbers:
            await rig.add(f"arrow{number}")
        await rig.nginx.reload()
        workers = KilledWorkers(rig, marks)
        running = asyncio.create_task(workers.run())
        try:
            for number in numbers:
                app, arrow = f"arrow{number}", ARROWS[number]
                before = pebble_saw(rig)
                await rig.client.enable(app)
                await served(rig, app)
                after = pebble_saw(rig)
                assert (marks / app).exists(), f"the worker never came to {arrow}"
                asked = (after[0] - before[0], after[1] - before[1])
                assert asked == (arrow.new_orders, 1), f"killed {arrow}: newOrder and finalize were sent {asked} times"
                assert (await rig.view(app)).generation == 1, f"killed {arrow}: more than one certificate"
        finally:
            running.cancel()
            await asyncio.wait([running])
        assert workers.deaths == len(numbers)
        await counted_as_at_the_ca(rig)
        serials = {f"arrow{n}.demo.test": (await rig.view(f"arrow{n}")).serial for n in numbers}
        await rig.sees(serials)


@pytest.mark.timeout(180)
async def test_killed_right_after_a_replacement_was_ordered(short_directory: Path) -> None:
    """NewOrder with `replaces` was answered, its URL lost: by the CA's book the exempt order is the one issued."""
    marks = short_directory / "marks"
    marks.mkdir()
    number = [str(arrow) for arrow in ARROWS].index("after new_order 1")
    app = f"arrow{number}"
    async with (
        running_rig(short_directory, bad_nonce_percent=0, stack=False, limits=LIMITS) as bare,
        fleet_without_workers(bare) as rig,
    ):
        await rig.client.set_limits({"ari-exempt": "on"}, ca=rig.ca.directory)
        await rig.strict.suggest_renewals(
            share=0.0, width=1.0
        )  # all its life: inside the window whenever it is renewed
        await rig.add(app)
        await rig.nginx.reload()
        (marks / app).touch()  # the first certificate comes without a death
        async with asyncio.TaskGroup() as group:
            running = group.create_task(KilledWorkers(rig, marks).run())
            await rig.client.enable(app)
            await served(rig, app)
            await rig.until("asked", lambda views: views[0].window_start is not None)
            running.cancel()
        (marks / app).unlink()
        workers = KilledWorkers(rig, marks)
        async with asyncio.TaskGroup() as group:
            running = group.create_task(workers.run())
            await rig.client.renew([app], force=True)
            await rig.until("renewed", lambda views: (views[0].generation, views[0].state) == (2, State.SERVED))
            running.cancel()
        assert workers.deaths == 1
        book = await rig.strict.book()
        [entry] = book.replacements
        assert (entry.exempt, entry.issued) == (True, True), "the order that was lost is the one that was finalized"
        [refusal] = book.refusals
        assert (refusal.status, refusal.key) == (409, entry.replaces)
        assert pebble_saw(rig) == (2, 2), "no third order, no third certificate"
        told = [entry.detail for entry in await rig.client.history(app) if entry.event == "already replaced"]
        assert len(told) == 1
        assert "409 alreadyReplaced" in told[0]
        await counted_as_at_the_ca(rig)


async def counted_as_at_the_ca(rig: Rig) -> None:
    """No token is forgotten as reserved, and no bucket of ours holds more than the CA's; nor much less."""
    book, redis = await rig.strict.book(), rig.client._fleet.store.redis
    assert book.rate_limited_answers == 0
    assert await redis.keys("certfleet:admission:*") == []
    ours = {one.limit: one for one in await rig.client.buckets()}
    for limit in LIMITS:
        [theirs] = book.buckets[limit].values()
        text = await redis.get(f"certfleet:limit:{rig.ca.directory}:{limit}:{ours[limit].key}")
        assert text.endswith(" 0"), f"{limit}: something is still reserved"
        assert theirs.remaining - 4 <= ours[limit].left <= theirs.remaining, limit


async def served(rig: Rig, app: str) -> None:
    for _ in range(300):
        view = await rig.view(app)
        if view.state is State.SERVED:
            return
        assert view.error is None, view
        await asyncio.sleep(0.2)
    log = (rig.directory / "worker.log").read_text(errors="replace")[-3000:]
    raise AssertionError(f"{app} was not served in 60 s: {await rig.view(app)}\n{log}")


def test_the_list_of_arrows_is_the_machine() -> None:
    """A request or write that the machine gains has to get its arrow here: names are what the code calls."""
    machine = Path(__file__).parents[2] / "certfleet" / "lifecycle"
    files = ("orders/advance.py", "orders/authorizations.py", "challenges/proving.py")
    source = "".join((machine / file).read_text() for file in files)
    called = {word.split("(")[0] for word in source.split("protocol.")[1:]}
    assert {name for name in called if name.islower() and name.isidentifier()} == {
        "new_order",
        "get_order",
        "get_authorization",
        "answer_challenge",
        "finalize",
        "download",
    }
