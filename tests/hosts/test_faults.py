"""What can happen to a host: afterwards the old or the new certificate is served, and the state says which."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from certfleet.install.answer import State
from certfleet.install.bundle import Item
from certfleet.install.drivers import Drivers, opening
from certfleet.install.drivers import connections as connections_module
from certfleet.install.installer import Installer
from certfleet.install.probe import served
from certfleet.models import Fault
from certfleet.settings import Settings
from certfleet.store import Store
from tests.hosts.field import Field, field
from tests.hosts.receiving import configure
from tests.hosts.relay import relay
from tests.install.certificates import item, name_of

BAD, GOOD = "web1", "web2"
APPS = ("blog", "shop")


@pytest.fixture
async def two(short_directory: Path, settings: Settings, store: Store) -> AsyncIterator[Field]:
    """Two hosts that serve two apps, the first generation everywhere."""
    del store
    async with field(short_directory, settings, 2) as running:
        for app in APPS:
            await running.add(app)
        await running.reload()
        await running.issue(*APPS)
        await running.run()
        yield running


async def first(two: Field) -> dict[str, str]:
    """The serials that are served before anything happens."""
    return {app: await serial(two, app, BAD) for app in APPS}


async def serial(two: Field, app: str, host: str) -> str:
    """What a handshake sees."""
    found = await served(two.hosts[host].address, two.port, name_of(app))
    assert found is not None, f"{app} is not served on {host} at all"
    return found


async def kept_the_old(two: Field, old: dict[str, str], new: dict[str, Item], fault: Fault) -> None:
    """It serves what it served, its tree says the same, and the state whose fault it is; the other has the new."""
    for app in APPS:
        assert await serial(two, app, BAD) == old[app]
        assert two.current(app, BAD) == 1
        known = await two.one(app, BAD)
        assert (known.wanted, known.installed, known.fault) == (2, 1, fault), known
        assert known.retry_at is not None
        assert (await two.one(app, GOOD)).served == 2
        await two.proven(app, GOOD, new[app].serial)


async def comes_through(two: Field, new: dict[str, Item]) -> None:
    """When whatever it was has gone, the next try installs and proves the new one."""
    for app in APPS:
        known = await two.again(app, BAD)
        assert (known.served, known.installed, known.error) == (2, 2, None)
        await two.proven(app, BAD, new[app].serial)
        assert two.current(app, BAD) == 2
    assert leftovers(two) == set()


def leftovers(two: Field) -> set[str]:
    """What a finished run leaves in the root besides the apps and the lock."""
    return {path.name for path in two.machine(BAD).root_path.glob(".*")} - {".lock"}


async def test_a_host_that_is_down(two: Field) -> None:
    """No sshd, but nginx serves on: the old one stays, and the other host is not held up."""
    old = await first(two)
    await two.bench.driver(two.hosts[BAD]).status(two.hosts[BAD])  # its kept connection dies with sshd
    await two.machine(BAD).stop_sshd()
    new = await two.issue(*APPS)
    await two.run()
    await kept_the_old(two, old, new, Fault.DOWN)
    assert "cannot be reached" in ((await two.one("blog", BAD)).error or "")
    await two.machine(BAD).start_sshd()
    await comes_through(two, new)


@pytest.mark.parametrize("known", [True, False], ids=["on a kept connection", "on a new connection"])
async def test_a_host_that_hangs(two: Field, monkeypatch: pytest.MonkeyPatch, known: bool) -> None:  # noqa: FBT001
    """A connection is taken up and nothing ever comes: given up after a while, and the other host is not held up."""
    monkeypatch.setattr(opening, "LOGIN", 0.5)
    monkeypatch.setattr(connections_module, "OPEN", 0.5)
    old = await first(two)
    if not known:
        await two.machine(BAD).stop_sshd()
        await two.machine(BAD).start_sshd()
    await two.machine(BAD).hang()
    new = await two.issue(*APPS)
    await two.run()
    await kept_the_old(two, old, new, Fault.DOWN)
    await two.machine(BAD).wake()
    await comes_through(two, new)


async def test_a_host_that_nothing_comes_back_from(two: Field, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its cable is pulled: no refusal, no answer, not even a goodbye."""
    monkeypatch.setattr(opening, "CONNECT", 0.5)
    monkeypatch.setattr(opening, "LOGIN", 0.5)
    monkeypatch.setattr(connections_module, "OPEN", 0.5)
    old = await first(two)
    await two.machine(BAD).unplug()
    new = await two.issue(*APPS)
    await two.run()
    await two.machine(BAD).plug()
    await kept_the_old(two, old, new, Fault.DOWN)
    await comes_through(two, new)


