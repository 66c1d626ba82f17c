"""A real sshd of the test's own, on loopback, that lets in one key for the receiver and nothing else."""

from __future__ import annotations

import asyncio
import getpass
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import asyncssh

from certfleet.demo.ports import free_port
from certfleet.install.receiver import program as receiver
from certfleet.install.setup import configuration
from certfleet.models import Host
from tests.processes import descendants

START = 10.0  # seconds for sshd to listen

_CONFIGURATION = """\
ListenAddress 127.0.0.1:{port}
HostKey {directory}/host_key
PidFile {directory}/pid
AuthorizedKeysFile {directory}/authorized_keys
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
UsePAM no
StrictModes no
LogLevel VERBOSE
Subsystem sftp internal-sftp
"""


@dataclass(slots=True)
class Sshd:
    """One sshd; start and stop it as often as the test likes."""

    directory: Path
    port: int
    host_key: str = ""
    """Its public key, "type base64"."""
    _process: asyncio.subprocess.Process | None = field(default=None, repr=False)

    @property
    def login(self) -> str:
        """Who may log in, and where."""
        return f"{getpass.getuser()}@127.0.0.1:{self.port}"

    def new_host_key(self) -> str:
        """Another host key, shown from the next start on; its fingerprint."""
        key = asyncssh.generate_private_key("ssh-ed25519")
        file = self.directory / "host_key"
        file.touch(mode=0o600)
        file.write_bytes(key.export_private_key())
        self.host_key = " ".join(key.export_public_key().decode().split()[:2])
        return key.get_fingerprint()

    def allow(self, public_key: str, options: str) -> None:
        """Let a key in, with these options of authorized_keys."""
        with (self.directory / "authorized_keys").open("a") as file:
            file.write(f"{options} {public_key}\n")

    def serve(self, host: Host, public_key: str) -> Host:
        """Do by hand what `certfleet host setup` does; the host as it is reached by SSH."""
        program_file, settings = self.directory / "receiver.sh", self.directory / "receiver.conf"
        program_file.write_text(receiver())
        settings.write_text(configuration(host))
        self.allow(public_key, f'command="sh {program_file} serve {settings}",restrict')
        return self.seen_as(host)

    def seen_as(self, host: Host) -> Host:
        """The host, reached by this sshd."""
        return Host(
            name=host.name,
            driver="ssh",
            preset=host.preset,
            root=host.root,
            test_command=host.test_command,
            reload_command=host.reload_command,
            login=self.login,
            host_keys=(self.host_key,),
        )

    async def start(self) -> None:
        """Start it, and wait until it listens."""
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # where its children lock themselves in
        options = ("-D", "-f", str(self.directory / "sshd_config"), "-E", str(self.directory / "log"))
        self._process = await asyncio.create_subprocess_exec(
            *("setpriv", "--pdeathsig", "TERM", "--", _sshd(), *options),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
        async with asyncio.timeout(START):
            while True:
                with suppress(OSError):
                    _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                    writer.transport.abort()
                    return
                assert self._process.returncode is None, self.log()
                await asyncio.sleep(0.02)

    async def stop(self) -> None:
        """End it and every session: whoever is connected notices."""
        if self._process is None or self._process.returncode is not None:
            return
        for pid in (self._process.pid, *descendants(self._process.pid)):
            with suppress(ProcessLookupError):
                os.kill(pid, 9)
        await self._process.wait()

    def log(self) -> str:
        """What it says."""
        return (self.directory / "log").read_text(errors="replace")

    def logins(self) -> int:
        """How many connections were let in so far."""
        return self.log().count("Accepted publickey for")

    def commands(self) -> int:
        """How many commands were run so far."""
        return self.log().count("Starting session: ")


def _sshd() -> str:
    found = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    assert found is not None, "sshd is not installed; scripts/test does that"
    return found  # sshd insists on its absolute path: it runs itself anew for each connection


@asynccontextmanager
async def running_sshd(directory: Path) -> AsyncIterator[Sshd]:
    """Run an sshd that lets nobody in yet."""
    directory.mkdir(parents=True)
    sshd = Sshd(directory, free_port())
    sshd.new_host_key()
    (directory / "authorized_keys").touch(mode=0o600)
    (directory / "log").touch()
    (directory / "sshd_config").write_text(_CONFIGURATION.format(port=sshd.port, directory=directory))
    await sshd.start()
    try:
        yield sshd
    finally:
        await sshd.stop()
