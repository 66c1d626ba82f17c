"""Whole orders at a real CA, and objects that no CA should send."""

from __future__ import annotations

import asyncio
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from cryptography import x509

from certfleet.acme_ca.keys import make_account_key, make_csr, make_key
from certfleet.acme_ca.presets import resolve_ca
from certfleet.acme_ca.protocol import (
    AcmeOrder,
    Signer,
    answer_challenge,
    download,
    finalize,
    get_authorization,
    get_order,
    new_account,
    new_order,
)
from certfleet.acme_ca.transport import Transport
from certfleet.demo.pebble import DemoCA, pebble
from certfleet.errors import AcmeProblem, CAMisbehaved, OrderUnreadable
from certfleet.models import KeyType

from .flow import issue, responder, scripted, settle, signer_at

SIGNER = Signer(make_account_key(), "https://127.0.0.1/account/1")


def sent(counts: dict[str, int]) -> dict[str, int]:
    """The requests that there were."""
    return {kind: count for kind, count in counts.items() if count}


async def warm(ca: DemoCA, transport: Transport) -> Signer:
    """A transport with directory, nonce and account; the CA's counters at zero."""
    signer = await signer_at(transport)
    settle(transport)
    await ca.reset()
    return signer


async def test_one_name_costs_seven_requests_and_three_names_eleven(tmp_path: Path) -> None:
    """Warm: newOrder, authorization, challenge, order, finalize, order, certificate; 2n + 5 for n names."""
    async with responder() as served, pebble(tmp_path, http_port=served.port, bad_nonce_percent=0) as ca:
        async with Transport(resolve_ca(ca.directory, bundle=ca.bundle)) as transport:
            signer = await warm(ca, transport)
            issued = await issue(transport, signer, ["one.example.com"], served)
            assert sent(await ca.counts()) == {
                "newOrder": 1,
                "authorization": 1,
                "challenge": 1,
                "order": 2,
                "finalize": 1,
                "certificate": 1,
            }
            await ca.reset()
            names = ["a.example.com", "b.example.com", "c.example.com"]
            await issue(transport, signer, names, served)
            assert sum((await ca.counts()).values()) == 2 * len(names) + 5
        leaf = x509.load_pem_x509_certificate(issued.leaf.encode())
        root = x509.load_pem_x509_certificate((await ca.root()).encode())
        assert f"{leaf.serial_number:x}" == issued.serial
        assert (leaf.not_valid_before_utc, leaf.not_valid_after_utc) == (issued.not_before, issued.not_after)
        chain = [leaf, *(x509.load_pem_x509_certificate(pem.encode()) for pem in issued.chain), root]
        for lower, upper in pairwise(chain):
            lower.verify_directly_issued_by(upper)


async def test_a_valid_authorization_leaves_four_requests(tmp_path: Path) -> None:
    """newOrder, finalize, order, certificate: nothing is proved twice."""
    async with (
        responder() as served,
        pebble(tmp_path, http_port=served.port, bad_nonce_percent=0, authz_reuse_percent=100) as ca,
        Transport(resolve_ca(ca.directory, bundle=ca.bundle)) as transport,
    ):
        signer = await warm(ca, transport)
        await issue(transport, signer, ["one.example.com"], served)
        await ca.reset()
        await issue(transport, signer, ["one.example.com"], served)
        assert sent(await ca.counts()) == {"newOrder": 1, "order": 1, "finalize": 1, "certificate": 1}


@pytest.mark.parametrize(("percent", "at_least"), [(5, 0), (30, 1)])
async def test_bad_nonces_cost_requests_and_nothing_else(tmp_path: Path, percent: int, at_least: int) -> None:
    """Twelve orders at once all end well, each made and finalized exactly once."""
    async with (
        responder() as served,
        pebble(tmp_path, http_port=served.port, bad_nonce_percent=percent) as ca,
        Transport(resolve_ca(ca.directory, bundle=ca.bundle)) as transport,
    ):
        signer = await signer_at(transport)
        await asyncio.gather(*(issue(transport, signer, [f"x{n}.example.com"], served) for n in range(12)))
        counts = await ca.counts()
        assert counts["bad_nonce"] >= at_least
        assert counts["newOrder"] + counts["finalize"] >= 24
        log = ca.log.read_text()
        assert log.count("Added order") == 12
        assert log.count("Processing finalization") == 12


async def test_validation_that_takes_its_time_is_waited_for(tmp_path: Path) -> None:
    """With Pebble's sleeps on, the poll ends with its budget and is taken up again."""
    async with (
        responder() as served,
        pebble(tmp_path, http_port=served.port, sleep=True) as ca,
        Transport(resolve_ca(ca.directory, bundle=ca.bundle)) as transport,
    ):
        signer = await signer_at(transport)
        issued = await issue(transport, signer, ["slow.example.com"], served)
        assert issued.leaf.startswith("-----BEGIN CERTIFICATE-----")


