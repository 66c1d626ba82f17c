"""`certfleet host add`, `trust`, `setup`: a person, this machine's SSH, and hosts as Debian sets them up."""

from __future__ import annotations

import asyncssh
import pytest

from certfleet.errors import InstallError
from certfleet.install.answer import State
from certfleet.install.installer import Installer
from certfleet.models import Host
from certfleet.vault import Vault
from tests.hosts import namespaces
from tests.hosts.desk import Desk, fingerprint
from tests.hosts.dokku import as_dokku
from tests.hosts.machine import Machine
from tests.install.certificates import item

pytestmark = pytest.mark.skipif(not namespaces.allowed(), reason="set-up writes to /etc and /usr/local of a host")


async def test_a_host_is_added_with_its_key(desk: Desk) -> None:
    """Without a terminal nothing is guessed: the key is shown, and only its fingerprint adds the host."""
    web1 = desk.hosts[0]
    words = ("host", "add", "web1", "--ssh", web1.login)
    assert f"--fingerprint {fingerprint(web1)}" in await desk.refused(*words)
    other = asyncssh.generate_private_key("ssh-ed25519").get_fingerprint()
    said = await desk.refused(*words, "--fingerprint", other)
    assert other in said
    assert fingerprint(web1) in said
    assert await desk.client.hosts() == []
    await desk.add("--zone", "dmz")
    [host] = await desk.client.hosts()
    assert host == Host(
        "web1",
        driver="ssh",
        address=web1.address,
        login=f"root@{web1.address}",
        host_keys=(web1.host_key,),
        zone="dmz",
    )
    assert web1.sessions() == 0, "nobody had to log in for that"


async def test_set_up_as_root(desk: Desk) -> None:
    """One command makes the host ready; what the person had is untouched, and doing it again changes nothing."""
    web1 = desk.hosts[0]
    await desk.add()
    assert "login" in await desk.failing()
    theirs = web1.path("/root/.ssh/authorized_keys").read_text()
    said = await desk.done("host", "setup", "web1")
    assert "FAILS" not in said
    keys = web1.path("/root/.ssh/authorized_keys")
    assert keys.read_text().startswith(theirs)
    assert keys.read_text().count("\n") == theirs.count("\n") + 1
    assert 'command="/usr/local/lib/certfleet/receiver.sh serve",restrict ssh-ed25519 ' in keys.read_text()
    assert (await desk.done("host", "key")).split()[1] in keys.read_text()
    assert (keys.stat().st_mode & 0o777, keys.stat().st_uid) == (0o600, 0)
    settings = web1.path("/etc/certfleet/receiver.conf")
    assert settings.stat().st_mode & 0o777 == 0o644
    before = keys.read_text(), settings.read_text()
    await desk.done("host", "setup", "web1")
    assert (keys.read_text(), settings.read_text()) == before
    host = await desk.client.host("web1")
    async with await desk.driver() as drivers:
        answer = await drivers.of(host).install(host, [item("blog", listen="")])
    assert answer.apps["blog"].state is State.INSTALLED
    assert await desk.failing("--reload") == {}


async def test_set_up_with_a_user_of_its_own(desk: Desk) -> None:
    """A user that may do one thing: log in with that key, and run the receiver as root."""
    web1 = desk.hosts[0]
    await desk.add()
    await desk.done("host", "setup", "web1", "--user", "certfleet")
    host = await desk.client.host("web1")
    assert host.login == f"certfleet@{web1.address}"
    async with await desk.driver() as drivers:
        answer = await drivers.of(host).install(host, [item("blog", listen="")])
        assert answer.apps["blog"].state is State.INSTALLED
    assert await desk.failing("--reload") == {}
    rules = [
        line.strip() for line in (await web1.run("sudo", "-l", "-U", "certfleet")).splitlines() if "(root)" in line
    ]
    assert rules == ["(root) NOPASSWD: /usr/local/lib/certfleet/receiver.sh serve"]
    become = ("setpriv", "--reuid=certfleet", "--regid=certfleet", "--clear-groups", "sh", "-c")
    for attempt in (
        "sudo -n id",
        "sudo -n /usr/local/lib/certfleet/receiver.sh status --root /etc",
        "sudo -n /usr/local/lib/certfleet/receiver.sh serve /tmp/mine.conf",
        "sudo -n --preserve-env=PATH /usr/local/lib/certfleet/receiver.sh serve",
        "echo >>/etc/certfleet/home/.ssh/authorized_keys",
        "echo >>/etc/certfleet/receiver.conf",
        "cat /var/lib/certfleet/installed/blog/current/privkey.pem",
    ):
        said = await web1.run(*become, f"({attempt}) >/dev/null 2>&1 && echo done || echo refused")
        assert said == "refused\n", attempt
    # Its own key opens nothing for it, so a later set-up is somebody else's.
    await desk.refused("host", "setup", "web1", status=1)
    await desk.done("host", "setup", "web1", "--as", "root")


async def test_a_host_that_was_set_up_anew(desk: Desk) -> None:
    """It is left alone until a person says that the new key is the host's."""
    web1 = desk.hosts[0]
    await desk.add()
    await desk.done("host", "setup", "web1")
    old = fingerprint(web1)
    assert "pinned already" in await desk.done("host", "trust", "web1")
    await web1.stop_sshd()
    web1.new_host_key()
    await web1.start_sshd()
    [(name, said)] = (await desk.failing()).items()
    assert name == "host key"
    assert f"{fingerprint(web1)} and not {old}" in said
    await desk.refused("host", "setup", "web1", status=1)
    await desk.refused("host", "trust", "web1")
    await desk.refused("host", "trust", "web1", "--fingerprint", old)
    await desk.done("host", "trust", "web1", "--fingerprint", fingerprint(web1))
    assert await desk.failing() == {}


