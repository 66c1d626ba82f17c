"""The lines that an operator puts into the configuration of the host's web server for an app."""

from __future__ import annotations

import re
from dataclasses import dataclass

from certfleet.errors import InstallError
from certfleet.identifiers import address_of, authority
from certfleet.install import presets
from certfleet.install.challenge import PATH
from certfleet.install.dokku_snippet import dokku_snippet
from certfleet.models import App, Host

TEXT = "text/plain"
BY_HTTP = "http-01"
"""The challenge that a web server answers (RFC 8555 §8.3); every other leaves it alone."""
RESPONDER = re.compile(r"(https?://)?([A-Za-z0-9.-]+|\[[0-9a-f:.]+\])(:(?P<port>[0-9]{1,5}))?")
RESPONDER_URL = "http://acme.example.com"
"""One that would be right, for a person."""

_CERTIFICATE = {
    "nginx": """\
# TLS listener, certificate and key, from the first install on; before it, this matches nothing.
{certificate}\
# Instead of the include, in a server block of your own for TLS, once the first certificate is there:
#     ssl_certificate     {current}/fullchain.pem;
#     ssl_certificate_key {current}/privkey.pem;
""",
    "apache": """\
# Into its <VirtualHost *:443>: TLS, certificate and key.
{certificate}\
# Apache asks the first site on a port whether all of them have TLS, so there must be no such site before its first
# certificate. Put around it, from <VirtualHost> to </VirtualHost> (Apache 2.4.34):
#     <IfFile "{current}/apache.conf">
#     </IfFile>
""",
    "haproxy": """\
# Into the frontend for TLS: certificate and key of every app, chosen by name; there may be none at first.
{certificate}""",
    "files": "{certificate}",
}
_CHALLENGE = {
    "nginx": """\
# Answers the CA's challenges (RFC 8555, section 8.3); needed on port 80.
{challenge}""",
    "apache": """\
# Into the site's <VirtualHost *:80>, before any other ProxyPass or Redirect: answers the CA's challenges
# (RFC 8555, section 8.3).
{challenge}""",
    "haproxy": """\
# The same for every app. Into the frontend on port 80, before any other http-request and use_backend, and with
# `unless certfleet` behind every `http-request redirect`: answers the CA's challenges (RFC 8555, section 8.3).
{challenge}{beside}""",
    "files": """\
# Challenges (RFC 8555, section 8.3) are answered by whatever serves port 80 for these names.
""",
}
_NO_CHALLENGE = "# The app's names are proven by {method}: nothing has to be answered on port 80.\n"
_BESIDE = """\
# Once, outside of these sections, below `defaults`:
{beside}"""


@dataclass(frozen=True, slots=True)
class Snippet:
    """Lines by the place they belong to."""

    challenge: str
    """Where the site answers on port 80 (RFC 8555 §8.3)."""
    certificate: str
    """Where the site has its TLS."""
    beside: str = ""
    """Outside of any site, once for all apps."""


def snippet(
    app: App,
    host: Host,
    responder: str,
    port: int,
    *,
    method: str = BY_HTTP,
    via: str = "responder",
    passed_to: str = "",
) -> str:
    """The lines with words for a person; `responder` and `port` are where challenges are answered.

    `method` is the app's property `challenge`, `via` its property `challenge-via`, `passed_to` its property
    `responder`, which replaces the two. Raises InstallError when something cannot stand in the web server's file, or
    cannot be done by this server.
    """
    target = passed_to or presets.endpoint(responder, port)
    title = f"# certfleet: {' '.join(app.identifiers)}\n"
    unasked = "" if method == BY_HTTP else _NO_CHALLENGE.format(method=method)
    if host.driver == "dokku":
        return title + (unasked or dokku_snippet(app, host, checked(target), via))
    found = lines(app, host, target, "responder" if unasked else via)
    beside = _BESIDE.format(beside=found.beside) if found.beside else ""
    challenge = unasked or _CHALLENGE[host.preset].format(challenge=found.challenge, beside=beside)
    current = f"{presets.checked_root(host.root)}/{app.name}/current"
    certificate = _CERTIFICATE[host.preset].format(certificate=found.certificate, current=current)
    return _of_addresses(app, host) + title + challenge + certificate


def _of_addresses(app: App, host: Host) -> str:
    """What a site for an IP address needs beyond one for a name; nothing for an app without one."""
    found = [authority(identifier) for identifier in app.identifiers if address_of(identifier) is not None]
    if not found or host.preset == "files":
        return ""
    named = f"# server_name {' '.join(found)};\n" if host.preset == "nginx" else ""
    return (
        f"# Who asks for {' or '.join(found)} names no server in the TLS handshake (RFC 6066, section 3): the site\n"
        f"# has to be the default one where it listens, or the only one.\n{named}"
    )


