"""New accounts are counted before the CA does, per egress address; what the CA did not count is given back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from aiohttp import web

from certfleet.acme_ca.accounts import Accounts
from certfleet.acme_ca.presets import resolve_ca
from certfleet.acme_ca.transport import Transport
from certfleet.demo.pebble import pebble
from certfleet.demo.ports import free_port
from certfleet.errors import AcmeProblem, CAMisbehaved, CAUnreachable, RateLimited
from certfleet.limits.buckets import Buckets
from certfleet.limits.keys import registration_buckets
from certfleet.limits.overrides import LimitsBook
from certfleet.limits.presets import override
from certfleet.limits.registrations import Registrations
from certfleet.models import CA, utcnow
from certfleet.store import Store

from .flow import Handler, Script, scripted
from .test_accounts import FernetVault
from .test_transport import hang_up, problem

ADDRESS = "2001:db8:1::1"


def made(status: int = 201) -> Handler:
    """NewAccount's answer."""

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        return web.json_response({}, status=status, headers={"Location": f"https://{request.host}/account/1"})

    return answer


async def tell(store: Store, ca: CA, rate: str) -> None:
    """Limit new accounts per address, and as much per IPv6 range."""
    limits = ("registrations-per-address", "registrations-per-range")
    await LimitsBook(store).set(*(override(ca=ca.name, limit=limit, rate=rate) for limit in limits))


async def left(store: Store, ca: CA, address: str | None = ADDRESS) -> list[int | None]:
    """Tokens of the address, and of its range."""
    known = await LimitsBook(store).of(ca.name, ca.directory)
    return [one.remaining for one in await Buckets(store).look(registration_buckets(known.limits, address))]


def accounts(store: Store, address: str | None = ADDRESS) -> Accounts:
    """What a process at this address has."""
    return Accounts(store, FernetVault(), Registrations(Buckets(store), LimitsBook(store), address))


@asynccontextmanager
async def limited(
    store: Store, directory: Path, *replies: web.Response | Handler, rate: str = "3/3h"
) -> AsyncIterator[tuple[Script, Transport]]:
    """A scripted CA that takes three new accounts."""
    async with scripted(directory, *replies) as (script, transport):
        await tell(store, transport.ca, rate)
        yield script, transport


async def test_a_new_account_costs_a_token_and_one_that_was_there_costs_none(store: Store, tmp_path: Path) -> None:
    """201 is new, 200 is old (RFC 8555 §7.3.1); a known one is not even asked for."""
    async with limited(store, tmp_path, made(), made(200)) as (_, transport):
        here = accounts(store)
        await here.account_for(transport, "a@example.com", agree_tos=True)
        assert await left(store, transport.ca) == [2, 2]
        await here.account_for(transport, "a@example.com", agree_tos=True)
        await here.account_for(transport, "b@example.com", agree_tos=True)
        assert await left(store, transport.ca) == [2, 2]


@pytest.mark.parametrize("answer", [problem(400, "malformed"), problem(500, "serverInternal"), problem(429, "x")])
async def test_what_the_ca_refuses_costs_nothing(store: Store, tmp_path: Path, answer: web.Response) -> None:
    """The CA gives its token back as well."""
    async with limited(store, tmp_path, answer) as (_, transport):
        with pytest.raises(AcmeProblem):
            await accounts(store).account_for(transport, "a@example.com", agree_tos=True)
        assert await left(store, transport.ca) == [3, 3]


@pytest.mark.parametrize(("answer", "error"), [(hang_up, CAUnreachable), (web.Response(status=201), CAMisbehaved)])
async def test_what_nobody_knows_the_end_of_counts(
    store: Store, tmp_path: Path, answer: web.Response | Handler, error: type[Exception]
) -> None:
    """The account may have been made: our bucket never holds more than the CA's."""
    async with limited(store, tmp_path, answer) as (_, transport):
        with pytest.raises(error):
            await accounts(store).account_for(transport, "a@example.com", agree_tos=True)
        assert await left(store, transport.ca) == [2, 2]


