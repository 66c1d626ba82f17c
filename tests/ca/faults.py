"""What goes wrong between a client and its CA, one answer after the other: told by the test, done by the proxy.

A fault is for one class of requests (the front's words: directory, newNonce, newOrder, …; `*` for all) and for a number
of them. Those that are `early` answer instead of Pebble; the others spoil what Pebble has done and answered.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, Literal

from aiohttp import web
from yarl import URL

from tests.ca.problems import Problem

How = Literal[
    "status",  # this status, a problem document; with `retry_after`, or without
    "page",  # this status, and a page for people where a problem document belongs
    "hang",  # nothing for so many seconds, then Pebble's answer
    "cut",  # the connection is closed, Pebble never hears of it
    "cut-after",  # Pebble has done it, and the connection is closed
    "cut-body",  # the connection is closed in the middle of the answer
    "drip",  # the answer comes so slowly that it takes so many seconds
    "body",  # Pebble has done it, and the answer is this text
    "truncate",  # likewise, and the answer is its first half, as if that were all
    "leaf",  # likewise, and of a chain only the leaf is there
    "type",  # the answer with another content type
    "bad-nonce",  # the nonce is refused, with a fresh one
    "no-nonce",  # the answer without a nonce
    "edit",  # in the answer these fields are so
]
EARLY = frozenset({"status", "page", "cut", "bad-nonce"})
PEM_END = b"-----END CERTIFICATE-----\n"
SLICES = 20  # of an answer that drips
PAGE = "<html><body><h1>Bad gateway</h1></body></html>"


@dataclass(slots=True)
class Fault:
    """One way to go wrong."""

    kind: str
    how: How
    count: int
    """For how many requests more."""
    status: int = 500
    retry_after: str | None = None
    seconds: float = 0.0
    text: str = ""
    fields: dict[str, Any] = field(default_factory=dict)
    when: str | None = None
    """Only for an answer that shows this `status` (of an order or authorization)."""
    path: str = ""
    """Only for requests with this in their path."""
    skip: int = 0
    """So many requests of this kind go well before."""

    def meets(self, kind: str, path: str) -> bool:
        """Whether it is for such a request."""
        return self.count > 0 and self.kind in (kind, "*") and self.path in path


@dataclass(slots=True)
class Faults:
    """What is still to go wrong, and what did."""

    told: list[Fault] = field(default_factory=list)
    done: Counter[str] = field(default_factory=Counter)
    """By `kind how`."""
    _stuck: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Objects (by path) whose fields were edited stay so."""

    def tell(self, **words: Any) -> None:
        """One more; raises TypeError for what is none."""
        self.told.append(Fault(**words))

    def heal(self) -> dict[str, int]:
        """Nothing goes wrong any more; what did."""
        done = dict(self.done)
        self.told.clear()
        self.done.clear()
        self._stuck.clear()
        return done

    def early(self, kind: str, path: str) -> Fault | None:
        """What answers instead of Pebble."""
        return self._next(kind, path, early=True, status=None)

    def late(self, kind: str, path: str, answer: web.Response) -> Fault | None:
        """What becomes of Pebble's answer; its refusals (a bad nonce now and then) pass as they are."""
        if answer.status >= web.HTTPBadRequest.status_code:
            return None
        return self._next(kind, path, early=False, status=_status(answer))

    def _next(self, kind: str, path: str, *, early: bool, status: str | None) -> Fault | None:
        for fault in self.told:
            if fault.meets(kind, path) and (fault.how in EARLY) is early and fault.when in (None, status):
                if fault.skip > 0:
                    fault.skip -= 1
                    return None
                fault.count -= 1
                self.done[f"{kind} {fault.how}"] += 1
                return fault
        return None

    def again(self, request: web.BaseRequest, answer: web.Response) -> web.Response:
        """An object that was edited once shows the same ever after."""
        fields = self._stuck.get(request.path)
        return answer if fields is None else _edited(answer, fields)

    async def spoil(self, fault: Fault, request: web.BaseRequest, answer: web.Response) -> web.Response:  # noqa: C901, PLR0911  one line per way
        """Pebble's answer as it reaches the client."""
        body = answer.body if isinstance(answer.body, bytes) else b""
        match fault.how:
            case "hang":
                await asyncio.sleep(fault.seconds)
                return answer
            case "cut-after":
                return cut(request)
            case "cut-body":
                return _streamed(answer, _half(request, body))
            case "drip":
                return _streamed(answer, _dripping(body, fault.seconds))
            case "body":
                return _with(answer, fault.text.encode())
            case "truncate":
                return _with(answer, body[: len(body) // 2])
            case "leaf":
                return _with(answer, body[: body.index(PEM_END) + len(PEM_END)])
            case "type":
                answer.headers["Content-Type"] = fault.text
                return answer
            case "no-nonce":
                answer.headers.popall("Replay-Nonce", None)
                return answer
            case "edit":
                self._stuck[URL(answer.headers.get("Location", request.path)).path] = fault.fields
                return _edited(answer, fault.fields)
        raise ValueError(f"{fault.how} is no late fault")


def instead(fault: Fault, request: web.BaseRequest, nonce: str | None) -> web.Response:
    """The answer of an early fault."""
    if fault.how == "cut":
        return cut(request)
    if fault.how == "bad-nonce":
        return Problem(400, "badNonce", "JWS has an invalid anti-replay nonce").response(nonce)
    if fault.how == "page":
        return web.Response(status=fault.status, text=PAGE, content_type="text/html")
    return Problem(fault.status, "serverInternal", "not today", retry_after=fault.retry_after).response(nonce)


def cut(request: web.BaseRequest) -> web.Response:
    """Close the connection; the answer reaches nobody."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response(status=502)


def _status(answer: web.Response) -> str | None:
    if not isinstance(answer.body, bytes) or not answer.body.startswith(b"{"):
        return None
    found = json.loads(answer.body).get("status")
    return found if isinstance(found, str) else None


def _headers(answer: web.Response) -> list[tuple[str, str]]:
    return [(name, value) for name, value in answer.headers.items() if name.lower() != "content-length"]


def _with(answer: web.Response, body: bytes) -> web.Response:
    return web.Response(status=answer.status, body=body, headers=_headers(answer))


def _edited(answer: web.Response, fields: dict[str, Any]) -> web.Response:
    if not isinstance(answer.body, bytes) or answer.status >= web.HTTPBadRequest.status_code:
        return answer
    return _with(answer, json.dumps(json.loads(answer.body) | fields).encode())


def _streamed(answer: web.Response, body: AsyncIterator[bytes]) -> web.Response:
    return web.Response(status=answer.status, body=body, headers=_headers(answer))


async def _half(request: web.BaseRequest, body: bytes) -> AsyncIterator[bytes]:
    yield body[: len(body) // 2]
    await asyncio.sleep(0.02)  # so that it is on its way
    cut(request)
    yield b""


async def _dripping(body: bytes, seconds: float) -> AsyncIterator[bytes]:
    size = max(1, len(body) // SLICES)
    for start in range(0, len(body), size):
        yield body[start : start + size]
        await asyncio.sleep(seconds / SLICES)
