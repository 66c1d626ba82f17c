"""Certificates over a real SSH onto a real nginx; and what happens when the way there is not as it was."""

from __future__ import annotations

import asyncio
import dataclasses
import re
from pathlib import Path

import asyncssh
import pytest

from certfleet.demo.nginx import Nginx
from certfleet.demo.ports import free_port
from certfleet.errors import HostKeyChanged, HostUnreachable, InstallError, LoginRefused
from certfleet.install.answer import State
from certfleet.install.challenge import Answerer
from certfleet.install.drivers import Drivers, connections, opening
from certfleet.install.drivers.connections import Connections
from certfleet.install.drivers.ssh import SSH
from certfleet.install.installer import Installer
from certfleet.install.probe import probe
from certfleet.install.receiver import release
from certfleet.models import Hop, Host
from tests.hosts.relay import relay
from tests.install.certificates import item, name_of
from tests.install.conftest import add_sites, reloaded
from tests.install.sshd import Sshd, running_sshd


async def test_install_roll_back_and_look(nginx: Nginx, web: Host, sshd: Sshd, installer: Installer, ssh: SSH) -> None:
    """What the local driver does, over SSH: two generations go live, one is put back, status tells."""
    far = sshd.serve(web, await installer.public_key())
    await add_sites(nginx, web, "blog")
    first, second = (item("blog", generation, port=nginx.tls_port) for generation in (1, 2))
    for new in (first, second):
        answer = await ssh.install(far, [new])
        assert (answer.apps["blog"].state, answer.reloads, answer.release) == (State.INSTALLED, 1, release())
        await probe("127.0.0.1", nginx.tls_port, name_of("blog"), new.serial, patience=30)
    answer = await ssh.rollback(far, {"blog": 1})
    assert answer.apps["blog"].state is State.ROLLED_BACK
    await probe("127.0.0.1", nginx.tls_port, name_of("blog"), first.serial, patience=30)
    assert (await ssh.status(far)).apps["blog"].serial == first.serial


async def test_challenges(sshd: Sshd, plain: Host, installer: Installer, ssh: SSH, tmp_path: Path) -> None:
    """The same key publishes and withdraws challenges and writes snippets, in the directories that the host names."""
    webroot = tmp_path / "webroot"
    far = sshd.serve(dataclasses.replace(plain, webroot=str(webroot)), await installer.public_key())
    await ssh.publish(far, {"token": f"token.{'a' * 43}"})
    assert [path.name for path in webroot.rglob("*") if path.is_file()] == ["token"]
    await ssh.withdraw(far, ["token"])
    assert [path.name for path in webroot.rglob("*") if path.is_file()] == []
    answer = await ssh.snippet(far, [Answerer("blog", "b" * 43, (name_of("blog"),))])
    assert answer.apps["blog"].state is State.INSTALLED
    assert "b" * 43 in (Path(plain.root) / "challenges.d" / "blog.conf").read_text()


async def test_one_connection_for_many_sessions(sshd: Sshd, far: Host, ssh: SSH) -> None:
    """Ten visits, five of them at once, are ten commands one after the other on one connection."""
    for generation in range(1, 6):
        await ssh.install(far, [item("blog", generation)])
    await asyncio.gather(*(ssh.status(far) for _ in range(5)))
    assert (sshd.logins(), sshd.commands()) == (1, 10)


