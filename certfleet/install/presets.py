"""What certfleet knows about web servers: how to test and reload them, and how a site finds its certificate."""

from __future__ import annotations

import ipaddress
import re
import shlex
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


PRESETS = {
    "nginx": Preset(test=("nginx", "-t", "-q"), reload=("nginx", "-s", "reload")),
    # `configtest` does not look into keys: the receiver compares them itself, because a reload would end Apache.
    "apache": Preset(test=("apachectl", "configtest"), reload=("apachectl", "graceful")),
    "haproxy": Preset(
        test=("haproxy", "-c", "-f", "/etc/haproxy/haproxy.cfg"),  # with -q it does not say what is wrong
        # Debian's own way, with systemd and without it.
        reload=("service", "haproxy", "reload"),
    ),
    # Some other server, which only the person at it knows how to test and reload.
    "files": Preset(test=(), reload=()),
}


def commands(host: Host) -> Preset:
    """The host's own commands where it names them, else its preset's. Raises InstallError."""
    known = PRESETS.get(host.preset)
    if known is None:
        choices = ", ".join(sorted(PRESETS))
        raise InstallError(f"host {host.name}: there is no preset {host.preset!r}; choose one of: {choices}")
    found = Preset(test=host.test_command or known.test, reload=host.reload_command or known.reload)
    if not found.test or not found.reload:
        raise InstallError(
            f"host {host.name}: for the preset {host.preset!r}, say how its server is tested and reloaded "
            "(--test-command, --reload-command; `true` where there is nothing to test)"
        )
    return found


def settings(host: Host) -> dict[str, str]:
    """What the receiver has to know of its host: names of its options, and of lines in its configuration file.

    Raises InstallError.
    """
    run, places = commands(host), host.places
    told = {
        "root": checked_root(host.root),
        "test": shlex.join(run.test),
        "reload": shlex.join(run.reload),
        "server": host.preset,
        "webroot": checked_root(host.webroot) if host.webroot else "",
    }
    if host.preset == "files":
        told |= {
            "fullchain": places.fullchain,
            "chain": places.chain,
            "combined": places.combined,
            "key": places.key,
            "owner": places.owner,
            "file-mode": places.file_mode,
            "key-mode": places.key_mode,
        }
    return {name: value for name, value in told.items() if value}


def checked_root(root: str) -> str:
    """The root directory, if nginx and sh can take it as it is. Raises InstallError."""
    if not _ROOT.fullmatch(root) or ".." in root.split("/"):
        raise InstallError(f"the root {root!r} has to be an absolute path of letters, digits and ._-/ only")
    return root


def nginx_include(app: str, root: str) -> str:
    """The line that gives a server block its TLS; until the first install it matches nothing, which is no error."""
    return f"include {checked_root(root)}/{app}/current/nginx*.conf;"


def apache_include(app: str, root: str) -> str:
    """The line that gives a virtual host its TLS; until the first install it finds nothing, which is no error."""
    return f"IncludeOptional {checked_root(root)}/{app}/current/apache.conf"


def haproxy_directory(root: str) -> str:
    """Where haproxy finds every app's chain and key, each in one file; there from the first visit on."""
    return f"{checked_root(root)}/haproxy.d"


def challenge_file(app: str, root: str) -> str:
    """What the receiver writes for a site to include when it answers challenges without asking anybody."""
    return f"{checked_root(root)}/challenges.d/{app}.conf"


def haproxy_map(root: str) -> str:
    """The same for haproxy, for all apps: a map of names to thumbprints."""
    return f"{checked_root(root)}/challenges.d/haproxy.map"


def fragments(server: str, *, app: str, root: str, port: int, listen: str) -> dict[str, bytes]:
    """The files of a generation that the web server includes. Raises InstallError."""
    match server:
        case "nginx":
            return nginx_fragments(app=app, root=root, port=port, listen=listen)
        case "apache":
            current = f"{checked_root(root)}/{app}/current"
            lines = (
                "SSLEngine on",
                f"SSLCertificateFile {current}/fullchain.pem",
                f"SSLCertificateKeyFile {current}/privkey.pem",
            )
            return {"apache.conf": "".join(f"{line}\n" for line in lines).encode()}
        case _:
            return {}


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