async def test_a_ca_that_is_down_costs_nothing(store: Store) -> None:
    """However often it is tried: there would be no token left when it is back."""
    ca = resolve_ca(f"https://127.0.0.1:{free_port()}/dir")
    await tell(store, ca, "3/3h")
    here = accounts(store)
    async with Transport(ca) as transport:
        for _ in range(5):
            with pytest.raises(CAUnreachable):
                await here.account_for(transport, "a@example.com", agree_tos=True)
    assert await left(store, ca) == [3, 3]


async def test_a_429_is_believed_by_every_process_of_the_address(store: Store, tmp_path: Path) -> None:
    """Nobody asks before the CA said; other addresses of the range may."""
    answer = problem(429, "rateLimited")
    answer.headers["Retry-After"] = "600"
    async with limited(store, tmp_path, answer, made()) as (script, transport):
        with pytest.raises(AcmeProblem):
            await accounts(store).account_for(transport, "a@example.com", agree_tos=True)
        with pytest.raises(RateLimited, match="from the IP address 2001:db8:1::1 at https://127") as caught:
            await accounts(store).account_for(transport, "b@example.com", agree_tos=True)
        assert caught.value.retry_at is not None
        assert timedelta(seconds=590) < caught.value.retry_at - utcnow() <= timedelta(seconds=600)
        await accounts(store, "2001:db8:1::2").account_for(transport, "c@example.com", agree_tos=True)
        assert script.asked.count("POST /account") == 2


async def test_without_a_token_nothing_is_sent(store: Store, tmp_path: Path) -> None:
    """One error with the time for all who want the account, and a sentence for people."""
    async with limited(store, tmp_path, made(), rate="1/3h") as (script, transport):
        here = accounts(store, None)
        await here.account_for(transport, "a@example.com", agree_tos=True)
        assert await left(store, transport.ca, None) == [0]
        wanted = [here.account_for(transport, "b@example.com", agree_tos=True) for _ in range(20)]
        start = asyncio.get_running_loop().time()
        errors = await asyncio.gather(*wanted, return_exceptions=True)
        assert asyncio.get_running_loop().time() - start < 4, "they share the wait"
        assert all(isinstance(error, RateLimited) for error in errors)
        assert str(errors[0]).startswith(f"waiting for new accounts from the IP address at {transport.ca.name}, until ")
        assert script.asked.count("POST /account") == 1


async def test_more_processes_than_tokens_make_one_account(store: Store, tmp_path: Path) -> None:
    """Those who find no token wait for those who did, instead of for the next token."""
    vault = FernetVault()
    async with (
        pebble(tmp_path, http_port=free_port()) as ca,
        Transport(resolve_ca(ca.directory, bundle=ca.bundle)) as transport,
    ):
        await tell(store, transport.ca, "3/3h")
        workers = [Accounts(store, vault, Registrations(Buckets(store), LimitsBook(store), ADDRESS)) for _ in range(30)]
        asked = (worker.account_for(transport, "ops@example.com", agree_tos=True) for worker in workers)
        found = await asyncio.gather(*asked)
        assert len({signer.kid for _, signer in found}) == 1
        assert await left(store, transport.ca) == [2, 2]


async def test_a_caller_that_gives_up_does_not_take_the_account_from_the_others(store: Store, tmp_path: Path) -> None:
    """One registration serves all who want it, whoever asked first."""
    async with limited(store, tmp_path, made()) as (script, transport):
        here = accounts(store)
        first = asyncio.create_task(here.account_for(transport, "a@example.com", agree_tos=True))
        second = asyncio.create_task(here.account_for(transport, "a@example.com", agree_tos=True))
        await asyncio.sleep(0)
        first.cancel()
        _, signer = await second
        assert signer.kid.endswith("/account/1")
        assert script.asked.count("POST /account") == 1
