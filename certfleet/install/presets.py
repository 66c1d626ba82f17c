"""What certfleet knows about web servers: how to test and reload them, and how a site finds its certificate."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from certfleet.errors import InstallError
from certfleet.models import Host

# What stands unquoted in an nginx file, and in `sh -c` after quoting.
_ROOT = re.compile(r"/[A-Za-z0-9._/-]*[A-Za-z0-9_-]")
_PORTS = range(1, 65536)


@dataclass(frozen=True, slots=True)
class Preset:
    """A web server's own commands, each a tuple of words."""

    test: tuple[str, ...]
    reload: tuple[str, ...]


PRESETS = {"nginx": Preset(test=("nginx", "-t", "-q"), reload=("nginx", "-s", "reload"))}


def commands(host: Host) -> Preset:
    """The host's own commands where it names them, else its preset's. Raises InstallError: unknown preset."""
    known = PRESETS.get(host.preset)
    if known is None and not (host.test_command and host.reload_command):
        choices = ", ".join(sorted(PRESETS))
        raise InstallError(f"host {host.name}: there is no preset {host.preset!r}; choose one of: {choices}")
    return Preset(
        test=host.test_command or (known.test if known else ()),
        reload=host.reload_command or (known.reload if known else ()),
    )


def checked_root(root: str) -> str:
    """The root directory, if nginx and sh can take it as it is. Raises InstallError."""
    if not _ROOT.fullmatch(root) or ".." in root.split("/"):
        raise InstallError(f"the root {root!r} has to be an absolute path of letters, digits and ._-/ only")
    return root


def nginx_include(app: str, root: str) -> str:
    """The line that gives a server block its TLS; until the first install it matches nothing, which is no error."""
    return f"include {checked_root(root)}/{app}/current/nginx*.conf;"


def nginx_fragments(*, app: str, root: str, port: int, listen: str) -> dict[str, bytes]:
    """The files that `nginx_include` finds: TLS listeners, certificate and key.

    nginx does not start with a `listen [::]` on a machine without IPv6, so that line has a file of its own,
    which the receiver drops there.
    """
    if port not in _PORTS:
        raise InstallError(f"{app}: port {port} is not between 1 and 65535")
    current = f"{checked_root(root)}/{app}/current"
    certificate = f"ssl_certificate {current}/fullchain.pem;\nssl_certificate_key {current}/privkey.pem;\n"
    if listen:
        return {"nginx.conf": f"listen {endpoint(listen, port)} ssl;\n{certificate}".encode()}
    return {
        "nginx.conf": f"listen {port} ssl;\n{certificate}".encode(),
        "nginx-ipv6.conf": f"listen [::]:{port} ssl;\n".encode(),
    }


def endpoint(address: str, port: int) -> str:
    """`address:port` as nginx and URLs write it. Raises InstallError when it is not an IP address."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        raise InstallError(f"{address!r} is not an IP address such as 127.0.0.1") from None
    return f"[{parsed}]:{port}" if parsed.version == 6 else f"{parsed}:{port}"  # noqa: PLR2004  IP's version
