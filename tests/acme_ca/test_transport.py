"""Requests to a CA: nonces, connections, every way in which they fail."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import timedelta
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from certfleet.acme_ca import transport as module
from certfleet.acme_ca.keys import make_account_key
from certfleet.acme_ca.presets import resolve_ca
from certfleet.acme_ca.transport import BAD_NONCE_TRIES, BODY_LENGTH, Transport
from certfleet.demo.ports import free_port
from certfleet.errors import AcmeProblem, CAMisbehaved, CAUnreachable, Subproblem
from certfleet.models import CA, utcnow

from .flow import Script, directory_of, scripted, server_tls, serving

KEY = make_account_key()


def problem(status: int, kind: str, **more: object) -> web.Response:
    """A problem document as a CA sends it."""
    document = {"type": f"urn:ietf:params:acme:error:{kind}", "detail": f"because of {kind}", **more}
    return web.json_response(document, status=status, content_type="application/problem+json")


def with_nonce(script: Script, answer: web.Response) -> web.Response:
    """The answer with a fresh nonce."""
    answer.headers.update(script.nonce())
    return answer


async def ask(transport: Transport, path: str = "/thing") -> bytes:
    """One POST-as-GET to a path on the CA's host."""
    origin = transport.ca.directory.removesuffix("/dir")
    return (await transport.post(origin + path, None, KEY, kid="https://127.0.0.1/account/1")).body


async def test_once_warm_only_the_request_itself_is_sent_on_one_connection(tmp_path: Path) -> None:
    """Twenty requests: one directory, one newNonce, one connection."""
    async with scripted(tmp_path) as (script, transport):
        script.replies = [with_nonce(script, web.Response(body=b"x")) for _ in range(20)]
        for _ in range(20):
            assert await ask(transport) == b"x"
        assert script.asked == ["GET /dir", "GET /nonce", *["POST /thing"] * 20]
        assert len(script.peers) == 1
        assert transport.requests == {"directory": 1, "newNonce": 1, "other": 20}


async def test_the_nonce_of_an_error_is_used(tmp_path: Path) -> None:
    """A refusal feeds the pool as well as a success does."""
    async with scripted(tmp_path) as (script, transport):
        script.replies = [with_nonce(script, problem(403, "unauthorized")), web.Response(body=b"x")]
        with pytest.raises(AcmeProblem):
            await ask(transport)
        assert await ask(transport) == b"x"
        assert script.asked.count("GET /nonce") == 1


async def test_a_bad_nonce_is_tried_again_with_the_fresh_one(tmp_path: Path) -> None:
    """Eleven refusals and a success look like a success; no nonce is asked for in between."""
    async with scripted(tmp_path) as (script, transport):
        refused = [with_nonce(script, problem(400, "badNonce")) for _ in range(BAD_NONCE_TRIES - 1)]
        script.replies = [*refused, web.Response(body=b"x")]
        assert await ask(transport) == b"x"
        assert script.asked == ["GET /dir", "GET /nonce", *["POST /thing"] * BAD_NONCE_TRIES]


async def test_bad_nonces_for_ever_are_an_error(tmp_path: Path) -> None:
    """Twelve tries, then the CA's own words."""
    async with scripted(tmp_path, *(problem(400, "badNonce") for _ in range(BAD_NONCE_TRIES))) as (script, transport):
        with pytest.raises(AcmeProblem) as caught:
            await ask(transport)
        assert caught.value.type == "badNonce"
        assert not script.replies


async def test_a_problem_keeps_status_type_subproblems_retry_after_and_location(tmp_path: Path) -> None:
    """Everything that a caller sorts by is on the error."""
    answer = problem(
        409, "alreadyReplaced", subproblems=[{"type": "x", "detail": "d", "identifier": {"value": "a.test"}}]
    )
    answer.headers.update({"Retry-After": "120", "Location": "https://127.0.0.1/order/7"})
    async with scripted(tmp_path, answer) as (_, transport):
        before = utcnow()
        with pytest.raises(AcmeProblem) as caught:
            await ask(transport)
    error = caught.value
    assert (error.status, error.type, error.detail) == (409, "alreadyReplaced", "because of alreadyReplaced")
    assert error.subproblems == (Subproblem("x", "d", "a.test"),)
    assert error.location == "https://127.0.0.1/order/7"
    assert error.retry_at is not None
    assert before + timedelta(seconds=119) <= error.retry_at <= utcnow() + timedelta(seconds=120)


@pytest.mark.parametrize(("status", "days"), [(429, 30), (503, 1), (400, 1)])
async def test_only_a_limit_is_waited_for_longer_than_a_day(tmp_path: Path, status: int, days: int) -> None:
    """A month told by mistake, where no limit is met, would outlast a certificate."""
    month = {"Retry-After": str(30 * 86_400)}
    async with scripted(tmp_path, web.Response(status=status, text="{}", headers=month)) as (_, transport):
        with pytest.raises(AcmeProblem) as caught:
            await ask(transport)
    assert caught.value.retry_at is not None
    assert caught.value.retry_at - utcnow() > timedelta(days=days, seconds=-9)
    assert caught.value.retry_at - utcnow() < timedelta(days=days, seconds=9)


