"""The rig itself: hosts that are really there, that break as told, and that leave nothing behind."""

from __future__ import annotations

import asyncio
import errno
import signal
import sys
from pathlib import Path

import pytest

from certfleet.install.probe import probe, served
from certfleet.install.snippet import snippet
from certfleet.models import App, Host
from tests.hosts.fleet import Hosts, hosts
from tests.hosts.machine import Machine
from tests.hosts.namespaces import allowed
from tests.hosts.relay import relay
from tests.install.certificates import item, name_of
from tests.processes import descendants

LIMIT = 60.0


async def ssh(fleet: Hosts, machine: Machine, *command: str) -> tuple[int | None, str]:
    """OpenSSH's client: exit status and output."""
    process = await asyncio.create_subprocess_exec(
        *fleet.ssh(machine, *command),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await asyncio.wait_for(process.communicate(), LIMIT)
    return process.returncode, output.decode()


def put(machine: Machine, app: str, serial_of: int = 1) -> str:
    """Lay a certificate down where the snippet's include finds it; its serial."""
    one = item(app, serial_of, port=machine.tls_port, listen=machine.listen)
    place = machine.root_path / app / "current"
    place.mkdir(parents=True)
    (place / "fullchain.pem").write_text(one.fullchain)
    (place / "privkey.pem").write_bytes(one.private_key)
    current = f"{machine.root}/{app}/current"
    (place / "nginx.conf").write_text(
        f"listen {machine.listen}{':' * bool(machine.listen)}{machine.tls_port} ssl;\n"
        f"ssl_certificate {current}/fullchain.pem;\nssl_certificate_key {current}/privkey.pem;\n"
    )
    return one.serial


async def test_each_host_is_its_own(where: str, short_directory: Path) -> None:
    """SSH lands on the host with its own key, its own files and its own nginx, which serves its own certificate."""
    async with hosts(short_directory / "hosts", 2) as fleet:
        assert len({machine.address for machine in fleet.machines}) == 2
        assert len({machine.host_key for machine in fleet.machines}) == 2
        for machine in fleet.machines:
            machine.root_path.parent.mkdir(parents=True, exist_ok=True)
            (machine.root_path.parent / "who").write_text(machine.name)
            status, told = await ssh(fleet, machine, "cat", f"{machine.root.rpartition('/')[0]}/who")
            assert (status, told) == (0, machine.name)
            if where == "namespaces":
                assert await ssh(fleet, machine, "hostname") == (0, f"{machine.name}\n")
            host = Host(machine.name, address=machine.address, root=machine.root)
            app = App("blog", (name_of("blog"),), (machine.name,))
            machine.add_site("blog", app.identifiers, snippet(app, host, machine.gateway, 8402))
            serial = put(machine, "blog")
            before = machine.reloads()
            await machine.reload_nginx()
            assert machine.reloads() == before + 1
            await probe(machine.address, machine.tls_port, name_of("blog"), serial)
        assert fleet[0].sessions() >= 1


async def test_another_host_key_is_refused(three: Hosts) -> None:
    """OpenSSH itself notices that the key is not the pinned one: the rig's keys are real."""
    machine = three[0]
    pinned = machine.host_key
    await machine.stop_sshd()
    machine.new_host_key()
    await machine.start_sshd()
    assert (await ssh(three, machine, "true"))[0] == 0
    machine.host_key = pinned
    status, told = await ssh(three, machine, "true")
    assert status != 0
    assert "REMOTE HOST IDENTIFICATION HAS CHANGED" in told


async def test_down_and_up(three: Hosts) -> None:
    """Both ports refuse, the neighbours go on, and the host comes back."""
    await three[0].down()
    for port in (three[0].ssh_port, three[0].http_port):
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(three[0].address, port)
    assert (await ssh(three, three[1], "true"))[0] == 0
    await three[0].up()
    assert (await ssh(three, three[0], "true"))[0] == 0


async def test_hang_and_wake(three: Hosts) -> None:
    """A connection is taken up, and no greeting comes until the host wakes up."""
    await three[0].hang()
    reader, writer = await asyncio.wait_for(asyncio.open_connection(three[0].address, three[0].ssh_port), 10)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reader.readline(), 0.5)
    await three[0].wake()
    assert (await asyncio.wait_for(reader.readline(), 10)).startswith(b"SSH-2.0-")
    writer.close()


