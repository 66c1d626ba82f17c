"""SSH connections that a worker process keeps: one for each host, used for one session after the other.

A connection costs both sides 40 ms of CPU, a session on a kept one 18. One at a time: OpenSSH takes ten sessions on
one connection (MaxSessions), and the receiver takes one run at a time anyway. What nobody has used for a while is
closed; what has died meanwhile is opened anew.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import asyncssh

from certfleet.errors import HostUnreachable, InstallError, VaultError
from certfleet.install.answer import LARGEST
from certfleet.install.drivers.opening import connect, forwards, own_key
from certfleet.install.installer import Installer
from certfleet.install.login import parse_login
from certfleet.models import Hop, Host

IDLE = 120.0
"""Seconds without a session after which a connection is closed: longer than the pauses within one renewal."""
SESSIONS = 32
"""Runs at once by one process, on all hosts together: a run costs us 1 ms of CPU, the host 20."""
OPEN = 10.0
"""Seconds for a session on a kept connection to begin: after that the connection is taken for dead."""
RUN = 90.0
"""Seconds for a whole run: `nginx -t` may wait for DNS. With a new connection still below a step's deadline."""
GOODBYE = 2.0  # seconds for a connection to end in order
COMPLAINTS = 4096  # bytes of standard error that are kept: the end of it
CHUNK = 65536  # bytes

Route = tuple[Hop, ...]
"""The machines on the way to a host, itself the last."""


@dataclass(frozen=True, slots=True)
class Finished:
    """What came of a command."""

    status: int | None
    """Its exit status; None when a signal ended it."""
    output: bytes
    complaints: bytes


class _Line:
    """The connection to one machine, there or not."""

    def __init__(self) -> None:
        self.turn = asyncio.Lock()
        """Held by the one session."""
        self.opening = asyncio.Lock()
        self.connection: asyncssh.SSHClientConnection | None = None
        self.users = 0
        """Sessions, and connections to machines behind this one."""
        self.closing: asyncio.TimerHandle | None = None

    def kept(self) -> asyncssh.SSHClientConnection | None:
        """The connection, if it is open."""
        return None if self.connection is None or self.connection.is_closed() else self.connection

    def drop(self) -> None:
        """It is broken: no more of it."""
        if self.connection is not None:
            self.connection.abort()
        self.connection = None

    async def close(self) -> None:
        """Tell the other side that we go, and wait a moment for its word."""
        if self.closing is not None:
            self.closing.cancel()
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.close()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(connection.wait_closed(), GOODBYE)
                return
            connection.abort()


