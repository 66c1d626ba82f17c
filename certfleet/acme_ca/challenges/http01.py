"""http-01 (RFC 8555 §8.3): what to answer, and a look at our own answer before the CA takes one."""

from __future__ import annotations

import os
from collections.abc import Sequence
from socket import AF_UNSPEC

import aiohttp
from yarl import URL

from certfleet.acme_ca.keys import AccountKey
from certfleet.acme_ca.resolver import make_resolver
from certfleet.acme_ca.transport import USER_AGENT
from certfleet.errors import OwnerError

PATH = "/.well-known/acme-challenge/"
PORT = 80
TIMEOUT = aiohttp.ClientTimeout(total=10, sock_connect=10)  # seconds, redirects included; the CA's own is as long
REDIRECTS = 10
BODY_LENGTH = 4_096  # bytes; a key authorization is some 90
SHOWN = 60  # characters of somebody else's content


def key_authorization(token: str, key: AccountKey) -> str:
    """What has to be served for a token (§8.1)."""
    return f"{token}.{key.thumbprint}"


def challenge_path(token: str) -> str:
    """Where it has to be served."""
    return PATH + token


class SelfCheck:
    """Fetches challenges as the CA will: over http, by DNS, following redirects, whatever certificate they show."""

    def __init__(self, *, nameservers: Sequence[str] = (), port: int = PORT) -> None:
        """`port` is where the CA validates: 80 except for test CAs."""
        self._port = port
        self._resolver = make_resolver(nameservers) or aiohttp.ThreadedResolver()
        self._session = aiohttp.ClientSession(
            # Every name is another connection: keeping them would only pile them up. How many run at once is the
            # caller's affair: a wait in the connector's queue would count as silence of the name's.
            connector=aiohttp.TCPConnector(ssl=False, force_close=True, limit=0, resolver=self._resolver),
            timeout=TIMEOUT,
            headers={"User-Agent": USER_AGENT},
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    async def close(self) -> None:
        """End the session."""
        await self._session.close()

    async def check(self, name: str, token: str, expected: str) -> None:
        """Raise OwnerError, with the evidence in one sentence, unless `name` serves `expected` for `token`."""
        url = URL.build(scheme="http", host=name, port=self._port, path=challenge_path(token))
        try:
            async with self._session.get(url, max_redirects=REDIRECTS) as answer:
                status, landed = answer.status, answer.url
                content = await _read(answer)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise OwnerError(await self._evidence(name, url, error)) from error
        where = f"{url}" if landed == url else f"{url}, which leads to {landed},"
        if status != 200:  # noqa: PLR2004  RFC 8555 §8.3: a 200 with the key authorization, nothing else
            raise OwnerError(
                f"{where} answered {status} instead of the challenge: "
                f"pass {PATH} on to certfleet in the web server of {name} (`certfleet snippet` prints the lines)"
            )
        if content.rstrip() != expected.encode():
            raise OwnerError(
                f"{where} answered with other content than the challenge: {_shown(content)!r}; "
                f"another server answers for {name}, or {PATH} is not passed on to certfleet"
            )

    async def _evidence(self, name: str, url: URL, error: Exception) -> str:
        match error:
            case aiohttp.ClientConnectorDNSError():
                reason = error.os_error.strerror or str(error.os_error)
                missing = name if error.host == name else f"{error.host}, to which {name} redirects,"
                return f"{missing} does not resolve ({reason}): point its DNS to a host of the app"
            case aiohttp.ConnectionTimeoutError() | TimeoutError():
                return f"{url} did not answer within {TIMEOUT.total:.0f} s: is a firewall in between?"
            case aiohttp.ClientSSLError():
                return f"{url} leads to https at {error.host}:{error.port}, where no TLS handshake succeeds"
            case aiohttp.ClientConnectorError():
                reason = os.strerror(error.os_error.errno) if error.os_error.errno else str(error.os_error)
                where = await self._addresses(error.host)
                return f"nothing answers for {error.host} at {where} port {error.port} ({reason}): is it running?"
            case aiohttp.TooManyRedirects():
                return (
                    f"{url} leads through more than {REDIRECTS} redirects: pass {PATH} on to certfleet before any other"
                )
            case _:
                return (
                    f"{url} did not give a readable answer ({type(error).__name__}): is it a web server that answers?"
                )

    async def _addresses(self, host: str) -> str:
        try:
            return " and ".join(found["host"] for found in await self._resolver.resolve(host, 0, AF_UNSPEC))
        except OSError:  # an address instead of a name, or gone since
            return host


async def _read(answer: aiohttp.ClientResponse) -> bytes:
    content = bytearray()
    async for chunk in answer.content.iter_any():
        content += chunk
        if len(content) >= BODY_LENGTH:
            break
    return bytes(content[:BODY_LENGTH])


def _shown(content: bytes) -> str:
    return "".join(c if c.isprintable() else " " for c in content.decode(errors="replace")[:SHOWN])
