"""The look at our own challenge, each way in which it can fail."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web

from certfleet.acme_ca.challenges import http01 as module
from certfleet.acme_ca.challenges.http01 import REDIRECTS, SelfCheck
from certfleet.demo.ports import free_port
from certfleet.errors import OwnerError

from .dns import Zone, zone
from .flow import Handler, server_tls, serving

TOKEN = "t" * 43
EXPECTED = f"{TOKEN}.thumbprint"
NAME = "blog.test"


@pytest_asyncio.fixture
async def names() -> AsyncIterator[Zone]:
    """A name server that knows `blog.test` and `other.test`."""
    async with zone({(NAME, "A"): ["127.0.0.1"], ("other.test", "A"): ["127.0.0.1"]}) as served:
        yield served


async def fault(names: Zone, handler: Handler | None, *, name: str = NAME) -> str | None:
    """What the self-check says when `handler` answers; None when it is content."""
    if handler is None:
        return await said(names, free_port(), name)
    async with serving(handler) as port:
        return await said(names, port, name)


async def said(names: Zone, port: int, name: str = NAME) -> str | None:
    """What the self-check says about a port."""
    check = SelfCheck(nameservers=[names.address], port=port)
    try:
        await check.check(name, TOKEN, EXPECTED)
    except OwnerError as error:
        return str(error)
    finally:
        await check.close()
    return None


async def good(request: web.BaseRequest) -> web.StreamResponse:
    """The challenge, as a web server that passes it on serves it."""
    assert request.path == f"/.well-known/acme-challenge/{TOKEN}"
    return web.Response(text=EXPECTED + "\n")


async def test_a_name_that_serves_the_challenge_passes(names: Zone) -> None:
    """White space at the end does not matter, as it does not to a CA; the Host header names the name."""
    assert await fault(names, good) is None
    assert names.asked[0][0] == NAME


async def test_a_name_that_does_not_resolve(names: Zone) -> None:
    """It says so, and what to do."""
    says = await fault(names, good, name="gone.test")
    assert says == ("gone.test does not resolve (gone.test does not exist in DNS): point its DNS to a host of the app")


async def test_nothing_listens(names: Zone) -> None:
    """Address and port are named."""
    port = free_port()
    says = await said(names, port)
    assert says == (f"nothing answers for {NAME} at 127.0.0.1 port {port} (Connection refused): is it running?")


async def test_another_status(names: Zone) -> None:
    """404 means that the challenge is not passed on."""

    async def missing(_: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=404, text="nginx")

    says = await fault(names, missing)
    assert says is not None
    assert f"/.well-known/acme-challenge/{TOKEN} answered 404 instead of the challenge" in says
    assert "certfleet snippet" in says


async def test_other_content(names: Zone) -> None:
    """The first sixty characters are shown, printable, and no more of them."""

    async def page(_: web.BaseRequest) -> web.StreamResponse:
        return web.Response(body=b"<h1>\x1b[31mhello\n</h1>" + b"x" * 100_000 + b"\xff")

    says = await fault(names, page)
    assert says is not None
    assert "other content than the challenge: '<h1> [31mhello </h1>xx" in says
    assert says.isprintable()
    assert len(says) < 400


async def test_redirects_are_followed_as_the_ca_does(names: Zone, tmp_path: Path) -> None:
    """To another name, and to https with a certificate that nobody trusts."""
    tls, _ = server_tls(tmp_path)
    async with serving(good, tls=tls) as secure:

        async def away(request: web.BaseRequest) -> web.StreamResponse:
            return web.Response(status=301, headers={"Location": f"https://other.test:{secure}{request.path}"})

        assert await fault(names, away) is None


async def test_a_redirect_to_nowhere_names_both(names: Zone) -> None:
    """The name that does not resolve is not the one that was asked."""

    async def away(_: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=302, headers={"Location": "http://gone.test/"})

    says = await fault(names, away)
    assert says is not None
    assert says.startswith("gone.test, to which blog.test redirects, does not resolve")


async def test_a_redirect_to_broken_https_says_so(names: Zone) -> None:
    """An https address where plain HTTP is spoken."""
    async with serving(good) as plain:

        async def away(_: web.BaseRequest) -> web.StreamResponse:
            return web.Response(status=302, headers={"Location": f"https://other.test:{plain}/"})

        says = await fault(names, away)
    assert says is not None
    assert f"leads to https at other.test:{plain}, where no TLS handshake succeeds" in says


async def test_a_redirect_to_an_address_where_nothing_listens(names: Zone) -> None:
    """An address needs no look-up, in the evidence neither."""
    port = free_port()

    async def away(_: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=302, headers={"Location": f"http://127.0.0.1:{port}/"})

    says = await fault(names, away)
    assert says is not None
    assert says.startswith(f"nothing answers for 127.0.0.1 at 127.0.0.1 port {port} (")


async def test_redirects_end(names: Zone) -> None:
    """A loop is told from a chain by its length."""

    async def around(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=302, headers={"Location": request.path})

    says = await fault(names, around)
    assert says is not None
    assert f"more than {REDIRECTS} redirects" in says


async def test_a_redirect_to_another_scheme_is_not_followed(names: Zone) -> None:
    """Only http and https."""

    async def away(_: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=302, headers={"Location": "file:///etc/passwd"})

    says = await fault(names, away)
    assert says is not None
    assert "did not give a readable answer" in says


async def test_silence(names: Zone, monkeypatch: pytest.MonkeyPatch) -> None:
    """A firewall that swallows everything is named as such, within the time-out."""
    monkeypatch.setattr(module, "TIMEOUT", aiohttp.ClientTimeout(total=0.3))

    async def silence(request: web.BaseRequest) -> web.StreamResponse:
        for _ in range(40):
            if request.transport is None or request.transport.is_closing():
                break
            await asyncio.sleep(0.05)
        return web.Response()

    says = await fault(names, silence)
    assert says is not None
    assert "did not answer within" in says


async def test_something_that_is_not_http(names: Zone) -> None:
    """A mail server on the port."""

    async def mail(request: web.BaseRequest) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.write(b"220 mail.test ESMTP\r\n\r\n")
        request.transport.close()
        return web.Response()

    says = await fault(names, mail)
    assert says is not None
    assert "did not give a readable answer" in says