async def test_a_full_disk(two: Field) -> None:
    """No room for the archive: nothing of the batch is used, nothing stays, and the answer says what is full."""
    old = await first(two)
    await two.machine(BAD).small_disk(56)
    new = await two.issue(*APPS)
    await two.run()
    await kept_the_old(two, old, new, Fault.UNFIT)
    assert "is the disk full?" in ((await two.one("blog", BAD)).error or "")
    await two.machine(BAD).reload_nginx()
    await kept_the_old(two, old, new, Fault.UNFIT)
    await two.machine(BAD).mended()
    await comes_through(two, new)


async def test_a_read_only_root(two: Field) -> None:
    """As after a disk's error: nothing can be written, and the answer says where."""
    old = await first(two)
    await two.machine(BAD).read_only()
    new = await two.issue(*APPS)
    await two.run()
    await kept_the_old(two, old, new, Fault.UNFIT)
    assert two.machine(BAD).root in ((await two.one("blog", BAD)).error or "")
    await two.machine(BAD).mended()
    await comes_through(two, new)


async def test_no_permission_to_reload(two: Field) -> None:
    """The kernel refuses the signal: everything is put back, and a later reload still finds the old one."""
    old = await first(two)
    machine = two.machine(BAD)
    nginx = " ".join(machine.reload_command)
    configure(machine, {"reload": f"setpriv --reuid=65534 --clear-groups {nginx}"})
    new = await two.issue(*APPS)
    await two.run()
    await kept_the_old(two, old, new, Fault.REFUSED)
    assert "Operation not permitted" in ((await two.one("blog", BAD)).error or "")
    await machine.reload_nginx()
    await kept_the_old(two, old, new, Fault.REFUSED)
    configure(machine, {})
    await comes_through(two, new)


async def test_broken_before_we_came(two: Field) -> None:
    """Somebody else's mistake: we say so and touch nothing, so that it is found where it is."""
    old = await first(two)
    machine = two.machine(BAD)
    before = [(path, path.lstat().st_mtime_ns) for path in sorted(machine.root_path.rglob("[!.]*"))]
    machine.break_nginx()
    new = await two.issue(*APPS)
    await two.run()
    await kept_the_old(two, old, new, Fault.UNFIT)
    error = (await two.one("blog", BAD)).error or ""
    assert "was broken before we came" in error
    assert "no_such_directive" in error
    assert [
        (path, path.lstat().st_mtime_ns)
        for path in sorted(machine.root_path.rglob("[!.]*"))
        if path != machine.root_path
    ] == [entry for entry in before if entry[0] != machine.root_path]
    machine.mend_nginx()
    await comes_through(two, new)


async def test_broken_by_one_apps_certificate(two: Field) -> None:
    """One app's chain is refused: it keeps what it had, the other goes live in the same run, with one reload."""
    old = await first(two)
    before = two.machine(BAD).reloads()
    nonsense = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
    new = {app: item(app, 2, port=two.port, listen=two.hosts[BAD].address) for app in APPS}
    chain = new["blog"].fullchain
    bad = dataclasses.replace(new["blog"], fullchain=chain[: chain.index("-----BEGIN", 10)] + nonsense)
    answer = await two.bench.driver(two.hosts[BAD]).install(two.hosts[BAD], [bad, new["shop"]])
    assert (answer.apps["blog"].state, answer.apps["blog"].generation) == (State.FAILED, 1)
    assert answer.apps["shop"].state is State.INSTALLED
    await two.proven("blog", BAD, old["blog"])
    await two.proven("shop", BAD, new["shop"].serial)
    assert two.machine(BAD).reloads() - before == answer.reloads == 1


