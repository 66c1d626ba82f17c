"""Puts the receiver onto a host of the rig, behind a key that can do nothing else: as `certfleet host setup` does."""

from __future__ import annotations

import shlex
from collections.abc import Mapping

from certfleet.install.receiver import program
from tests.hosts.machine import Machine

PROGRAM = "/usr/local/lib/certfleet/receiver.sh"
CONFIGURATION = "/etc/certfleet/receiver.conf"
ASKED = "/var/log/asked"
"""What was asked for over SSH, a line for each session."""


def receive(machine: Machine, public_key: str, **settings: str) -> None:
    """The program, its configuration, and the key; `settings` replace those of the configuration."""
    put_program(machine, program())
    configure(machine, settings)
    serve = shlex.join([machine.inside(PROGRAM), "serve", machine.inside(CONFIGURATION)])
    noted = f"printf '%s\\n' \\\"$SSH_ORIGINAL_COMMAND\\\" >>{machine.inside(ASKED)}"
    forced = f"{noted}; exec {serve}"
    with machine.path("/root/.ssh/authorized_keys").open("a") as file:
        file.write(f'command="{forced}",restrict {public_key}\n')


def put_program(machine: Machine, text: str) -> None:
    """This program instead of the one that is there."""
    file = machine.path(PROGRAM)
    file.parent.mkdir(parents=True, exist_ok=True)
    new = file.with_suffix(".new")
    new.write_text(text)
    new.chmod(0o755)
    new.rename(file)


def configure(machine: Machine, settings: Mapping[str, str]) -> None:
    """The host's own settings, but for the given ones."""
    usual = {
        "root": machine.root,
        "server": "nginx",
        "test": shlex.join(machine.test_command),
        "reload": shlex.join(machine.reload_command),
    }
    file = machine.path(CONFIGURATION)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(f"{name}={value}\n" for name, value in (usual | dict(settings)).items()))


def asked(machine: Machine, verb: str) -> int:
    """How often it was asked for this."""
    file = machine.path(ASKED)
    return sum(line.partition(" ")[0] == verb for line in file.read_text().splitlines()) if file.exists() else 0
