"""The door: a running CA that enforces limits, and what a test or a benchmark may do to it."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import aiohttp

from certfleet.demo.pebble import DemoCA, pebble
from tests.ca.faults import How
from tests.ca.limits import LETS_ENCRYPT, SAME_SET_WINDOW, checked
from tests.ca.renewals import RETRY_AFTER, WIDTH
from tests.ca.report import Report

BOOK_TIMEOUT = 60.0  # seconds; a full book is some hundred megabytes


@dataclass(frozen=True, slots=True)
class StrictCA(DemoCA):
    """The demonstration's CA with limits.

    Its `counts()` also has `rate_limited_answers` (429) and `slow_downs` (503). Keys of buckets: an address, a /48,
    an account's URL, a registered domain, and what `set_key` and `pair_key` of tests.ca.limits make.
    """

    async def set_limits(
        self,
        limits: Mapping[str, tuple[int, float, int]],
        *,
        same_set_exempt: bool = True,
        same_set_window: float = SAME_SET_WINDOW,
        jitter: float = 0.0,
    ) -> None:
        """Let these limits hold, and no others, from now on; what was spent stays spent.

        A limit is count, period (seconds) and burst. `same_set_window` (seconds) is how long a certificate makes a
        further one for the same names exempt; `jitter` (0.03 at Let's Encrypt) is the part by which a wait is told
        longer at most. Raises ValueError for a limit that is none.
        """
        await self._control(
            "configure",
            limits=checked(limits),
            same_set_exempt=same_set_exempt,
            same_set_window=same_set_window,
            jitter=jitter,
        )

    async def forget(self) -> None:
        """Full buckets, nobody paused, no ordered answers, an empty book; limits and Pebble's objects stay."""
        await self._control("forget")

    async def steal(self, limit: str, key: str, count: int) -> int:
        """Let another client spend up to `count` tokens behind our back; how many there were to spend."""
        return int(await self._control("steal", limit=limit, key=key, count=count))

    async def answer_orders(
        self,
        count: int,
        status: int,
        *,
        type: str,  # noqa: A002  RFC 7807's name for it
        detail: str,
        retry_after: str | None = None,
    ) -> None:
        """Answer the next `count` newOrders like this, once they have passed the limits on requests."""
        await self._control("answer", count=count, status=status, type=type, detail=detail, retry_after=retry_after)

    async def slow_down(self, seconds: float) -> None:
        """Answer everything 503 with Retry-After for so long; 0 ends it."""
        await self._control("slow-down", seconds=seconds)

    async def offer(self, profiles: Mapping[str, str], *, hidden: Sequence[str] = ()) -> None:
        """Offer these profiles (name -> description) from now on, the first as default; none: as a CA without them.

        Those that are `hidden` are refused although the directory lists them: withdrawn since it was read.
        """
        await self._control("profiles", profiles=dict(profiles), hidden=list(hidden))

    async def asked_profiles(self) -> list[str | None]:
        """What each newOrder that was accepted asked for, in order."""
        found: list[str | None] = (await self._ask("GET", "book"))["profiles"]
        return found

    async def offer_persist(self, resolver: str, *issuers: str, prefix: str = "") -> None:
        """Offer dns-persist-01 instead of dns-01 from now on, as a CA of these names; none: not any more.

        Its records are looked up at `resolver`. With a `prefix` accounts are hashes below it (version 02 of the draft).
        """
        words = {"resolver": resolver, "issuers": list(issuers), "prefix": prefix}
        await self._control("persist", **words, management=self.dns_management)

    async def persist_looks(self) -> list[tuple[str, bool]]:
        """The names whose records were looked at since then, and whether each passed."""
        return [(name, passed) for name, passed in (await self._ask("GET", "book"))["persist_looks"]]

    async def identify(self, *identities: str) -> None:
        """From now on the directory says that the CA is called so in CAA records."""
        await self._control("identify", identities=list(identities))

    async def suggest_renewals(
        self,
        *,
        share: float | None = None,
        width: float = WIDTH,
        retry_after: str = RETRY_AFTER,
        conflict: str = "alreadyReplaced",
    ) -> None:
        """Have renewal information from now on, and reuse orders as Boulder does.

        A window begins at `share` of a certificate's validity (None: as at Let's Encrypt) and has `width` of it.
        `conflict` is the type of the 409 for a second replacement.
        """
        await self._control("renewals", share=share, width=width, retry_after=retry_after, conflict=conflict)

    async def suggest(self, identifier: str, start: float, end: float, explanation: str | None = None) -> str:
        """Another window (Unix seconds) for the newest certificate of a name; that certificate."""
        words = {"identifier": identifier, "start": start, "end": end, "explanation": explanation}
        return str(await self._control("window", **words))

    async def claim_replaced(self, identifier: str, order: str) -> None:
        """Let an order that there is have replaced the newest certificate of a name instead of another one."""
        await self._control("claim", identifier=identifier, order=order)

    async def fail_renewal_info(self, count: int, *, body: str | None = None, status: int = 500) -> None:
        """Answer the next `count` questions with this body, or with a problem of this status."""
        problem = {"status": status, "type": "serverInternal", "detail": "not now"} if body is None else {}
        await self._control("renewal-faults", count=count, body=body, **problem)

    async def fail(self, kind: str, how: How, count: int = 1, **words: Any) -> None:
        """Let the next `count` requests of a kind go wrong; ways and further words are those of tests.ca.faults."""
        await self._control("fault", kind=kind, how=how, count=count, **words)

    async def heal(self) -> dict[str, int]:
        """Nothing goes wrong any more; what did until now, by kind and way."""
        done: dict[str, int] = await self._control("heal")
        return done

    async def reissue(self, validity: Mapping[str, float]) -> str:
        """Sign certificates anew with this validity (profile -> seconds, empty: any other); PEM of their root."""
        return str(await self._control("reissue", validity=dict(validity)))

    async def plain(self) -> None:
        """No renewal information, no profiles, Pebble's own certificates, the machine's clock."""
        await self._control("plain")

    async def set_clock(self, ahead: float) -> None:
        """Let limits, windows and certificates follow a clock that is so many seconds ahead."""
        await self._control("clock", ahead=ahead)

    async def pause(self, identifier: str) -> None:
        """Refuse every account's orders for this name until `unpause`."""
        await self._control("pause", identifier=identifier)

    async def unpause(self, identifier: str) -> None:
        """What a person does on the CA's page, for every account."""
        await self._control("unpause", identifier=identifier)

    async def book(self) -> Report:
        """Everything that the CA counted."""
        return Report.of(await self._ask("GET", "book"))

    async def _control(self, verb: str, **words: Any) -> Any:
        return await self._ask("POST", verb, words)

    async def _ask(self, method: str, path: str, document: Any = None) -> Any:
        context = ssl.create_default_context(cadata=self.bundle)
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=BOOK_TIMEOUT)) as session,
            session.request(method, f"{self._front}/rig/{path}", json=document, ssl=context) as answer,
        ):
            if not answer.ok:
                raise ValueError(f"the CA's proxy answered {answer.status}: {await answer.text()}")
            return await answer.json()


@asynccontextmanager
async def strict_ca(
    directory: Path,
    *,
    http_port: int,
    limits: Mapping[str, tuple[int, float, int]] = LETS_ENCRYPT,
    same_set_exempt: bool = True,
    same_set_window: float = SAME_SET_WINDOW,
    jitter: float = 0.0,
    **pebble_options: Any,
) -> AsyncIterator[StrictCA]:
    """A CA with these limits as long as the block; `pebble_options` are those of certfleet.demo.pebble."""
    async with pebble(directory, http_port=http_port, front_module="tests.ca.proxy", **pebble_options) as plain:
        ca = StrictCA(**{part.name: getattr(plain, part.name) for part in fields(plain)})
        await ca.set_limits(limits, same_set_exempt=same_set_exempt, same_set_window=same_set_window, jitter=jitter)
        yield ca
