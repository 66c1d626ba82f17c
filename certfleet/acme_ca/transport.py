"""Requests to one CA: signed, on kept connections, with nonces from every answer (RFC 8555 §6).

One `Transport` per CA and process, used from one event loop. It follows URLs only on https and on the CA's
own hosts, never follows redirects, and bounds what it reads and how long it waits.
"""

from __future__ import annotations

import asyncio
import json
import math
import re
import ssl
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from http import HTTPStatus
from types import TracebackType
from typing import Annotated, Any, Protocol, Self
from urllib.parse import urlsplit

import aiohttp
from multidict import CIMultiDictProxy
from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError
from pydantic.alias_generators import to_camel
from yarl import URL

from certfleet import __version__
from certfleet.acme_ca.answers import LONGEST_REST, LONGEST_WAIT, Answer, parse_nonce, parse_retry_after, problem_of
from certfleet.acme_ca.challenges.dns_persist01 import HashPrefix, Issuers
from certfleet.acme_ca.jws import sign
from certfleet.acme_ca.keys import AccountKey
from certfleet.acme_ca.pace import Pace
from certfleet.acme_ca.profiles import Profiles
from certfleet.acme_ca.resolver import make_resolver
from certfleet.errors import AcmeProblem, CAMisbehaved, CAUnreachable, CAUntrusted
from certfleet.models import CA, utcnow

TIMEOUT = aiohttp.ClientTimeout(total=30, sock_connect=10)  # seconds, per request
KEEP_ALIVE = 30.0  # seconds that an idle connection is kept; servers commonly close them after 60 or 75
BODY_LENGTH = 1 << 20  # bytes; a chain is a few KB, an order with 100 names some 30 KB
BAD_NONCE_TRIES = 12
NONCES_KEPT = 256  # the oldest fall off; the freshest is used first
DIRECTORY_KEPT = 86_400.0  # seconds
USER_AGENT = f"certfleet/{__version__} (ACME client; {aiohttp.http.SERVER_SOFTWARE})"

AcmeURL = Annotated[str, StringConstraints(pattern=r"^https://[!-~]+$", max_length=2048)]
"""A URL as a CA may send it; whether it is followed is decided when it is asked for."""


_PLAIN = re.compile(r"[!-~]{1,2048}")  # printable ASCII without a space: goes into a request line as it is


class _Wire(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, frozen=True)


class Meta(_Wire):
    """What the CA says about itself."""

    terms_of_service: str | None = None
    external_account_required: bool = False
    profiles: Profiles = {}
    caa_identities: tuple[str, ...] = ()
    """What the CA is called in CAA records."""
    issuer_domain_names: Issuers = ()
    """What it is called in records of dns-persist-01."""
    account_hash_prefix: HashPrefix = ""
    """What accounts are called there begins with; empty: by their URLs."""

    @property
    def issuers(self) -> tuple[str, ...]:
        """What records of dns-persist-01 may call the CA, as far as its directory says; empty: it does not."""
        return self.issuer_domain_names or tuple(name.lower().removesuffix(".") for name in self.caa_identities)


class Directory(_Wire):
    """What the CA offers, and where (RFC 8555 §7.1.1)."""

    new_nonce: AcmeURL
    new_account: AcmeURL
    new_order: AcmeURL
    revoke_cert: AcmeURL | None = None
    key_change: AcmeURL | None = None
    renewal_info: AcmeURL | None = None
    meta: Meta = Meta()


class Turnstile(Protocol):
    """Lets requests through as fast as the CA takes them (limits/requests.py)."""

    async def enter(self, kind: str) -> float:
        """Wait for the turn of a request of this kind; until when (time.monotonic) it is good. Raises SlowedDown."""

    async def slow_down(self, until: datetime) -> None:
        """The CA wants no request at all before `until`."""


