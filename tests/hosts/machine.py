"""One host of the rig: its files, its sshd and its nginx, and what can happen to it."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from tests.hosts.configurations import NGINX, SITE, SSHD
from tests.hosts.namespaces import START, Place, run
from tests.processes import descendants

ROOT = "/var/lib/certfleet/installed"

# Signal, process: from the top down, so that nobody notices a child's end and starts another.
_SIGNAL = """
each() {
    children=$(cat "/proc/$2/task/$2/children" 2>/dev/null)
    kill "-$1" "$2" 2>/dev/null
    for child in $children; do (each "$1" "$child"); done
}
each "$1" "$2"
:
"""


@dataclass(slots=True, eq=False)
class Machine:
    """A host. Paths are as the host has them; `path` says where this machine finds them."""

    name: str
    directory: Path
    """Files of ours about it: what its sshd says, and, without namespaces, its own files."""
    address: str
    gateway: str
    """Where the host finds this machine: for the responder that its nginx asks."""
    ssh_port: int
    http_port: int
    tls_port: int
    place: Place | None
    """Its namespaces; None where the machine does not allow them."""
    host_key: str = ""
    """Its public key in OpenSSH's one line, without a comment: `ssh-ed25519 AAAA…`."""
    _servers: list[asyncio.subprocess.Process] = field(default_factory=list, repr=False)
    """Without namespaces: what we started."""

    # ------------------------------------------------------------------------------------------ where things are

    @property
    def at(self) -> str:
        """What stands before every path of the host: nothing, in namespaces."""
        return "" if self.place else str(self.directory)

    def inside(self, path: str) -> str:
        """The path as programs on the host use it."""
        return self.at + path

    def path(self, path: str) -> Path:
        """Where this machine finds the host's path."""
        return Path(f"{self.place.root if self.place else self.directory}{path}")

    @property
    def root(self) -> str:
        """For `Host.root`."""
        return self.inside(ROOT)

    @property
    def root_path(self) -> Path:
        """The same, for this machine."""
        return self.path(ROOT)

    @property
    def enter(self) -> tuple[str, ...]:
        """What goes before a command that is to run on the host."""
        return self.place.enter if self.place else ()

    @property
    def nginx(self) -> tuple[str, ...]:
        """The host's nginx: in namespaces, as Debian sets it up."""
        program = which("nginx")
        if self.place:
            return (program,)
        return (program, "-c", self.inside("/etc/nginx/nginx.conf"), "-e", self.inside("/var/log/nginx/error.log"))

    @property
    def test_command(self) -> tuple[str, ...]:
        """For `Host.test_command`."""
        return (*self.nginx, "-t", "-q")

    @property
    def reload_command(self) -> tuple[str, ...]:
        """For `Host.reload_command`."""
        return (*self.nginx, "-s", "reload")

    @property
    def listen(self) -> str:
        """For `Item.listen` and the property: in namespaces, every address of the host is its own."""
        return "" if self.place else self.address

    @property
    def _http(self) -> str:
        return str(self.http_port) if self.place else f"{self.address}:{self.http_port}"

    @property
    def login(self) -> str:
        """For `Host.login`: who may log in, and where."""
        user = "root" if os.geteuid() == 0 else Path.home().owner()
        return f"{user}@{self.address}:{self.ssh_port}"

    @property
    def first_processes(self) -> list[int]:
        """Every process of the host is one of these or descends from one, as this machine counts."""
        return [self.place.pid] if self.place else [server.pid for server in self._servers]

    async def run(self, *command: str, text: str = "") -> str:
        """Run a command on the host, as root there; what it printed."""
        return await run(*self.enter, *command, text=text)

    # ------------------------------------------------------------------------------------------ setting up

    async def furnish(self, public_key: str) -> None:
        """Files and keys, before anything runs. `public_key` may log in."""
        for directory in ("/etc/ssh", "/etc/nginx/conf.d", "/etc/nginx/sites-enabled", "/run", "/var/log/nginx"):
            self.path(directory).mkdir(parents=True, exist_ok=True)
        if self.place:
            for old in self.path("/etc/nginx/sites-enabled").iterdir():
                old.unlink()  # Debian's own default site
            for name in (".bashrc", ".bash_profile", ".profile"):
                # What root of this machine runs at each login is nothing of the host's; bash reads it for each command.
                self.path(f"/root/{name}").unlink(missing_ok=True)
        self.path("/root/.ssh").mkdir(mode=0o700, parents=True, exist_ok=True)
        self.path("/var/lib/nginx").mkdir(mode=0o755, parents=True, exist_ok=True)
        if os.geteuid() == 0:
            # sshd wants it, Debian's unit makes it; in namespaces it is the host's own already.
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        self.new_host_key()
        self.path("/root/.ssh/authorized_keys").write_text(f"{public_key}\n")
        here = bool(self.place)
        self.path("/etc/ssh/sshd_config").write_text(
            SSHD.format(
                at=self.at,
                address=self.address,
                port=self.ssh_port,
                keys=".ssh/authorized_keys" if here else self.inside("/root/.ssh/authorized_keys"),
                pam="yes" if here else "no",
                strict="yes" if here else "no",
            )
        )
        user = "" if os.geteuid() else f"user {'www-data' if here else 'root'};\n"
        self.path("/etc/nginx/nginx.conf").write_text(NGINX.format(at=self.at, user=user, http=self._http))
        self.path("/var/log/nginx/error.log").write_text("")

    def new_host_key(self) -> None:
        """Another host key, as after a reinstallation; sshd shows it from its next start on."""
        key = ed25519.Ed25519PrivateKey.generate()
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
        )
        public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
        file = self.path("/etc/ssh/ssh_host_ed25519_key")
        file.unlink(missing_ok=True)
        file.touch(mode=0o600)
        file.write_bytes(private)
        self.host_key = public.decode()

    def add_site(self, app: str, server_names: Sequence[str], snippet: str) -> None:
        """A server block with the snippet in it; in force after the next reload."""
        text = SITE.format(
            http=self._http,
            server_names=" ".join(server_names),
            snippet=snippet,
            app=app,
            host=self.name,
        )
        self.path(f"/etc/nginx/sites-enabled/{app}.conf").write_text(text)

    # ------------------------------------------------------------------------------------------ what runs

    async def start(self) -> None:
        """Start both servers, and wait until they answer."""
        await self.start_sshd()
        await self.start_nginx()

    async def start_sshd(self) -> None:
        """Start sshd, and wait until it answers and has written its PID file: it listens before that."""
        options = ("-f", self.inside("/etc/ssh/sshd_config"), "-E", self.inside("/var/log/sshd.log"))
        await self._start(which("sshd"), *options, foreground=("-D",), port=self.ssh_port)
        async with asyncio.timeout(START):
            while not self._pid("/run/sshd.pid"):  # noqa: ASYNC110
                await asyncio.sleep(0.02)

    async def start_nginx(self) -> None:
        """Start nginx, and wait until it answers and has its worker.

        It listens before that: a master that is killed then leaves a worker behind, and one that is told to reload
        forgets it, because it does not wait for signals yet.
        """
        before = self._said("start worker process ")
        await self._start(*self.nginx, foreground=("-g", "daemon off;"), port=self.http_port)
        async with asyncio.timeout(START):
            while self._said("start worker process ") == before:  # noqa: ASYNC110
                await asyncio.sleep(0.02)

    async def _start(self, *command: str, foreground: tuple[str, ...], port: int) -> None:
        if self.place:
            await run(*self.enter, *command)
        else:
            # Nothing but this would end it with a test that was killed.
            process = await asyncio.create_subprocess_exec(
                *("setpriv", "--pdeathsig", "TERM", "--", *command, *foreground),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.DEVNULL,
                start_new_session=True,
            )
            self._servers.append(process)
        async with asyncio.timeout(START):
            while True:
                with suppress(OSError):
                    _, writer = await asyncio.open_connection(self.address, port)
                    writer.transport.abort()
                    return
                await asyncio.sleep(0.02)

    async def stop_sshd(self) -> None:
        """End sshd and every session, in the middle of whatever they do."""
        await self._signal("/run/sshd.pid", signal.SIGKILL)
        await self._refused(self.ssh_port)

    async def stop_nginx(self) -> None:
        """End nginx at once."""
        await self._signal("/run/nginx.pid", signal.SIGKILL)
        await self._refused(self.http_port)

    async def _refused(self, port: int) -> None:
        """Wait until nobody listens there: sshd's newest child, forked as its parent died, has yet to let go of it."""
        async with asyncio.timeout(START):
            while True:
                try:
                    _, writer = await asyncio.open_connection(self.address, port)
                except ConnectionRefusedError:
                    return
                except ConnectionResetError:  # it dies just now
                    continue
                writer.transport.abort()
                await asyncio.sleep(0.02)

    async def reload_nginx(self) -> None:
        """The operator's own test and reload, and the wait until they are in force."""
        before = self.reloads()
        await self.run(*self.test_command)
        await self.run(*self.reload_command)
        await self.settled(before + 1)

    async def settled(self, reloads: int = 0) -> None:
        """Wait until so many reloads, and every one that was begun, are over: the processes before answer no more."""
        async with asyncio.timeout(START):
            while not reloads <= self.reloads() <= self._said("gracefully shutting down"):  # noqa: ASYNC110
                await asyncio.sleep(0.02)

    def reloads(self) -> int:
        """How often nginx took up a new configuration since it started, by its own error log."""
        return self._said("(SIGHUP) received from")

    def _said(self, words: str) -> int:
        return self.path("/var/log/nginx/error.log").read_text(errors="replace").count(words)

    def sessions(self) -> int:
        """How often somebody logged in, by sshd's own log."""
        return self.path("/var/log/sshd.log").read_text(errors="replace").count("Accepted publickey for")

    def commands(self) -> int:
        """How many commands were asked for over SSH, by sshd's own log."""
        return self.path("/var/log/sshd.log").read_text(errors="replace").count("Starting session: ")

    # ------------------------------------------------------------------------------------------ what can happen

    async def down(self) -> None:
        """The host is there, and nothing on it answers: connections are refused."""
        await self.stop_sshd()
        await self.stop_nginx()

    async def up(self) -> None:
        """Both servers again."""
        await self.start()

    async def hang(self) -> None:
        """Connections to sshd are taken up by the kernel, and nobody ever answers; sessions stand still."""
        await self._signal("/run/sshd.pid", signal.SIGSTOP)

    async def wake(self) -> None:
        """Go on after `hang`."""
        await self._signal("/run/sshd.pid", signal.SIGCONT)

    async def unplug(self) -> None:
        """Nothing goes in or out any more, and nobody is told."""
        await self._needs_place().unplug()

    async def plug(self) -> None:
        """Join it again."""
        await self._needs_place().plug()

    async def small_disk(self, kilobytes: int) -> None:
        """The root on a disk of its own with so much room; what was there is there, if it fits."""
        self._needs_place()
        self.root_path.mkdir(mode=0o700, parents=True, exist_ok=True)
        script = (
            'new=$(mktemp -d) && mount -t tmpfs -o "mode=0700,size=$2k" small "$new" && cp -a "$1/." "$new/" '
            '&& mount --move "$new" "$1"'
        )
        await self.run("sh", "-c", script, "sh", ROOT, str(kilobytes))

    async def read_only(self) -> None:
        """The root cannot be written to, not even by root."""
        self._needs_place()
        self.root_path.mkdir(mode=0o700, parents=True, exist_ok=True)
        await self.run("mount", "--bind", ROOT, ROOT)
        await self.run("mount", "-o", "remount,bind,ro", ROOT)

    async def mended(self) -> None:
        """Undo `small_disk` (what was written there is lost) or `read_only`."""
        await self.run("umount", "--lazy", ROOT)

    def break_nginx(self) -> None:
        """Somebody made a mistake in the configuration, and has not reloaded yet."""
        self.path("/etc/nginx/sites-enabled/mistake.conf").write_text("no_such_directive;\n")

    def mend_nginx(self) -> None:
        """And found it."""
        self.path("/etc/nginx/sites-enabled/mistake.conf").unlink()

    def _needs_place(self) -> Place:
        if self.place is None:
            pytest.skip("needs network and mount namespaces, which this machine does not allow")
        return self.place

    async def _signal(self, pidfile: str, number: signal.Signals) -> None:
        """To the process that the file names and to its descendants; to nobody when it was ended before."""
        first = self._pid(pidfile)
        if first is None:
            return
        if self.place:
            # Numbers differ between the host and this machine: look for them there.
            await self.run("sh", "-c", _SIGNAL, "sh", number.name.removeprefix("SIG"), str(first))
        else:
            for pid in (first, *descendants(first)):
                with suppress(ProcessLookupError):
                    os.kill(pid, number)
        if number == signal.SIGKILL:
            self.path(pidfile).unlink(missing_ok=True)

    def _pid(self, pidfile: str) -> int | None:
        """Whom it names; None while nobody has written it."""
        try:
            return int(self.path(pidfile).read_text() or 0) or None
        except FileNotFoundError:
            return None

    async def end(self) -> None:
        """Take everything of the host away."""
        if self.place:
            await self.place.end()
        else:
            await self.down()
            for server in self._servers:
                await asyncio.wait_for(server.wait(), START)


def which(program: str) -> str:
    """Where a program is; the rig cannot do without it."""
    found = shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin:/sbin:/usr/bin:/bin")
    assert found is not None, f"{program} is not installed; scripts/test does that"
    return found
