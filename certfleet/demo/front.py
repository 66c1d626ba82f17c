"""The address under which everybody meets the demonstration's CA: a reverse proxy before Pebble.

Pebble (2.4 to 2.10) locks itself up for good when a request for an authorization and a newOrder run at
the same time, so these two go through one lock here. Every request is counted by kind: `GET /rig/counts`
answers JSON, `POST /rig/reset` zeroes. Runs as a process of its own: `python -m certfleet.demo.front`.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import ssl
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import aiohttp
import uvloop
from aiohttp import web
from yarl import URL

if TYPE_CHECKING:
    from collections.abc import Mapping

# First segment of Pebble's paths; anything else is "other".
KINDS = {
    "dir": "directory",
    "nonce-plz": "newNonce",
    "sign-me-up": "newAccount",
    "order-plz": "newOrder",
    "authZ": "authorization",
    "chalZ": "challenge",
    "my-order": "order",
    "finalize-order": "finalize",
    "certZ": "certificate",
}
ONE_AT_A_TIME = frozenset({"newOrder", "authorization"})
PEBBLE_TIMEOUT = 20.0  # seconds; a Pebble that has locked itself up shows as 504 instead of silence
# Connection management belongs to each leg, the length to the body at hand.
NOT_PASSED_ON = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length", "date", "upgrade", "te"})


def kind_of(path: str) -> str:
    """What a request asks for, by its path at Pebble."""
    return KINDS.get(path.removeprefix("/").partition("/")[0], "other")


def zeroes() -> dict[str, int]:
    """A fresh set of counters. `bad_nonce` counts answers, the others requests."""
    return dict.fromkeys([*KINDS.values(), "other", "bad_nonce"], 0)


@dataclass(slots=True)
class Front:
    """A reverse proxy before Pebble: its upstream, the one lock, the counters."""

    upstream: str
    session: aiohttp.ClientSession
    counts: dict[str, int] = field(default_factory=zeroes)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """Pass one request on, or answer about the rig itself."""
        if request.path.startswith("/rig/"):
            return await self.rig(request)
        kind = kind_of(request.path)
        self.counts[kind] += 1
        answer = await self.handle(request, kind)
        if answer.status == web.HTTPBadRequest.status_code and isinstance(answer.body, bytes):
            self.counts["bad_nonce"] += b":badNonce" in answer.body
        return answer

    async def handle(self, request: web.BaseRequest, kind: str) -> web.Response:
        """Pass one request on, when its turn comes."""
        async with self.lock if kind in ONE_AT_A_TIME else nullcontext():
            return await self.pass_on(request)

    async def rig(self, request: web.BaseRequest) -> web.Response:
        """Answer about the rig itself."""
        if (request.method, request.path) == ("GET", "/rig/counts"):
            return web.json_response(self.counts)
        if (request.method, request.path) == ("POST", "/rig/reset"):
            self.counts = dict.fromkeys(self.counts, 0)
            return web.Response(status=204)
        return web.Response(status=404)

    async def pass_on(self, request: web.BaseRequest) -> web.Response:
        """Ask Pebble."""
        # The Host header goes along: Pebble builds its URLs from it and compares them with the JWS's `url`.
        body = await request.read() if request.body_exists else None
        url = URL(self.upstream + request.raw_path, encoded=True)
        try:
            async with self.session.request(
                request.method, url, headers=_passed_on(request.headers), data=body, allow_redirects=False
            ) as answer:
                content = await answer.read()
                return web.Response(status=answer.status, headers=_passed_on(answer.headers), body=content)
        except TimeoutError:
            return web.Response(status=504, text="Pebble does not answer")
        except aiohttp.ClientError as error:
            return web.Response(status=502, text=f"Pebble cannot be reached: {type(error).__name__}")


def _passed_on(headers: Mapping[str, str]) -> list[tuple[str, str]]:
    return [(name, value) for name, value in headers.items() if name.lower() not in NOT_PASSED_ON]


async def serve(
    listen: str, upstream: str, *, certificate: str, key: str, bundle: str, proxy: type[Front] = Front
) -> None:
    """Proxy until SIGTERM or SIGINT. `listen` is `address:port`, the next are paths of PEM files."""
    address, _, port = listen.rpartition(":")
    inside = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    inside.load_cert_chain(certificate, key)
    connector = aiohttp.TCPConnector(ssl=ssl.create_default_context(cafile=bundle), limit=0, keepalive_timeout=60)
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    async with aiohttp.ClientSession(
        connector=connector,
        timeout=aiohttp.ClientTimeout(total=PEBBLE_TIMEOUT),
        auto_decompress=False,
        skip_auto_headers=("Accept", "Accept-Encoding", "User-Agent", "Content-Type"),
    ) as session:
        front = proxy(upstream, session)
        runner = web.ServerRunner(web.Server(front.answer, access_log=None, keepalive_timeout=120), shutdown_timeout=1)
        await runner.setup()
        try:
            await web.TCPSite(runner, address, int(port), ssl_context=inside, backlog=1024).start()
            await ended.wait()
        finally:
            await runner.cleanup()


def main(proxy: type[Front] = Front, module: str = "certfleet.demo.front") -> None:
    """Run the proxy as a process."""
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=proxy.__doc__)
    parser.add_argument("--listen", required=True, help="address:port")
    parser.add_argument("--upstream", required=True, help="https://address:port of Pebble")
    parser.add_argument("--certificate", required=True)
    parser.add_argument("--key", required=True)
    parser.add_argument("--bundle", required=True, help="the CA of Pebble's own TLS certificate")
    given = parser.parse_args()
    uvloop.run(serve(**vars(given), proxy=proxy))


if __name__ == "__main__":
    main()
