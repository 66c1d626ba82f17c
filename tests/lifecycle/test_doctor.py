"""`certfleet doctor`: everything broken one by one, and each time that one point says what is wrong and what to do."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from certfleet.acme_ca.account_records import AccountRecords, known_account
from certfleet.acme_ca.keys import load_account_key
from certfleet.acme_ca.presets import most_names, resolve_ca
from certfleet.install.snippet import snippet
from certfleet.lifecycle.doctor import Case, Finding, _number
from certfleet.lifecycle.workbench import open_workbench
from certfleet.models import App, Fault, utcnow
from certfleet.overview import State
from tests.acme_ca.dns import Zone, zone
from tests.lifecycle.test_challenges_on_hosts import ADDRESSES, two_hosts
from tests.rig import Rig, running_rig

POINTS = [
    *("directory", "account", "number of names", "names in dns", "dns points here", "caa", "challenge", "tokens"),
    "hosts",
]


@asynccontextmanager
async def rig_in(directory: Path, **limits: tuple[int, float, int]) -> AsyncIterator[tuple[Rig, Zone]]:
    """A fleet that asks a name server of ours, and one app, `blog`, not enabled."""
    named = {name.replace("_", "-"): limit for name, limit in limits.items()}
    async with (
        zone({("blog.demo.test", "A"): ["127.0.0.1"]}) as served,
        running_rig(directory, limits=named, nameservers=[served.address]) as rig,
    ):
        await rig.strict.identify("ca.example.net")
        await rig.add("blog")
        await rig.nginx.reload()
        yield rig, served


async def points(rig: Rig, app: str = "blog") -> dict[str, Finding]:
    """All points, which are always the same ones."""
    found = await rig.client.doctor(app)
    assert [one.name for one in found] == POINTS
    return {one.name: one for one in found}


async def wrong(rig: Rig, *names: str) -> list[str]:
    """What is not ok has to be these points and no others; what they say."""
    found = await points(rig)
    assert {one.name for one in found.values() if not one.ok} == set(names), found
    return [found[name].message for name in names]


async def stops(rig: Rig) -> list[str]:
    return [one.name for one in (await points(rig)).values() if one.stops]


async def test_nothing_is_wrong(short_directory: Path) -> None:
    """Before and after the first order; nothing is ordered or registered by looking."""
    async with rig_in(short_directory) as (rig, _):
        found = await points(rig)
        assert all(one.ok for one in found.values()), found
        assert "made with the first order" in found["account"].message
        counts = await rig.ca.counts()
        assert (counts["newAccount"], counts["newOrder"]) == (0, 0)
        assert [key async for key in rig.client._fleet.store.redis.scan_iter(match="*:challenge:*")] == []
        await rig.client.enable("blog")
        await rig.all_served()
        found = await points(rig)
        assert all(one.ok for one in found.values()), found
        assert found["account"].message.startswith("https://")
        assert found["hosts"].message == "1 could be reached the last time"


async def test_dns(short_directory: Path) -> None:
    """No such name, no answer, no address, another address, an IPv6 address that nobody thought of."""
    async with rig_in(short_directory) as (rig, served):
        mine = dict(served.records)
        served.records.clear()
        gone, challenge = await wrong(rig, "names in dns", "challenge")
        assert gone.startswith("blog.demo.test does not exist in DNS, says the zone test: add an A or AAAA record")
        assert "does not resolve" in challenge
        assert await stops(rig) == ["names in dns"]
        await rig.client.set_property("preflight", "off", "blog")
        assert await stops(rig) == []
        served.failing = True
        said, caa, _ = await wrong(rig, "names in dns", "caa", "challenge")
        assert "DNS did not answer for blog.demo.test" in said
        assert "issues nothing without an answer" in caa
        served.failing, served.records["blog.demo.test", "TXT"] = False, ['"x"']
        said, _ = await wrong(rig, "names in dns", "challenge")
        assert "blog.demo.test has no address in DNS: the CA has to find an A or AAAA record" in said
        served.records = mine
        await rig.client.set_property("address", "192.0.2.1", "blog")
        assert (await points(rig))["dns points here"].ok
        served.records["blog.demo.test", "A"].append("192.0.2.9")
        served.records["blog.demo.test", "AAAA"] = ["2001:db8::9"]
        said = (await points(rig))["dns points here"].message
        assert said.startswith("blog.demo.test is at 192.0.2.9 and 2001:db8::9, and the CA asks at IPv6 first; the app")
        assert "point it here, or leave it if that is a proxy of yours" in said


async def test_caa(short_directory: Path) -> None:
    """Forbidden stops; what only the CA can tell warns; what is for it is shown."""
    async with rig_in(short_directory) as (rig, served):
        served.records["demo.test", "CAA"] = ['0 issue "ca.example.org"']
        [said] = await wrong(rig, "caa")
        assert said.startswith('blog.demo.test: CAA forbids it (demo.test: CAA 0 issue "ca.example.org" lets ca.exampl')
        assert "change the record" in said
        assert await stops(rig) == ["caa"]
        served.records["demo.test", "CAA"] = ['0 issue "ca.example.net; accounturi=https://ca.example.net/1"']
        [said] = await wrong(rig, "caa")
        assert "ours is not registered yet" in said
        assert await stops(rig) == []
        served.records["demo.test", "CAA"] = ['0 issue "ca.example.net; validationmethods=http-01"']
        assert await wrong(rig) == []
        assert "demo.test: CAA 0 issue" in (await points(rig))["caa"].message


async def test_port_80(short_directory: Path) -> None:
    """No lines in the web server, another server that answers, nobody."""
    async with rig_in(short_directory) as (rig, served):
        await rig.client.add_app("bare", ["bare.demo.test"], ["web1"])
        served.records["bare.demo.test", "A"] = ["127.0.0.1"]
        said = (await points(rig, "bare"))["challenge"]
        assert not said.ok
        assert "answered 404 instead of the challenge" in said.message
        assert "`certfleet snippet` prints the lines" in said.message
        served.records["blog.demo.test", "A"] = ["127.0.0.77"]
        [said_] = await wrong(rig, "challenge")
        assert "nothing answers for blog.demo.test at 127.0.0.77" in said_


@pytest.mark.parametrize("via", ["stateless", "webroot"])
async def test_challenges_that_the_hosts_answer(short_directory: Path, via: str) -> None:
    """Published as an order's would be, fetched, and taken away again."""
    async with two_hosts(short_directory, via) as fleet:
        await fleet.add("blog", [ADDRESSES["web2"]])

        async def challenge() -> Finding:
            return next(one for one in await fleet.client.doctor("blog") if one.name == "challenge")

        before = await challenge()
        assert before.ok, before
        assert ("not asked: the hosts learn" in before.message) is (via == "stateless")
        assert fleet.published() == []
        await fleet.client.enable("blog")
        await fleet.until_served(1)
        said = await challenge()
        assert (said.ok, said.message) == (True, f"1 of 1 names answer by {via}")
        app, host = await fleet.client.app("blog"), fleet.hosts["web2"]
        other = "webroot" if via == "stateless" else "responder"
        fleet.servers["web2"].add_site("blog", app.identifiers, snippet(app, host, "127.0.0.1", 9, via=other))
        await fleet.servers["web2"].reload()
        said = await challenge()
        assert not said.ok, "web2 does not answer by that way any more"
        assert "instead of the challenge" in said.message


