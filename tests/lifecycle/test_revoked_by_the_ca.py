"""A certificate that its CA has revoked by itself: the decisions, and the fleet from the list to what is served."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from certfleet.acme_ca.crl import Point, distribution_point
from certfleet.acme_ca.presets import resolve_ca
from certfleet.lifecycle.fleet import Fleet
from certfleet.lifecycle.orders.ordering import LONG_AGO
from certfleet.lifecycle.orders.replacement import exempt_from
from certfleet.lifecycle.orders.urgency import RENEWALS, Urgency, is_emergency, urgency
from certfleet.lifecycle.records import chain_name
from certfleet.lifecycle.renewals.renewal import Due, decide
from certfleet.lifecycle.revocations.crl_book import crl_member
from certfleet.models import App, Certificate, KeyType, Order, Renewal, dump
from certfleet.overview import State
from certfleet.properties import effective
from tests.certificate_records import CA, record
from tests.revoking_ca import ListServer, RevokingCA, list_server, part, point
from tests.rig import Rig, running_rig

NOW = datetime(2026, 11, 28, 10, tzinfo=UTC)
DAY = timedelta(days=1)
APP = App("blog", ("blog.example.com",), ("web1",), enabled=True)
SERVED = record(APP, NOW - 30 * DAY)
REVOKED = replace(SERVED, revoked=NOW - DAY, revoked_for="superseded", unasked=True)
ORDER = Order("1", "blog", CA, "ops@example.com", APP.identifiers, KeyType.P256, "renewal", NOW)
LIMITS = {
    "orders-per-account": (10, 3600.0, 20),
    "certificates-per-domain": (10, 3600.0, 20),
    "certificates-per-set": (1, 3600.0, 1),
}


@pytest.mark.parametrize(
    ("served", "reason", "emergency"),
    [
        pytest.param(REVOKED, "revoked by the CA", False, id="by its CA"),
        pytest.param(replace(REVOKED, leaked=True), "revoked by the CA", False, id="by its CA, for a leaked key"),
        pytest.param(replace(REVOKED, unasked=False), "revoked", True, id="at our word"),
    ],
)
def test_another_one_is_due_at_once(served: Certificate, reason: str, *, emergency: bool) -> None:
    """Whatever was due when; the emergency lane is for people."""
    found = decide(APP, served, cas=[resolve_ca(CA)], key_type=KeyType.P256, grace=None, told=None, now=NOW)
    assert found == Due(reason)
    assert is_emergency(served) is emergency


def test_its_place_is_before_every_renewal() -> None:
    """It has ended when it was revoked; of two the one that was revoked first."""
    properties = effective({}, {})
    assert urgency(ORDER, REVOKED, properties) == Urgency(RENEWALS, (NOW - DAY).timestamp())
    dying = urgency(ORDER, record(APP, NOW - 90 * DAY, not_after=NOW), properties)
    later = urgency(ORDER, replace(REVOKED, revoked=NOW), properties)
    assert urgency(ORDER, REVOKED, properties).rank < later.rank <= dying.rank
    long_over = replace(REVOKED, not_after=NOW - 9 * DAY)
    assert urgency(ORDER, long_over, properties).rank == (NOW - 9 * DAY).timestamp()


def test_when_a_waiting_order_becomes_exempt() -> None:
    """When its window opens; never for a revoked one, or one that replaces nothing, or another's window."""
    order = replace(ORDER, replaces="a.b")
    told = Renewal(1, next_look=NOW, start=NOW + DAY, end=NOW + 2 * DAY)
    assert exempt_from(order, SERVED, told, NOW) == NOW + DAY
    assert exempt_from(order, REVOKED, told, NOW) is None
    assert exempt_from(ORDER, SERVED, told, NOW) is None
    assert exempt_from(replace(order, exempt=True), SERVED, told, NOW) is None
    assert exempt_from(order, SERVED, replace(told, generation=2), NOW) is None
    assert exempt_from(order, SERVED, told, NOW + DAY) is None
    assert exempt_from(order, None, told, NOW) is exempt_from(order, SERVED, None, NOW) is None


