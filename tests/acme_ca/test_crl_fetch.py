"""Fetching a list from a server that answers as servers do, well and badly."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from certfleet.acme_ca import crl_fetch
from certfleet.acme_ca.crl_fetch import Validators, fetch_list
from certfleet.demo.ports import free_port
from certfleet.errors import CAError, CAMisbehaved, CAUnreachable
from certfleet.models import utcnow
from tests.acme_ca.flow import server_tls, serving
from tests.revoking_ca import list_server

NEW = Validators()
Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


def replying(*replies: web.Response) -> Handler:
    """These answers in turn."""
    left = list(replies)

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        assert request.headers["User-Agent"].startswith("certfleet/")
        assert request.headers["Accept-Encoding"] == "identity"
        return left.pop(0)

    return answer


async def failing(reply: web.Response | Handler, error: type[CAError], words: str) -> CAError:
    """The error that this answer is."""
    async with serving(reply if callable(reply) else replying(reply)) as port:
        with pytest.raises(error, match=words) as raised:
            await fetch_list(f"http://127.0.0.1:{port}/7.crl", NEW)
    return raised.value


async def test_it_comes_once_and_again_when_it_has_changed() -> None:
    """By ETag; what came is what was there."""
    async with list_server() as served:
        served.content = bytes(range(256)) * 1000
        first = await fetch_list(served.url, NEW)
        assert first.body == served.content
        again = await fetch_list(served.url, first.validators)
        assert (again.body, again.validators) == (None, first.validators)
        served.content = b"changed"
        assert (await fetch_list(served.url, again.validators)).body == b"changed"
        assert served.asked == ["200", "304", "200"]


async def test_by_the_time_of_its_change() -> None:
    """A server without ETags."""
    when = "Sat, 28 Nov 2026 10:00:00 GMT"
    seen = []

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        seen.append(request.headers.get("If-Modified-Since"))
        return web.Response(status=304 if seen[-1] else 200, body=b"x", headers={"Last-Modified": when})

    async with serving(answer) as port:
        url = f"http://127.0.0.1:{port}/7.crl"
        first = await fetch_list(url, NEW)
        assert first.validators == Validators(modified=when)
        assert (await fetch_list(url, first.validators)).body is None
    assert seen == [None, when]


@pytest.mark.parametrize("etag", ["x" * 300, "é"])
async def test_a_validator_that_is_not_sent_back(etag: str) -> None:
    """Too long, or not for a header: the list is read in full each time."""
    async with serving(replying(web.Response(body=b"x", headers={"ETag": etag}))) as port:
        assert (await fetch_list(f"http://127.0.0.1:{port}/7.crl", NEW)).validators == NEW


async def test_redirects_are_followed_a_little() -> None:
    """To another path or host by http or https, three times; nowhere else."""
    moved = [web.Response(status=status, headers={"Location": "/there"}) for status in (301, 302, 307)]
    async with serving(replying(*moved, web.Response(body=b"x"))) as port:
        assert (await fetch_list(f"http://127.0.0.1:{port}/7.crl", NEW)).body == b"x"
    await failing(
        replying(*[web.Response(status=308, headers={"Location": "/on"}) for _ in range(4)]),
        CAMisbehaved,
        "sent us on more than 3 times",
    )
    for where in ("file:///etc/passwd", "http://a b/", "http://u:p@127.0.0.1/"):
        await failing(web.Response(status=302, headers={"Location": where}), CAMisbehaved, "neither http nor https")


async def test_answers_that_are_none() -> None:
    """Each with its sentence, and with the time that the server says."""
    assert (await failing(web.Response(status=404), CAMisbehaved, "its server answered 404")).retry_at is None
    await failing(web.Response(status=304), CAMisbehaved, "answered 304")
    later = await failing(web.Response(status=503, headers={"Retry-After": "600"}), CAUnreachable, "answered 503")
    assert later.retry_at is not None
    assert timedelta(minutes=9) < later.retry_at - utcnow() <= timedelta(minutes=10)
    packed = web.Response(body=gzip.compress(b"x"), headers={"Content-Encoding": "gzip"})
    await failing(packed, CAMisbehaved, "compresses it")


async def test_it_is_bounded_in_size() -> None:
    """Whatever length the server says, or does not; nothing beyond is kept."""

    async def endless(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b"x" * 10_000)

    async with serving(endless) as port:
        with pytest.raises(CAMisbehaved, match="longer than 100000 bytes"):
            await fetch_list(f"http://127.0.0.1:{port}/7.crl", NEW, length=100_000)
    async with list_server() as served:
        served.content = b"x" * 100_000
        assert len((await fetch_list(served.url, NEW, length=100_000)).body or b"") == 100_000


async def test_it_is_bounded_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that begins and does not go on."""
    monkeypatch.setattr(crl_fetch, "TIMEOUT", aiohttp.ClientTimeout(total=0.2))

    async def stuck(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"x")
        await asyncio.sleep(30)
        return response

    await failing(stuck, CAUnreachable, "did not come within")


async def test_nobody_answers() -> None:
    """Refused, cut off, or no HTTP at all."""
    with pytest.raises(CAUnreachable, match=r"cannot be reached: 127\.0\.0\.1"):
        await fetch_list(f"http://127.0.0.1:{free_port()}/7.crl", NEW)

    async def say(words: bytes) -> int:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readline()
            writer.write(words)
            writer.close()

        return int((await asyncio.start_server(answer, "127.0.0.1", 0)).sockets[0].getsockname()[1])

    with pytest.raises(CAUnreachable, match="closed the connection"):
        await fetch_list(f"http://127.0.0.1:{await say(b'')}/7.crl", NEW)
    with pytest.raises(CAMisbehaved, match="not HTTP"):
        await fetch_list(f"http://127.0.0.1:{await say(b'SSH-2.0-x' + bytes(2))}/7.crl", NEW)


async def test_https_by_a_private_root(tmp_path: Path) -> None:
    """Trusted when its root is given; without it, the sentence says why not."""
    tls, bundle = server_tls(tmp_path)
    async with serving(replying(web.Response(body=b"x")), tls=tls) as port:
        url = f"https://127.0.0.1:{port}/7.crl"
        with pytest.raises(CAUnreachable, match="TLS certificate is not trusted"):
            await fetch_list(url, NEW)
        assert (await fetch_list(url, NEW, bundle=bundle)).body == b"x"