async def test_limits(short_directory: Path) -> None:
    """Tokens left of each limit; none left: for what, and until when."""
    async with rig_in(short_directory, certificates_per_domain=(1, 3600.0, 1), orders_per_account=(9, 9.0, 9)) as (
        rig,
        served,
    ):
        said = (await points(rig))["tokens"].message
        assert said == (
            "9 of 9 new orders of the account ops@example.com; 1 of 1 certificates per registered domain demo.test"
        )
        served.records["shop.demo.test", "A"] = ["127.0.0.1"]
        await rig.add("shop")
        await rig.nginx.reload()
        await rig.client.enable("shop")
        await rig.until("shop served", lambda views: any(v.state is State.SERVED for v in views))
        [said] = await wrong(rig, "tokens")
        assert said.startswith("none for certificates per registered domain demo.test before 20")
        assert said.endswith("UTC: an order waits in line until then")


async def test_the_ca_and_the_account(short_directory: Path) -> None:
    """An account that the CA has closed, a CA that is away."""
    async with rig_in(short_directory) as (rig, _):
        await rig.client.enable("blog")
        await rig.all_served()
        values = await rig.client.properties("blog")
        ca = resolve_ca(values["ca"], bundle=values["ca-bundle"])
        account = await known_account(rig.client._fleet.store, ca, values["email"])
        assert account is not None
        assert account.url is not None
        async with open_workbench(rig.settings) as bench:
            key = load_account_key(bench.vault.open(account.sealed_key))
            await bench.transport(ca).post(account.url, {"status": "deactivated"}, key, kid=account.url)
        [said] = await wrong(rig, "account")
        assert "deactivated" in said or "unauthorized" in said
        assert said.endswith(": set another email, which makes another account")
        await rig.client.deactivate_account(values["email"])
        ended = f"the account {values['email']} at {ca.name} was deactivated on {utcnow():%Y-%m-%d}: give its"
        [said] = await wrong(rig, "account")
        assert said.startswith(ended), "as the orders' error has it, and not that the next order makes it anew"
        os.kill(rig.ca.pids["front"], signal.SIGKILL)
        said, account_said = await wrong(rig, "directory", "account")
        assert "cannot be reached" in said
        assert account_said.startswith(ended), "our own record knows"


