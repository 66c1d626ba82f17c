"""A transport behind the turnstile: nothing is sent before its turn, and a 503 slows down everybody at the address."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from certfleet.acme_ca.keys import make_account_key
from certfleet.acme_ca.transport import Transport
from certfleet.errors import AcmeProblem, SlowedDown
from certfleet.limits.buckets import Buckets
from certfleet.limits.overrides import LimitsBook
from certfleet.limits.presets import override
from certfleet.limits.requests import SharedTurnstile
from certfleet.models import CA, utcnow
from certfleet.store import Store

from .flow import Handler, Script, server_tls, serving

KEY = make_account_key()
ADDRESS = "192.0.2.1"


@asynccontextmanager
async def behind(
    store: Store, directory: Path, *replies: web.Response | Handler, in_flight: int = 32, **rates: Any
) -> AsyncIterator[tuple[Script, Callable[[], Transport]]]:
    """A scripted CA that takes `order="20/1s"`, and processes that ask it: each call opens a transport of its own."""
    script, opened = Script(list(replies)), list[Transport]()
    tls, bundle = server_tls(directory)
    async with serving(script.answer, tls=tls) as port:
        url = f"https://127.0.0.1:{port}/dir"
        ca = CA(url, url, bundle=bundle, requests_in_flight=in_flight)
        told = [override(ca=url, limit=f"requests-{kind.replace('_', '-')}", rate=rate) for kind, rate in rates.items()]
        await LimitsBook(store).set(*told)

        def process() -> Transport:
            turnstile = SharedTurnstile(Buckets(store), LimitsBook(store), ca, ADDRESS)
            opened.append(Transport(ca, turnstile=turnstile))
            return opened[-1]

        yield script, process
        for transport in opened:
            await transport.close()


async def ask(transport: Transport, kind: str = "other") -> None:
    """One request of this kind."""
    origin = transport.ca.directory.removesuffix("/dir")
    await transport.post(f"{origin}/{kind}", None, KEY, kid="https://127.0.0.1/account/1", kind=kind)


def busy(retry_after: str | None = "30") -> web.Response:
    """What a load balancer says to too many requests."""
    return web.Response(status=503, headers={"Retry-After": retry_after} if retry_after else {})


@pytest.mark.parametrize("rates", [{}, {"other": "100/1s"}], ids=["unlimited", "limited"])
async def test_a_503_slows_down_every_process_of_the_address(
    store: Store, tmp_path: Path, rates: dict[str, Any]
) -> None:
    """The request that got it raises the CA's own answer; afterwards nothing is sent at all, not even a nonce asked."""
    async with behind(store, tmp_path, busy(), **rates) as (script, process):
        with pytest.raises(AcmeProblem) as refused:
            await ask(process())
        assert refused.value.status == 503
        assert refused.value.retry_at is not None
        sent = list(script.asked)
        for transport in (process(), process()):
            with pytest.raises(SlowedDown) as caught:
                await ask(transport)
            assert caught.value.retry_at is not None
            assert abs(caught.value.retry_at - refused.value.retry_at) < timedelta(seconds=2)
            assert not transport.requests
        assert script.asked == sent


@pytest.mark.parametrize("answer", [busy(None), busy("soon"), web.Response(status=500, headers={"Retry-After": "60"})])
async def test_other_troubles_of_a_ca_are_the_orders_alone(store: Store, tmp_path: Path, answer: web.Response) -> None:
    """A 503 without a time, and a 500 (Let's Encrypt's say 60 s), slow down nobody else."""
    async with behind(store, tmp_path, answer, web.Response()) as (_, process):
        with pytest.raises(AcmeProblem):
            await ask(process())
        await ask(process())


async def test_a_503_to_the_first_request_counts_too(store: Store, tmp_path: Path) -> None:
    """A load balancer does not look at what is asked: the directory gets it as well."""

    async def refuse(_: web.BaseRequest) -> web.StreamResponse:
        return busy()

    tls, bundle = server_tls(tmp_path)
    async with serving(refuse, tls=tls) as port:
        url = f"https://127.0.0.1:{port}/dir"
        ca = CA(url, url, bundle=bundle)
        for error in (AcmeProblem, SlowedDown):
            turnstile = SharedTurnstile(Buckets(store), LimitsBook(store), ca, ADDRESS)
            async with Transport(ca, turnstile=turnstile) as transport:
                with pytest.raises(error):
                    await transport.directory()


async def test_what_waits_at_the_turnstile_holds_up_nothing_else(store: Store, tmp_path: Path) -> None:
    """With one request in flight at most: orders that wait for their turn leave the slot to the others."""
    replies = [web.Response() for _ in range(5)]
    async with behind(store, tmp_path, *replies, in_flight=1, new_order="2/1s burst 2") as (_, process):
        transport = process()
        await ask(transport)
        await ask(transport, "newOrder")
        waiting = asyncio.create_task(ask(transport, "newOrder"))
        await asyncio.sleep(0.05)
        start = time.monotonic()
        await ask(transport, "order")
        await ask(transport, "order")
        assert time.monotonic() - start < 0.3
        assert not waiting.done()
        await waiting


async def test_what_was_held_up_after_its_turn_is_not_sent_in_one_bunch(store: Store, tmp_path: Path) -> None:
    """The CA is silent for a second while turns are given: afterwards its published burst holds all the same."""
    times: list[float] = []

    async def hang(_: web.BaseRequest) -> web.StreamResponse:
        await asyncio.sleep(1)
        return web.Response()

    async def note(_: web.BaseRequest) -> web.StreamResponse:
        times.append(time.monotonic())
        return web.Response()

    replies: list[web.Response | Handler] = [web.Response(), hang, *[note] * 20]
    async with behind(store, tmp_path, *replies, in_flight=1, other="20/1s burst 4") as (_, process):
        transport = process()
        await ask(transport)
        held = asyncio.create_task(ask(transport, "newOrder"))
        await asyncio.sleep(0.05)
        await asyncio.gather(*(ask(transport, "order") for _ in range(20)))
        await held
    assert len(times) == 20
    for first in range(20):
        for last in range(first, 20):
            assert last - first + 1 <= 4 + (times[last] - times[first] + 0.01) * 20, (first, last)


async def test_a_request_that_is_sent_away_was_not_sent(store: Store, tmp_path: Path) -> None:
    """Nothing of it reaches the CA, and the order comes back at the time that it was told."""
    async with behind(store, tmp_path, web.Response(), new_order="1/1m") as (script, process):
        transport = process()
        await ask(transport, "newOrder")
        with pytest.raises(SlowedDown, match=r"requests \(new-order\)") as caught:
            await ask(transport, "newOrder")
        assert caught.value.retry_at is not None
        assert timedelta(seconds=55) < caught.value.retry_at - utcnow() <= timedelta(minutes=1)
        assert script.asked.count("POST /newOrder") == 1
