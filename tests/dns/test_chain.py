"""dns-01 from `enable` to a verified handshake: a fleet with workers, Pebble that asks BIND, and a secondary."""

from __future__ import annotations

import asyncio
import base64
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from certfleet.dns.authority import Zones
from certfleet.dns.rfc2136 import RFC2136, Keys
from certfleet.errors import UsageError
from certfleet.lifecycle.records import dns_member
from certfleet.overview import State
from tests.dns.bind import PRIMARY, SECONDARY, Bind, bind
from tests.rig import LIMIT, Rig, running_rig

MORE = {"corp.test": "_acme-challenge.shop CNAME shop.delegated.test.\n"}


@asynccontextmanager
async def rig_with_dns(directory: Path, *, notify: bool = True, **changes: str) -> AsyncIterator[tuple[Rig, Bind]]:
    """A fleet whose apps prove their names by dns-01 with RFC 2136, if they do not say otherwise."""
    async with (
        bind(directory / "bind", notify=notify, more=MORE) as servers,
        running_rig(directory, resolver=servers.resolver) as rig,
    ):
        await rig.client.set_dns("corp", "rfc2136", servers.keys(**changes))
        await rig.client.set_properties({"challenge": "dns-01", "dns": "corp", "dns-port": str(servers.port)})
        yield rig, servers


async def eventually(what: str, holds: Callable[[], Awaitable[bool]]) -> None:
    """Wait for it."""
    for _ in range(round(LIMIT * 10)):
        if await holds():
            return
        await asyncio.sleep(0.1)
    raise AssertionError(f"not {what}")


async def removed(rig: Rig, servers: Bind, app: str, *names: str) -> None:
    """Wait until nothing is left: in the zone, on the list, on the agenda."""

    async def nothing() -> bool:
        return not await rig.client._fleet.written.any(app) and not any([await servers.values(n) for n in names])

    await eventually("removed", nothing)

    async def no_time() -> bool:
        return await rig.client._fleet.agenda.time_of(dns_member(app)) is None

    await eventually("off the agenda", no_time)


async def test_a_wildcard_with_its_own_name_and_a_delegated_name(short_directory: Path) -> None:
    """Two values at one name, and one where a CNAME leads: issued, served for a name below, and removed."""
    async with rig_with_dns(short_directory) as (rig, servers):
        await rig.add("corp", ["corp.test", "*.corp.test"])
        await rig.add("shop", ["shop.corp.test", "*.shop.corp.test"])
        await rig.nginx.reload()
        for name in ("corp", "shop"):
            await rig.client.enable(name)
        views = {view.name: view for view in await rig.all_served()}
        await rig.sees({"any.corp.test": views["corp"].serial, "corp.test": views["corp"].serial})
        await rig.sees({"shop.corp.test": views["shop"].serial, "www.shop.corp.test": views["shop"].serial})
        await removed(rig, servers, "corp", "_acme-challenge.corp.test")
        await removed(rig, servers, "shop", "shop.delegated.test", "_acme-challenge.shop.corp.test")
        counts = await rig.ca.counts()
        assert counts["newOrder"] - counts["bad_nonce"] <= 2, "no order failed"


async def test_two_orders_for_one_name_and_somebody_elses_record(short_directory: Path) -> None:
    """The wildcard's order and its own name's run side by side; a stranger's value at the same name stays."""
    async with rig_with_dns(short_directory) as (rig, servers):
        zones = Zones([servers.resolver], port=servers.port)
        stranger = await zones.place("_acme-challenge.corp.test", "s" * 43)
        await RFC2136(Keys.model_validate(servers.keys()), zones).present(stranger)
        await rig.add("base", ["corp.test"])
        await rig.add("wild", ["*.corp.test"])
        await rig.nginx.reload()
        for name in ("base", "wild"):
            await rig.client.enable(name)
        await rig.all_served()

        async def only_the_strangers() -> bool:
            return await servers.values(stranger.name) == {"s" * 43}

        await eventually("ours are removed, the stranger's is there", only_the_strangers)
        for name in ("base", "wild"):
            await rig.client.renew([name], force=True)
        await rig.until("renewed", lambda views: all(v.generation == 2 and v.state is State.SERVED for v in views))
        await eventually("ours are removed, the stranger's is there", only_the_strangers)


async def test_a_slow_secondary_is_waited_for(short_directory: Path) -> None:
    """The CA is not asked before every server shows the record; nobody sleeps meanwhile, the agenda has the time."""
    async with rig_with_dns(short_directory, notify=False) as (rig, servers):
        await rig.add("corp", ["corp.test"])
        await rig.nginx.reload()
        await rig.client.enable("corp")

        async def written() -> bool:
            return bool(await servers.values("_acme-challenge.corp.test"))

        await eventually("written", written)
        await asyncio.sleep(4)  # two looks
        assert await servers.values("_acme-challenge.corp.test", SECONDARY) == set()
        assert "challenge" not in await rig.ca.counts() or (await rig.ca.counts())["challenge"] == 0
        at = await rig.client._fleet.agenda.time_of("order:corp")
        assert at is not None
        await servers.notify("corp.test")
        await rig.all_served()
        assert (await rig.ca.counts())["challenge"] > 0


async def test_a_secondary_that_never_gets_it(short_directory: Path) -> None:
    """The order fails by the property's time, names the server, and asks the CA nothing; mended, it goes on."""
    async with rig_with_dns(short_directory, notify=False) as (rig, servers):
        await rig.client.set_property("dns-propagation", "3s")
        await rig.add("corp", ["corp.test"])
        await rig.nginx.reload()
        await rig.client.enable("corp")
        [view] = await rig.until("failing", lambda views: views[0].state is State.FAILING)
        assert view.error is not None
        assert f"ns2.corp.test ({SECONDARY}) does not show the TXT record _acme-challenge.corp.test yet" in view.error
        assert (await rig.ca.counts()).get("challenge", 0) == 0
        await rig.client.set_property("dns-propagation", "1m")
        await servers.notify("corp.test")
        await rig.all_served()
        await servers.notify("corp.test")
        await removed(rig, servers, "corp", "_acme-challenge.corp.test")