class Connections:
    """The connections of one process."""

    def __init__(self, installer: Installer) -> None:
        """`installer` is who logs in."""
        self._installer = installer
        self._who: Mapping[str, Any] | None = None
        self._lines: dict[Route, _Line] = {}
        self._sessions = asyncio.Semaphore(SESSIONS)
        self._beside: set[asyncio.Task[None]] = set()

    async def run(self, host: Host, command: str, data: bytes = b"") -> Finished:
        """Run a command with `data` on its standard input. Raises HostUnreachable, HostKeyChanged, InstallError.

        When the connection breaks in the middle, nobody knows how far the command came: it has to bear being repeated.
        """
        route = (*host.jump, Hop(host.login, host.host_keys))
        async with self._used(route) as line, line.turn:
            # Outside the bound: hosts that hang while they are connected to must not hold up the others.
            connection = line.kept() or await self._open(host, route)
            async with self._sessions:
                process = await self._process(host, route, connection, command)
                try:
                    async with asyncio.timeout(RUN):
                        return await _finish(process, data)
                except TimeoutError:
                    line.drop()
                    word = command.partition(" ")[0]
                    raise InstallError(
                        f"host {host.name}: `{word}` was not done after {RUN:.0f} s and was given up; does the web "
                        f"server's configuration test hang there?"
                    ) from None
                except (OSError, asyncssh.Error) as error:
                    line.drop()
                    raise HostUnreachable(
                        f"host {host.name}: the connection broke in the middle ({str(error) or type(error).__name__}); "
                        f"half a bundle is never used, it is sent again"
                    ) from error
                finally:
                    process.close()

    async def _process(
        self, host: Host, route: Route, connection: asyncssh.SSHClientConnection, command: str
    ) -> asyncssh.SSHClientProcess[bytes]:
        """A session; on a new connection when the one that was kept turns out to be dead."""
        try:
            return await _begin(connection, command)
        except (OSError, asyncssh.Error):
            self._lines[route].drop()
        try:
            return await _begin(await self._open(host, route), command)
        except (OSError, asyncssh.Error) as error:
            self._lines[route].drop()
            reason = str(error) or type(error).__name__
            raise HostUnreachable(f"host {host.name}: it lets us in and gives no session: {reason}") from error

    async def _open(self, host: Host, route: Route) -> asyncssh.SSHClientConnection:
        """The open connection to the route's end, or a new one."""
        line, way = self._lines[route], route[:-1]
        hop, who = route[-1], await self._identity(host)
        async with line.opening:
            connection = line.kept()
            if connection is not None:
                return connection
            if way:
                async with self._used(way):
                    tunnel = await self._open(host, way)
                    connection = await connect(host.name, hop, who, tunnel, remedy=_remedy(host, route))
                    self._behind(self._lean(way, connection))
            else:
                connection = await connect(host.name, hop, who, None, remedy=_remedy(host, route))
            line.connection = connection
            return connection

    async def _lean(self, way: Route, connection: asyncssh.SSHClientConnection) -> None:
        """Keep the connection to a jump host as long as there is one that goes through it."""
        async with self._used(way):
            await connection.wait_closed()

    @asynccontextmanager
    async def _used(self, route: Route) -> AsyncIterator[_Line]:
        """The line of a route; nobody closes it meanwhile, and afterwards it is closed when it stays idle."""
        line = self._lines.setdefault(route, _Line())
        line.users += 1
        if line.closing is not None:
            line.closing.cancel()
            line.closing = None
        try:
            yield line
        finally:
            line.users -= 1
            if not line.users:
                line.closing = asyncio.get_running_loop().call_later(IDLE, self._forget, route)

    def _forget(self, route: Route) -> None:
        line = self._lines.pop(route, None)
        if line is not None:
            self._behind(line.close())

    def _behind(self, work: Coroutine[Any, Any, None]) -> None:
        """Let something be done beside everything else."""
        task = asyncio.create_task(work)
        self._beside.add(task)
        task.add_done_callback(self._beside.discard)

    async def _identity(self, host: Host) -> Mapping[str, Any]:
        if self._who is None:
            try:
                private = await self._installer.private_key()
            except VaultError as error:
                raise InstallError(f"host {host.name}: the fleet's SSH key: {error}") from error
            self._who = own_key(asyncssh.import_private_key(private))
        return self._who

    async def close(self) -> None:
        """Close every connection."""
        # Those that go through others first.
        for route in sorted(self._lines, key=len, reverse=True):
            self._behind(self._lines.pop(route).close())
        while self._beside:
            await asyncio.wait(self._beside)


def _remedy(host: Host, route: Route) -> str:
    """What to do when the end of a route does not let us in: it is the host, or a jump host on the way."""
    whole = (*host.jump, Hop(host.login, host.host_keys))
    if route == whole and host.driver == "dokku":
        return f"`certfleet host key | ssh root@{host.address} dokku ssh-keys:add certfleet` lets the fleet's key in"
    if route == whole:
        return f"`certfleet host setup {host.name}` puts the fleet's key there"
    return forwards(parse_login(whole[len(route)].login))


async def _begin(connection: asyncssh.SSHClientConnection, command: str) -> asyncssh.SSHClientProcess[bytes]:
    async with asyncio.timeout(OPEN):
        return await connection.create_process(command, encoding=None)


async def _finish(process: asyncssh.SSHClientProcess[bytes], data: bytes) -> Finished:
    _, output, complaints = await asyncio.gather(
        _feed(process.stdin, data), _read(process.stdout, LARGEST + 1), _last(process.stderr)
    )
    await process.wait_closed()
    return Finished(process.exit_status, output, complaints)


async def _feed(stdin: asyncssh.SSHWriter[bytes], data: bytes) -> None:
    # A command that ends before it has read everything has said why.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        for start in range(0, len(data), CHUNK):
            stdin.write(data[start : start + CHUNK])
            await stdin.drain()
        stdin.write_eof()


async def _read(stream: asyncssh.SSHReader[bytes], limit: int) -> bytes:
    """All of it, but no more than `limit` bytes: the rest is thrown away."""
    kept = b""
    while part := await stream.read(CHUNK):
        kept += part[: limit - len(kept)]
    return kept


async def _last(stream: asyncssh.SSHReader[bytes]) -> bytes:
    kept = b""
    while part := await stream.read(CHUNK):
        kept = (kept + part)[-COMPLAINTS:]
    return kept
