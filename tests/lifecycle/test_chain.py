"""From `enable` to a certificate that a verified handshake sees, whatever the CA is like."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from certfleet.demo.handshake import serials, trusting
from certfleet.demo.pebble import DemoCA, pebble
from certfleet.demo.story import HOST
from certfleet.install.snippet import snippet
from certfleet.models import dump
from certfleet.overview import State
from tests.rig import Rig, running_rig

WARM = {"newOrder": 1, "authorization": 1, "challenge": 1, "order": 2, "finalize": 1, "certificate": 1}
"""RFC 8555 for one name: seven requests."""


async def enable_all(rig: Rig, names: list[str]) -> None:
    for name in names:
        await rig.client.enable(name)


async def add_shops(rig: Rig, count: int) -> dict[str, str]:
    """Apps with their sites; app -> name."""
    apps = [await rig.add(f"shop{number}") for number in range(count)]
    await rig.nginx.reload()
    return {app.name: app.identifiers[0] for app in apps}


@pytest.mark.parametrize(
    ("bad_nonce", "reuse", "sleep"),
    [
        pytest.param(5, 0, False, id="5% bad nonces"),
        pytest.param(30, 100, False, id="30% bad nonces, authorizations reused"),
        pytest.param(5, 0, True, id="validation sleeps"),
    ],
)
async def test_twelve_apps_at_once(short_directory: Path, bad_nonce: int, reuse: int, *, sleep: bool) -> None:
    """All are issued, installed and served, and what is served is what the record says."""
    async with running_rig(short_directory, bad_nonce_percent=bad_nonce, authz_reuse_percent=reuse, sleep=sleep) as rig:
        shops = await add_shops(rig, 12)
        await enable_all(rig, list(shops))
        views = await rig.all_served()
        await rig.sees({shops[view.name]: view.serial for view in views})
        counts = await rig.ca.counts()
        assert counts["newOrder"] - counts["finalize"] <= counts["bad_nonce"], "no order was made twice"


async def test_a_warm_ca_is_asked_seven_times(short_directory: Path) -> None:
    """newOrder, authorization, challenge, order, finalize, order, certificate: nothing else, once warm."""
    async with running_rig(short_directory, bad_nonce_percent=0) as rig:
        await add_shops(rig, 12)
        for number in range(8):  # the first ones warm the worker up and teach it the CA's pace
            await rig.client.enable(f"shop{number}")
            await rig.until("issued", lambda views, n=number: sum(v.generation > 0 for v in views) > n)  # type: ignore[misc]
        found = []
        for number in range(8, 12):
            await rig.ca.reset()
            await rig.client.enable(f"shop{number}")
            await rig.until("issued", lambda views, n=number: sum(v.generation > 0 for v in views) > n)  # type: ignore[misc]
            found.append({kind: count for kind, count in (await rig.ca.counts()).items() if count})
        assert WARM in found, f"no certificate took exactly seven requests: {found}"
        assert all("directory" not in counts and "newNonce" not in counts for counts in found)
        assert all(counts | {"order": 2} == WARM for counts in found), "only the polls of a slow moment may be more"


async def test_a_reused_authorization_is_not_proven_again(short_directory: Path) -> None:
    """Four requests when the CA still knows that the name is ours."""
    async with running_rig(short_directory, bad_nonce_percent=0, authz_reuse_percent=100) as rig:
        await add_shops(rig, 1)
        await rig.client.enable("shop0")
        await rig.all_served()
        await rig.ca.reset()
        await rig.client.renew(["shop0"], force=True)
        await rig.until("renewed", lambda views: views[0].generation == 2 and views[0].state is State.SERVED)
        counts = {kind: count for kind, count in (await rig.ca.counts()).items() if count}
        assert "challenge" not in counts
        assert counts["finalize"] == counts["newOrder"] == counts["certificate"] == 1


async def test_many_names_and_every_kind_of_key(rig: Rig) -> None:
    """One certificate covers all names of an app, and its key is of the kind that was asked for."""
    kinds = {"p256": ec.SECP256R1, "p384": ec.SECP384R1, "rsa2048": 2048, "rsa3072": 3072}
    for kind in kinds:
        await rig.add(kind, [f"{kind}-{n}.demo.test" for n in range(5)], **{"key-type": kind})
    await rig.nginx.reload()
    await enable_all(rig, list(kinds))
    await rig.all_served()
    for kind, wanted in kinds.items():
        record = await rig.client._fleet.records.certificate(kind)
        assert record is not None
        leaf = x509.load_pem_x509_certificate(record.leaf.encode())
        public = leaf.public_key()
        if isinstance(public, rsa.RSAPublicKey):
            assert public.key_size == wanted
        else:
            assert isinstance(public, ec.EllipticCurvePublicKey)
            assert isinstance(public.curve, wanted)  # type: ignore[arg-type]
        names = [f"{kind}-{n}.demo.test" for n in range(5)]
        await rig.sees(dict.fromkeys(names, record.serial))


async def test_a_name_that_fails_touches_no_other(rig: Rig) -> None:
    """A name that does not point here is seen by the self-check: the CA never counts a failed authorization."""
    shops = await add_shops(rig, 3)
    await rig.client.add_app("lost", ["lost.demo.test"], ["web1"], {"email": "ops@example.com"})
    await rig.ca.reset()
    await enable_all(rig, [*shops, "lost"])
    await rig.until(
        "settled", lambda views: sum(v.state is State.SERVED for v in views) == 3 and any(v.error for v in views)
    )
    lost = await rig.view("lost")
    assert lost.state is State.FAILING
    assert "lost.demo.test" in (lost.error or "")
    assert "404" in (lost.error or "")
    assert lost.next_try is not None
    counts = await rig.ca.counts()
    assert counts["challenge"] - counts["bad_nonce"] <= 3, "the CA was not told to look at the lost name"


async def test_a_refusal_by_the_ca_says_why(rig: Rig) -> None:
    """Without the self-check the CA finds out by itself; its own words reach the person, and it is tried later."""
    await rig.client.add_app("lost", ["lost.demo.test"], ["web1"], {"email": "ops@example.com", "self-check": "off"})
    await rig.client.enable("lost")
    await rig.until("failed", lambda views: views[0].state is State.FAILING)
    lost = await rig.view("lost")
    assert "the CA refused" in (lost.error or "")
    assert "lost.demo.test" in (lost.error or "")
    # Mended, and asked for by name: no back-off is waited for.
    app = await rig.client.app("lost")
    host = await rig.client.host("web1")
    rig.nginx.add_site(
        "lost", app.identifiers, snippet(app, host, rig.settings.responder_address, rig.settings.responder_port)
    )
    await rig.nginx.reload()
    await rig.client.renew(["lost"])
    await rig.all_served()


async def test_the_second_ca_of_a_list_serves_until_the_first_does_again(short_directory: Path) -> None:
    """The first refuses the name: its neighbour's certificate is served; the next renewal is the first's again."""
    async with running_rig(short_directory, limits={}) as rig:
        second = short_directory / "second"
        async with pebble(second, http_port=rig.nginx.http_port) as other:
            await rig.client.set_property("ca", f"{rig.ca.directory},{other.directory}")
            await rig.client.set_property("ca-bundle", rig.ca.bundle + other.bundle)
            await rig.strict.answer_orders(1, 400, type="rejectedIdentifier", detail="policy forbids shop0.demo.test")
            await add_shops(rig, 1)
            await rig.client.enable("shop0")
            await rig.all_served()
            await shown_by(rig, other, "second")
            said = rig.run("info", "shop0").stdout
            assert "policy forbids shop0.demo.test" in said
            assert other.directory in said
            await rig.client.renew(["shop0"], force=True)
            await rig.until("renewed", lambda views: views[0].generation == 2 and views[0].state is State.SERVED)
            await shown_by(rig, other, "first")


async def shown_by(rig: Rig, other: DemoCA, issuer: str) -> None:
    """Only this one's root is what a handshake needs. nginx's old processes answer for another moment."""
    contexts = {name: trusting(await ca.root()) for name, ca in (("first", rig.ca), ("second", other))}
    for _ in range(300):
        shown = {n for n, c in contexts.items() if await serials(c, rig.nginx.tls_port, ["shop0.demo.test"])}
        if shown == {issuer}:
            return
        await asyncio.sleep(0.1)
    assert shown == {issuer}


async def test_changed_names_get_a_new_certificate(rig: Rig) -> None:
    """The certificate follows the app's names; the old one is served until then."""
    await rig.add("blog")
    await rig.nginx.reload()
    await rig.client.enable("blog")
    await rig.all_served()
    app = await rig.client.app("blog")
    host = await rig.client.host("web1")
    lines = snippet(app, host, rig.settings.responder_address, rig.settings.responder_port)
    rig.nginx.add_site("blog", ["blog.demo.test", "www.demo.test"], lines)
    await rig.nginx.reload()
    await rig.client.change_app("blog", domains=["blog.demo.test", "www.demo.test"])
    await rig.until("renewed", lambda views: views[0].generation == 2 and views[0].state is State.SERVED)
    serial = (await rig.view("blog")).serial
    await rig.sees({"blog.demo.test": serial, "www.demo.test": serial})


