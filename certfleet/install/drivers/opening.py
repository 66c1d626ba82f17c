"""Opening one SSH connection: who logs in, which host key is taken, and what to say when it does not come about."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping, Sequence
from typing import Any

import asyncssh

from certfleet.errors import HostKeyChanged, HostUnreachable, LoginRefused
from certfleet.install.login import PORT, Login, parse_login
from certfleet.models import Hop

CONNECT = 10.0
"""Seconds for the TCP connection: three lost SYNs (RFC 6298: 1 s, 2 s, 4 s) are waited for."""
LOGIN = 20.0
"""Seconds for the rest: sshd asks DNS about us first (UseDNS), and a resolver that is down takes 10 s."""
KEEPALIVE = 15.0
"""Seconds of silence after which a kept connection is asked whether it is still there; three times, then it is not."""

_TYPES = ("ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", "rsa-sha2-512")
"""Host keys by our preference, one name for each type; rsa-sha2-512 is what OpenSSH ≥ 7.2 signs with an RSA key."""


def own_key(private: asyncssh.SSHKey) -> Mapping[str, Any]:
    """Log in with this key alone: what lies about on this machine (agent, ~/.ssh) is neither asked nor offered."""
    return {"client_keys": [private], "agent_path": None, "config": None}


def forwards(to: Login) -> str:
    """What has to be done on a jump host, so that it passes the fleet's key on to the next machine."""
    options = f'restrict,port-forwarding,permitopen="{to.host}:{to.port}"'
    return f"`{options}` has to stand before the key that `certfleet host key` prints, in authorized_keys there"


OWN_KEYS = "it takes none of your keys; look whether `ssh` gets there without a password"


def own_account() -> Mapping[str, Any]:
    """Log in as the person at this machine does: agent, ~/.ssh/config, the usual key files."""
    return {}


async def connect(
    name: str, hop: Hop, who: Mapping[str, Any], tunnel: asyncssh.SSHClientConnection | None, *, remedy: str
) -> asyncssh.SSHClientConnection:
    """A connection to a machine whose key is pinned, through `tunnel` if there is one.

    For the sentences: `name` is the host's, `remedy` is what to do when we are not let in.
    Raises HostKeyChanged, LoginRefused, HostUnreachable.
    """
    login = parse_login(hop.login, "login")
    pinned = [asyncssh.import_public_key(key) for key in hop.host_keys]
    seen = _Seen()
    wanted = [algorithm.decode() for key in pinned for algorithm in key.sig_algorithms]
    try:
        async with asyncio.timeout(CONNECT + LOGIN):
            return await asyncssh.connect(
                login.host,
                () if "config" not in who and login.port == PORT else login.port,
                username=login.user,
                tunnel=tunnel or (),
                client_factory=lambda: seen,
                known_hosts=(pinned, [], []),
                # Other types last: a host that has lost the pinned key shows what it has instead.
                server_host_key_algs=[*wanted, *(kind for kind in _TYPES if kind not in wanted)],
                x509_trusted_certs=None,
                gss_host=None,
                preferred_auth="publickey",
                disable_trivial_auth=True,
                connect_timeout=CONNECT,
                login_timeout=0,
                keepalive_interval=KEEPALIVE,
                agent_forwarding=False,
                encoding=None,
                **who,
            )
    except asyncssh.HostKeyNotVerifiable:
        raise HostKeyChanged(_changed(name, login, pinned, seen.key)) from None
    except asyncssh.PermissionDenied as error:
        raise LoginRefused(f"host {name}: {login} does not let us in; {remedy}") from error
    except asyncssh.ChannelOpenError as error:
        raise HostUnreachable(f"host {name}: {_not_passed_on(login, error)}") from error
    except (OSError, asyncssh.Error, ValueError) as error:
        raise HostUnreachable(f"host {name}: {reason(login, error)}") from error


async def shown_keys(
    name: str, login: Login, tunnel: asyncssh.SSHClientConnection | None, config: Mapping[str, Any]
) -> list[asyncssh.SSHKey]:
    """The host keys that a machine shows, one of each type that it has, in our order. Raises HostUnreachable.

    Nothing is trusted, and nobody logs in.
    """
    keys: list[asyncssh.SSHKey] = []
    failure: Exception = asyncssh.KeyExchangeFailed(f"it has no host key of the types {', '.join(_TYPES)}")
    for kind in _TYPES:
        try:
            async with asyncio.timeout(CONNECT + LOGIN):
                key = await asyncssh.get_server_host_key(
                    login.host, login.port, tunnel=tunnel or (), server_host_key_algs=[kind], **config
                )
        except (asyncssh.KeyExchangeFailed, asyncssh.ConnectionLost, ConnectionResetError) as error:
            # What sshd does to somebody who wants a type that it has not.
            failure = error
        except (OSError, asyncssh.Error, ValueError) as error:
            raise HostUnreachable(f"host {name}: {reason(login, error)}") from error
        else:
            keys += [key] if key is not None else []
    if not keys:
        raise HostUnreachable(f"host {name}: {reason(login, failure)}") from failure
    return keys


class _Seen(asyncssh.SSHClient):
    """Keeps the key that was shown and is not pinned."""

    key: asyncssh.SSHKey | None = None

    def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
        """No: only pinned keys are taken, and those are not asked about here."""
        del host, addr, port
        self.key = key
        return False


def fingerprint(key: asyncssh.SSHKey) -> str:
    """As `ssh-keygen -l` shows it."""
    return key.get_fingerprint("sha256")


def _changed(name: str, login: Login, pinned: Sequence[asyncssh.SSHKey], shown: asyncssh.SSHKey | None) -> str:
    known = " or ".join(fingerprint(key) for key in pinned)
    if not known:
        return f"host {name}: no host key of {login} is known; `certfleet host trust {name}` shows it and asks"
    now = fingerprint(shown) if shown else "none"
    return (
        f"host {name}: {login} shows the host key {now} and not {known}, so nothing was sent to it; if it was set up "
        f"anew, compare on the machine itself (`ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub`), then "
        f"`certfleet host trust {name} --fingerprint {now}`"
    )


def _not_passed_on(login: Login, error: asyncssh.ChannelOpenError) -> str:
    return f"the jump host before {login} does not pass us on ({error}); if {login.host} is up, {forwards(login)}"


def reason(login: Login, error: Exception) -> str:
    """Why there is no connection."""
    match error:
        case socket.gaierror():
            return f"the name {login.host} cannot be resolved: {error.strerror}"
        case TimeoutError():
            return f"{login} did not answer as SSH in time ({CONNECT:.0f} s to connect, {LOGIN:.0f} s to log in)"
        case asyncssh.ConnectionLost():
            return f"{login} took the connection and closed it again; is sshd there, and does it let us in?"
        case OSError():
            return f"{login} cannot be reached: {error.strerror or error}"
        case _:
            return f"no SSH connection to {login}: {str(error) or type(error).__name__}"