async def test_a_reload_that_does_not_take(two: Field) -> None:
    """The command says it is done, and the endpoint shows the old one: it is put back, and said."""
    old = await first(two)
    configure(two.machine(BAD), {"reload": "true"})
    new = await two.issue(*APPS)
    await two.run()
    await kept_the_old(two, old, new, Fault.UNSERVED)
    assert f"serves serial {old['blog']}" in ((await two.one("blog", BAD)).error or "")
    configure(two.machine(BAD), {})
    await comes_through(two, new)


async def test_a_changed_host_key(two: Field) -> None:
    """Nothing is sent to whoever shows another key, not even who we are; what to do is said, and nothing is guessed."""
    old = await first(two)
    machine = two.machine(BAD)
    await machine.stop_sshd()
    machine.new_host_key()
    await machine.start_sshd()
    logins = machine.sessions()
    new = await two.issue(*APPS)
    await two.run()
    await kept_the_old(two, old, new, Fault.DOWN)
    error = (await two.one("blog", BAD)).error or ""
    assert "shows the host key SHA256:" in error
    assert "certfleet host" in error
    assert machine.sessions() == logins
    await two.change_host(BAD, host_keys=(machine.host_key,))
    await comes_through(two, new)


EARLY = 200  # bytes: about what opening a session takes


@pytest.mark.parametrize("room", [EARLY, 1_500, 6_000, 12_000, 20_000])
async def test_a_connection_cut_in_the_middle_of_the_tar(two: Field, room: int) -> None:
    """Half a bundle is never used, however much of it came; the next visit sends it again."""
    old = await first(two)
    address = two.hosts[BAD].address
    async with relay(address, two.machine(BAD).ssh_port) as wire:
        await two.change_host(BAD, login=f"root@127.0.0.1:{wire.port}")
        host = two.hosts[BAD]
        await two.bench.driver(host).status(host)
        wire.cut_after = room
        new = await two.issue(*APPS)
        await two.run()
        await kept_the_old(two, old, new, Fault.DOWN)
        error = (await two.one("blog", BAD)).error or ""
        # So early the session may not have begun: then another connection is tried, and cut as well.
        assert "connection broke" in error or (room == EARLY and "closed it again" in error)
        await two.machine(BAD).reload_nginx()
        await kept_the_old(two, old, new, Fault.DOWN)
        wire.cut_after = None
        await comes_through(two, new)


async def test_two_workers_on_one_host_at_once(two: Field) -> None:
    """Two processes with two newer generations each: one after the other on the host, and the newest one stays."""
    host = two.hosts[BAD]
    installer = Installer(two.bench.fleet.store, two.bench.vault)
    batches = [
        [item(app, generation, port=two.port, listen=host.address) for app in APPS] for generation in (2, 3, 4, 5)
    ]
    async with Drivers(installer) as one, Drivers(installer) as other:
        answers = await asyncio.gather(
            *(
                worker.of(host).install(host, batch)
                for worker, batch in zip((one, other, one, other), batches, strict=True)
            )
        )
    for answer, batch in zip(answers, batches, strict=True):
        for new in batch:
            said = answer.apps[new.app]
            assert said.state in (State.INSTALLED, State.STALE)
            assert said.generation >= new.generation
    for new in batches[-1]:
        assert two.current(new.app, BAD) == new.generation
        await two.proven(new.app, BAD, new.serial)
    assert leftovers(two) == set()


async def test_an_older_generation_that_comes_late(two: Field) -> None:
    """A worker that was asleep over a renewal: the newer one stays, and the answer says so."""
    host = two.hosts[BAD]
    new = await two.issue(*APPS)
    await two.run()
    late = [item(app, 1, port=two.port, listen=host.address) for app in APPS]
    answer = await two.bench.driver(host).install(host, late)
    assert {(said.state, said.generation) for said in answer.apps.values()} == {(State.STALE, 2)}
    assert answer.reloads == 0
    for app in APPS:
        await two.proven(app, BAD, new[app].serial)
