"""One strict CA for the tests of a module; each test begins with an empty book and sets its own limits."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pytest_asyncio

from certfleet.acme_ca.challenges.http01 import key_authorization
from certfleet.acme_ca.keys import make_csr, make_key
from certfleet.acme_ca.presets import resolve_ca
from certfleet.acme_ca.protocol import (
    AcmeOrder,
    Authorization,
    Signer,
    answer_challenge,
    finalize,
    get_authorization,
    get_order,
)
from certfleet.acme_ca.transport import Transport
from certfleet.errors import AcmeProblem
from certfleet.models import KeyType
from tests.acme_ca.flow import Responder, issue, responder, signer_at
from tests.ca.strict import StrictCA, strict_ca

NATIVE = {"profiles": {name: {"description": name, "validityPeriod": 7_776_000} for name in ("classic", "shortlived")}}
"""Newer Pebbles know profiles themselves, and refuse others than these; older ones pass over this."""
Seen = TypeVar("Seen", AcmeOrder, Authorization)


async def until(status: str, look: Callable[[], Awaitable[Seen]]) -> Seen:
    """What is seen once it has this status."""
    for _ in range(1_000):
        seen = await look()
        if seen.status == status:
            return seen
        await asyncio.sleep(0.01)
    raise AssertionError(f"{seen} is not {status}")


@dataclass
class Customer:
    """A client of the CA with an account of its own."""

    ca: StrictCA
    transport: Transport
    signer: Signer
    served: Responder

    async def issue(self, *names: str) -> None:
        """One certificate."""
        await issue(self.transport, self.signer, names, self.served)

    async def finish(self, order: AcmeOrder) -> None:
        """The certificate of an order that exists already."""
        for url in order.authorizations:
            challenge = (await get_authorization(self.transport, self.signer, url)).http01
            assert challenge is not None
            self.served.tokens[challenge.token] = key_authorization(challenge.token, self.signer.key)
            await answer_challenge(self.transport, self.signer, challenge.url)
        ready = await until("ready", lambda: get_order(self.transport, self.signer, order.url))
        csr = make_csr(await make_key(KeyType.P256), order.identifiers)
        await finalize(self.transport, self.signer, ready, csr)

    async def refused(self, *names: str) -> AcmeProblem:
        """How an order is refused."""
        try:
            await self.issue(*names)
        except AcmeProblem as problem:
            return problem
        raise AssertionError(f"{names} were not refused")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running() -> AsyncIterator[tuple[StrictCA, Responder]]:
    """The CA and the responder of the module."""
    directory = Path(tempfile.mkdtemp(prefix="certfleet-", dir="/tmp"))
    async with (
        responder() as served,
        strict_ca(directory / "ca", http_port=served.port, limits={}, settings=NATIVE) as ca,
    ):
        yield ca, served
    shutil.rmtree(directory)


@pytest_asyncio.fixture(loop_scope="module")
async def customer(running: tuple[StrictCA, Responder]) -> AsyncIterator[Customer]:
    """A fresh account at a CA without limits."""
    ca, served = running
    await ca.set_limits({})
    await ca.forget()
    await ca.reset()
    async with Transport(resolve_ca(ca.directory, bundle=ca.bundle)) as transport:
        yield Customer(ca, transport, await signer_at(transport), served)