async def test_due_certificates_are_renewed_in_time(short_directory: Path) -> None:
    """Short certificates come due by themselves and are replaced at the endpoint while they are valid."""
    async with running_rig(short_directory, validity_seconds=20) as rig:
        shops = await add_shops(rig, 3)
        await enable_all(rig, list(shops))
        first: dict[str, str] = {}
        renewed: set[str] = set()
        for _ in range(600):
            # Verified handshakes: an expired certificate would be missing here.
            seen = await rig.seen(*shops.values())
            assert set(first) <= set(seen), "no name was ever without a valid certificate"
            for name, serial in seen.items():
                if first.setdefault(name, serial) != serial:
                    renewed.add(name)
            if len(renewed) == 3:
                break
            await asyncio.sleep(0.1)
        assert renewed == set(shops.values())


async def test_a_broken_web_server_keeps_the_old_certificate(rig: Rig) -> None:
    """`nginx -t` was broken before we came: nothing is touched, the old certificate is served, the app says why."""
    await rig.add("blog")
    await rig.nginx.reload()
    await rig.client.enable("blog")
    await rig.all_served()
    before = {"blog.demo.test": (await rig.view("blog")).serial}
    await rig.sees(before)
    broken = rig.nginx.directory / "sites" / "broken.conf"
    broken.write_text("server { listen nonsense; }\n")
    await rig.client.renew(["blog"], force=True)
    await rig.until("failed", lambda views: views[0].state is State.FAILING)
    view = await rig.view("blog")
    assert view.generation == 2
    assert "broken before we came" in (view.error or "")
    assert await rig.seen("blog.demo.test") == before
    broken.unlink()
    await rig.client.renew(["blog"])
    await rig.all_served()
    serial = (await rig.view("blog")).serial
    assert serial != before["blog.demo.test"]
    await rig.sees({"blog.demo.test": serial})