async def test_a_name_that_is_not_served_fails_with_the_cas_evidence(tmp_path: Path) -> None:
    """The authorization says why; the order is invalid; its neighbour's is not touched."""
    async with (
        responder() as served,
        pebble(tmp_path, http_port=served.port, bad_nonce_percent=0) as ca,
        Transport(resolve_ca(ca.directory, bundle=ca.bundle)) as transport,
    ):
        signer = await signer_at(transport)
        order = await new_order(transport, signer, ["bad.example.com"])
        (url,) = order.authorizations
        pending = await get_authorization(transport, signer, url)
        assert (pending.identifier, pending.status, pending.wildcard) == ("bad.example.com", "pending", False)
        assert pending.http01 is not None
        await answer_challenge(transport, signer, pending.http01.url)
        for _ in range(600):
            failed = await get_authorization(transport, signer, url)
            if failed.status != "pending":
                break
            await asyncio.sleep(0.05)
        assert failed.status == "invalid"
        assert failed.error is not None
        assert failed.error.type == "unauthorized"
        assert (await get_order(transport, signer, order.url)).status == "invalid"
        with pytest.raises(AcmeProblem) as caught:
            await finalize(transport, signer, order, make_csr(await make_key(KeyType.P256), ["bad.example.com"]))
        assert caught.value.type == "orderNotReady"
        await issue(transport, signer, ["good.example.com"], served)


async def test_registering_a_key_again_finds_its_account(tmp_path: Path) -> None:
    """NewAccount is safe to repeat; an unknown account is the CA's typed answer."""
    async with (
        responder() as served,
        pebble(tmp_path, http_port=served.port) as ca,
        Transport(resolve_ca(ca.directory, bundle=ca.bundle)) as transport,
    ):
        key = make_account_key()
        first = await new_account(transport, key, "ops@example.com", agree_tos=True)
        again = await new_account(transport, key, "ops@example.com", agree_tos=True)
        assert (first.new, again.new, again.url) == (True, False, first.url)
        with pytest.raises(AcmeProblem) as caught:
            await new_order(transport, Signer(key, first.url + "0"), ["a.example.com"])
        assert caught.value.type == "accountDoesNotExist"
        with pytest.raises(AcmeProblem) as refused:
            await new_order(transport, Signer(key, first.url), ["*.*.example.com"])
        assert refused.value.type == "malformed"


def order(**changes: object) -> dict[str, Any]:
    """A good order's JSON with changes."""
    good = {
        "status": "pending",
        "identifiers": [{"type": "dns", "value": "a.test"}],
        "authorizations": ["https://127.0.0.1/authz/1"],
        "finalize": "https://127.0.0.1/finalize/1",
    }
    return {**good, **changes}


def authorization(**changes: object) -> dict[str, Any]:
    """A good authorization's JSON with changes to its http-01 challenge."""
    challenge = {"type": "http-01", "url": "https://127.0.0.1/c/1", "token": "A" * 43, "status": "pending", **changes}
    return {
        "identifier": {"type": "dns", "value": "a.test"},
        "status": "pending",
        "challenges": [{"type": "dns-persist-01", "surprise": 1}, challenge],
    }


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"<html>"]
    + [json.dumps(order(**change)).encode() for change in (
        {"status": "done"}, {"finalize": None}, {"finalize": "http://127.0.0.1/f"}, {"authorizations": "x"},
        {"authorizations": ["javascript:alert(1)"]}, {"identifiers": [{"type": "dns"}]}, {"certificate": 7},
    )],
)  # fmt: skip
async def test_an_order_that_is_none_is_refused(tmp_path: Path, body: bytes) -> None:
    """Wrong or missing fields are named, nothing of it is used."""
    async with scripted(tmp_path, web.Response(body=body)) as (_, transport):
        url = transport.ca.directory.replace("/dir", "/order/1")
        with pytest.raises(CAMisbehaved, match="order that RFC 8555 does not allow"):
            await get_order(transport, SIGNER, url)


@pytest.mark.parametrize("token", ["", "short", "../../etc/passwd-" + "A" * 20, "A" * 257, "A" * 20 + "\n", "é" * 30])
async def test_a_token_that_could_be_a_path_is_refused(tmp_path: Path, token: str) -> None:
    """It becomes a URL's path and a Redis key: base64url of bounded length or nothing."""
    reply = web.json_response(authorization(token=token))
    async with scripted(tmp_path, reply) as (_, transport):
        with pytest.raises(CAMisbehaved, match="token"):
            await get_authorization(transport, SIGNER, transport.ca.directory.replace("/dir", "/authz/1"))


async def test_challenges_of_unknown_kinds_do_no_harm(tmp_path: Path) -> None:
    """The http-01 challenge is found among them; the error of any of them is kept."""
    good = authorization()
    good["challenges"][0]["error"] = {"type": "urn:ietf:params:acme:error:dns", "detail": "no TXT"}
    async with scripted(tmp_path, web.json_response(good)) as (_, transport):
        found = await get_authorization(transport, SIGNER, transport.ca.directory.replace("/dir", "/authz/1"))
    assert found.http01 is not None
    assert found.http01.token == "A" * 43
    assert str(found.error) == "dns: no TXT"


