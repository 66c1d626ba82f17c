"""A key that its host has lost: no copy is anywhere, so another certificate is ordered, and the journal says why."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from certfleet.lifecycle.records import check_member
from certfleet.models import utcnow
from certfleet.overview import State
from certfleet.settings import Settings
from certfleet.store import Store
from tests.lifecycle.keyed import Keyed, key_of, keyed, public


@pytest.fixture
async def fleet(short_directory: Path, settings: Settings, store: Store) -> AsyncIterator[Keyed]:
    """Blog is served with its second certificate, whose key web1 has made."""
    del store  # emptied
    async with keyed(short_directory, settings) as running:
        await running.add("blog")
        await running.client.enable("blog")
        await running.served()
        await running.client.renew(["blog"], force=True)
        await running.served(2)
        yield running


async def reordered(fleet: Keyed) -> None:
    """Served with a third certificate and a new key, for the reason that the journal has."""
    before = await fleet.certificate()
    after = await fleet.served(3)
    assert key_of(after) != key_of(before)
    assert after.key_on == "web1"
    assert public(fleet.keys()["web1/blog/3/privkey.pem"]) == key_of(after)
    told = await fleet.events()
    assert [line for line in told if line.startswith("ordered")][-1].startswith("ordered: key lost")
    [why] = [line for line in told if line.startswith("key lost: web1: the key of generation")]
    assert "no copy is anywhere: a certificate with a new key is ordered" in why


@pytest.mark.parametrize("how", ["its file is deleted", "restored from a backup", "all of the app is gone"])
async def test_the_key_in_use_is_lost(fleet: Keyed, how: str) -> None:
    """The next look at the host finds it; what was served before is served until then."""
    place = fleet.roots["web1"] / "blog"
    match how:
        case "its file is deleted":
            (place / "2" / "privkey.pem").unlink()
        case "restored from a backup":
            shutil.rmtree(place / "2")
            (place / "current").unlink()
            (place / "current").symlink_to("1")
        case _:
            shutil.rmtree(place)
    await fleet.client.renew(["blog"])  # looks at the endpoint, and asks the host
    await reordered(fleet)


async def test_the_endpoint_shows_another_key(fleet: Keyed) -> None:
    """Somebody put another certificate and its key over ours: found by the look at the endpoint."""
    await fleet.add("wiki", **{"key-on-host": "off"})
    await fleet.client.enable("wiki")
    await fleet.served(1, "wiki")
    root = fleet.roots["web1"]
    for name in ("fullchain.pem", "privkey.pem"):
        (root / "blog" / "2" / name).write_bytes((root / "wiki" / "1" / name).read_bytes())
    await fleet.nginx.reload()
    records = fleet.bench.fleet.records
    for one in await fleet.client.installations("blog"):
        await records.amend("blog", one.host, lambda known: dataclasses.replace(known, asked=None))
    await fleet.bench.fleet.agenda.schedule(check_member("blog"), utcnow())
    await reordered(fleet)


async def test_the_waiting_key_is_lost(fleet: Keyed) -> None:
    """Between the request and its certificate: the old one is served on, and the next order is with a new key."""
    await fleet.client.renew(["blog"], force=True)
    waiting = fleet.roots["web1"] / ".keys"
    await fleet.until("asked", lambda view: view.state is State.ORDERING)
    for _ in range(500):
        if list(waiting.glob("blog/*")):
            break
        await fleet.run_due()
    shutil.rmtree(waiting)
    await fleet.until("issued", lambda view: view.generation == 3)
    before = await fleet.certificate()
    assert not (fleet.roots["web1"] / "blog" / "3").exists()
    after = await fleet.served(4)
    assert key_of(after) != key_of(before)
    assert any(line.startswith("key lost: web1: the key of generation 3") for line in await fleet.events())
    assert (await fleet.ca.counts())["finalize"] == 4


async def test_files_that_were_changed_are_put_right_with_the_key_that_is_there(fleet: Keyed) -> None:
    """The chain is ours again; nothing is ordered for it."""
    place = fleet.roots["web1"] / "blog" / "2"
    right = (place / "fullchain.pem").read_bytes()
    shutil.copy(fleet.roots["web1"] / "blog" / "1" / "fullchain.pem", place / "fullchain.pem")
    await fleet.bench.fleet.records.amend("blog", "web1", lambda known: dataclasses.replace(known, served=0))
    await fleet.client.renew(["blog"])
    await fleet.until(
        "put right", lambda view: view.state is State.SERVED and place.joinpath("fullchain.pem").read_bytes() == right
    )
    assert (await fleet.served(2)).generation == 2
