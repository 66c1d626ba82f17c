"""The audit trail: what happened to an app, in its order, within bounds."""

from __future__ import annotations

import pytest

from certfleet import journal as module
from certfleet.journal import Journal
from certfleet.models import utcnow
from certfleet.store import Store


async def test_the_latest_of_one_app(store: Store) -> None:
    """Oldest first, the newest ten, without other apps' entries."""
    journal = Journal(store)
    before = utcnow()
    for number in range(15):
        await journal.write("blog", "event", str(number))
        await journal.write("shop", "event", str(number))
    entries = await journal.latest("blog")
    assert [entry.detail for entry in entries] == [str(number) for number in range(5, 15)]
    assert {entry.app for entry in entries} == {"blog"}
    assert abs((entries[0].at - before).total_seconds()) < 60
    assert await journal.latest("nobody") == []


async def test_it_stays_within_bounds(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither one entry nor all of them grow for ever."""
    monkeypatch.setattr(module, "MAXIMUM", 100)
    journal = Journal(store)
    for _ in range(1000):
        await journal.write("blog", "failed", "x" * 5000)
    assert await store.redis.xlen(store.key("journal")) < 300
    assert len((await journal.latest("blog"))[0].detail) == 1000