async def test_unplug_and_plug(three: Hosts) -> None:
    """No answer at all, not even a refusal, until it is joined again."""
    await three[0].unplug()
    try:
        with pytest.raises((TimeoutError, OSError)) as refused:
            await asyncio.wait_for(asyncio.open_connection(three[0].address, three[0].ssh_port), 1)
        assert not isinstance(refused.value, ConnectionRefusedError)
    finally:
        await three[0].plug()
    assert (await ssh(three, three[0], "true"))[0] == 0


async def test_disks(three: Hosts) -> None:
    """A small root fills up, a read-only one takes nothing, for root as well; afterwards it is as it was."""
    machine = three[0]
    machine.root_path.mkdir(parents=True)
    (machine.root_path / "old").write_text("old")
    await machine.small_disk(64)
    assert (machine.root_path / "old").read_text() == "old"
    with pytest.raises(OSError, match="No space") as full:
        (machine.root_path / "new").write_bytes(bytes(100_000))
    assert full.value.errno == errno.ENOSPC
    await machine.mended()
    await machine.read_only()
    status, told = await ssh(three, machine, "touch", f"{machine.root}/new")
    assert status == 1
    assert "Read-only file system" in told
    await machine.mended()
    (machine.root_path / "new").write_text("new")
    assert sorted(file.name for file in machine.root_path.iterdir()) == ["new", "old"]


async def test_broken_nginx(three: Hosts) -> None:
    """The test fails, what runs goes on."""
    three[0].break_nginx()
    with pytest.raises(AssertionError, match="no_such_directive"):
        await three[0].reload_nginx()
    three[0].mend_nginx()
    await three[0].reload_nginx()
    assert await served(three[0].address, three[0].tls_port, "nobody.example.test") is None


async def test_a_wire_that_is_cut(three: Hosts) -> None:
    """So many bytes arrive at the host, and then the connection is gone at both ends."""
    async with relay(three[0].address, three[0].ssh_port) as wire:
        wire.cut_after = 4096
        reader, writer = await asyncio.open_connection("127.0.0.1", wire.port)
        assert (await reader.readline()).startswith(b"SSH-2.0-")
        writer.write(bytes(100_000))
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await asyncio.wait_for(reader.readexactly(100_000), 10)
        writer.close()
        assert wire.connections == 1


_OWNER = """
import asyncio, os, pathlib, signal, sys
from tests.hosts.fleet import hosts
async def main():
    async with hosts(pathlib.Path(sys.argv[1]), 2) as fleet:
        print(fleet[0].place.pid, fleet[0].place.interface, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""


@pytest.mark.skipif(not allowed(), reason="this machine does not allow namespaces")
async def test_nothing_stays_behind(short_directory: Path) -> None:
    """Neither processes nor interfaces nor mounts: not after the block, and not after a test that was killed."""
    async with hosts(short_directory / "hosts", 2) as fleet:
        assert fleet[0].place is not None
        left = [(fleet[0].place.pid, fleet[0].place.interface)]
        assert descendants(fleet[0].place.pid)
    owner = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _OWNER, str(short_directory / "killed")),
        stdout=asyncio.subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    output, _ = await asyncio.wait_for(owner.communicate(), LIMIT)
    assert owner.returncode == -signal.SIGKILL
    pid, interface = output.decode().split()
    left.append((int(pid), interface))
    async with asyncio.timeout(LIMIT):
        for init, link in left:
            while Path(f"/proc/{init}").exists() or Path(f"/sys/class/net/{link}").exists():  # noqa: ASYNC110
                await asyncio.sleep(0.05)
    assert str(short_directory) not in Path("/proc/mounts").read_text()