class Transport:
    """The way to one CA: `post` signs and sends; everything else is learned from the answers.

    `requests` counts what was sent, by kind; `heard` how many signed requests the CA has dealt with, whatever it said
    (not 5xx, not a refused nonce). `ready` and `valid` are the paces at which this CA validates challenges and issues
    certificates.
    """

    def __init__(self, ca: CA, *, nameservers: Sequence[str] = (), turnstile: Turnstile | None = None) -> None:
        """Open nothing yet, but build the TLS context (15 ms with the system's roots).

        `turnstile` is asked before every request; None: nothing limits them.
        """
        self.ca = ca
        self.requests: Counter[str] = Counter()
        self.heard = 0
        self.ready = Pace()
        self.valid = Pace()
        context = ssl.create_default_context(cadata=ca.bundle)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                ssl=context, limit=0, keepalive_timeout=KEEP_ALIVE, resolver=make_resolver(nameservers)
            ),
            timeout=TIMEOUT,
            headers={"User-Agent": USER_AGENT, "Content-Type": "application/jose+json"},
            skip_auto_headers=("Accept", "Accept-Encoding"),
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        self._turnstile = turnstile
        self._in_flight = asyncio.Semaphore(ca.requests_in_flight)
        self._origins = tuple(f"https://{host}/" for host in _authorities(ca))
        self._nonces: deque[str] = deque(maxlen=NONCES_KEPT)
        self._directory: Directory | None = None
        self._directory_until = 0.0
        self._reading: asyncio.Task[Directory] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the kept connections."""
        await self._session.close()

    async def directory(self) -> Directory:
        """The CA's directory; asked for once a day, and again after the CA was unreachable or talked nonsense."""
        if self._directory is not None and time.monotonic() < self._directory_until:
            return self._directory
        if self._reading is None:  # whoever wants it meanwhile shares what comes of it, also a failure
            self._reading = asyncio.create_task(self._fetch_directory())
            self._reading.add_done_callback(self._read)
        return await asyncio.shield(self._reading)

    def _read(self, reading: asyncio.Task[Directory]) -> None:
        self._reading = None
        if not reading.cancelled() and reading.exception() is None:
            self._directory = reading.result()
            self._directory_until = time.monotonic() + DIRECTORY_KEPT

    def doubt_directory(self, fresh: float = 0.0) -> None:
        """Read the directory again before its next use, unless it was read within the last `fresh` seconds."""
        if time.monotonic() - (self._directory_until - DIRECTORY_KEPT) >= fresh:
            self._directory_until = 0.0

    async def post(
        self,
        url: str,
        payload: Mapping[str, Any] | None,
        key: AccountKey,
        *,
        kid: str | None = None,
        kind: str = "other",
    ) -> Answer:
        """Send one signed request; a payload of None is POST-as-GET (RFC 8555 §6.3).

        Without `kid` the public key goes along (newAccount). A bad nonce is met with the fresh one of the
        refusal. Raises CAUnreachable, CAMisbehaved, SlowedDown, or AcmeProblem with the CA's reason.
        """
        self.check_url(url)
        body = b"" if payload is None else json.dumps(payload, separators=(",", ":")).encode()
        nonce: str | None = None

        def signed(nonce: str) -> bytes:
            return sign(key, url=url, nonce=nonce, payload=body, kid=kid)

        for attempt in range(1, BAD_NONCE_TRIES + 1):
            status, headers, content = await self._send(url, kind, signed, nonce)
            nonce = parse_nonce(headers.get("Replay-Nonce"))
            try:
                answer = self._answer(status, headers, content)
            except AcmeProblem as problem:
                if problem.type == "badNonce" and attempt < BAD_NONCE_TRIES:
                    continue
                self._keep(nonce)
                self.heard += problem.status < HTTPStatus.INTERNAL_SERVER_ERROR and problem.type != "badNonce"
                raise
            self._keep(nonce)
            self.heard += 1
            return answer
        raise AssertionError  # the last attempt returns or raises

    async def get(self, url: str, *, kind: str = "other") -> Answer:
        """Ask without a signature, as for renewal information (RFC 9773 §4.1). Raises as `post`."""
        self.check_url(url)
        await self._turn(kind)
        async with self._in_flight:
            status, headers, content = await self._request("GET", url, kind)
        return self._answer(status, headers, content)

    @property
    def has_renewal_info(self) -> bool:
        """Whether the CA's directory, as it was seen last, has renewal information; asks nobody."""
        return self._directory is not None and self._directory.renewal_info is not None

    async def _send(
        self, url: str, kind: str, signed: Callable[[str], bytes], nonce: str | None
    ) -> tuple[int, CIMultiDictProxy[str], bytes]:
        """Send one signed request in its turn."""
        while True:
            # Whoever waits for the CA's limits holds up nobody else: only then is there a slot, and a nonce in it, so
            # that no more nonces are asked for than requests are open. A turn that this outlasts is taken anew: what
            # waited together must not be sent together.
            good_until = await self._turn(kind)
            async with self._in_flight:
                if nonce is None and time.monotonic() <= good_until:
                    nonce = await self._nonce()
                if nonce is not None and time.monotonic() <= good_until:
                    return await self._request("POST", url, kind, signed(nonce))

    async def _turn(self, kind: str) -> float:
        return math.inf if self._turnstile is None else await self._turnstile.enter(kind)

    def check_url(self, url: str) -> None:
        """Raise CAMisbehaved unless the URL is https and on one of this CA's hosts."""
        plain = _PLAIN.fullmatch(url) is not None
        if plain and url.startswith(self._origins):
            return
        try:
            parts = urlsplit(url)
            same = f"https://{parts.netloc.lower()}/" in self._origins and parts.scheme == "https"
        except ValueError:
            same = False
        if not (plain and same):
            raise CAMisbehaved(
                f"the CA {self.ca.name} sent the URL {url[:200]!r}, which is not https on a host of its own; "
                "if that host is right, name it in the CA's preset"
            )

    async def _fetch_directory(self) -> Directory:
        await self._turn("directory")
        status, headers, content = await self._request("GET", self.ca.directory, "directory")
        answer = self._answer(status, headers, content)
        try:
            return Directory.model_validate_json(answer.body)
        except ValidationError as error:
            fields = ", ".join(sorted({str(e["loc"][0]) if e["loc"] else "JSON" for e in error.errors()}))
            raise CAMisbehaved(f"{self.ca.directory} is not an ACME directory (wrong or missing: {fields})") from None

    async def _nonce(self) -> str:
        if self._nonces:
            return self._nonces.pop()
        url = (await self.directory()).new_nonce
        # GET and HEAD both do (RFC 8555 §7.2); aiohttp drops the connection after a HEAD without Content-Length.
        await self._turn("newNonce")
        status, headers, content = await self._request("GET", url, "newNonce")
        self._answer(status, headers, content)
        nonce = parse_nonce(headers.get("Replay-Nonce"))
        if nonce is None:
            raise CAMisbehaved(f"the CA {self.ca.name} gave no nonce where it says that it gives one")
        return nonce

    def _keep(self, nonce: str | None) -> None:
        if nonce is not None:
            self._nonces.append(nonce)

    def _answer(self, status: int, headers: CIMultiDictProxy[str], content: bytes) -> Answer:
        retry_after, location = headers.get("Retry-After"), headers.get("Location")
        longest = LONGEST_WAIT if status == HTTPStatus.TOO_MANY_REQUESTS else LONGEST_REST
        retry_at = parse_retry_after(retry_after, utcnow(), longest)
        if status >= 400:  # noqa: PLR2004  RFC 9110 §15: client and server errors
            raise problem_of(status, content, retry_at=retry_at, location=location)
        if not 200 <= status < 300:  # noqa: PLR2004
            raise CAMisbehaved(f"the CA {self.ca.name} answered {status}; redirects are not followed")
        return Answer(status, content, location, retry_at, tuple(headers.getall("Link", ())))

    async def _request(
        self, method: str, url: str, kind: str, data: bytes | None = None
    ) -> tuple[int, CIMultiDictProxy[str], bytes]:
        self.check_url(url)
        self.requests[kind] += 1
        try:
            async with self._session.request(
                method, URL(url, encoded=True), data=data, allow_redirects=False
            ) as response:
                content = await read_body(response)
        except (aiohttp.ClientResponseError, aiohttp.InvalidURL) as error:
            self._directory_until = 0.0
            raise CAMisbehaved(f"the CA {self.ca.name} sent what is not HTTP ({type(error).__name__})") from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            self._directory_until = 0.0
            untrusted = isinstance(error, aiohttp.ClientConnectorCertificateError)
            kind_of_error = CAUntrusted if untrusted else CAUnreachable
            raise kind_of_error(f"the CA {self.ca.name} cannot be reached: {reason_of(error)}") from error
        except CAMisbehaved:
            self._directory_until = 0.0
            raise
        if response.status == HTTPStatus.SERVICE_UNAVAILABLE:
            await self._slow_down(response.headers.get("Retry-After"))
        return response.status, response.headers, content

    async def _slow_down(self, retry_after: str | None) -> None:
        """A 503 with Retry-After is for everybody at this address, not only for the request that got it."""
        until = parse_retry_after(retry_after, utcnow())
        if until is not None and self._turnstile is not None:
            await self._turnstile.slow_down(until)


