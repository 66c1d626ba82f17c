"""A private Apache on loopback: real, but nobody else's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from certfleet.demo.pebble import child
from tests.install.conftest import every_program, program

START = 10.0  # seconds for Apache to listen
MODULES = Path("/usr/lib/apache2/modules")
LOADED = ("mpm_event", "authz_core", "alias", "proxy", "proxy_http", "socache_shmcb", "ssl")

_CONFIGURATION = """\
ServerRoot {directory}
ServerName localhost
PidFile {directory}/apache.pid
ErrorLog {directory}/error.log
Mutex file:{directory}
User #65534
Group #65534
StartServers 1
{modules}
Listen 127.0.0.1:{http_port}
Listen 127.0.0.1:{tls_port}
IncludeOptional {directory}/sites/*.conf
"""

_SITE = """\
<VirtualHost 127.0.0.1:{http_port}>
    ServerName {name}
    {challenge}
    {rest}
</VirtualHost>
<IfFile "{file}">
<VirtualHost 127.0.0.1:{tls_port}>
    ServerName {name}
    {certificate}
</VirtualHost>
</IfFile>
"""


@dataclass(frozen=True, slots=True)
class Apache:
    """A running Apache."""

    directory: Path
    http_port: int
    tls_port: int
    test_command: tuple[str, ...]
    reload_command: tuple[str, ...]
    pid: int

    def add_site(self, name: str, *, challenge: str = "", certificate: str = "", rest: str = "") -> None:
        """Two virtual hosts; in force after the next reload."""
        text = _SITE.format(
            http_port=self.http_port,
            tls_port=self.tls_port,
            name=name,
            challenge=challenge,
            certificate=certificate,
            file=certificate.rpartition(" ")[2].strip(),
            rest=rest,
        )
        (self.directory / "sites" / f"{name}.conf").write_text(text)

    def reloads(self) -> int:
        """How often it took up a new configuration since it started (from its error log)."""
        return (self.directory / "error.log").read_text(errors="replace").count("Doing graceful restart")

    def starts(self) -> int:
        """How often it was ready, the first time included."""
        return (self.directory / "error.log").read_text(errors="replace").count("resuming normal operations")

    async def reload(self) -> None:
        """Test, reload, and wait until it is ready again."""
        before = self.starts()
        await run(self.test_command)
        await run(self.reload_command)
        async with asyncio.timeout(START):
            while self.starts() == before:  # noqa: ASYNC110  the sign is a line in another program's log
                await asyncio.sleep(0.02)


async def run(command: Sequence[str]) -> None:
    """A command that has to succeed."""
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await asyncio.wait_for(process.communicate(), START)
    assert process.returncode == 0, output.decode()


@asynccontextmanager
async def private_apache(directory: Path, *, http_port: int, tls_port: int) -> AsyncIterator[Apache]:
    """Run Apache in `directory` on two loopback ports until the block ends; it dies with its owner."""
    (directory / "sites").mkdir(parents=True)
    modules = "\n".join(f"LoadModule {name}_module {MODULES}/mod_{name}.so" for name in LOADED)
    configuration = directory / "apache.conf"
    configuration.write_text(
        _CONFIGURATION.format(directory=directory, modules=modules, http_port=http_port, tls_port=tls_port)
    )
    log = directory / "error.log"
    log.write_text("")
    base = (program("apache2"), "-f", str(configuration))
    async with child((*base, "-D", "FOREGROUND"), log, every_program()) as process:
        apache = Apache(
            directory=directory,
            http_port=http_port,
            tls_port=tls_port,
            test_command=(*base, "-t"),
            reload_command=(*base, "-k", "graceful"),
            pid=process.pid,
        )
        async with asyncio.timeout(START):
            while not apache.starts():
                assert process.returncode is None, log.read_text()
                await asyncio.sleep(0.02)
        yield apache
