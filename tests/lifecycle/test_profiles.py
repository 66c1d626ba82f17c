"""Profiles, addresses, external accounts and chains by way of the whole fleet: from a property to what is served."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from certfleet.demo.handshake import serials, trusting
from certfleet.demo.story import HOST
from certfleet.install.snippet import snippet
from certfleet.overview import Overview, State
from tests.acme_ca.test_addresses import has_ipv6
from tests.rig import Rig, running_rig

HOURS_160 = 160 * 3600
PROFILES = {
    "classic": "https://ca.example/profiles#classic",
    "shortlived": "https://ca.example/profiles#shortlived",
}
BUILT_IN: dict[str, Any] = {
    # Newer Pebbles know profiles themselves, and refuse others than these.
    "profiles": {name: {"description": text, "validityPeriod": HOURS_160} for name, text in PROFILES.items()}
}
MAC = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY"


async def served(rig: Rig, generation: int) -> Overview:
    """The app once this generation of its certificate is served."""
    [view] = await rig.until(
        f"generation {generation} served",
        lambda views: views[0].generation == generation and views[0].state is State.SERVED,
    )
    return view


async def failing(rig: Rig) -> str:
    """What is wrong with the app, once something is."""
    [view] = await rig.until("failing", lambda views: views[0].state is State.FAILING)
    return view.error or ""


async def test_shortlived_from_the_property_to_renewal_at_half(short_directory: Path) -> None:
    """The profile goes into newOrder, is kept, makes a new order when it changes, and 160 h are renewed at half."""
    async with running_rig(short_directory, limits={}, validity_seconds=HOURS_160, settings=BUILT_IN) as rig:
        await rig.strict.offer(PROFILES)
        await rig.add("blog", profile="shortlived")
        await rig.nginx.reload()
        await rig.client.enable("blog")
        view = await served(rig, 1)
        assert view.profile == "shortlived"
        assert view.not_after is not None
        assert view.renew_at is not None
        left = view.not_after - view.renew_at
        assert timedelta(hours=80) <= left <= timedelta(hours=84), "half, and its spread"
        await rig.client.set_property("profile", "classic", "blog")
        assert (await served(rig, 2)).profile == "classic"
        await rig.client.set_property("profile", "", "blog")
        assert (await served(rig, 3)).profile is None
        assert await rig.strict.asked_profiles() == ["shortlived", "classic", None]
        reasons = [entry.detail for entry in await rig.client.history("blog") if entry.event == "ordered"]
        assert sum(reason.startswith("profile changed") for reason in reasons) == 2
        await rig.sees({"blog.demo.test": (await rig.view("blog")).serial})


async def test_renewals_keep_the_profile(short_directory: Path) -> None:
    """A global profile, certificates of seconds: each renewal asks for it, and no look ever meets an expired one."""
    async with running_rig(short_directory, limits={}, validity_seconds=20, settings=short(20)) as rig:
        await rig.strict.offer(PROFILES)
        await rig.client.set_property("profile", "shortlived")
        await rig.add("blog")
        await rig.nginx.reload()
        await rig.client.enable("blog")
        await served(rig, 1)
        while (await rig.view("blog")).generation < 3:
            assert await rig.seen("blog.demo.test"), "always a valid certificate"
            await asyncio.sleep(0.2)
        assert set(await rig.strict.asked_profiles()) == {"shortlived"}


def short(seconds: int) -> dict[str, Any]:
    return {"profiles": {name: entry | {"validityPeriod": seconds} for name, entry in BUILT_IN["profiles"].items()}}


async def test_a_profile_that_the_ca_does_not_have(short_directory: Path) -> None:
    """The sentence lists those there are; nothing was ordered for it; the right word mends it at once."""
    async with running_rig(short_directory, limits={}, settings=BUILT_IN) as rig:
        await rig.strict.offer(PROFILES)
        await rig.add("blog", profile="shortlifed")
        await rig.nginx.reload()
        await rig.client.enable("blog")
        error = await failing(rig)
        assert "offers no profile shortlifed" in error
        assert all(f"{name}: {text}" in error for name, text in PROFILES.items())
        assert "certfleet set --app blog profile=NAME" in error
        assert all(word in rig.run("profiles").stdout for word in (*PROFILES, *PROFILES.values()))
        offer = json.loads(rig.run("profiles", "--app", "blog", "--json").stdout)
        assert list(offer) == ["version", "ca", "directory", "external_account_required", "profiles"]
        assert offer["profiles"] == [{"name": name, "description": text} for name, text in PROFILES.items()]
        assert (offer["ca"], offer["external_account_required"]) == (rig.ca.directory, False)
        assert (await rig.ca.counts())["newOrder"] == 0
        await rig.client.set_property("profile", "shortlived", "blog")
        assert (await served(rig, 1)).profile == "shortlived"


async def test_a_ca_without_profiles(short_directory: Path) -> None:
    """Is said to have none; taken away from where it was set, here for all apps, it goes on."""
    async with running_rig(short_directory, limits={}) as rig:
        await rig.client.set_property("profile", "shortlived")
        await rig.add("blog")
        await rig.nginx.reload()
        await rig.client.enable("blog")
        error = await failing(rig)
        assert "offers no profiles" in error
        assert "`certfleet set profile=`" in error
        assert (await rig.ca.counts())["newOrder"] == 0
        await rig.client.set_property("profile", "")
        await served(rig, 1)


async def test_a_profile_that_was_withdrawn(short_directory: Path) -> None:
    """The CA refuses what its directory still listed this morning: that directory is read again, and tells."""
    async with running_rig(short_directory, limits={}, settings=BUILT_IN) as rig:
        await rig.strict.offer(PROFILES, hidden=["shortlived"])
        await rig.add("blog", profile="shortlived")
        await rig.nginx.reload()
        await rig.client.enable("blog")
        assert "invalidProfile" in await failing(rig)
        await rig.strict.offer({"classic": PROFILES["classic"]})
        await rig.client.renew(["blog"])
        await rig.until("told", lambda views: "offers no profile shortlived" in (views[0].error or ""))


@pytest.mark.parametrize("together", [False, True], ids=["alone", "with a name"])
async def test_an_address_is_served(short_directory: Path, *, together: bool) -> None:
    """Ordered, installed, and seen by a client that checks the address, and by certfleet without a server name."""
    async with running_rig(short_directory) as rig:
        names = ["127.0.0.1", "blog.demo.test"] if together else ["127.0.0.1"]
        await rig.add("blog", names)
        await rig.nginx.reload()
        await rig.client.enable("blog")
        view = await served(rig, 1)
        assert view.domains == tuple(names)
        await rig.sees(dict.fromkeys(names, view.serial))
        assert not await rig.seen("127.0.0.2"), "another address is not certified by it"


@pytest.mark.skipif(not has_ipv6(), reason="no IPv6 here")
async def test_an_ipv6_address_is_served(short_directory: Path) -> None:
    """Its own site, listener and endpoint: by the lines of the snippet, with the server name that it tells."""
    async with running_rig(short_directory) as rig:
        where = {"listen": "::1", "address": "::1"}
        app = await rig.client.add_app("six", ["[::1]"], [HOST], where)
        assert app.identifiers == ("::1",)
        lines = snippet(app, await rig.client.host(HOST), "127.0.0.1", rig.settings.responder_port)
        assert "# server_name [::1];" in lines
        site = f"server {{ listen [::1]:{rig.nginx.http_port}; server_name [::1];\n{lines}}}\n"
        (rig.nginx.directory / "sites" / "six.conf").write_text(site)
        await rig.nginx.reload()
        await rig.client.enable("six")
        view = await served(rig, 1)
        context = trusting(await rig.ca.root())
        _, writer = await asyncio.open_connection("::1", rig.nginx.tls_port, ssl=context, server_hostname="::1")
        serial = writer.get_extra_info("peercert")["serialNumber"].lower().lstrip("0")
        writer.close()
        assert serial == view.serial


async def test_an_account_by_external_binding(short_directory: Path) -> None:
    """Failing with what is missing; told by the command line it is served, and the key shows nowhere."""
    known = {"externalAccountBindingRequired": True, "externalAccountMACKeys": {"kid-1": MAC}}
    async with running_rig(short_directory, settings=known) as rig:
        await rig.add("blog")
        await rig.nginx.reload()
        await rig.client.enable("blog")
        assert "certfleet eab set --ca" in await failing(rig)
        file = short_directory / "mac.key"
        file.write_text(MAC + "\n")
        said = [rig.run("eab", "set", "--kid", "kid-1", "--key-file", str(file))]
        view = await served(rig, 1)
        await rig.sees({"blog.demo.test": view.serial})
        said += [rig.run("eab", "list"), rig.run("info", "blog"), rig.run("info", "blog", "--json")]
        assert all(one.returncode == 0 for one in said), said
        assert all("kid-1" in one.stdout and "****" in one.stdout for one in said[1:])
        redis = rig.client._fleet.store.redis
        kept = [await redis.dump(key) async for key in redis.scan_iter()]
        told = "".join(one.stdout + one.stderr for one in said) + rig.logs() + "".join(rig.run_ps())
        assert MAC not in told
        assert not any(MAC.encode() in value or b"0123456789abcdef" in value for value in kept if value)
        assert "offers no profiles; it needs an external account" in rig.run("profiles", "--app", "blog").stdout


async def test_the_preferred_chain_is_served(short_directory: Path) -> None:
    """A client that trusts only the other root sees it; a chain that there is not is told in the journal."""
    async with running_rig(short_directory, alternate_roots=1) as rig:
        roots = [await rig.ca.root(number) for number in range(2)]
        names = [x509.load_pem_x509_certificate(root.encode()).subject.rfc4514_string()[3:] for root in roots]
        await rig.add("blog", **{"preferred-chain": names[1]})
        await rig.nginx.reload()
        await rig.client.enable("blog")
        view = await served(rig, 1)
        for root, expected in zip(roots, ({}, {"blog.demo.test": view.serial}), strict=True):
            found = await serials(trusting(root), rig.nginx.tls_port, ["blog.demo.test"])
            assert found == expected, "the chain leads to the second root alone"
        await rig.client.set_property("preferred-chain", "ISRG Root X9", "blog")
        await rig.client.renew(["blog"], force=True)
        await served(rig, 2)
        [told] = [entry.detail for entry in await rig.client.history("blog") if entry.event == "chain not offered"]
        assert told.startswith("ISRG Root X9: ")
        assert all(name in told for name in names)
