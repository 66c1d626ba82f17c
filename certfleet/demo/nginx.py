"""A private nginx on loopback, for the demo and the tests: real, but nobody else's."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from certfleet.errors import ConfigurationError

START = 10.0  # seconds for nginx to listen
STOP = 5.0  # seconds between the request to end and the kill

# As root, nginx's workers would change to an account that may not enter the 0700 working directory, where the
# temporary files are; on loopback, with nothing to serve but a line of text, they may as well stay root.
_CONFIGURATION = """\
daemon off;
{user}worker_processes 1;
pid {directory}/nginx.pid;
error_log {directory}/error.log notice;
events {{ worker_connections 512; }}
http {{
    access_log off;
    client_body_temp_path {directory}/temporary/body;
    proxy_temp_path {directory}/temporary/proxy;
    fastcgi_temp_path {directory}/temporary/fastcgi;
    uwsgi_temp_path {directory}/temporary/uwsgi;
    scgi_temp_path {directory}/temporary/scgi;
    server_names_hash_bucket_size 128;
    server_names_hash_max_size 8192;
    default_type text/plain;
    server {{
        listen {address}:{http_port} default_server;
        server_name _;
        return 404;
    }}
    include {directory}/sites/*.conf;
}}
"""

_SITE = """\
server {{
    listen {address}:{http_port};
    server_name {server_names};
    {snippet}
    location / {{ return 200 "{name}\\n"; }}
}}
"""


@dataclass(frozen=True, slots=True)
class Nginx:
    """A running nginx."""

    directory: Path
    http_port: int
    tls_port: int
    """Where sites are to have their TLS: for `Item.port`, with `Item.listen` the address."""
    test_command: tuple[str, ...]
    reload_command: tuple[str, ...]
    pid: int
    address: str = "127.0.0.1"

    def add_site(self, name: str, server_names: Sequence[str], snippet: str) -> None:
        """A server block with the snippet in it; in force after the next reload."""
        text = _SITE.format(
            address=self.address,
            http_port=self.http_port,
            server_names=" ".join(server_names),
            snippet=snippet,
            name=name,
        )
        (self.directory / "sites" / f"{name}.conf").write_text(text)

    async def reload(self) -> None:
        """Test, reload, and wait until the new configuration is in force. Raises ConfigurationError."""
        before = self._said(": reconfiguring")
        for command in (self.test_command, self.reload_command):
            process = await asyncio.create_subprocess_exec(
                *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
            )
            output, _ = await asyncio.wait_for(process.communicate(), START)
            if process.returncode:
                raise ConfigurationError(f"the private nginx refuses its configuration: {output.decode().strip()}")
        async with asyncio.timeout(START):
            # Until its worker has stopped listening, the old configuration still answers at times.
            while not before < self._said(": reconfiguring") <= self._said("gracefully shutting down"):  # noqa: ASYNC110  the sign is a line in another program's log
                await asyncio.sleep(0.01)

    def _said(self, words: str) -> int:
        """How often the error log has these words."""
        return (self.directory / "error.log").read_text(errors="replace").count(words)

    def reloads(self) -> int:
        """How often the master process took up a new configuration since it started (from its error log)."""
        return self._said("(SIGHUP) received from")


@asynccontextmanager
async def private_nginx(
    directory: Path, *, http_port: int, tls_port: int, address: str = "127.0.0.1"
) -> AsyncIterator[Nginx]:
    """Run nginx in `directory` on two ports of a loopback address until the block ends; it dies with its owner.

    Raises ConfigurationError when nginx is not installed or does not start.
    """
    program = _find("nginx", package="nginx-light")
    for part in ("sites", "temporary"):
        (directory / part).mkdir(mode=0o700, parents=True, exist_ok=True)
    configuration = directory / "nginx.conf"
    user = "user root;\n" if os.geteuid() == 0 else ""
    configuration.write_text(
        _CONFIGURATION.format(directory=directory, address=address, http_port=http_port, user=user)
    )
    log = directory / "error.log"
    log.write_text("")
    base = (program, "-p", str(directory), "-c", str(configuration), "-e", str(log))
    process = await asyncio.create_subprocess_exec(
        # The kernel ends nginx in order when its owner goes, even by kill -9.
        *(_find("setpriv", package="util-linux"), "--pdeathsig", "TERM"),
        *base,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        await _listening(process, address, http_port, log)
        yield Nginx(
            directory=directory,
            http_port=http_port,
            tls_port=tls_port,
            test_command=(*base, "-t", "-q"),
            reload_command=(*base, "-s", "reload"),
            pid=process.pid,
            address=address,
        )
    finally:
        await _stop(process)


def _find(program: str, *, package: str) -> str:
    found = shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin:/sbin:/usr/bin")
    if found is None:
        raise ConfigurationError(f"{program} is not installed on this machine; install the package {package}")
    return found


async def _listening(process: asyncio.subprocess.Process, address: str, port: int, log: Path) -> None:
    deadline = asyncio.get_running_loop().time() + START
    while True:
        if process.returncode is not None or asyncio.get_running_loop().time() > deadline:
            raise ConfigurationError(f"the private nginx does not start: {_why(log)}")
        with suppress(OSError):
            _, writer = await asyncio.open_connection(address, port)
            writer.close()
            # Somebody else's server may answer on this port; only ours has written its pid.
            if (log.parent / "nginx.pid").is_file():
                return
        await asyncio.sleep(0.02)


def _why(log: Path) -> str:
    complaints = [line for line in log.read_text(errors="replace").splitlines() if "[emerg]" in line]
    return complaints[0] if complaints else f"look at {log}"


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    with suppress(ProcessLookupError):
        process.terminate()
    try:
        await asyncio.wait_for(process.wait(), STOP)
    except TimeoutError:
        process.kill()
        await process.wait()
