"""Setting a host up: the receiver, its configuration, and the restricted key, by a person who may become root there.

What is done on the host is in setup.sh.
"""

from __future__ import annotations

import asyncio
import shlex
from dataclasses import replace
from pathlib import Path

import asyncssh

from certfleet.errors import HostUnreachable, InstallError
from certfleet.install import presets
from certfleet.install.drivers.opening import OWN_KEYS, connect, own_account, reason
from certfleet.install.login import parse_login
from certfleet.install.receiver import program
from certfleet.models import Hop, Host

TIMEOUT = 60.0  # seconds; a slow disk, a sudo that asks a directory service
ADMIN = "root"


async def set_up(host: Host, public_key: str, *, user: str, by: str) -> Host:
    """Set the host up for `public_key` (a line of authorized_keys); the host, with the login that workers use then.

    `user` is who runs the receiver there, made if there is none of that name and given one sudo rule. `by` is the
    login (user@host[:port]) of the person who does this, with their agent, keys and ~/.ssh/config. Running it again
    brings everything up to date. Raises HostKeyChanged, HostUnreachable, InstallError.
    """
    login = parse_login(host.login)
    # A login shell of its own ways is left behind at once.
    become = "exec sh -s" if parse_login(by).user == ADMIN else "exec sudo -n sh -s"
    connections: list[asyncssh.SSHClientConnection] = []
    try:
        for hop in (*host.jump, Hop(by, host.host_keys)):
            tunnel = connections[-1] if connections else None
            connections.append(await connect(host.name, hop, own_account(), tunnel, remedy=OWN_KEYS))
        async with asyncio.timeout(TIMEOUT):
            done = await connections[-1].run(
                become, input=_script(host, public_key, user), encoding="utf-8", errors="replace"
            )
    except TimeoutError:
        raise InstallError(f"host {host.name}: it was not set up in {TIMEOUT:.0f} s; does sudo ask somebody?") from None
    except (OSError, asyncssh.Error) as error:
        raise HostUnreachable(f"host {host.name}: {reason(parse_login(by), error)}") from error
    finally:
        for connection in reversed(connections):
            connection.abort()
    if done.exit_status:
        said = str(done.stderr or "").strip().rpartition("\n")[2][:300]
        raise InstallError(f"host {host.name}: it is not set up: {said or 'no reason was given'}")
    return replace(host, login=str(replace(login, user=user)))


def configuration(host: Host) -> str:
    """The host's /etc/certfleet/receiver.conf. Raises InstallError when a value cannot be a line of it."""
    lines = ["# Written by `certfleet host setup`; read by receiver.sh, which knows these names and no others."]
    for name, value in presets.settings(host).items():
        if not value.isprintable():
            raise InstallError(f"host {host.name}: {name} has to be one line of text")
        lines.append(f"{name}={value}")
    return "".join(f"{line}\n" for line in lines)


def _script(host: Host, public_key: str, user: str) -> str:
    kind, key, comment = public_key.split()
    told = {
        "receiver": program(),
        "configuration": configuration(host),
        "key": f"{kind} {key}",
        "comment": comment,
        "user": user,
    }
    lines = "".join(f"{name}={shlex.quote(value)}\n" for name, value in told.items())
    return lines + Path(__file__).with_name("setup.sh").read_text()
