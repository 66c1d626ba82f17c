"""A private haproxy on loopback: real, but nobody else's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from certfleet.demo.pebble import child
from tests.install.apache import run
from tests.install.conftest import every_program, program

START = 10.0  # seconds for haproxy to listen

_CONFIGURATION = """\
defaults
    mode http
    timeout client 10s
    timeout server 10s
    timeout connect 10s

frontend plain
    bind 127.0.0.1:{http_port}
{challenge}
    default_backend nothing

frontend tls
    bind 127.0.0.1:{idle_port}
{certificate}
    http-request return status 200

backend nothing
    http-request return status 404

{beside}
"""


@dataclass(frozen=True, slots=True)
class Haproxy:
    """A running haproxy."""

    directory: Path
    http_port: int
    tls_port: int
    idle_port: int
    """A frontend without a certificate needs something to listen on."""
    test_command: tuple[str, ...]
    reload_command: tuple[str, ...]
    pid: int

    def configure(self, *, challenge: str = "", certificate: str = "", beside: str = "") -> None:
        """Lines into its frontends; in force after the next reload."""
        (self.directory / "haproxy.cfg").write_text(
            _CONFIGURATION.format(
                http_port=self.http_port,
                idle_port=self.idle_port,
                challenge=challenge,
                certificate=certificate.replace(":443", f"127.0.0.1:{self.tls_port}"),
                beside=beside,
            )
        )

    def _said(self, words: str) -> int:
        return (self.directory / "log").read_text(errors="replace").count(words)

    def reloads(self) -> int:
        """How often the master process was told to reload, as it says."""
        return self._said("Reloading HAProxy")

    async def reload(self) -> None:
        """Test, reload, and wait until the old worker is gone."""
        before = self._said("Loading success")
        gone = self._said("exited with code 0")
        await run(self.test_command)
        await run(self.reload_command)
        async with asyncio.timeout(START):
            while self._said("Loading success") == before or self._said("exited with code 0") == gone:  # noqa: ASYNC110  the sign is a line in another program's log
                await asyncio.sleep(0.02)


@asynccontextmanager
async def private_haproxy(directory: Path, *, http_port: int, tls_port: int, idle_port: int) -> AsyncIterator[Haproxy]:
    """Run haproxy in `directory` on loopback ports until the block ends; it dies with its owner."""
    directory.mkdir(parents=True)
    configuration, log = directory / "haproxy.cfg", directory / "log"
    base = (program("haproxy"), "-f", str(configuration))
    first = Haproxy(directory, http_port, tls_port, idle_port, (), (), 0)
    first.configure()
    async with child((*base, "-W"), log, every_program()) as process:
        haproxy = Haproxy(
            directory=directory,
            http_port=http_port,
            tls_port=tls_port,
            idle_port=idle_port,
            test_command=(*base, "-c"),
            reload_command=("sh", "-c", f"kill -USR2 {process.pid}"),
            pid=process.pid,
        )
        async with asyncio.timeout(START):
            while not haproxy._said("Loading success"):
                assert process.returncode is None, log.read_text()
                await asyncio.sleep(0.02)
        yield haproxy
