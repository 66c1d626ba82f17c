"""The proxy before Pebble that enforces the limits: `python -m tests.ca.proxy`, with the arguments of the demo's front.

Each request passes in this order: faults that keep it from the CA, an ordered slow-down, requests per second, ordered
answers, the limits, Pebble; its answer then passes the faults that spoil it.
Control is JSON under /rig/, for this machine only; `strict.py` speaks it.
"""

from __future__ import annotations

import json
import random
import time
from collections import deque
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any

import aiohttp
from aiohttp import web

from certfleet.demo.front import ONE_AT_A_TIME, Front, main, zeroes
from tests.ca import jws
from tests.ca.book import Book, Paused
from tests.ca.buckets import Denial
from tests.ca.faults import Faults, instead
from tests.ca.gcra import SECOND
from tests.ca.limits import CONSECUTIVE_FAILURES, checked, pair_key
from tests.ca.persist import Persist
from tests.ca.problems import Problem, busy, invalid_profile, paused, too_many
from tests.ca.profiles import Profiles
from tests.ca.reissue import Reissue
from tests.ca.renewals import Made, Renewals, Verdict, Window, as_json
from tests.ca.report import KINDS, Refusal

ADDRESS_HEADER = "X-Rig-Address"
"""The address that a request pretends to come from."""
ROLLOVER = "/rollover-account-key"
RENEWAL_INFO = "draft-ietf-acme-ari-03"
ENDPOINTS = {
    "dir": "directory",
    "nonce-plz": "new-nonce",
    "sign-me-up": "new-account",
    "order-plz": "new-order",
    "revoke-cert": "revoke-cert",
    RENEWAL_INFO: "renewal-info",
}
"""First segment of Pebble's paths -> kind of endpoint by which requests are counted; anything else is `other`."""


def _counters() -> dict[str, int]:
    return {**zeroes(), "rate_limited_answers": 0, "slow_downs": 0}


