"""The nginx lines that an operator puts into an app's server block."""

from __future__ import annotations

from certfleet.install import presets
from certfleet.models import App, Host

_SNIPPET = """\
# certfleet: {names}
# Answers the CA's challenges (RFC 8555, section 8.3); needed on port 80.
location ^~ /.well-known/acme-challenge/ {{
    proxy_pass http://{responder};
}}
# TLS listener, certificate and key, from the first install on; before it, this matches nothing.
{include}
# Instead of the include, in a server block of your own for TLS, once the first certificate is there:
#     ssl_certificate     {current}/fullchain.pem;
#     ssl_certificate_key {current}/privkey.pem;
"""


def snippet(app: App, host: Host, responder: str, port: int) -> str:
    """What goes between `server {` and `}` of the app's site; `responder` and `port` are where challenges are answered.

    Raises InstallError when the responder or the host's root cannot stand in an nginx file.
    """
    return _SNIPPET.format(
        names=" ".join(app.identifiers),
        responder=presets.endpoint(responder, port),
        include=presets.nginx_include(app.name, host.root),
        current=f"{presets.checked_root(host.root)}/{app.name}/current",
    )
