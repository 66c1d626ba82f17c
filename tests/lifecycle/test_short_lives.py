"""Certificates of 160 hours through several lives in simulated time: renewed on time, with the CA's word or without."""

from __future__ import annotations

from datetime import timedelta
from itertools import pairwise

import pytest
from cryptography import x509

from certfleet.lifecycle.renewals.renewal import JITTER
from certfleet.models import Certificate
from tests.lifecycle.simulated import Simulation, sim, where

__all__ = ["sim", "where"]  # fixtures
pytestmark = pytest.mark.asyncio(loop_scope="module")

HOUR = timedelta(hours=1)
LIFE = 160 * HOUR
PROFILES = {"classic": "ninety days", "shortlived": "160 hours"}
APPS = ("a", "b", "c")


async def lives(sim: Simulation, *, days: float) -> list[Certificate]:
    """Every certificate of these apps that there was in so many days; every four hours each app has a valid one."""
    found: dict[str, Certificate] = {}
    for _ in range(round(days * 6)):
        await sim.run(4 * HOUR)
        for app in APPS:
            certificate = await sim.certificate(app)
            assert certificate.not_before <= sim.clock.now() < certificate.not_after, app
            found[certificate.serial] = certificate
    return list(found.values())


async def short(sim: Simulation) -> x509.Certificate:
    """Let the CA issue for 160 hours by that profile; its root."""
    root = await sim.ca.reissue({"shortlived": LIFE.total_seconds()})
    await sim.ca.offer(PROFILES)
    await sim.add(*APPS, profile="shortlived")
    return x509.load_pem_x509_certificate(root.encode())


async def test_four_lives_by_the_cas_windows(sim: Simulation) -> None:
    """Each is renewed inside its window of three hours, exempt from limits; what is stored leads up to the root."""
    await sim.ca.suggest_renewals()
    root = await short(sim)
    found = await lives(sim, days=14)
    assert {certificate.not_after - certificate.not_before for certificate in found} == {LIFE - timedelta(seconds=1)}
    per_app = {app: sorted((c for c in found if c.app == app), key=lambda c: c.generation) for app in APPS}
    for certificates in per_app.values():
        assert len(certificates) in (4, 5)
        for old, new in pairwise(certificates):
            middle = old.not_before + LIFE / 2
            assert abs(new.issued - middle) <= LIFE * 0.01 + timedelta(minutes=1), "2 % of its life, around the half"
    book = await sim.book()
    assert len(book.issuances) == len(found)
    assert len(book.replacements) == len(found) - len(APPS)
    assert all(one.exempt and one.issued for one in book.replacements)
    for certificate in found[-len(APPS) :]:
        [text] = (await sim.bench.fleet.records.chains([certificate])).values()
        leaf = x509.load_pem_x509_certificate(certificate.leaf.encode())
        [issuer] = x509.load_pem_x509_certificates(text.encode())
        leaf.verify_directly_issued_by(issuer)
        issuer.verify_directly_issued_by(root)


async def test_four_lives_without_the_cas_word(sim: Simulation) -> None:
    """With half of the life left, two per cent of it earlier at most; the looks in between cost the CA nothing."""
    await short(sim)
    found = await lives(sim, days=14)
    for app in APPS:
        certificates = sorted((c for c in found if c.app == app), key=lambda c: c.generation)
        assert len(certificates) in (4, 5)
        for old, new in pairwise(certificates):
            early = old.not_before + LIFE / 2 - new.issued
            assert -timedelta(minutes=1) <= early <= LIFE * JITTER + timedelta(minutes=1)
    assert await sim.requests() <= len(found) * 8 + 4


async def test_the_ca_is_away_when_all_are_due(sim: Simulation) -> None:
    """Down from before the renewals until long after them: nobody expires, all are renewed as soon as it is back."""
    await sim.ca.suggest_renewals()
    await short(sim)
    await lives(sim, days=3)
    await sim.ca.fail("*", "status", 1_000_000, status=502)
    await sim.ca.reset()
    await lives(sim, days=0.5)
    assert await sim.requests() <= 12 * 12 + 30, "a try each five minutes, and looks for renewal information before"
    await sim.ca.heal()
    await sim.run(timedelta(minutes=6))
    assert [(await sim.certificate(app)).generation for app in APPS] == [2] * len(APPS)
