"""Keys that an app's host makes: served over SSH with a real CA, and no copy of the key anywhere else."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from certfleet.acme_ca.keys import make_csr, make_key
from certfleet.models import KeyType, Order
from certfleet.overview import State
from certfleet.settings import Settings
from certfleet.store import Store
from tests.lifecycle.keyed import Keyed, Wire, key_of, keyed, public, secrets_of


@pytest.fixture
async def fleet(short_directory: Path, settings: Settings, store: Store) -> AsyncIterator[Keyed]:
    del store  # emptied
    async with keyed(short_directory, settings) as running:
        yield running


async def order_of(fleet: Keyed) -> Order:
    found = await fleet.bench.fleet.records.order("blog")
    assert found is not None
    return found


async def everything(fleet: Keyed) -> str:
    """All that Redis holds."""
    redis, texts = fleet.bench.fleet.store.redis, []
    readers = {"string": redis.get, "hash": redis.hgetall, "set": redis.smembers, "stream": redis.xrange}
    ranges = {"zset": redis.zrange, "list": redis.lrange}
    async for name in redis.scan_iter():
        kind = await redis.type(name)
        texts.append(f"{name} {await (readers[kind](name) if kind in readers else ranges[kind](name, 0, -1))}")
    return "\n".join(texts)


async def test_no_copy_of_the_key_is_anywhere_else(fleet: Keyed, monkeypatch: pytest.MonkeyPatch) -> None:
    """Served, and renewed with another key; neither was in Redis for a moment, went over SSH, or is told to anybody."""
    wire, commands = Wire(), list[str]()
    wire.listen(monkeypatch)

    async def overhear() -> None:
        async with fleet.bench.fleet.store.redis.monitor() as monitor:
            async for command in monitor.listen():
                commands.append(str(command["command"]))

    listening = asyncio.create_task(overhear())
    await fleet.add("blog")
    await fleet.client.enable("blog")
    first = await fleet.served()
    [(place, key)] = fleet.keys().items()
    assert (place, public(key)) == ("web1/blog/1/privkey.pem", key_of(first))
    await fleet.client.renew(["blog"], force=True)
    second = await fleet.served(2)
    keys = fleet.keys()
    assert list(keys) == ["web1/blog/1/privkey.pem", "web1/blog/2/privkey.pem"]
    assert public(keys["web1/blog/2/privkey.pem"]) == key_of(second) != key_of(first)
    assert [(one.key_on, one.sealed_key) for one in (first, second)] == [("web1", "")] * 2

    [view] = [view async for view in fleet.client.overviews(["blog"])]
    assert view.key_on == "web1"
    listening.cancel()
    places = {
        "the commands to Redis": "\n".join(commands),
        "Redis": await everything(fleet),
        "the wire": b"\n".join(wire.texts).decode(errors="replace"),
        "the journal": "\n".join(await fleet.events()),
        "the CA's log": fleet.ca.log.read_text(errors="replace"),
    }
    assert sum("HSET" in command and "unmade:web1" in command for command in commands) >= 2
    assert sum(command.startswith("install") and "--made-here blog" in command for command in wire.commands) == 2
    assert wire.commands.count("request") == 2
    assert "BEGIN CERTIFICATE" in places["the wire"]
    for where, text in places.items():
        for secret in ["PRIVATE KEY", *(form for pem in keys.values() for form in secrets_of(pem))]:
            assert secret not in text, f"the key is in {where}"


async def test_a_host_that_is_away_is_waited_for(fleet: Keyed) -> None:
    """The CA's order stays as it is, the app says why, and goes on when the host is back: one order, one finalize."""
    await fleet.add("blog")
    await fleet.client.enable("blog")

    async def asked() -> bool:
        return bool(await fleet.wish())

    await fleet.step_until(asked)
    await fleet.sshd.stop()
    view = await fleet.until("failing", lambda view: view.state is State.FAILING)
    assert "host web1 is to make the key:" in (view.error or "")
    assert "cannot be reached" in (view.error or "")
    assert view.next_try is not None
    before = await order_of(fleet)
    assert (before.attempts, before.failing_since, before.csr) == (0, None, "")
    for _ in range(5):
        await fleet.run_due()
    told = await fleet.events()
    assert sum(line.startswith("key not made: web1:") for line in told) == 1
    assert not any(line.startswith("order failed") for line in told)

    await fleet.sshd.start()
    await fleet.client.renew(["blog"])  # a person who has mended it need not wait
    await fleet.served()
    counts = await fleet.ca.counts()
    assert (counts["newOrder"], counts["finalize"]) == (1, 1), counts


