"""A generation that is current already: its files are put right where somebody changed them, and nothing else is."""

from __future__ import annotations

import asyncio
import dataclasses
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from certfleet.demo.nginx import Nginx
from certfleet.errors import InstallError
from certfleet.install.answer import State
from certfleet.install.bundle import Item
from certfleet.install.drivers import local
from certfleet.install.probe import fingerprints, probe
from certfleet.models import Host
from tests.install.certificates import item, name_of
from tests.install.conftest import add_sites
from tests.install.killer import LINES, killable, state_of, with_killer
from tests.install.test_receiver_killed import Machine, fake


def files(root: Path, app: str = "blog") -> dict[str, bytes]:
    """What is current for an app."""
    return {path.name: path.read_bytes() for path in (root / app / "current" / ".").iterdir()}


@pytest.mark.usefixtures("shell")
class TestThreeWays:
    """With dash and with busybox."""

    @pytest.mark.parametrize("change", ["content", "one more", "one fewer"])
    async def test_changed_files(self, plain: Host, root: Path, change: str) -> None:
        """Whatever was changed: what certfleet put there is there again, and the web server is reloaded for it."""
        same = item("blog", 3)
        await local.install(plain, [same])
        right = files(root)
        match change:
            case "content":
                (root / "blog" / "3" / "chain.pem").write_text("something else")
            case "one more":
                (root / "blog" / "3" / "nginx-mine.conf").write_text("return 204;")
            case _:
                (root / "blog" / "3" / "nginx.conf").unlink()
        answer = await local.install(plain, [same])
        blog = answer.apps["blog"]
        assert (blog.state, blog.generation, blog.previous, answer.reloads) == (State.INSTALLED, 3, 3, 1)
        assert files(root) == right
        assert sorted(path.name for path in (root / "blog").iterdir()) == [".certfleet", "3", "current"]

    @pytest.mark.parametrize("generation", [3, 4])
    async def test_a_file_that_the_web_server_needs(self, nginx: Nginx, web: Host, root: Path, generation: int) -> None:
        """Without the key nginx would not start any more: the same generation puts it back, and so does a newer one."""
        await add_sites(nginx, web, "blog", "shop")
        old, other = item("blog", 3, port=nginx.tls_port), item("shop", port=nginx.tls_port)
        await local.install(web, [old, other])
        (root / "blog" / "3" / "privkey.pem").unlink()
        new = old if generation == old.generation else item("blog", generation, port=nginx.tls_port)
        answer = await local.install(web, [new, item("shop", 2, port=nginx.tls_port)])
        assert {said.state for said in answer.apps.values()} == {State.INSTALLED}
        assert answer.reloads == 1
        await probe("127.0.0.1", nginx.tls_port, name_of("blog"), new.serial, patience=30)

    async def test_what_is_broken_elsewhere_is_not_blamed_on_it(self, nginx: Nginx, web: Host, root: Path) -> None:
        """Its key is missing, and something else is wrong too: it is told, and the other app's files are untouched."""
        await add_sites(nginx, web, "blog", "shop")
        old, other = item("blog", 3, port=nginx.tls_port), item("shop", port=nginx.tls_port)
        await local.install(web, [old, other])
        (root / "blog" / "3" / "privkey.pem").unlink()
        nginx.add_site("broken", ["broken.example.test"], "no_such_directive;")
        answer = await local.install(web, [old, item("shop", 2, port=nginx.tls_port)])
        assert {said.state for said in answer.apps.values()} == {State.BROKEN_BEFORE}
        assert (root / "shop" / "current").readlink() == Path("1")
        (nginx.directory / "sites" / "broken.conf").unlink()
        assert (await local.install(web, [old])).apps["blog"].state is State.INSTALLED
        await probe("127.0.0.1", nginx.tls_port, name_of("blog"), old.serial, patience=30)

    async def test_asked_again(self, plain: Host, root: Path) -> None:
        """The files are right and the endpoint is not: one reload, only for whom it is asked for."""
        same, other = item("blog", 3), item("shop", 1)
        await local.install(plain, [same, other])
        right = files(root)
        answer = await local.install(plain, [dataclasses.replace(same, again=True), other])
        assert (answer.apps["blog"].state, answer.apps["shop"].state) == (State.INSTALLED, State.UNCHANGED)
        assert answer.reloads == 1
        assert files(root) == right

    async def test_what_the_test_refuses_stays_as_it_was_found(self, plain: Host, root: Path) -> None:
        """The web server does not start with what certfleet would put there: what was found is back, all of it."""
        same = item("blog", 3)
        await local.install(plain, [same])
        (root / "blog" / "3" / "chain.pem").write_text("mine")
        picky = dataclasses.replace(plain, test_command=("grep", "-q", "mine", str(root / "blog" / "3" / "chain.pem")))
        answer = await local.install(picky, [same, item("shop")])
        assert answer.apps["blog"].state is State.FAILED
        assert answer.apps["blog"].generation == 3
        assert answer.apps["shop"].state is State.INSTALLED
        assert (root / "blog" / "current" / "chain.pem").read_text() == "mine"

    async def test_a_failing_reload_brings_what_was_found_back(self, plain: Host, root: Path) -> None:
        same = item("blog", 3)
        await local.install(plain, [same])
        (root / "blog" / "3" / "chain.pem").write_text("mine")
        answer = await local.install(dataclasses.replace(plain, reload_command=("false",)), [same])
        assert (answer.apps["blog"].state, answer.pending) == (State.FAILED, True)
        assert (root / "blog" / "current" / "chain.pem").read_text() == "mine"
        again = await local.install(plain, [same])
        assert (again.apps["blog"].state, again.pending) == (State.INSTALLED, False)

    async def test_a_reload_that_is_owed_outlives_a_run_that_switches_nothing(self, plain: Host, root: Path) -> None:
        """The reload fails, and the test refuses what comes next: the reload is owed to the first app still."""
        await local.install(plain, [item("blog")])
        broken = dataclasses.replace(plain, reload_command=("false",))
        assert (await local.install(broken, [item("blog", 2)])).pending
        picky = dataclasses.replace(broken, test_command=("sh", "-c", f"[ ! -e {root}/shop/current ]"))
        answer = await local.install(picky, [item("shop")])
        assert (answer.apps["shop"].state, answer.pending) == (State.FAILED, True)
        answer = await local.rollback(plain, {"blog": 1})
        assert (answer.apps["blog"].state, answer.reloads, answer.pending) == (State.UNCHANGED, 1, False)

    async def test_a_configuration_that_our_changed_files_broke(self, nginx: Nginx, web: Host, root: Path) -> None:
        """Another key beside our certificate, and nginx would not start: that is put right, and the rest goes on."""
        await add_sites(nginx, web, "blog", "shop")
        same, other = item("blog", 1, port=nginx.tls_port), item("shop", 1, port=nginx.tls_port)
        await local.install(web, [same])
        await probe("127.0.0.1", nginx.tls_port, name_of("blog"), same.serial, patience=30)
        (root / "blog" / "1" / "privkey.pem").write_bytes(item("wiki").private_key)
        before = nginx.reloads()
        answer = await local.install(web, [same, other])
        assert {app.state for app in answer.apps.values()} == {State.INSTALLED}
        # nginx notes a reload when it takes it up, which is later than the answer.
        await probe("127.0.0.1", nginx.tls_port, name_of("shop"), other.serial, patience=30)
        assert nginx.reloads() - before == 1
        await probe("127.0.0.1", nginx.tls_port, name_of("blog"), same.serial, patience=30)

    async def test_a_configuration_that_was_broken_otherwise(self, nginx: Nginx, web: Host, root: Path) -> None:
        """What was changed by hand stays as well when it is not to blame: nothing is touched then."""
        await add_sites(nginx, web, "blog")
        same = item("blog", 1, port=nginx.tls_port)
        await local.install(web, [same])
        (root / "blog" / "1" / "chain.pem").write_text("mine")
        nginx.add_site("broken", ["broken.example.test"], "no_such_directive;")
        answer = await local.install(web, [same, item("shop", 1, port=nginx.tls_port)])
        assert {app.state for app in answer.apps.values()} == {State.BROKEN_BEFORE}
        assert (root / "blog" / "current" / "chain.pem").read_text() == "mine"
        assert not (root / ".pending").exists()


