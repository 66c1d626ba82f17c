"""What is wanted, installed and served, and what it means when they differ later. Decisions only: no clock, no I/O.

Two looks find drift. The endpoint is asked with the app's expiry check: whatever happened, it has to present the
newest certificate. The host is asked what is current in its root directory, for all its apps at once: what would be
served after the next restart. What either finds is put on the host's list; the next visit puts it right.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import datetime, timedelta

from certfleet.errors import HostUnreachable, InstallError
from certfleet.install.answer import AppAnswer, State
from certfleet.models import Certificate, Fault, Installation

ASK_EVERY = timedelta(hours=6)
"""An endpoint is not asked more often than this by checks; `certfleet renew APP` asks at once."""
AUDIT_EVERY = timedelta(hours=12)
"""A host is asked this often what is current there."""
JITTER = 0.1
"""Share of AUDIT_EVERY by which hosts differ, so that they are not all asked in the same minute for ever."""


def is_to_be_asked(installation: Installation, generation: int, now: datetime) -> bool:
    """Whether the endpoint, which showed this generation last, is asked again with this check."""
    if installation.served != generation:
        return False
    return installation.asked is None or installation.asked + ASK_EVERY <= now


def asked(installation: Installation, failure: InstallError | None, now: datetime) -> Installation:
    """After the endpoint was asked; `failure` is what it presented instead."""
    if failure is None:
        return replace(installation, asked=now)
    return replace(
        installation,
        served=0,
        error=str(failure),
        fault=Fault.DOWN if isinstance(failure, HostUnreachable) else Fault.UNSERVED,
        asked=now,
        changed=now,
    )


def audit_at(host: str, last: datetime) -> datetime:
    """When the host is asked again after it was asked at `last`."""
    spread = int.from_bytes(hashlib.sha256(host.encode()).digest()[:4]) / 2**32
    return last + AUDIT_EVERY * (1 - JITTER * spread)


def audited(installation: Installation, said: AppAnswer | None, certificate: Certificate) -> str | None:
    """What is wrong with what the host says of an app; None: nothing, or it waits for a visit anyway.

    `said`: None when the host has nothing of this name.
    """
    wanted = certificate.generation
    if installation.error is not None or not installation.installed == installation.wanted == wanted:
        return None
    if said is None or said.state is State.EMPTY:
        return f"generation {wanted} was installed, and is not there any more"
    if said.state is State.FOREIGN:
        return f"generation {wanted} was installed, and something that certfleet did not put there is in its place"
    if said.generation != wanted:
        return f"generation {said.generation} is current, not {wanted} (restored from a backup, or switched by hand?)"
    if said.serial != certificate.serial:
        return f"generation {wanted} is current, with another certificate (serial {said.serial or 'unknown'})"
    return None


def found(installation: Installation, said: AppAnswer | None, error: str, now: datetime) -> Installation:
    """After an audit that found something."""
    there = said.generation if said is not None else 0
    same = there == installation.wanted  # under the same number something else: nothing of ours that we know
    return replace(installation, installed=0 if same else there, error=error, fault=Fault.UNFIT, changed=now)