async def test_a_wrong_key_is_told_and_mended(short_directory: Path) -> None:
    """The sentence says what to mend, without the secret; the right key is tried at once."""
    wrong = base64.b64encode(b"w" * 32).decode()
    async with rig_with_dns(short_directory, secret=wrong) as (rig, servers):
        await rig.add("corp", ["corp.test"])
        await rig.nginx.reload()
        await rig.client.enable("corp")
        [view] = await rig.until("failing", lambda views: views[0].state is State.FAILING)
        assert view.error is not None
        assert "BADSIG" in view.error
        assert (await rig.ca.counts()).get("challenge", 0) == 0
        told = "".join(rig.run(*words).stdout for words in (("info", "corp"), ("dns", "list"), ("properties",)))
        assert "secret=****" in told
        assert "server=****" in told
        (short_directory / "key").write_text("".join(f"{k}={v}\n" for k, v in servers.keys().items()))
        said = rig.run("dns", "set", "corp", "rfc2136", "--file", str(short_directory / "key"))
        assert said.returncode == 0, said.stderr
        await rig.all_served()
        for text in (told, said.stdout, rig.logs(), (short_directory / "fleet.log").read_text()):
            assert wrong not in text
            assert servers.secret not in text


async def killed_when_written(rig: Rig, servers: Bind) -> None:
    """An app whose record is there and not seen everywhere, and every worker dead by kill -9."""
    await rig.add("corp", ["corp.test"])
    await rig.nginx.reload()
    await rig.client.enable("corp")

    async def written() -> bool:
        return bool(await servers.values("_acme-challenge.corp.test"))

    await eventually("written", written)
    for name, pid in rig.children().items():
        if name in ("w1", "w2", "clock"):
            os.kill(pid, signal.SIGKILL)
    assert await rig.client._fleet.written.any("corp"), "it was kept before it was written"
    assert await rig.client._fleet.agenda.time_of(dns_member("corp")) is not None


async def test_a_record_is_removed_when_its_writer_was_killed(short_directory: Path) -> None:
    """The app is removed too: the list is what remembers."""
    async with rig_with_dns(short_directory, notify=False) as (rig, servers):
        await killed_when_written(rig, servers)
        await rig.client.remove_app("corp")
        await removed(rig, servers, "corp", "_acme-challenge.corp.test")


async def test_an_order_goes_on_when_its_worker_was_killed(
    short_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the record that is there: one newOrder, one value, and nothing left behind."""
    monkeypatch.setenv("CERTFLEET_LEASE", "5")
    async with rig_with_dns(short_directory, notify=False) as (rig, servers):
        await killed_when_written(rig, servers)
        before = await servers.values("_acme-challenge.corp.test")
        await servers.notify("corp.test")
        await rig.all_served()
        counts = await rig.ca.counts()
        assert counts["newOrder"] - counts["bad_nonce"] <= 1
        assert len(before) == 1
        await removed(rig, servers, "corp", "_acme-challenge.corp.test")


HOOK = """\
#!{python}
import os, sys
import dns.query, dns.tsig, dns.update
verb, name, value = sys.argv[1:]
key = dns.tsig.Key("certfleet", os.environ["TSIG_SECRET"], "hmac-sha256")
update = dns.update.UpdateMessage(os.environ["ACME_ZONE"], keyring=key)
if verb == "present":
    update.add(name + ".", 60, "TXT", value)
else:
    update.delete(name + ".", "TXT", value)
answer = dns.query.tcp(update, "{server}", port={port}, timeout=10)
print(answer.rcode(), file=sys.stderr)
sys.exit(answer.rcode() != 0)
"""


async def test_by_a_hook(short_directory: Path) -> None:
    """A program of the operator's writes and removes; it finds its secret in its environment, nobody else does."""
    async with rig_with_dns(short_directory) as (rig, servers):
        path = short_directory / "hook"
        path.write_text(HOOK.format(python=sys.executable, server=PRIMARY, port=servers.port))
        path.chmod(0o700)
        await rig.client.set_dns("own", "exec", {"command": str(path), "TSIG_SECRET": servers.secret})
        await rig.add("shop", ["*.shop.corp.test"], dns="own")
        await rig.nginx.reload()
        await rig.client.enable("shop")
        [view] = await rig.all_served()
        await rig.sees({"www.shop.corp.test": view.serial})
        await removed(rig, servers, "shop", "shop.delegated.test")
        assert servers.secret not in rig.logs() + rig.run("info", "shop").stdout + "\n".join(rig.run_ps())


async def test_credentials_in_use_are_not_forgotten(short_directory: Path) -> None:
    """Neither while apps name them, nor unknown ones are taken; the vault's rotation keeps them readable."""
    async with rig_with_dns(short_directory) as (rig, servers):
        await rig.add("corp", ["*.corp.test"])
        await rig.nginx.reload()
        with pytest.raises(UsageError, match="is used by corp"):
            await rig.client.remove_dns("corp")
        with pytest.raises(UsageError, match="'other' is not known"):
            await rig.client.set_property("dns", "other")
        with pytest.raises(UsageError, match="which http-01 cannot prove"):
            await rig.client.set_property("challenge", "http-01", "corp")
        assert rig.run("vault", "rotate").returncode == 0
        await rig.client.enable("corp")
        await rig.all_served()
        await removed(rig, servers, "corp", "_acme-challenge.corp.test")