async def test_a_chain_that_is_not_sent_is_found(nginx: Nginx, web: Host, root: Path) -> None:
    """The right certificate without its intermediate is not good enough; with it, it is."""
    await add_sites(nginx, web, "blog")
    new = item("blog", 1, port=nginx.tls_port)
    await local.install(web, [new])
    leaf, end, chain = new.fullchain.partition("-----END CERTIFICATE-----\n")
    await probe("127.0.0.1", nginx.tls_port, name_of("blog"), new.serial, fingerprints(chain), patience=30)
    (root / "blog" / "1" / "fullchain.pem").write_text(leaf + end)
    await nginx.reload()
    with pytest.raises(InstallError, match="without its chain: 0 of 1 intermediates are sent"):
        await _often(nginx, new, fingerprints(chain))
    await probe("127.0.0.1", nginx.tls_port, name_of("blog"), new.serial, patience=30)


async def _often(nginx: Nginx, new: Item, chain: tuple[str, ...]) -> None:
    """Until nginx's old processes are gone."""
    for _ in range(50):
        await probe("127.0.0.1", nginx.tls_port, name_of("blog"), new.serial, chain, patience=0)
        await asyncio.sleep(0.05)


def changed(directory: Path, path: str, *, bad: bool) -> Machine:
    """Blog in place, its files changed by hand since; `bad`: so that the configuration test fails."""
    directory.mkdir()
    machine = Machine(directory, path)
    machine.install(fake("blog", 1))
    name = "privkey.pem" if bad else "cert.pem"
    file = machine.root / "blog" / "1" / name
    file.write_text(file.read_text().replace("blog 1", "blog 1 BAD"))
    return machine