@pytest.mark.parametrize(
    ("changes", "issuers"),
    [
        ({"issuer-domain-names": ["ca.example"]}, ("ca.example",)),
        ({"issuerDomainNames": ["a.example", "b.example"]}, ("a.example", "b.example")),
        ({"issuerDomainNames": ["a.example"] * 11}, ()),
        ({}, ()),
    ],
)
async def test_a_challenge_without_a_token(
    tmp_path: Path, changes: dict[str, object], issuers: tuple[str, ...]
) -> None:
    """dns-persist-01 has the CA's names instead, by either spelling; any other kind needs its token."""
    good = authorization()
    standing = {"type": "dns-persist-01", "url": "https://127.0.0.1/c/2", "status": "pending", **changes}
    good |= {"wildcard": True, "challenges": [standing]}
    bare = authorization()
    del bare["challenges"][1]["token"]
    async with scripted(tmp_path, web.json_response(good), web.json_response(bare)) as (_, transport):
        url = transport.ca.directory.replace("/dir", "/authz/1")
        found = await get_authorization(transport, SIGNER, url)
        with pytest.raises(CAMisbehaved, match="http-01 without a token"):
            await get_authorization(transport, SIGNER, url)
    challenge = found.offered("dns-persist-01")
    assert challenge is not None
    assert (challenge.token, challenge.issuers) == ("", issuers)
    assert found.name == "*.a.test"
    assert found.offered("http-01") is None


async def test_an_order_without_location_or_for_other_names_is_refused(tmp_path: Path) -> None:
    """NewOrder needs a Location on the CA's own host and the names that were asked for."""
    here = {"Location": "https://127.0.0.1:1/order/1"}
    async with scripted(
        tmp_path, web.json_response(order(), status=201), web.json_response(order(), status=201, headers=here)
    ) as (script, transport):
        with pytest.raises(CAMisbehaved, match="without a Location"):
            await new_order(transport, SIGNER, ["a.test"])
        with pytest.raises(CAMisbehaved, match="not https on a host of its own"):
            await new_order(transport, SIGNER, ["a.test"])
        own = {"Location": transport.ca.directory.replace("/dir", "/order/1")}
        script.replies = [web.json_response(order(), status=201, headers=own)]
        with pytest.raises(CAMisbehaved, match="instead of the names asked for"):
            await new_order(transport, SIGNER, ["a.test", "b.test"])


async def test_a_garbled_new_order_is_not_lost(tmp_path: Path) -> None:
    """Its URL is all that it takes."""
    async with scripted(tmp_path) as (script, transport):
        where = transport.ca.directory.replace("/dir", "/order/1")
        for body in ("{", "[]", '{"status": "strange"}'):
            script.replies.append(web.Response(status=201, text=body, headers={"Location": where}))
            with pytest.raises(OrderUnreadable, match="RFC 8555 does not allow") as raised:
                await new_order(transport, SIGNER, ["a.test"])
            assert raised.value.url == where


async def test_a_certificate_for_another_key_or_other_names_is_refused(tmp_path: Path) -> None:
    """What would break the web server, or serve the wrong names, never gets that far."""
    async with (
        responder() as served,
        pebble(tmp_path / "pebble", http_port=served.port) as ca,
        Transport(resolve_ca(ca.directory, bundle=ca.bundle)) as transport,
    ):
        issued = await issue(transport, await signer_at(transport), ["a.example.com"], served)
    key = await make_key(KeyType.P256)
    whole = issued.leaf + "".join(issued.chain)
    twice = whole + issued.leaf
    script = [web.Response(text=text) for text in (whole, "", "nonsense", whole[:400], twice)]
    async with scripted(tmp_path, *script) as (_, transport):
        url = transport.ca.directory.replace("/dir", "/cert/1")
        for says in ("another key", "cannot be read", "cannot be read", "cannot be read", "another key"):
            with pytest.raises(CAMisbehaved, match=says):
                await download(transport, SIGNER, url, key=key, identifiers=["a.example.com"])


async def test_a_ready_order_carries_on_from_its_url_alone(tmp_path: Path) -> None:
    """An order that another process began is finished from what the CA says."""
    async with (
        responder() as served,
        pebble(tmp_path, http_port=served.port, authz_reuse_percent=100) as ca,
        Transport(resolve_ca(ca.directory, bundle=ca.bundle)) as transport,
    ):
        signer = await signer_at(transport)
        await issue(transport, signer, ["a.example.com"], served)
        begun = await new_order(transport, signer, ["a.example.com"])
        assert begun.status == "ready"
        async with Transport(transport.ca) as other:
            seen: AcmeOrder = await get_order(other, signer, begun.url)
            assert seen == begun
            finalized = await finalize(
                other, signer, seen, make_csr(await make_key(KeyType.P256), list(seen.identifiers))
            )
            assert finalized.status in ("processing", "valid")