def is_responder(target: str) -> bool:
    """Whether it is address:port or name:port to pass requests on to, or a URL to redirect them to."""
    found = RESPONDER.fullmatch(target)
    return found is not None and (found["port"] is None or 0 < int(found["port"]) < 65536)  # noqa: PLR2004  16 bits


def checked(target: str) -> str:
    """The responder, if it can stand in a web server's file. Raises InstallError."""
    if not is_responder(target):
        raise InstallError(
            f"the responder {target!r} is neither address:port (1 to 65535) nor a URL such as {RESPONDER_URL}"
        )
    return target


def lines(app: App, host: Host, target: str, via: str) -> Snippet:
    """What stands where. Raises InstallError."""
    checked(target)
    match host.preset:
        case "nginx":
            return Snippet(_nginx(app, host, target, via), presets.nginx_include(app.name, host.root) + "\n")
        case "apache":
            return Snippet(_apache(app, host, target, via), presets.apache_include(app.name, host.root) + "\n")
        case "haproxy":
            bind = f"    bind :443 ssl strict-sni crt {presets.haproxy_directory(host.root)}\n"
            passes = via == "responder" and "://" not in target
            beside = f"backend certfleet\n    mode http\n    server responder {target}\n" if passes else ""
            return Snippet(_haproxy(host, target, via), bind, beside)
        case _:
            return _files(app, host)


def _nginx(app: App, host: Host, target: str, via: str) -> str:
    match via:
        case "stateless":
            # [.]: a pattern, so that nothing being there yet is no error.
            return f"include {presets.challenge_file(app.name, host.root).replace('.conf', '[.]conf')};\n"
        case "webroot":
            inside = f"root {_webroot(host)};\n    default_type {TEXT};"
        case _ if "://" in target:
            inside = f"return 302 {target}$request_uri;"
        case _:
            inside = f"proxy_pass http://{target};"
    return f"location ^~ {PATH} {{\n    {inside}\n}}\n"


def _apache(app: App, host: Host, target: str, via: str) -> str:
    match via:
        case "stateless":
            return f"IncludeOptional {presets.challenge_file(app.name, host.root)}\n"
        case "webroot":
            directory = f"{_webroot(host)}{PATH}"
            return (
                f'Alias "{PATH}" "{directory}"\n<Directory "{directory}">\n    Require all granted\n'
                f"    ForceType {TEXT}\n</Directory>\n"
            )
        case _ if "://" in target:
            return f'Redirect 302 "{PATH}" "{target}{PATH}"\n'
        case _:
            return f'ProxyPass "{PATH}" "http://{target}{PATH}"\n'


def _haproxy(host: Host, target: str, via: str) -> str:
    acl = f"    acl certfleet path_beg {PATH}\n"
    match via:
        case "stateless":
            thumbprint = f"req.hdr(host),field(1,:),lower,map({presets.haproxy_map(host.root)})"
            token = PATH.replace(".", r"\.")
            answer = f'lf-string "%[path,field(-1,/)].%[{thumbprint}]"'
            return (
                f"    acl certfleet path_reg ^{token}[-_a-zA-Z0-9]+$\n    acl certfleet-name {thumbprint} -m found\n"
                f"    http-request return status 200 content-type {TEXT} {answer} if certfleet certfleet-name\n"
            )
        case "webroot":
            raise InstallError(
                f"host {host.name}: haproxy serves no files; set challenge-via to stateless or responder"
            )
        case _ if "://" in target:
            return f"{acl}    http-request redirect prefix {target} code 302 if certfleet\n"
        case _:
            return f"{acl}    use_backend certfleet if certfleet\n"


def _files(app: App, host: Host) -> Snippet:
    current = f"{presets.checked_root(host.root)}/{app.name}/current"
    shown = {
        "chain": (host.places.fullchain, "fullchain.pem"),
        "key": (host.places.key, "privkey.pem"),
        "intermediates": (host.places.chain, "chain.pem"),
        "chain and key": (host.places.combined, ""),
    }
    rows = [
        f"# {what}: {place.replace('{app}', app.name) or f'{current}/{name}'}\n"
        for what, (place, name) in shown.items()
        if place or name
    ]
    return Snippet("", "".join(rows))


def _webroot(host: Host) -> str:
    if not host.webroot:
        raise InstallError(f"host {host.name}: it has no webroot for challenges; name one with --webroot")
    return presets.checked_root(host.webroot)
