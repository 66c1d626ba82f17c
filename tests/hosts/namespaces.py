"""Where the rig's hosts live: namespaces of their own, joined to this machine by a pair of virtual interfaces.

Nothing has a name that could stay behind: a host's namespaces, its mounts and both ends of its link last as long
as its process 1, and the kernel ends that with the test that started it, however the test ends.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import socket
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

BOOT = Path(__file__).with_name("boot.sh")
START = 20.0  # seconds for a host to boot, and for each command in it
# For tests of networks between each other (RFC 2544, section C.2.2): no machine has business there.
SUBNET = "198.18"
_numbers = itertools.count(1)
_subnets: dict[str, socket.socket] = {}


@cache
def allowed() -> bool:
    """Whether this machine lets us make namespaces, mounts and interfaces in them."""
    if os.geteuid() != 0:
        return False
    probe = "mount -t tmpfs none /mnt && ip link add certfleet0 type veth peer name certfleet1"
    command = ["unshare", "--net", "--mount", "--uts", "--pid", "--fork", "--mount-proc", "sh", "-c", probe]
    try:
        return subprocess.run(command, capture_output=True, timeout=START, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def free_subnet() -> str:
    """The first three numbers of a network that no interface of this machine has an address in.

    It is this process's from then on: hosts take their time to boot, and have no address before.
    """
    taken = subprocess.run(["ip", "-o", "-4", "address"], capture_output=True, text=True, check=True, timeout=START)
    for step in range(256):
        subnet = f"{SUBNET}.{(os.getpid() + step) % 256}"
        if f"{subnet}." not in taken.stdout and _hold(subnet):
            return subnet
    raise AssertionError(f"every network in {SUBNET}.0.0/16 is in use; which tests are running?")


def _hold(subnet: str) -> bool:
    """Whether no other process has it; a name among the kernel's abstract sockets ends with its process."""
    if subnet not in _subnets:
        holder = socket.socket(socket.AF_UNIX)
        try:
            holder.bind(f"\0certfleet-subnet-{subnet}")
        except OSError:
            holder.close()
            return False
        _subnets[subnet] = holder
    return True


@dataclass(slots=True)
class Place:
    """One host's namespaces, and the way in."""

    name: str
    gateway: str
    """This machine, as the host sees it."""
    address: str
    process: asyncio.subprocess.Process
    pid: int
    """Process 1 of the host, as this machine counts."""
    interface: str
    """This machine's end of the link."""

    @property
    def enter(self) -> tuple[str, ...]:
        """What goes before a command that is to run in the host."""
        return ("nsenter", "--target", str(self.pid), "--net", "--mount", "--uts", "--pid", "--")

    @property
    def root(self) -> Path:
        """The host's `/`, for this machine."""
        return Path(f"/proc/{self.pid}/root")

    async def unplug(self) -> None:
        """Nothing goes in or out any more, and nobody is told."""
        await run(*self.enter, "ip", "link", "set", "eth0", "down")

    async def plug(self) -> None:
        """Join it again."""
        await run(*self.enter, "ip", "-batch", "-", text=f"link set eth0 up\nroute add default via {self.gateway}\n")

    async def end(self) -> None:
        """Kill process 1; the kernel kills the rest, unmounts, and removes the link."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        await asyncio.wait_for(self.process.wait(), START)
        async with asyncio.timeout(START):
            # The kernel takes the link apart in its own time.
            while Path(f"/sys/class/net/{self.interface}").exists():  # noqa: ASYNC110
                await asyncio.sleep(0.02)


async def place(disk: Path, name: str, subnet: str, number: int) -> Place:
    """Boot a host; its address is the subnet's `number`, from 2 to 254, this machine's the subnet's 1."""
    process = await asyncio.create_subprocess_exec(
        *("setpriv", "--pdeathsig", "KILL", "--"),
        *("unshare", "--net", "--mount", "--uts", "--pid", "--fork", "--kill-child=KILL", "--mount-proc", "--"),
        *("sh", str(BOOT), str(disk), name),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    if await asyncio.wait_for(process.stdout.readline(), START) != b"ready\n":
        raise AssertionError(f"the host does not boot: {(await process.stderr.read()).decode()}")
    pid = int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text())
    made = Place(
        name=name,
        gateway=f"{subnet}.1",
        address=f"{subnet}.{number}",
        process=process,
        pid=pid,
        interface=f"cf{os.getpid()}h{next(_numbers)}",
    )
    try:
        await _join(made)
    except BaseException:
        await made.end()
        raise
    return made


async def _join(made: Place) -> None:
    link, here, there = made.interface, made.gateway, made.address
    outside = [
        f"link add {link} type veth peer name eth0 netns {made.pid}",
        f"address add {here} peer {there}/32 dev {link}",
        f"link set {link} up",
    ]
    inside = [
        "link set lo up",
        f"address add {there} peer {here}/32 dev eth0",
        "link set eth0 up",
        f"route add default via {here}",
    ]
    await run("ip", "-batch", "-", text="\n".join(outside) + "\n")
    await run(*made.enter, "ip", "-batch", "-", text="\n".join(inside) + "\n")


async def run(*command: str, text: str = "") -> str:
    """Run a command to its end; what it printed. Fails with what it complained about."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await asyncio.wait_for(process.communicate(text.encode()), START)
    assert process.returncode == 0, f"{' '.join(command)} ended with {process.returncode}: {output.decode()}"
    return output.decode()
