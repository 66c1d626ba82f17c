"""What is certain keeps an order from being sent, before it costs anything; what is not certain does not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from certfleet.models import Account, load
from certfleet.overview import Overview, State
from tests.acme_ca.dns import Zone, zone
from tests.rig import Rig, running_rig

CA = "ca.example.net"


@asynccontextmanager
async def rig_in(directory: Path) -> AsyncIterator[tuple[Rig, Zone]]:
    """A fleet that asks a name server of ours; the CA says that CAA records call it ca.example.net."""
    async with (
        zone({}) as served,
        running_rig(directory, limits={}, bad_nonce_percent=0, nameservers=[served.address]) as rig,
    ):
        served.elsewhere = ["127.0.0.1"]
        await rig.strict.identify(CA)
        yield rig, served


async def enable(rig: Rig, name: str, *domains: str, **properties: str) -> None:
    await rig.add(name, domains, **properties)
    await rig.nginx.reload()
    await rig.client.enable(name)


async def failing(rig: Rig, name: str) -> Overview:
    """Wait until the app is failing; nothing of it went to the CA."""
    await rig.until("failing", lambda views: any(v.name == name and v.state is State.FAILING for v in views))
    assert (await rig.ca.counts())["newOrder"] == 0
    return await rig.view(name)


async def test_a_name_that_does_not_exist_costs_nothing(short_directory: Path) -> None:
    """No account, no order, no token; the name, the zone that says so and what to do are told. Mended, it is served."""
    async with rig_in(short_directory) as (rig, served):
        served.gone.add("gone.demo.test")
        await enable(rig, "gone", "here.demo.test", "gone.demo.test")
        view = await failing(rig, "gone")
        assert view.error is not None
        assert view.error.startswith("gone.demo.test does not exist in DNS, says the zone test: add an A")
        assert "here.demo.test" not in view.error
        assert view.next_try is not None
        assert (await rig.ca.counts())["newAccount"] == 0
        assert (await rig.strict.book()).buckets == {}
        served.gone.clear()
        await asyncio.sleep(1.1)  # for which answers are kept
        await rig.client.renew(["gone"])
        await rig.all_served()


async def test_caa_forbids(short_directory: Path) -> None:
    """Another CA, another way of proof, nobody: not sent. Ours: served."""
    async with rig_in(short_directory) as (rig, served):
        for name, value in {
            "other": "ca.example.org",
            "dns": f"{CA}; validationmethods=dns-01",
            "none": ";",
        }.items():
            served.records[f"{name}.demo.test", "CAA"] = [f'0 issue "{value}"']
            served.records[f"{name}.demo.test", "A"] = ["127.0.0.1"]
            await enable(rig, name)
        errors = {name: (await failing(rig, name)).error or "" for name in ("other", "dns", "none")}
        assert all(f"{name}.demo.test: CAA forbids it" in error for name, error in errors.items())
        assert f"lets ca.example.org issue, not {CA}" in errors["other"]
        assert "does not let names be proven by http-01" in errors["dns"]
        assert "lets nobody issue" in errors["none"]
        served.records["demo.test", "CAA"] = ['0 issue "ca.example.org"', f'0 issue "{CA}; validationmethods=http-01"']
        await enable(rig, "ours")
        await rig.until("served", lambda views: any(v.name == "ours" and v.state is State.SERVED for v in views))
        assert (await rig.ca.counts())["newOrder"] == 1


async def test_records_for_one_account(short_directory: Path) -> None:
    """`accounturi`: our own passes; another's does not, as soon as there is an account of ours."""
    async with rig_in(short_directory) as (rig, served):
        await enable(rig, "first")
        await rig.all_served()
        [account] = [key async for key in rig.client._fleet.store.redis.scan_iter(match="*:account:*")]
        url = load(Account, await rig.client._fleet.store.redis.get(account)).url
        served.records["mine.demo.test", "CAA"] = [f'0 issue "{CA}; accounturi={url}"']
        served.records["theirs.demo.test", "CAA"] = [f'0 issue "{CA}; accounturi={url}0"']
        for name in ("mine", "theirs"):
            served.records[f"{name}.demo.test", "A"] = ["127.0.0.1"]
            await enable(rig, name)
        views = await rig.until(
            "decided", lambda views: [v.state for v in views] == [State.SERVED, State.SERVED, State.FAILING]
        )
        assert "is for another account than ours" in (views[2].error or "")


async def test_what_is_not_certain_is_the_cas_to_decide(short_directory: Path) -> None:
    """A tag that only the CA can know, NXDOMAIN without a zone: sent. So is everything with `preflight=off`."""
    async with rig_in(short_directory) as (rig, served):
        served.records["strange.demo.test", "CAA"] = ['128 tbs "x"']
        served.records["strange.demo.test", "A"] = ["127.0.0.1"]
        served.records["forbidden.demo.test", "CAA"] = ['0 issue ";"']
        served.records["forbidden.demo.test", "A"] = ["127.0.0.1"]
        await enable(rig, "strange")
        await enable(rig, "forbidden", preflight="off")
        await rig.all_served()  # Pebble does not look at CAA records
        served.apex = None
        served.gone.add("gone.demo.test")
        await enable(rig, "gone")
        await rig.until("failing", lambda views: any(v.state is State.FAILING for v in views))
        assert "does not resolve" in ((await rig.view("gone")).error or ""), "by the look at the challenge"
        assert (await rig.ca.counts())["newOrder"] == 3