async def test_what_the_host_answered_is_kept_before_it_is_used(fleet: Keyed) -> None:
    """The host goes away after it has made the key: the certificate is issued without it, and waits for it."""
    await fleet.add("blog")
    await fleet.client.enable("blog")

    async def made() -> bool:
        return bool((await fleet.wish()).get("csr"))

    await fleet.step_until(made)
    await fleet.sshd.stop()
    view = await fleet.until("failing", lambda view: view.generation == 1 and view.state is State.FAILING)
    assert (view.error or "").startswith("web1: ")
    [key] = fleet.keys().values()
    assert public(key) == key_of(await fleet.certificate())
    await fleet.sshd.start()
    await fleet.client.renew(["blog"])
    await fleet.served()
    assert await fleet.wish() == {}, "the wish went with its order"


async def test_a_host_that_answers_with_something_else(fleet: Keyed) -> None:
    """Who has taken over the host asks for another name: it is not sent to the CA, and the app says so."""
    key = await make_key(KeyType.P256)
    forged = base64.b64encode(make_csr(key, ["bank.demo.test"])).decode()
    answer = f'{{"version":1,"reloads":0,"apps":{{"blog":{{"state":"requested","generation":0,"csr":"{forged}"}}}}}}'
    receiver = fleet.sshd.directory / "receiver.sh"
    whole = receiver.read_text()
    receiver.write_text(f"case $SSH_ORIGINAL_COMMAND in request) echo '{answer}'; exit ;; esac\n{whole}")
    await fleet.add("blog")
    await fleet.client.enable("blog")
    view = await fleet.until("failing", lambda view: view.state is State.FAILING)
    assert "is not the one that was asked for: it is for other names" in (view.error or "")
    assert (await fleet.ca.counts()).get("finalize", 0) == 0
    receiver.write_text(whole)
    await fleet.client.renew(["blog"])
    await fleet.served()


async def test_the_property_is_turned_on_and_off(fleet: Keyed) -> None:
    """Each time there is another certificate at once; what was sealed here is gone from Redis when it is on."""
    await fleet.add("blog", **{"key-on-host": "off"})
    await fleet.client.enable("blog")
    first = await fleet.served()
    assert (first.key_on, bool(first.sealed_key)) == ("", True)
    await fleet.client.set_property("key-on-host", "on", "blog")
    second = await fleet.served(2)
    assert (second.key_on, second.sealed_key) == ("web1", "")
    assert "ordered: key place changed: blog.demo.test" in await fleet.events()
    assert first.sealed_key not in await everything(fleet)
    await fleet.client.set_property("key-type", "rsa2048", "blog")
    third = await fleet.served(3)
    assert third.key_type is KeyType.RSA2048
    await fleet.client.set_properties({"key-on-host": "off", "key-type": ""}, "blog")
    fourth = await fleet.served(4)
    assert (fourth.key_on, bool(fourth.sealed_key)) == ("", True)


async def test_an_app_that_moves_gets_a_key_where_it_is(fleet: Keyed) -> None:
    """The new host has a key of its own, and nothing was ever asked of it for the certificate of the old one."""
    await fleet.add("blog")
    await fleet.client.enable("blog")
    first = await fleet.served()
    await fleet.client.change_app("blog", hosts=["web2"])
    await fleet.site("blog", "web2")
    second = await fleet.served(2)
    assert second.key_on == "web2"
    assert key_of(second) != key_of(first)
    assert sorted(fleet.keys()) == ["web1/blog/1/privkey.pem", "web2/blog/2/privkey.pem"]
    assert not any(line.startswith("install failed") for line in await fleet.events())


async def test_compromised_and_revoked(fleet: Keyed) -> None:
    """Another key on the host first, then the CA is told; a purge takes the keys away, those that wait too."""
    await fleet.add("blog")
    await fleet.client.enable("blog")
    first = await fleet.served()
    await fleet.client.revoke("blog", compromised=True)
    second = await fleet.served(2)
    assert key_of(second) != key_of(first)
    for _ in range(500):
        if not await fleet.client.revocations("blog"):
            break
        await fleet.run_due()
        await asyncio.sleep(0.02)
    assert (await fleet.ca.status(first.serial))["Status"] == "Revoked"
    assert (await fleet.ca.status(second.serial))["Status"] == "Valid"
    await fleet.client.remove_app("blog", purge=True)
    for _ in range(500):
        if not fleet.keys():
            break
        await fleet.run_due()
        await asyncio.sleep(0.02)
    assert fleet.keys() == {}


async def test_a_wish_whose_order_is_gone(fleet: Keyed) -> None:
    """The app was disabled while its host was away: nothing of it is left after the next visit, and no key is made."""
    await fleet.add("blog")
    await fleet.client.enable("blog")

    async def asked() -> bool:
        return bool(await fleet.wish())

    async def ended() -> bool:
        return await fleet.bench.fleet.records.order("blog") is None

    async def forgotten() -> bool:
        return not await fleet.wish()

    await fleet.step_until(asked)
    await fleet.bench.fleet.agenda.drop("host:web1")
    await fleet.client.disable("blog")
    await fleet.step_until(ended)
    assert await asked()
    await fleet.client.clean_up(["web1"])
    await fleet.step_until(forgotten)
    assert fleet.keys() == {}