async def test_a_reload_that_does_not_take_is_rolled_back(rig: Rig) -> None:
    """The endpoint goes on showing the old certificate: the old generation is current again, and the app says why."""
    await rig.add("blog")
    await rig.nginx.reload()
    await rig.client.enable("blog")
    await rig.all_served()
    before = {"blog.demo.test": (await rig.view("blog")).serial}
    host = await rig.client.host(HOST)
    redis = rig.client._fleet.store.redis
    await redis.hset("certfleet:hosts", HOST, dump(replace(host, reload_command=("true",))))
    await rig.client.renew(["blog"], force=True)
    await rig.until("failed", lambda views: views[0].state is State.FAILING)
    view = await rig.view("blog")
    assert f"expected {view.serial}" in (view.error or "")
    assert "the old one is back" in (view.error or "")
    assert (Path(host.root) / "blog" / "current").resolve().name == "1"
    await rig.sees(before)
    await redis.hset("certfleet:hosts", HOST, dump(host))
    await rig.client.renew(["blog"])
    await rig.all_served()
    await rig.sees({"blog.demo.test": view.serial})


async def test_a_disabled_app_is_left_alone(rig: Rig) -> None:
    """Its certificate stays served; enabling it again finds everything in place and orders nothing."""
    await rig.add("blog")
    await rig.nginx.reload()
    await rig.client.enable("blog")
    await rig.all_served()
    assert not (await rig.client.enable("blog")).changed
    assert (await rig.client.disable("blog")).changed
    assert (await rig.client.renew([]))[0:] == []
    assert "blog.demo.test" in await rig.seen("blog.demo.test")
    await rig.client.enable("blog")
    view = (await rig.all_served())[0]
    assert view.generation == 1