async def test_a_load_balancers_page_is_a_problem_too(tmp_path: Path) -> None:
    """503 with HTML and Retry-After, at any step: status and time are kept."""
    page = {"Retry-After": "7"}
    async with scripted(tmp_path, web.Response(status=503, text="<html>", headers=page)) as (_, transport):
        with pytest.raises(AcmeProblem, match="503 about:blank: Service Unavailable") as caught:
            await ask(transport)
    assert caught.value.retry_at is not None


async def test_success_keeps_location_retry_after_and_links(tmp_path: Path) -> None:
    """An answer carries the headers that matter, all Link headers among them."""
    answer = web.Response(status=201, body=b"{}", headers={"Location": "https://x/1", "Retry-After": "3"})
    answer.headers.add("Link", '<https://x/a>;rel="alternate"')
    answer.headers.add("Link", '<https://x/b>;rel="alternate"')
    async with scripted(tmp_path, answer) as (_, transport):
        origin = transport.ca.directory.removesuffix("/dir")
        seen = await transport.post(f"{origin}/thing", {"a": 1}, KEY)
    assert (seen.status, seen.location, seen.json()) == (201, "https://x/1", {})
    assert seen.links == {"alternate": ("https://x/a", "https://x/b")}
    assert seen.retry_at is not None


async def garbage(request: web.BaseRequest) -> web.StreamResponse:
    """Something that is not HTTP."""
    assert request.transport is not None
    request.transport.write(b"220 mail.example.com ESMTP\r\n\r\n")
    request.transport.close()
    return web.Response()


async def hang_up(request: web.BaseRequest) -> web.StreamResponse:
    """A connection that ends without an answer."""
    assert request.transport is not None
    request.transport.close()
    return web.Response()


async def silence(request: web.BaseRequest) -> web.StreamResponse:
    """No answer until the asker is gone."""
    for _ in range(100):
        if request.transport is None or request.transport.is_closing():
            break
        await asyncio.sleep(0.05)
    return web.Response()


@pytest.mark.parametrize(
    ("reply", "says"),
    [
        (web.Response(status=302, headers={"Location": "https://elsewhere.test/"}), "redirects are not followed"),
        (garbage, "not HTTP"),
        (web.Response(body=b"x" * (BODY_LENGTH + 1)), "longer than"),
    ],
    ids=["redirect", "garbage", "too long"],
)
async def test_nonsense_is_the_cas_fault(tmp_path: Path, reply: web.Response, says: str) -> None:
    """CAMisbehaved, with what was wrong."""
    async with scripted(tmp_path, reply) as (_, transport):
        with pytest.raises(CAMisbehaved, match=says):
            await ask(transport)


@pytest.mark.parametrize("body", ["<html>", "[]", '{"newNonce": "https://127.0.0.1/n"}', '{"newNonce": "http://x/"}'])
async def test_a_directory_that_is_none_is_named(tmp_path: Path, body: str) -> None:
    """A URL that is no ACME directory: one sentence with the URL."""

    async def page(_: web.BaseRequest) -> web.StreamResponse:
        return web.Response(text=body)

    tls, bundle = server_tls(tmp_path)
    async with serving(page, tls=tls) as port:
        url = f"https://127.0.0.1:{port}/"
        async with Transport(resolve_ca(url, bundle=bundle)) as transport:
            with pytest.raises(CAMisbehaved, match=f"{url} is not an ACME directory"):
                await transport.directory()


async def test_a_ca_without_nonces_is_named(tmp_path: Path) -> None:
    """A newNonce answer without a usable nonce."""
    async with scripted(tmp_path) as (script, transport):
        script.nonce = lambda: {"Replay-Nonce": 'not"base64url'}  # type: ignore[method-assign]  # a bad CA
        with pytest.raises(CAMisbehaved, match="gave no nonce"):
            await ask(transport)


async def test_a_ca_that_hangs_up_or_is_silent_is_unreachable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No answer is CAUnreachable, within the time-out."""
    monkeypatch.setattr(module, "TIMEOUT", aiohttp.ClientTimeout(total=0.5))
    async with scripted(tmp_path, hang_up, silence) as (_, transport):
        with pytest.raises(CAUnreachable, match="closed the connection"):
            await ask(transport)
        with pytest.raises(CAUnreachable, match="no answer within"):
            await ask(transport)


async def test_nothing_there_is_unreachable() -> None:
    """A refused connection names address and port."""
    port = free_port()
    async with Transport(resolve_ca(f"https://127.0.0.1:{port}/dir")) as transport:
        with pytest.raises(CAUnreachable, match=f"127.0.0.1:{port}"):
            await transport.directory()


async def test_an_untrusted_ca_is_unreachable_and_says_what_to_do(tmp_path: Path) -> None:
    """A private CA's certificate without its bundle."""
    tls, _ = server_tls(tmp_path)
    async with (
        serving(garbage, tls=tls) as port,
        Transport(resolve_ca(f"https://127.0.0.1:{port}/dir")) as transport,
    ):
        with pytest.raises(CAUnreachable, match=r"not trusted.*bundle"):
            await transport.directory()


