"""Asking a person whether a host key is the right one."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

from certfleet.errors import UsageError

if TYPE_CHECKING:
    from certfleet.install.pinning import Approve, Shown

COMPARE = "ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub"


def approver(fingerprints: Sequence[str]) -> Approve:
    """Takes the fingerprints in their order, one for each machine on the way; without any it asks at the terminal."""
    left = list(fingerprints)

    def approve(login: str, shown: Sequence[Shown]) -> Shown:
        if left:
            return _match(left.pop(0), login, shown)
        if fingerprints or not sys.stdin.isatty():
            raise UsageError(
                "fingerprint",
                None,
                f"{login} shows the host key {_words(shown[:1])}: compare it on the machine itself (`{COMPARE}`), "
                f"then give --fingerprint {shown[0].fingerprint}",
            )
        typer.echo(f"{login} shows the host key {_words(shown[:1])}", err=True)
        typer.echo(f"Compare it with what the machine itself says: {COMPARE}", err=True)
        if not typer.confirm("Is it the same?", err=True):
            raise UsageError("fingerprint", shown[0].fingerprint, f"is not the one of {login}: nothing was changed")
        return shown[0]

    return approve


def _match(wanted: str, login: str, shown: Sequence[Shown]) -> Shown:
    for one in shown:
        if one.fingerprint == wanted.rstrip("="):
            return one
    raise UsageError("fingerprint", wanted, f"is none that {login} shows: {_words(shown)}; is it the right machine?")


def _words(shown: Sequence[Shown]) -> str:
    return ", ".join(f"{one.kind} {one.fingerprint}" for one in shown)
