"""Fetching a revocation list: asked whether it has changed, bounded in time and size.

Plain http is how CAs publish them (RFC 5280 §8: by https one could go round in a circle): a list is signed, and not
believed before its signature was checked (crl.py).
"""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import urljoin

import aiohttp
from yarl import URL

from certfleet.acme_ca.answers import parse_retry_after
from certfleet.acme_ca.crl import is_fetchable
from certfleet.acme_ca.resolver import make_resolver
from certfleet.acme_ca.transport import USER_AGENT, read_body, reason_of
from certfleet.errors import CAError, CAMisbehaved, CAUnreachable
from certfleet.models import utcnow

TIMEOUT = aiohttp.ClientTimeout(total=60, sock_connect=10)  # seconds
LENGTH = 64 << 20  # bytes; Let's Encrypt's parts are below 1 MB, 1.5 million entries are 64
REDIRECTS = 3
MOVED = frozenset({301, 302, 303, 307, 308})
WORD_LENGTH = 200  # characters of a validator that is kept


@dataclass(frozen=True, slots=True)
class Validators:
    """What tells one state of a list from another (RFC 9110 §8.8); empty: the server says nothing."""

    etag: str = ""
    modified: str = ""


@dataclass(frozen=True, slots=True)
class Fetched:
    """What came of asking."""

    body: bytes | None
    """None: it is as it was."""
    validators: Validators


async def fetch_list(
    url: str, known: Validators, *, nameservers: Sequence[str] = (), bundle: str = "", length: int = LENGTH
) -> Fetched:
    """Ask for the list, unless it is still the one that `known` was told of.

    `bundle`: PEM of roots that a server by https may have besides the system's. Raises CAUnreachable, or CAMisbehaved
    for an answer that is none; both with `retry_at` when the server says so.
    """
    headers = {"User-Agent": USER_AGENT, "Accept-Encoding": "identity"}
    headers |= {"If-None-Match": known.etag} if known.etag else {}
    headers |= {"If-Modified-Since": known.modified} if known.modified else {}
    connector = aiohttp.TCPConnector(ssl=_trust(url, bundle), resolver=make_resolver(nameservers), force_close=True)
    async with aiohttp.ClientSession(
        connector=connector,
        timeout=TIMEOUT,
        headers=headers,
        auto_decompress=False,
        cookie_jar=aiohttp.DummyCookieJar(),
    ) as session:
        try:
            return await _followed(session, url, known, length)
        except (aiohttp.ClientResponseError, aiohttp.InvalidURL) as error:
            raise CAMisbehaved(f"its server answered what is not HTTP ({type(error).__name__})") from error
        except TimeoutError as error:
            raise CAUnreachable(f"it did not come within {TIMEOUT.total:.0f} s") from error
        except (aiohttp.ClientError, OSError) as error:
            raise CAUnreachable(f"its server cannot be reached: {reason_of(error)}") from error


async def _followed(session: aiohttp.ClientSession, url: str, known: Validators, length: int) -> Fetched:
    for _ in range(REDIRECTS + 1):
        async with session.get(URL(url, encoded=True), allow_redirects=False) as response:
            if response.status not in MOVED:
                return await _answer(response, known, length)
            url = urljoin(url, response.headers.get("Location", ""))
            if not is_fetchable(url):
                raise CAMisbehaved(f"its server sends us on to {url[:200]!r}, which is neither http nor https")
    raise CAMisbehaved(f"its server has sent us on more than {REDIRECTS} times")


async def _answer(response: aiohttp.ClientResponse, known: Validators, length: int) -> Fetched:
    if response.status == HTTPStatus.NOT_MODIFIED and known != Validators():
        return Fetched(None, known)
    if response.status != HTTPStatus.OK:
        raise _refused(response)
    if response.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise CAMisbehaved("its server compresses it, though we said that we take it as it is only")
    validators = Validators(_word(response.headers.get("ETag")), _word(response.headers.get("Last-Modified")))
    return Fetched(await read_body(response, length), validators)


def _refused(response: aiohttp.ClientResponse) -> CAError:
    told = f"its server answered {response.status}"
    overloaded = response.status in (HTTPStatus.TOO_MANY_REQUESTS, *range(500, 600))
    error = CAUnreachable(told) if overloaded else CAMisbehaved(told)
    error.retry_at = parse_retry_after(response.headers.get("Retry-After"), utcnow())
    return error


def _word(value: str | None) -> str:
    """A validator that may go into a later request as it is."""
    fits = value is not None and len(value) <= WORD_LENGTH and value.isascii() and value.isprintable()
    return value if fits and value is not None else ""


def _trust(url: str, bundle: str) -> ssl.SSLContext | bool:
    if not url.startswith("https:"):
        return True  # the system's roots, should a redirect lead to https
    context = ssl.create_default_context()
    if bundle:
        context.load_verify_locations(cadata=bundle)
    return context