async def test_the_directory_is_asked_for_again_only_after_a_failure(tmp_path: Path) -> None:
    """A CA that hung up may have moved its URLs; a problem document is no failure of the CA."""
    async with scripted(tmp_path, problem(403, "unauthorized"), hang_up) as (script, transport):
        with pytest.raises(AcmeProblem):
            await ask(transport)
        await transport.directory()
        assert script.asked.count("GET /dir") == 1
        with pytest.raises(CAUnreachable):
            await ask(transport)
        await asyncio.gather(*(transport.directory() for _ in range(5)))
        assert script.asked.count("GET /dir") == 2


@pytest.mark.parametrize(
    "url",
    [
        "http://ca.test/order",
        "https://ca.test:8443/order",
        "https://elsewhere.test/order",
        "https://ca.test.elsewhere.test/order",
        "https://ca.test@elsewhere.test/order",
        "https://elsewhere.test/https://ca.test/",
        "https://ca.test\\.elsewhere.test/",
        "https://ca.test/a b",
        "https://ca.test/\n",
        "https://ca.test/ü",
        "https://ca.test/" + "x" * 2048,
        "https://[::1/",
        "//ca.test/order",
        "",
    ],
)
async def test_urls_of_others_are_not_followed(url: str) -> None:
    """Only https, only the CA's own host and port; nothing is sent."""
    async with Transport(CA(name="ca", directory="https://ca.test/dir")) as transport:
        with pytest.raises(CAMisbehaved, match="not https on a host of its own"):
            await transport.post(url, None, KEY, kid="k")
        assert not transport.requests


async def test_own_hosts_are_followed() -> None:
    """The directory's host with or without the default port, in any case, and the hosts of the preset."""
    async with Transport(CA(name="ca", directory="https://CA.test/dir", hosts=("files.test:8443",))) as transport:
        for url in ("https://ca.test/a", "https://ca.test:443/a", "https://cA.test/a", "https://files.test:8443/a"):
            transport.check_url(url)
        with pytest.raises(CAMisbehaved):
            transport.check_url("https://files.test/a")


async def test_a_directory_cannot_send_us_elsewhere(tmp_path: Path) -> None:
    """A newNonce URL on another host is refused before anything is sent there."""
    async with scripted(tmp_path) as (script, transport):
        script.directory = directory_of("https://elsewhere.test")
        with pytest.raises(CAMisbehaved, match=r"elsewhere\.test"):
            await ask(transport)


async def test_requests_in_flight_are_bounded(tmp_path: Path) -> None:
    """A CA that takes three requests at once never gets a fourth."""
    now = most = 0

    async def slow(_: web.BaseRequest) -> web.StreamResponse:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.02)
        now -= 1
        return web.json_response(directory_of("https://127.0.0.1"), headers={"Replay-Nonce": "n"})

    tls, bundle = server_tls(tmp_path)
    async with serving(slow, tls=tls) as port:
        origin = f"https://127.0.0.1:{port}"
        ca = CA(name="ca", directory=f"{origin}/dir", bundle=bundle, requests_in_flight=3, hosts=("127.0.0.1",))
        async with Transport(ca) as transport:
            for _ in range(12):
                transport._keep("n")
            await asyncio.gather(*(ask(transport) for _ in range(12)))
    assert most == 3


async def test_many_share_one_answer_of_the_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when it does not come: they do not wait for it one after the other."""
    monkeypatch.setattr(module, "TIMEOUT", aiohttp.ClientTimeout(total=0.5))
    asked = 0

    async def silent(request: web.BaseRequest) -> web.StreamResponse:
        nonlocal asked
        asked += 1
        return await silence(request)

    tls, bundle = server_tls(tmp_path)
    async with (
        serving(silent, tls=tls) as port,
        Transport(resolve_ca(f"https://127.0.0.1:{port}/dir", bundle=bundle)) as transport,
    ):
        found = await asyncio.gather(*(transport.directory() for _ in range(20)), return_exceptions=True)
        assert {type(one) for one in found} == {CAUnreachable}
        assert asked == 1
        with pytest.raises(CAUnreachable):
            await transport.directory()
        assert asked == 2, "a failure is not kept"


async def test_what_counts_as_heard(tmp_path: Path) -> None:
    """Every signed request that the CA has dealt with; 5xx and refused nonces are none."""
    nonce = {"type": "urn:ietf:params:acme:error:badNonce", "detail": "no"}
    replies = [web.json_response(nonce, status=400) for _ in range(BAD_NONCE_TRIES)]
    replies += [web.Response(status=500), web.Response(status=404), web.Response(text="{}")]
    async with scripted(tmp_path, *replies) as (_, transport):
        heard = []
        for _ in range(4):
            with contextlib.suppress(AcmeProblem):
                await ask(transport)
            heard.append(transport.heard)
    assert heard == [0, 0, 1, 2]