async def read_body(response: aiohttp.ClientResponse, length: int = BODY_LENGTH) -> bytes:
    """What a CA's server sends, `length` bytes at most. Raises CAMisbehaved for more."""
    content = bytearray()
    async for chunk in response.content.iter_any():
        content += chunk
        if len(content) > length:
            response.close()
            raise CAMisbehaved(f"the CA's answer is longer than {length} bytes")
    return bytes(content)


def _authorities(ca: CA) -> list[str]:
    # A default port may be written or not; the comparison is on text.
    found = []
    for host in (urlsplit(ca.directory).netloc.lower(), *(host.lower() for host in ca.hosts)):
        bare = host.removesuffix(":443")
        found += [bare, f"{bare}:443"] if ":" not in bare.rpartition("]")[2] else [bare]
    return found


def reason_of(error: BaseException) -> str:
    """Why a server could not be asked, in a few words."""
    match error:
        case aiohttp.ClientConnectorCertificateError():
            return f"its TLS certificate is not trusted ({error.certificate_error}); a private CA needs its bundle"
        case aiohttp.ConnectionTimeoutError() | TimeoutError():
            return f"no answer within {TIMEOUT.total:.0f} s"
        case aiohttp.ClientConnectorError():
            return f"{error.host}:{error.port}: {error.os_error.strerror or error.os_error}"
        case aiohttp.ServerDisconnectedError():
            return "it closed the connection without an answer"
        case _:
            return f"{type(error).__name__} {error}".strip()
