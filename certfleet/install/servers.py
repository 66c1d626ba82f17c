"""What a person may say of a host's web server and of where its files are."""

from __future__ import annotations

import re

from certfleet.errors import UsageError
from certfleet.install.presets import PRESETS
from certfleet.models import Host, Places

_PATH = re.compile(r"(/[A-Za-z0-9._-]+)+")


def check_server(host: Host) -> None:
    """Raises UsageError for what the receiver on the host would refuse."""
    if host.preset not in PRESETS:
        raise UsageError("server", host.preset, f"is not one of {', '.join(PRESETS)}, dokku")
    if host.preset == "files" and not (host.test_command and host.reload_command):
        wanted = "needs --test-command and --reload-command: nobody else knows its server (`true`: nothing to do)"
        raise UsageError("server", host.preset, wanted)
    places = host.places
    if places != Places() and host.preset != "files":
        raise UsageError(
            "server", host.preset, "knows where its files are: places, owner and modes are for --server files"
        )
    for field, path in (
        *(("fullchain", places.fullchain), ("chain", places.chain), ("combined", places.combined)),
        *(("combined", places.combined), ("key", places.key), ("webroot", host.webroot)),
    ):
        plain = path.replace("{app}", "app", 0 if field == "webroot" else 1)
        if path and (not _PATH.fullmatch(plain) or ".." in plain.split("/")):
            raise UsageError(field, path, "is not an absolute path of letters, digits and . _ - (and {app}, once)")
    if places.owner and not re.fullmatch(r"[A-Za-z0-9_.][A-Za-z0-9_.-]*(:[A-Za-z0-9_.-]+)?", places.owner):
        raise UsageError("owner", places.owner, "is not USER or USER:GROUP")
    if places.file_mode and not re.fullmatch("0[46][046][04]", places.file_mode):
        raise UsageError("file-mode", places.file_mode, "is not a mode for a certificate: give one such as 0644")
    if places.key_mode and not re.fullmatch("0[46][046]0", places.key_mode):
        raise UsageError("key-mode", places.key_mode, "is not a mode for a key, with nothing for others: such as 0640")