async def naming(rig: Rig, ca: RevokingCA, served: ListServer) -> Certificate:
    """Blog's certificate as one that names a list: Pebble's name none, so another issuer signs its key and name."""
    fleet = rig.client._fleet
    found = await fleet.records.certificate("blog")
    assert found is not None
    pebbles = x509.load_pem_x509_certificate(found.leaf.encode())
    public = pebbles.public_key()
    assert isinstance(public, ec.EllipticCurvePublicKey)
    authority = pebbles.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    leaf = ca.leaf(
        "blog.demo.test",
        points=[point(served.url)],
        serial=pebbles.serial_number,
        public=public,
        authority=authority,
    )
    changed = replace(found, leaf=leaf, chain=chain_name(ca.certificate))
    redis, key = fleet.store.redis, fleet.store.key
    await redis.set(key("chain", changed.chain), ca.certificate)
    await redis.set(key("certificate", "blog"), dump(changed))
    return changed


async def watched(fleet: Fleet, place: Point, certificate: Certificate) -> None:
    """Wait until it is."""
    for _ in range(400):
        if await fleet.crls.is_watched(place, certificate.serial):
            return
        await asyncio.sleep(0.2)
    raise AssertionError("no check has found its list")


async def test_from_its_list_to_another_one_served(short_directory: Path) -> None:
    """Found, told, ordered with a new key though keys are kept; in its window, and yet no exemption is assumed."""
    ca = RevokingCA()
    async with list_server() as served, running_rig(short_directory, bad_nonce_percent=0, limits=LIMITS) as rig:
        await rig.client.set_limits({"ari-exempt": "on"}, ca=rig.ca.directory)
        await rig.strict.suggest_renewals(share=0.0, width=1.0)
        await rig.add("blog", **{"reuse-key": "on"})
        await rig.nginx.reload()
        await rig.client.enable("blog")
        await rig.all_served()
        await rig.until("asked", lambda views: views[0].window_start is not None)
        before = await naming(rig, ca, served)
        revoked = {int(before.serial, 16): x509.ReasonFlags.key_compromise}
        served.content = ca.list(revoked, extensions=[(part(served.url), True)])
        await rig.client.renew(["blog"])  # its check finds which list it is in
        place = distribution_point(before.leaf)
        assert place is not None
        fleet = rig.client._fleet
        await watched(fleet, place, before)
        await fleet.agenda.schedule(crl_member(place.name), LONG_AGO)

        [view] = await rig.until("waits", lambda views: views[0].state is State.LIMITED)
        assert (view.reason, view.revoked_for) == ("revoked by the CA", "keyCompromise")
        assert view.waits_for is not None
        assert "exact set" in view.waits_for
        assert (await rig.strict.book()).rate_limited_answers == 0
        told = json.loads(rig.run("info", "blog", "--json").stdout)["app"]
        assert told["revoked_for"] == "keyCompromise"
        assert told["revoked"] is not None
        assert "keyCompromise" in rig.run("info", "blog").stdout

        await rig.strict.set_limits({}, same_set_exempt=False)
        await rig.client.set_limits({"certificates-per-set": "10/10h"}, ca=rig.ca.directory)
        await rig.until("replaced", lambda views: views[0].generation == 2 and views[0].state is State.SERVED)
        after = await fleet.records.certificate("blog")
        assert after is not None
        assert (after.revoked, after.leaked) == (None, False)
        keys = [x509.load_pem_x509_certificate(one.leaf.encode()).public_key() for one in (before, after)]
        assert keys[0] != keys[1]
        await rig.sees({"blog.demo.test": after.serial})
        events = [entry.event for entry in await rig.client.history("blog")]
        assert events.count("revoked by the CA") == 1
        assert await fleet.crls.count(place.name) == 0
        assert served.asked == ["200"]