async def test_an_idle_connection_is_closed(
    sshd: Sshd, far: Host, ssh: SSH, kept: Connections, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody keeps a connection that nobody uses; the next visit opens another."""
    monkeypatch.setattr(connections, "IDLE", 0.05)
    await ssh.status(far)
    async with asyncio.timeout(20):
        while kept._lines or "Received disconnect" not in sshd.log():  # noqa: ASYNC110  another program's log
            await asyncio.sleep(0.02)
    await ssh.status(far)
    assert sshd.logins() == 2


async def test_a_connection_that_died_is_opened_anew(sshd: Sshd, far: Host, ssh: SSH) -> None:
    """Sshd was restarted between two visits: the second notices nothing."""
    await ssh.status(far)
    await sshd.stop()
    await sshd.start()
    assert (await ssh.install(far, [item("blog")])).apps["blog"].state is State.INSTALLED
    assert sshd.logins() == 2


async def test_a_connection_that_died_without_a_word(
    sshd: Sshd, far: Host, ssh: SSH, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A firewall forgot the connection: nothing comes back on it, and the visit goes on with a new one."""
    monkeypatch.setattr(connections, "OPEN", 0.3)
    async with relay("127.0.0.1", sshd.port) as way:
        through = dataclasses.replace(far, login=far.login.replace(str(sshd.port), str(way.port)))
        await ssh.status(through)
        way.silent = way.connections
        assert (await ssh.status(through)).apps == {}
        assert sshd.logins() == 2


async def test_a_changed_host_key(sshd: Sshd, far: Host, ssh: SSH, root: Path) -> None:
    """Nothing is sent; the sentence has both fingerprints and the command that trusts the new one."""
    old = opening.fingerprint(asyncssh.import_public_key(far.host_keys[0]))
    await sshd.stop()
    new = sshd.new_host_key()
    await sshd.start()
    with pytest.raises(HostKeyChanged) as caught:
        await ssh.install(far, [item("blog")])
    assert f"shows the host key {new} and not {old}" in str(caught.value)
    assert f"certfleet host trust plain --fingerprint {new}" in str(caught.value)
    assert (sshd.logins(), root.exists()) == (0, False)
    trusted = dataclasses.replace(far, host_keys=(sshd.host_key,))
    assert (await ssh.install(trusted, [item("blog")])).apps["blog"].state is State.INSTALLED


async def test_another_kind_of_key_is_a_changed_key(sshd: Sshd, far: Host, ssh: SSH) -> None:
    """A host that has no key of the pinned kind any more is not taken for one that does not speak SSH."""
    rsa = asyncssh.generate_private_key("ssh-rsa").export_public_key().decode()
    pinned = " ".join(rsa.split()[:2])
    with pytest.raises(HostKeyChanged, match="shows the host key SHA256"):
        await ssh.status(dataclasses.replace(far, host_keys=(pinned,)))
    assert sshd.logins() == 0


async def test_a_host_without_a_pinned_key(far: Host, ssh: SSH) -> None:
    """Never trusted by chance."""
    with pytest.raises(HostKeyChanged, match=r"no host key of .* is known"):
        await ssh.status(dataclasses.replace(far, host_keys=()))


async def test_a_host_that_is_down(far: Host, ssh: SSH) -> None:
    """It says which host, where, and that nothing listens."""
    down = dataclasses.replace(far, login=f"root@127.0.0.1:{free_port()}")
    with pytest.raises(HostUnreachable, match=r"host plain: root@127\.0\.0\.1:\d+ cannot be reached"):
        await ssh.status(down)


async def test_a_name_that_does_not_resolve(far: Host, ssh: SSH) -> None:
    """It says that it is the name."""
    with pytest.raises(HostUnreachable, match=r"nowhere\.invalid cannot be resolved"):
        await ssh.status(dataclasses.replace(far, login="root@nowhere.invalid"))


async def test_a_host_that_hangs(far: Host, ssh: SSH, monkeypatch: pytest.MonkeyPatch) -> None:
    """Something takes the connection and never speaks: the visit ends, and others were not held up by it."""
    await ssh.status(far)
    monkeypatch.setattr(opening, "CONNECT", 1.0)
    monkeypatch.setattr(opening, "LOGIN", 1.0)
    async with relay("127.0.0.1", int(far.login.rpartition(":")[2])) as silent:
        silent.silent = 100
        hanging = dataclasses.replace(far, name="hanging", login=f"root@127.0.0.1:{silent.port}")
        visit = asyncio.create_task(ssh.status(hanging))
        for _ in range(3):
            await ssh.status(far)
        with pytest.raises(HostUnreachable, match="did not answer as SSH in time"):
            await visit


async def test_a_key_that_is_not_let_in(sshd: Sshd, far: Host, ssh: SSH) -> None:
    """It says how the key gets there."""
    (sshd.directory / "authorized_keys").write_text("")
    with pytest.raises(LoginRefused, match="certfleet host setup plain"):
        await ssh.status(far)


async def test_a_key_without_its_restriction(sshd: Sshd, plain: Host, installer: Installer, ssh: SSH) -> None:
    """Where the receiver was not set up, no other program's word is taken for its answer."""
    sshd.allow(await installer.public_key(), "restrict")
    with pytest.raises(InstallError, match="certfleet host setup plain"):
        await ssh.install(sshd.seen_as(plain), [item("blog")])


async def test_start_up_files_that_talk(sshd: Sshd, plain: Host, installer: Installer, ssh: SSH) -> None:
    """What a login shell prints before the receiver's answer is passed over."""
    sshd.serve(plain, await installer.public_key())
    keys = sshd.directory / "authorized_keys"
    keys.write_text(keys.read_text().replace('command="sh', 'command="echo Welcome; echo {; sh'))
    assert (await ssh.status(sshd.seen_as(plain))).apps == {}


async def test_a_run_that_does_not_end(far: Host, sshd: Sshd, ssh: SSH, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is given up, with the likely reason, and the next visit is on a new connection."""
    conf = sshd.directory / "receiver.conf"
    before = conf.read_text()
    conf.write_text(before.replace("test=true", "test=sleep 3"))
    monkeypatch.setattr(connections, "RUN", 0.5)
    new = item("blog")
    with pytest.raises(InstallError, match="`install` was not done after"):
        await ssh.install(far, [new])
    conf.write_text(before)
    monkeypatch.setattr(connections, "RUN", 60.0)
    # The run that was given up may have come to its end there.
    assert (await ssh.install(far, [new])).apps["blog"].state in (State.INSTALLED, State.UNCHANGED)
    assert sshd.logins() == 2


async def test_cut_in_the_middle(sshd: Sshd, far: Host, root: Path, ssh: SSH) -> None:
    """Wherever the connection breaks while a bundle is on its way: nothing or all of it is there, never half."""
    await ssh.install(far, [item("blog", 1), item("shop", 1)])
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    batch = [item("blog", 2), item("shop", 2)]
    async with relay("127.0.0.1", sshd.port) as way:
        through = dataclasses.replace(far, login=far.login.replace(str(sshd.port), str(way.port)))
        await ssh.status(through)
        for sent in (1_000, 5_000, 9_000, 13_000, 17_000):
            way.cut_after = None
            await ssh.status(through)
            way.cut_after = sent
            with pytest.raises(HostUnreachable, match="it is sent again"):
                await ssh.install(through, batch)
            # A run that was cut off ends by itself; the next waits for it.
            answer = await ssh.status(far)
            assert {app.generation for app in answer.apps.values()} == {1}
        way.cut_after = None
        assert {path: path.read_bytes() for path in before} == before
        answer = await ssh.install(through, batch)
    assert {app.state for app in answer.apps.values()} == {State.INSTALLED}
    assert {path.name for path in root.glob(".*")} <= {".lock"}


async def test_no_more_sessions_at_once_than_allowed(
    sshd: Sshd, plain: Host, installer: Installer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Six hosts are visited by a process that may visit two at once."""
    monkeypatch.setattr(connections, "SESSIONS", 2)
    note = tmp_path / "note"
    note.touch()
    talking = dataclasses.replace(
        plain, test_command=("sh", "-c", f"echo + >>{note}; sleep 0.1; echo - >>{note}"), reload_command=("true",)
    )
    far = sshd.serve(talking, await installer.public_key())
    limited = Connections(installer)
    driver = SSH(limited)
    hosts = [dataclasses.replace(far, name=f"web{n}") for n in range(6)]
    # Another way to the same machine is another connection.
    async with (
        relay("127.0.0.1", sshd.port) as one,
        relay("127.0.0.1", sshd.port) as two,
        relay("127.0.0.1", sshd.port) as three,
    ):
        ways = [one, two, three]
        several = [
            dataclasses.replace(host, login=host.login.replace(str(sshd.port), str(ways[n % 3].port)))
            for n, host in enumerate(hosts)
        ]
        await asyncio.gather(*(driver.check(host) for host in several))
        await limited.close()
    running = most = 0
    for sign in note.read_text().split():
        running += 1 if sign == "+" else -1
        most = max(most, running)
    assert most <= 2
    assert sshd.logins() == 3


async def test_a_jump_host(tmp_path: Path, sshd: Sshd, far: Host, installer: Installer, ssh: SSH) -> None:
    """Through a machine that lets the key forward and nothing else; its key is pinned too, its connection shared."""
    async with running_sshd(tmp_path / "jump") as jump:
        jump.allow(await installer.public_key(), f'restrict,port-forwarding,permitopen="127.0.0.1:{sshd.port}"')
        behind = dataclasses.replace(far, jump=(Hop(jump.login, (jump.host_key,)),))
        other = dataclasses.replace(behind, name="other")
        assert (await ssh.install(behind, [item("blog")])).apps["blog"].state is State.INSTALLED
        await ssh.status(other)
        assert (jump.logins(), sshd.logins()) == (1, 1)
        await jump.stop()
        with pytest.raises(HostUnreachable, match=re.escape(jump.login)):
            await ssh.status(behind)
        new = jump.new_host_key()
        await jump.start()
        with pytest.raises(HostKeyChanged, match=re.escape(f"{jump.login} shows the host key {new}")):
            await ssh.status(behind)


async def test_check_remove_and_clean_up(nginx: Nginx, web: Host, sshd: Sshd, installer: Installer, ssh: SSH) -> None:
    """The other verbs: points for a person, old generations go, an app's files are taken away."""
    far, root = sshd.serve(web, await installer.public_key()), Path(web.root)
    points = {point.name: point for point in (await ssh.check(far, reload=True)).points}
    assert await reloaded(nginx, 1)
    assert all(point.ok for point in points.values()), points
    assert set(points) == {"configuration", "web server", "configuration test", "reload", "root", "key on host"}
    for generation in (1, 2, 3, 4):
        await ssh.install(far, [item("blog", generation), item("shop", generation)])
    answer = await ssh.cleanup(far, 2)
    assert answer.apps["blog"].message == "1 generations deleted"
    assert sorted(path.name for path in (root / "blog").glob("[1-9]*")) == ["3", "4"]
    answer = await ssh.remove(far, ["blog", "never-there"])
    assert {app.state for app in answer.apps.values()} == {State.REMOVED}
    assert not (root / "blog").exists()
    assert (root / "shop" / "current" / "privkey.pem").exists()


async def test_drivers_close_what_they_opened(sshd: Sshd, far: Host, installer: Installer) -> None:
    """A process that ends leaves no connection behind."""
    async with Drivers(installer) as drivers:
        await drivers.of(far).status(far)
    async with asyncio.timeout(20):
        while "Received disconnect" not in sshd.log():  # noqa: ASYNC110  another program's log
            await asyncio.sleep(0.02)