async def add_user(machine: Machine, name: str) -> None:
    """A user who is nobody special, and lets the person in."""
    await machine.run("useradd", "--create-home", "--shell", "/bin/bash", "--password", "*", name)
    await machine.run("sh", "-c", f"cp -r /root/.ssh /home/{name}/ && chown -R {name} /home/{name}/.ssh")


async def second_sshd(machine: Machine) -> str:
    """Another sshd of the machine, that only the machine itself can reach: on 127.0.0.1 port 2222; its fingerprint."""
    key = asyncssh.generate_private_key("ssh-ed25519")
    machine.path("/etc/ssh/inner_key").touch(mode=0o600)
    machine.path("/etc/ssh/inner_key").write_bytes(key.export_private_key())
    settings = machine.path("/etc/ssh/sshd_config").read_text()
    for ours, other in (
        (f"{machine.address}:{machine.ssh_port}", "127.0.0.1:2222"),
        ("ssh_host_ed25519_key", "inner_key"),
        ("sshd.pid", "inner.pid"),
    ):
        assert ours in settings
        settings = settings.replace(ours, other)
    machine.path("/etc/ssh/inner_config").write_text(settings)
    await machine.run("/usr/sbin/sshd", "-f", "/etc/ssh/inner_config")
    return key.get_fingerprint()


async def test_a_jump_host_from_the_persons_configuration(desk: Desk) -> None:
    """~/.ssh/config names both; what it says is kept, so that workers without that file find the way."""
    [near] = desk.hosts.machines
    inner = await second_sshd(near)
    await add_user(near, "jumper")
    (desk.home / ".ssh" / "config").write_text(
        f"Host far\n  HostName 127.0.0.1\n  Port 2222\n  ProxyJump jumper@near\nHost near\n  HostName {near.address}\n"
    )
    first, second = ("--fingerprint", fingerprint(near)), ("--fingerprint", inner)
    await desk.refused("host", "add", "web1", "--ssh", "root@far", *first)
    await desk.refused("host", "add", "web1", "--ssh", "root@far", *second, *first)
    await desk.done("host", "add", "web1", "--ssh", "root@far", *first, *second)
    host = await desk.client.host("web1")
    assert (host.login, [hop.login for hop in host.jump]) == ("root@127.0.0.1:2222", [f"jumper@{near.address}"])
    await desk.done("host", "setup", "web1", status=1)
    # The jump host is the person's own: they let the fleet's key through there, to this host alone.
    assert 'permitopen="127.0.0.1:2222"' in (await desk.failing())["login"]
    key = await desk.done("host", "key")
    with near.path("/home/jumper/.ssh/authorized_keys").open("a") as file:
        file.write(f'restrict,port-forwarding,permitopen="127.0.0.1:2222" {key}')
    assert await desk.failing() == {}


async def test_set_up_without_root(desk: Desk) -> None:
    """Somebody who may not become root is told so, and nothing is half done."""
    web1 = desk.hosts[0]
    await desk.add()
    await add_user(web1, "guest")
    said = await desk.refused("host", "setup", "web1", "--as", "guest", status=1)
    assert "sudo" in said
    assert not web1.path("/usr/local/lib/certfleet").exists()
    await web1.run("sh", "-c", "echo 'guest ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/guest")
    await desk.done("host", "setup", "web1", "--as", "guest")


async def test_the_installer_key_stays_sealed(desk: Desk) -> None:
    """One key for the fleet, whoever asks first; Redis has its private half sealed only."""
    key = await desk.done("host", "key")
    assert await desk.done("host", "key") == key
    everything = "".join(
        [str(await desk.store.redis.get(name)) async for name in desk.store.redis.scan_iter(match="*installer*")]
    )
    assert key.strip() in everything
    assert "PRIVATE KEY" not in everything
    private = await Installer(desk.store, Vault(desk.settings)).private_key()
    assert asyncssh.import_private_key(private).export_public_key().split()[1] == key.split()[1].encode()
    with pytest.raises(InstallError, match="no driver"):
        (await desk.driver()).of(Host("web9", driver="pigeon"))


async def test_a_dokku_host(desk: Desk) -> None:
    """Nothing is set up there: Dokku lets the fleet's key in by its own command, and the check says what works."""
    web1 = desk.hosts[0]
    there = await as_dokku(web1)
    words = ("host", "add", "web1", "--server", "dokku")
    assert "say where to log in" in await desk.refused(*words)
    said = await desk.done(*words, "--ssh", there.login, "--fingerprint", fingerprint(web1))
    assert f"certfleet host key | ssh root@{web1.address} dokku ssh-keys:add certfleet" in said
    host = await desk.client.host("web1")
    assert (host.driver, host.preset, host.login) == ("dokku", "nginx", f"dokku@{web1.address}")
    assert "ssh-keys:add certfleet" in await desk.refused("host", "setup", "web1")
    assert "login" in await desk.failing()
    await there.add_key((await desk.done("host", "key")).strip())
    assert await desk.failing() == {}
    assert {"dokku", "certificates", "going back", "configuration test", "challenge snippet"} <= set(
        await desk.points()
    )
    assert there.violations() == ""