async def test_an_account_that_the_ca_has_forgotten(short_directory: Path) -> None:
    """Of it alone it is said that the next order makes it anew."""
    async with rig_in(short_directory) as (rig, _):
        await rig.client.register_account(agree_tos=True)
        values = await rig.client.properties("blog")
        ca = resolve_ca(values["ca"], bundle=values["ca-bundle"])
        account = await known_account(rig.client._fleet.store, ca, values["email"])
        assert account is not None
        assert account.url is not None
        records = AccountRecords(rig.client._fleet.store)
        unknown = replace(account, url=f"{account.url}0123456789")
        await records.change(account.id, lambda _: unknown)
        [said] = await wrong(rig, "account")
        assert "accountDoesNotExist" in said
        assert said.endswith("; an account that the CA has forgotten is made anew with the next order")


async def test_hosts_that_were_down(short_directory: Path) -> None:
    """As it was the last time, with the command that looks again."""
    async with rig_in(short_directory) as (rig, _):
        await rig.client.enable("blog")
        await rig.all_served()
        records = rig.client._fleet.records
        await records.amend("blog", "web1", lambda known: replace(known, fault=Fault.DOWN, error="no route"))
        [said] = await wrong(rig, "hosts")
        assert said == "web1: no route; `certfleet host check web1` says more"


async def test_the_command(short_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A table for people, JSON for programs, status 1 when something is not ok; an app that there is not."""
    async with rig_in(short_directory) as (rig, served):
        monkeypatch.setenv("CERTFLEET_NAMESERVERS", served.address)
        fine = await asyncio.to_thread(rig.run, "doctor", "blog")
        assert fine.returncode == 0, fine
        assert [line.split()[0] for line in fine.stdout.splitlines()[1:]] == ["ok"] * len(POINTS)
        served.records.clear()
        bad = await asyncio.to_thread(rig.run, "doctor", "blog")
        assert bad.returncode == 1
        words = {line.split()[0] for line in bad.stdout.splitlines()[1:]}
        assert words == {"ok", "STOPS", "warns"}
        answer: dict[str, Any] = json.loads((await asyncio.to_thread(rig.run, "doctor", "blog", "--json")).stdout)
        assert list(answer) == ["version", "app", "ok", "points"]
        assert (answer["app"], answer["ok"]) == ("blog", False)
        assert [list(one) for one in answer["points"]] == [["name", "ok", "stops", "message", "ca"]] * len(POINTS)
        missing = await asyncio.to_thread(rig.run, "doctor", "nobody")
        assert (missing.returncode, missing.stdout) == (2, "")


async def test_the_number_of_names() -> None:
    """What the CA's profile takes."""
    letsencrypt = resolve_ca("letsencrypt")
    assert [most_names(letsencrypt, one) for one in ("", "classic", "tlsserver", "shortlived")] == [100, 100, 25, 25]
    app = App("blog", tuple(f"a{n}.example.com" for n in range(26)), ("web1",))

    async def said(properties: Mapping[str, str]) -> Finding:
        case = cast("Case", type("", (), {"app": app, "ca": letsencrypt, "properties": properties}))
        return await _number(case)

    assert (await said({})).message == "26 of at most 100"
    over = await said({"profile": "tlsserver"})
    assert not over.ok
    assert "26 of at most 25 by the profile tlsserver: divide them among several apps" in over.message
