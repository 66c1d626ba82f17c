"""Hosts for tests that need one, and for tests that need several."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from certfleet.settings import Settings
from certfleet.store import Store
from tests.hosts import namespaces
from tests.hosts.desk import Desk, desk_with_one_host
from tests.hosts.fleet import Hosts, hosts


@pytest.fixture
async def three(short_directory: Path) -> AsyncIterator[Hosts]:
    """Three hosts."""
    async with hosts(short_directory / "hosts", 3) as fleet:
        yield fleet


@pytest.fixture
async def desk(short_directory: Path, settings: Settings, store: Store) -> AsyncIterator[Desk]:
    """A person with one host."""
    async with desk_with_one_host(short_directory, settings, store) as found:
        yield found


@pytest.fixture(params=["namespaces", "loopback"])
def where(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways in which hosts can live; the better one only where the machine allows it."""
    name: str = request.param
    if name == "loopback":
        monkeypatch.setattr(namespaces, "allowed", lambda: False)
    elif not namespaces.allowed():
        pytest.skip("this machine does not allow namespaces")
    return name
