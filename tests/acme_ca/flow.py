"""What the tests need of both sides: a responder, a CA that answers as told, and one whole order."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import web

from certfleet.acme_ca.challenges.http01 import PATH, key_authorization
from certfleet.acme_ca.keys import CertificateKey, make_account_key, make_csr, make_key
from certfleet.acme_ca.pace import poll
from certfleet.acme_ca.presets import resolve_ca
from certfleet.acme_ca.protocol import (
    AcmeOrder,
    Issued,
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
from certfleet.demo.pebble import make_tls
from certfleet.demo.ports import free_port
from certfleet.models import KeyType

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


@dataclass
class Responder:
    """Serves challenges on a port of its own."""

    port: int
    tokens: dict[str, str] = field(default_factory=dict)

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """The content of a token, or 404."""
        content = self.tokens.get(request.path.removeprefix(PATH))
        return web.Response(text=content) if content is not None else web.Response(status=404)


@asynccontextmanager
async def serving(handler: Handler, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """An HTTP server on a free port as long as the block."""
    port = free_port()
    runner = web.ServerRunner(web.Server(handler, access_log=None), shutdown_timeout=1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port, ssl_context=tls).start()
        yield port
    finally:
        await runner.cleanup()


@asynccontextmanager
async def responder() -> AsyncIterator[Responder]:
    """A responder for challenges."""
    found = Responder(0)
    async with serving(found.answer) as port:
        found.port = port
        yield found


def server_tls(directory: Path) -> tuple[ssl.SSLContext, str]:
    """A server's TLS context for 127.0.0.1, and the bundle that trusts it."""
    bundle = make_tls(directory)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(directory / "tls.pem", directory / "tls.key")
    return context, bundle


@dataclass
class Script:
    """A CA that has a directory and nonces, and for the rest answers what `replies` says, in turn."""

    replies: list[web.Response | Handler] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    """Method and path of each request."""
    peers: set[object] = field(default_factory=set)
    """The connections that were seen."""
    nonces: int = 0
    directory: dict[str, str] = field(default_factory=dict)

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        """Directory and nonces by itself, the rest from the script."""
        self.asked.append(f"{request.method} {request.path}")
        assert request.transport is not None
        self.peers.add(request.transport.get_extra_info("peername"))
        assert request.headers["User-Agent"].startswith("certfleet/")
        if request.path == "/dir":
            return web.json_response(self.directory or directory_of(f"https://{request.host}"))
        if request.path == "/nonce":
            return web.Response(headers=self.nonce())
        reply = self.replies.pop(0)
        return await reply(request) if callable(reply) else reply

    def nonce(self) -> dict[str, str]:
        """A header with a nonce never given before."""
        self.nonces += 1
        return {"Replay-Nonce": f"nonce{self.nonces}"}


def directory_of(origin: str) -> dict[str, str]:
    """The smallest directory."""
    return {"newNonce": f"{origin}/nonce", "newAccount": f"{origin}/account", "newOrder": f"{origin}/order"}


@asynccontextmanager
async def scripted(directory: Path, *replies: web.Response | Handler) -> AsyncIterator[tuple[Script, Transport]]:
    """A scripted CA and a transport to it."""
    script = Script(list(replies))
    tls, bundle = server_tls(directory)
    async with (
        serving(script.answer, tls=tls) as port,
        Transport(resolve_ca(f"https://127.0.0.1:{port}/dir", bundle=bundle)) as transport,
    ):
        yield script, transport


def order_made(sent: list[bytes], identifier: dict[str, str], **fields: object) -> Handler:
    """A pending order of one identifier, whatever is asked for; each request's body is kept in `sent`."""

    async def made(request: web.BaseRequest) -> web.Response:
        sent.append(await request.read())
        origin = f"https://{request.host}"
        document = {
            "status": "pending",
            "identifiers": [identifier],
            "authorizations": [f"{origin}/a"],
            "finalize": f"{origin}/f",
        }
        return web.json_response(document | fields, status=201, headers={"Location": f"{origin}/o"})

    return made


async def signer_at(transport: Transport) -> Signer:
    """A fresh account."""
    key = make_account_key()
    return Signer(key, (await new_account(transport, key, "ops@example.com", agree_tos=True)).url)


async def issue(
    transport: Transport,
    signer: Signer,
    names: Sequence[str],
    served: Responder,
    *,
    preferred: str = "",
    key: CertificateKey | None = None,
) -> Issued:
    """One whole order with the fewest requests."""
    order = await new_order(transport, signer, names)
    if order.status == "pending":
        for url in order.authorizations:
            authorization = await get_authorization(transport, signer, url)
            if authorization.status == "pending":
                challenge = authorization.http01
                assert challenge is not None
                served.tokens[challenge.token] = key_authorization(challenge.token, signer.key)
                await answer_challenge(transport, signer, challenge.url)
        order = await _until(transport, signer, order, "pending")
    assert order.status == "ready", order.error
    key = key or await make_key(KeyType.P256)
    order = await finalize(transport, signer, order, make_csr(key, names))
    order = await _until(transport, signer, order, "processing")
    assert order.status == "valid", order.error
    assert order.certificate is not None
    return await download(transport, signer, order.certificate, key=key, identifiers=names, preferred=preferred)


async def _until(transport: Transport, signer: Signer, order: AcmeOrder, leaves: str) -> AcmeOrder:
    pace = transport.ready if leaves == "pending" else transport.valid

    async def fetch() -> AcmeOrder:
        return await get_order(transport, signer, order.url)

    for _ in range(20):
        if order.status != leaves:
            break
        order = await poll(fetch, lambda seen: seen.status != leaves, pace) or order
    return order


def settle(transport: Transport, *, seconds: float = 0.8) -> None:
    """Set both paces so slow that a first look always finds the answer."""
    transport.ready.delay = transport.valid.delay = seconds
