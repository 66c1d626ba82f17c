"""What an operator puts beside an app's nginx configuration on a Dokku host, so that challenges are answered."""

from __future__ import annotations

from certfleet.errors import InstallError
from certfleet.install.challenge import PATH
from certfleet.models import App, Host

_SNIPPET = """\
# On the Dokku host, as root, once for each app: Dokku's template includes this directory in the app's server blocks,
# before it redirects to https (Dokku 0.30 and newer). The certificate itself goes by `certs:add` and needs nothing.
# /home/dokku/{app}/nginx.conf.d/certfleet.conf, owned by dokku; then `service nginx reload`:
location ^~ {path} {{
    {inside}
}}
"""


def dokku_snippet(app: App, host: Host, target: str, via: str) -> str:
    """The file with words for a person; `target` is the responder: address:port, or a URL to redirect to.

    Raises InstallError for what Dokku's user cannot keep up: files in a webroot, an account's thumbprint.
    """
    if via != "responder":
        raise InstallError(
            f"host {host.name}: Dokku's user cannot write files for its nginx, so challenges cannot go by {via} "
            f"there; set the property challenge-via of {app.name} to responder"
        )
    inside = f"return 302 {target}$request_uri;" if "://" in target else f"proxy_pass http://{target};"
    return _SNIPPET.format(app=app.name, path=PATH, inside=inside)
