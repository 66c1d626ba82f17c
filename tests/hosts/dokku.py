"""Makes a host of the rig a Dokku host: the user `dokku`, whose keys can run the stand-in and nothing else."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.hosts.machine import Machine

COMMAND = Path(__file__).with_name("dokku_command.py")
# What sshcommand writes, Dokku's tool for its keys.
_KEY = (
    'command="FINGERPRINT=SHA256:certfleet NAME=\\"certfleet\\" `cat /home/dokku/.sshcommand` $SSH_ORIGINAL_COMMAND",'
    "no-agent-forwarding,no-user-rc,no-X11-forwarding,no-port-forwarding {public_key}\n"
)


@dataclass(frozen=True, slots=True)
class DokkuHost:
    """A host with Dokku's layout."""

    machine: Machine

    @property
    def login(self) -> str:
        """For `Host.login`."""
        return f"dokku@{self.machine.address}:{self.machine.ssh_port}"

    def path(self, app: str, *parts: str) -> Path:
        """A file of the app's, for this machine."""
        return self.machine.path("/home/dokku").joinpath(app, *parts)

    def violations(self) -> str:
        """Everything that the protocol does not promise and that was done all the same."""
        file = self.machine.path("/home/dokku/violations")
        return file.read_text() if file.exists() else ""

    async def create_app(self, app: str, domains: Sequence[str]) -> None:
        """apps:create, domains:set and a deployment; plain HTTP so far."""
        self.path(app, "nginx.conf.d").mkdir(parents=True)
        self.path(app, "VHOST").write_text("\n".join(domains) + "\n")
        self.path(app, "nginx.conf").write_text(
            f"server {{\n  listen [::]:80;\n  listen 80;\n  server_name {' '.join(domains)};\n"
            f"  include /home/dokku/{app}/nginx.conf.d/*.conf;\n"
            f'  location / {{ return 200 "{app}\\n"; }}\n}}\n'
        )
        await self.machine.reload_nginx()

    async def add_key(self, public_key: str) -> None:
        """ssh-keys:add."""
        with self.machine.path("/home/dokku/.ssh/authorized_keys").open("a") as file:
            file.write(_KEY.format(public_key=public_key))

    async def dokku(self, *words: str) -> str:
        """The command itself, as an operator on the host; what it said. Fails when it fails."""
        return await self.machine.run("/usr/local/bin/dokku", *words)


async def as_dokku(machine: Machine) -> DokkuHost:
    """Furnish the host. Its user `dokku` is root by another name: the real one may reload nginx by sudo."""
    if machine.place is None:
        pytest.skip("needs a host with users of its own, so namespaces, which this machine does not allow")
    await machine.run(
        *("useradd", "--non-unique", "--uid", "0", "--gid", "0", "--password", "*", "--shell", "/bin/sh"),
        *("--create-home", "--home-dir", "/home/dokku", "dokku"),
    )
    home = machine.path("/home/dokku")
    (home / ".ssh").mkdir(mode=0o700)
    (home / ".ssh" / "authorized_keys").write_text("")
    (home / ".sshcommand").write_text("/usr/local/bin/dokku\n")
    shutil.copy(COMMAND, machine.path("/usr/local/lib/dokku_command.py"))
    program = machine.path("/usr/local/bin/dokku")
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S /usr/local/lib/dokku_command.py "$@"\n')
    program.chmod(0o755)
    machine.path("/etc/nginx/conf.d/dokku.conf").write_text("include /home/dokku/*/nginx.conf;\n")
    await machine.reload_nginx()
    return DokkuHost(machine)