@dataclass
class StrictFront(Front):
    """The demo's front with a memory."""

    counts: dict[str, int] = field(default_factory=_counters)
    book: Book = field(default_factory=Book)
    renewals: Renewals = field(default_factory=Renewals)
    jitter: float = 0.0
    """The part of a wait, at most, by which it is told longer."""
    slow_until: int = 0
    """Unix nanoseconds until which everything is answered 503."""
    identities: tuple[str, ...] = ()
    """What the directory says that the CA is called in CAA records (RFC 8555 §7.1.1); Pebble says nothing."""
    ordered: deque[Problem] = field(default_factory=deque)
    """What the next newOrders are answered."""
    profiles: Profiles = field(default_factory=Profiles)
    persist: Persist = field(default_factory=Persist)
    faults: Faults = field(default_factory=Faults)
    reissue: Reissue = field(default_factory=Reissue)
    ahead: int = 0
    """Nanoseconds that this CA's clock is before the machine's."""

    def now(self) -> int:
        """Unix nanoseconds, by this CA's clock."""
        return time.time_ns() + self.ahead

    async def handle(self, request: web.BaseRequest, kind: str) -> web.Response:
        """As the CA would, but for faults."""
        if fault := self.faults.early(kind, request.path):
            return instead(fault, request, await self._nonce(request) if fault.how == "bad-nonce" else None)
        answer = self.faults.again(request, await self._sound(request, kind))
        if fault := self.faults.late(kind, request.path, answer):
            return await self.faults.spoil(fault, request, answer)
        return answer

    async def _sound(self, request: web.BaseRequest, kind: str) -> web.Response:
        """Refuse at once what comes too fast, then one by one what costs tokens."""
        now = self.now()
        address = request.headers.get(ADDRESS_HEADER, request.remote or "")
        if now < self.slow_until:
            return self._refuse(busy(self.slow_until - now), Refusal(now / SECOND, 503, "slow-down", address))
        endpoint = ENDPOINTS.get(request.path.removeprefix("/").partition("/")[0], "other")
        if denial := self.book.request(address, endpoint, now):
            return self._refuse(busy(denial.retry_in), _refusal(denial, now, status=503))
        if self.renewals.on and endpoint == "renewal-info":
            return self._renewal_info(request.path.rpartition("/")[2])
        if kind == "challenge":
            await self.persist.answered(request.path.rpartition("/")[2], await request.read())
        # A token that Pebble's refusal gives back must not be missed by another request in between.
        async with self.lock if kind in ONE_AT_A_TIME or kind == "newAccount" else nullcontext():
            match kind:
                case "newOrder":
                    return await self._new_order(request)
                case "newAccount":
                    return await self._new_account(request, address)
            answer = await self.pass_on(request)
        if request.path == ROLLOVER and answer.status == web.HTTPOk.status_code:
            self.persist.rolled_over(await request.read())
        return self._seen(kind, request, answer)

    def _seen(self, kind: str, request: web.BaseRequest, answer: web.Response) -> web.Response:
        """Note what an answer of Pebble's shows; directory and orders get what Pebble lacks."""
        name = request.path.rpartition("/")[2]
        if answer.status >= web.HTTPBadRequest.status_code:
            return answer
        if kind in {"directory", "order", "finalize"}:
            answer = self.profiles.shown(kind, name, answer)
        if kind == "directory":
            return self._directory(request, answer)
        if kind in {"authorization", "challenge"}:
            answer = self.persist.shown(kind, name, answer)
        if kind == "certificate" and isinstance(answer.body, bytes):
            profile = self.profiles.of(self.reissue.order_of(name))
            answer.body = self.reissue.chain(name, answer.body, profile, self.now() / SECOND)
            self.renewals.downloaded(name, answer.body)
        if kind in WATCHED:
            self._watch(kind, name, answer)
        return answer

    def _directory(self, request: web.BaseRequest, answer: web.Response) -> web.Response:
        document = _document(answer)
        self.persist.described(document.setdefault("meta", {}))
        if self.identities:
            document.setdefault("meta", {})["caaIdentities"] = list(self.identities)
        if self.renewals.on:
            document["renewalInfo"] = f"https://{request.host}/{RENEWAL_INFO}"
        return web.json_response(document)

    async def _new_account(self, request: web.BaseRequest, address: str) -> web.Response:
        wanted = jws.new_account(await request.read())
        if wanted is None or wanted.only_existing:
            return await self.pass_on(request)
        now = self.now()
        verdict = self.book.registration_wanted(address, wanted.key, now)
        if isinstance(verdict, Denial):
            problem = too_many(verdict, now, jitter=self._jitter())
            return self._refuse(problem, _refusal(verdict, now), await self._nonce(request))
        answer = await self.pass_on(request)
        if answer.status != web.HTTPCreated.status_code:
            self.book.buckets.give_back(verdict, self.now())
        if answer.status in {web.HTTPOk.status_code, web.HTTPCreated.status_code}:
            self.book.registered(wanted.key)
            self.persist.registered(answer.headers["Location"], wanted.key)
        return answer

    async def _new_order(self, request: web.BaseRequest) -> web.Response:
        wanted, now = jws.new_order(await request.read()), self.now()
        account, identifiers, profile, replaces = wanted or (None, (), None, None)
        if self.ordered:
            problem = self.ordered.popleft()
            refusal = Refusal(now / SECOND, problem.status, "planned", "", account, identifiers)
            return self._refuse(problem, refusal, await self._nonce(request))
        if account is None:
            return await self.pass_on(request)
        if profile is not None and self.profiles.refuses(profile):
            refusal = Refusal(now / SECOND, 400, "profile", profile, account, identifiers)
            return self._refuse(invalid_profile(profile), refusal, await self._nonce(request))
        return await self._order(request, account, identifiers, replaces, profile)

    async def _order(
        self,
        request: web.BaseRequest,
        account: str,
        identifiers: tuple[str, ...],
        replaces: str | None,
        profile: str | None,
    ) -> web.Response:
        now = self.now()
        said = self._replacing(account, identifiers, replaces)
        if said.problem is not None:
            refusal = Refusal(now / SECOND, said.problem.status, "replaces", replaces or "", account, identifiers)
            return self._refuse(said.problem, refusal, await self._nonce(request))
        verdict = self.book.order_wanted(account, identifiers, now, replacement=said.exempt)
        if isinstance(verdict, Paused):
            limit = self.book.buckets.limits.get(CONSECUTIVE_FAILURES)
            until = (now + limit.rate.interval) / SECOND if limit else None
            key = pair_key(account, verdict.identifiers[0])
            refusal = Refusal(now / SECOND, 429, CONSECUTIVE_FAILURES, key, account, identifiers, until)
            problem = paused(account, verdict.identifiers, f"https://{request.host}")
            return self._refuse(problem, refusal, await self._nonce(request))
        if isinstance(verdict, Denial):
            problem = too_many(verdict, now, jitter=self._jitter())
            refusal = _refusal(verdict, now, account=account, identifiers=identifiers)
            return self._refuse(problem, refusal, await self._nonce(request))
        if self.renewals.on and replaces is None and (made := self.renewals.reused(account, identifiers)):
            return await self._again(made, request)
        answer = await self.pass_on(request)
        now = self.now()
        if answer.status == web.HTTPCreated.status_code:
            answer = self._with_replaces(answer, account, identifiers, replaces, exempt=said.exempt)
            authorizations = [url.rpartition("/")[2] for url in _document(answer)["authorizations"]]
            name = answer.headers["Location"].rpartition("/")[2]
            self.book.order_made(verdict, name, authorizations, now)
            answer = self.profiles.made(name, profile, answer)
        else:
            self.book.buckets.give_back(verdict.charges, now)
        return answer

    def _replacing(self, account: str, identifiers: tuple[str, ...], replaces: str | None) -> Verdict:
        if not self.renewals.on or replaces is None:
            return Verdict(None)
        return self.renewals.judge(account, identifiers, replaces, self.now() / SECOND)

    def _with_replaces(
        self, answer: web.Response, account: str, identifiers: tuple[str, ...], replaces: str | None, *, exempt: bool
    ) -> web.Response:
        """Note the order, and echo what it replaces (RFC 9773 §5)."""
        if not self.renewals.on:
            return answer
        url, document = answer.headers["Location"], _document(answer)
        if replaces is not None:
            answer.body = json.dumps({**document, "replaces": replaces}).encode()
        assert isinstance(answer.body, bytes)
        made = Made(account, identifiers, url, answer.body)
        self.renewals.order_made(url.rpartition("/")[2], made, replaces, exempt=exempt, now=self.now() / SECOND)
        return answer

    async def _again(self, made: Made, request: web.BaseRequest) -> web.Response:
        """The order that there is; Boulder does so for the same account and names, Pebble does not."""
        headers = {"Location": made.url, "Replay-Nonce": await self._nonce(request) or ""}
        return web.Response(status=201, body=made.body, content_type="application/json", headers=headers)

    def _renewal_info(self, name: str) -> web.Response:
        """Unsigned, for whoever knows the certificate's name (RFC 9773 §4.1)."""
        self.renewals.asked[name] += 1
        fault = self.renewals.faults.popleft() if self.renewals.faults else None
        if isinstance(fault, Problem):
            return fault.response()
        window = self.renewals.window(name)
        if window is None:
            return Problem(404, "malformed", "Certificate not found").response()
        body = fault if fault is not None else json.dumps(as_json(window))
        headers = {"Retry-After": self.renewals.retry_after}
        return web.Response(body=body.encode(), content_type="application/json", headers=headers)

    def _watch(self, kind: str, name: str, answer: web.Response) -> None:
        document, now = _document(answer), self.now()
        status = document.get("status")
        if not isinstance(status, str):
            return
        if kind in {"order", "finalize"}:
            self.reissue.order_seen(name, document)
            self.renewals.order_seen(name, document, answer.body if isinstance(answer.body, bytes) else b"")
            self.book.order_seen(name, status, now)
        elif kind == "authorization":
            self.book.authorization_seen(name, status, now, document["identifier"]["value"])
        else:
            up = [link for link in answer.headers.getall("Link", ()) if 'rel="up"' in link]
            self.book.challenge_seen(name, status, now, up[0].partition(">")[0].rpartition("/")[2] if up else None)

    def _refuse(self, problem: Problem, refusal: Refusal, nonce: str | None = None) -> web.Response:
        self.book.refusals.append(refusal)
        self.counts["rate_limited_answers"] += problem.status == web.HTTPTooManyRequests.status_code
        self.counts["slow_downs"] += problem.status == web.HTTPServiceUnavailable.status_code
        return problem.response(nonce)

    def _jitter(self) -> float:
        return random.uniform(0, self.jitter)  # noqa: S311  no secret

    async def _nonce(self, request: web.BaseRequest) -> str | None:
        # RFC 8555 §6.5: a refusal carries one too. Only Pebble's own are any good.
        headers = {"Host": request.host, "User-Agent": "tests.ca"}
        try:
            async with self.session.get(f"{self.upstream}/nonce-plz", headers=headers) as answer:
                return answer.headers.get("Replay-Nonce")
        except (aiohttp.ClientError, TimeoutError):
            return None

    async def rig(self, request: web.BaseRequest) -> web.Response:
        """Control; and what the demo's front answers."""
        if not ip_address(request.remote or "0.0.0.0").is_loopback:
            return web.Response(status=403)
        if (request.method, request.path) == ("GET", "/rig/book"):
            return web.json_response(self._report())
        control = self._controls().get(request.path.removeprefix("/rig/"))
        if request.method != "POST" or control is None:
            return await super().rig(request)
        try:
            return web.json_response(control(**json.loads(await request.read())))
        except (ValueError, TypeError, KeyError) as error:
            return web.Response(status=400, text=f"{type(error).__name__}: {error}")

    def _controls(self) -> dict[str, Callable[..., Any]]:
        return {
            "configure": self._configure,
            "forget": self._forget,
            "steal": lambda *, limit, key, count: self.book.steal(limit, key, count, self.now()),
            "answer": self._order_answers,
            "slow-down": self._slow_down,
            "profiles": self.profiles.offer,
            "persist": self.persist.offer,
            "identify": self._identify,
            "renewals": self._renew,
            "window": lambda *, identifier, **window: self.renewals.move(identifier, Window(**window)),
            "claim": lambda *, identifier, order: self.renewals.claim(identifier, order, self.now() / SECOND),
            "renewal-faults": self._renewal_faults,
            "fault": self.faults.tell,
            "heal": self.faults.heal,
            "plain": self._plain,
            "reissue": self.reissue.begin,
            "clock": self._set_clock,
            "pause": lambda *, identifier: self.book.pause(identifier),
            "unpause": lambda *, identifier: self.book.unpause(identifier, self.now()),
        }

    def _configure(
        self, *, limits: dict[str, Any], same_set_exempt: bool, same_set_window: float, jitter: float
    ) -> None:
        self.book.buckets.configure(checked({name: (c, p, b) for name, (c, p, b) in limits.items()}))
        self.book.same_set_exempt, self.book.same_set_window, self.jitter = same_set_exempt, same_set_window, jitter

    def _forget(self) -> None:
        self.book.forget()
        self.slow_until = 0
        self.ordered.clear()
        self.faults.heal()

    def _plain(self) -> None:
        self.renewals, self.profiles, self.reissue, self.ahead = Renewals(), Profiles(), Reissue(), 0

    def _set_clock(self, *, ahead: float) -> None:
        self.ahead = round(ahead * SECOND)

    def _order_answers(self, *, count: int, **problem: Any) -> None:
        self.ordered.extend([Problem(**problem)] * count)

    def _renew(self, *, share: float | None, width: float, retry_after: str, conflict: str) -> None:
        self.renewals.on, self.renewals.share, self.renewals.width = True, share, width
        self.renewals.retry_after, self.renewals.conflict = retry_after, conflict

    def _renewal_faults(self, *, count: int, body: str | None, **problem: Any) -> None:
        self.renewals.faults.extend([Problem(**problem) if body is None else body] * count)

    def _slow_down(self, *, seconds: float) -> None:
        self.slow_until = self.now() + round(seconds * SECOND)

    def _identify(self, *, identities: list[str]) -> None:
        self.identities = tuple(identities)

    def _report(self) -> dict[str, Any]:
        now = self.now()
        return {
            "at": now / SECOND,
            "rate_limited_answers": self.counts["rate_limited_answers"],
            "slow_downs": self.counts["slow_downs"],
            **{name: list(getattr(self.book, name)) for name in KINDS if name != "replacements"},
            "replacements": list(self.renewals.replacements.values()),
            "looks": dict(self.renewals.asked),
            "buckets": self.book.buckets.state(now),
            "paused": sorted(self.book.paused),
            "profiles": self.profiles.asked(),
            "persist_looks": self.persist.looks,
        }


WATCHED = frozenset({"order", "finalize", "authorization", "challenge"})


def _refusal(
    denial: Denial, now: int, *, status: int = 429, account: str | None = None, identifiers: tuple[str, ...] = ()
) -> Refusal:
    until = (now + denial.retry_in) / SECOND
    return Refusal(now / SECOND, status, denial.limit, denial.key, account, identifiers, until)


def _document(answer: web.Response) -> dict[str, Any]:
    assert isinstance(answer.body, bytes)
    found: dict[str, Any] = json.loads(answer.body)
    return found


if __name__ == "__main__":
    main(StrictFront, "tests.ca.proxy")
