"""Which key a host shows, and whether a person says that it is the host's."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import asyncssh

from certfleet.errors import UsageError
from certfleet.install.drivers.opening import OWN_KEYS, connect, fingerprint, own_account, shown_keys
from certfleet.install.login import Login, parse_login
from certfleet.models import Hop, Host


@dataclass(frozen=True, slots=True)
class Shown:
    """A host key that a machine shows."""

    kind: str
    """Such as ssh-ed25519."""
    fingerprint: str
    """As `ssh-keygen -l` shows it."""


Approve = Callable[[str, Sequence[Shown]], Shown]
"""Given a login and the keys that it shows, the one that is to be trusted; raises when none is."""


def resolve(text: str, *, field: str = "ssh") -> tuple[Login, tuple[str, ...]]:
    """Where user@name goes by the person's ~/.ssh/config (HostName, Port), and through which jump hosts (ProxyJump).

    Workers know no such file, so what it says is kept with the host. Raises UsageError.
    """
    login = parse_login(text, field)
    file = Path("~/.ssh/config").expanduser()
    try:
        options = asyncssh.SSHClientConnectionOptions(
            host=login.host,
            port=login.port if text.endswith(f":{login.port}") else (),
            username=login.user,
            config=[file] if file.is_file() else None,
            client_keys=None,
            agent_path=None,
        )
    except (OSError, asyncssh.Error, ValueError) as error:
        raise UsageError(field, text, f"cannot be looked up in {file}: {error}") from None
    if options.proxy_command:
        raise UsageError(field, text, f"goes through a ProxyCommand in {file}, which workers have not: use a jump host")
    jump = tuple(options.tunnel.split(",")) if isinstance(options.tunnel, str) and options.tunnel else ()
    return parse_login(str(replace(login, host=options.host, port=options.port)), field), jump


async def pin(host: Host, approve: Approve) -> Host:
    """The host with the keys that it and the jump hosts show now; what is pinned and still shown is not asked about.

    Jump hosts are logged in to as the person at this machine does. Raises HostUnreachable, and what `approve` raises.
    """
    way: list[Hop] = []
    connections: list[asyncssh.SSHClientConnection] = []
    try:
        for hop in (*host.jump, Hop(host.login, host.host_keys)):
            tunnel = connections[-1] if connections else None
            way.append(await _pinned(host.name, hop, tunnel, approve))
            if len(way) <= len(host.jump):
                connections.append(await connect(host.name, way[-1], own_account(), tunnel, remedy=OWN_KEYS))
    finally:
        for connection in reversed(connections):
            connection.abort()
    return replace(host, jump=tuple(way[:-1]), host_keys=way[-1].host_keys)


async def _pinned(name: str, hop: Hop, tunnel: asyncssh.SSHClientConnection | None, approve: Approve) -> Hop:
    keys = {_line(key): key for key in await shown_keys(name, parse_login(hop.login), tunnel, own_account())}
    if still := tuple(line for line in hop.host_keys if line in keys):
        return replace(hop, host_keys=still)
    shown = {Shown(key.get_algorithm(), fingerprint(key)): line for line, key in keys.items()}
    approved = await asyncio.to_thread(approve, hop.login, tuple(shown))
    return replace(hop, host_keys=(shown[approved],))


def _line(key: asyncssh.SSHKey) -> str:
    kind, base64, *_ = key.export_public_key().decode().split()
    return f"{kind} {base64}"
