"""A key that is in other hands is not used again, at whatever moment somebody says so; in simulated time."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509

from certfleet.acme_ca import protocol
from certfleet.acme_ca.keys import spki_digest
from certfleet.acme_ca.protocol import Issued
from certfleet.models import Certificate
from tests.lifecycle.simulated import Simulation, sim, where

__all__ = ["sim", "where"]  # fixtures
pytestmark = pytest.mark.asyncio(loop_scope="module")


def key_of(found: Certificate) -> bytes:
    return spki_digest(x509.load_pem_x509_certificate(found.leaf.encode()))


async def test_a_key_that_leaks_while_it_is_certified_again(sim: Simulation, monkeypatch: pytest.MonkeyPatch) -> None:
    """Said while the renewal with the same key is fetched: that one is left, another with a new key takes its place."""
    await sim.add("blog", **{"reuse-key": "on"})
    await sim.run(timedelta(minutes=1))
    before = await sim.certificate("blog")
    download = protocol.download

    async def told_meanwhile(*words: Any, **named: Any) -> Issued:
        def leaked(found: Certificate) -> Certificate:
            return replace(found, leaked=True, withdrawn="compromised")

        await sim.bench.fleet.revocations.ask(None, "blog", leaked)
        return await download(*words, **named)

    with monkeypatch.context() as patch:
        patch.setattr(protocol, "download", told_meanwhile)
        await sim.order("blog")
        await sim.run(timedelta(minutes=5))
    after = await sim.certificate("blog")
    assert after.generation == 2
    assert key_of(after) != key_of(before)