def survive(template: Machine, place: Path, line: int, batch: list[Item], seen: set[str]) -> bool:
    """Kill before a line, then run with something else, then with the same again; whether it was killed."""
    script = place.with_suffix(".sh")
    script.write_text(with_killer(line, 1))
    machine = template.copy(place)
    status, _ = machine.run(script, *batch)
    state = state_of(machine.root)
    if state in seen:  # the next run starts from the same tree as after another kill, which has been tried
        return status == -9
    seen.add(state)
    other = machine.copy(place.with_suffix(".other"))
    other.install(fake("other", 1))
    assert other.current()["blog"] == 1, "blog is never without its files after the next run, whatever that installs"
    machine.install(*batch)
    assert machine.current() == machine.served() == {"blog": 1, "news": 1}
    assert "BAD" not in (machine.root / "blog" / "current" / "privkey.pem").read_text()
    assert "BAD" not in (machine.root / "blog" / "current" / "cert.pem").read_text()
    assert machine.leftovers() == set()
    assert sorted(path.name for path in (machine.root / "blog").iterdir()) == [".certfleet", "1", "current"]
    return status == -9


@pytest.mark.parametrize(("name", "bad"), [("dash", False), ("busybox", True)], ids=["harmless", "broken"])
def test_killed_while_it_puts_right(name: str, shells: dict[str, str], tmp_path: Path, *, bad: bool) -> None:
    """After a kill before any line that switches: the next run finds a tree it can go on from."""
    template = changed(tmp_path / "template", shells[name], bad=bad)
    batch = [fake("blog", 1), fake("news", 1)]
    switching = range(LINES.index("discard() {"), LINES.index("rollback() {"))
    lines = killable(switching)
    seen: set[str] = set()
    with ThreadPoolExecutor(3) as pool:
        killed = list(pool.map(lambda line: survive(template, tmp_path / str(line), line, batch, seen), lines))
    assert sum(killed) > 30
    assert len(seen) > 8
