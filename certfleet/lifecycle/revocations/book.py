"""What is to be revoked.

revocations:<app>  hash  serial -> the Revocation as JSON

A revocation stays until the CA has done it, whatever becomes of the app's records meanwhile, or is given up with a word
in the journal. One that waits for a replacement says on which hosts that is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from certfleet.acme_ca.reasons import Reason
from certfleet.models import Certificate, Installation, dump, load
from certfleet.store import Store


@dataclass(frozen=True, slots=True)
class Revocation:
    """One certificate that is to be revoked."""

    app: str
    serial: str
    leaf: str
    """PEM"""
    ca: str
    """The URL of its CA's directory."""
    bundle: str
    """PEM of the roots to trust for that CA; empty: the system's."""
    email: str
    reason: Reason
    asked: datetime
    not_after: datetime
    after: int = 0
    """The generation that has to be replaced on every host first; 0: none has to."""
    attempts: int = 0
    retry_at: datetime | None = None
    stands: str = ""
    """What it waits for, or why it failed, for a person."""


def revoke_member(app: str) -> str:
    """The agenda member of an app's revocations."""
    return f"revoke:{app}"


class Revocations:
    """The list for each app."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def key(self, app: str) -> str:
        """Where an app's revocations are."""
        return self._store.key("revocations", app)

    async def of(self, app: str) -> list[Revocation]:
        """All that are not done yet, in the order in which they were asked for."""
        found = await self._store.redis.hvals(self.key(app))
        return sorted((load(Revocation, text) for text in found), key=lambda one: (one.asked, one.serial))

    async def asked_for(self, certificates: Sequence[tuple[str, str]]) -> list[bool]:
        """Which of these (app, serial) the CA is being told to revoke now: not those that wait for a replacement."""
        pipe = self._store.redis.pipeline(transaction=False)
        for app, serial in certificates:
            pipe.hget(self.key(app), serial)
        found = [load(Revocation, text) if text else None for text in await pipe.execute()]
        return [one is not None and not one.after for one in found]

    async def ask(
        self, wish: Revocation | None, app: str, change: Callable[[Certificate], Certificate], *more: Any
    ) -> Certificate | None:
        """Put a wish on the list and change the app's present certificate, in one write; what that is afterwards.

        Without a certificate, or when `change` raises, nothing is written. `more`: commands that go with it.
        """
        key = self._store.key("certificate", app)
        after: Certificate | None = None

        async def apply(pipe: Any) -> None:
            nonlocal after
            text = await pipe.get(key)
            pipe.multi()
            after = change(load(Certificate, text)) if text is not None else None
            if after is None:
                return
            if dump(after) != text:
                pipe.set(key, dump(after))
            if wish is not None:
                pipe.hset(self.key(app), wish.serial, dump(wish))
            for command in more:
                pipe.execute_command(*command)

        await self._store.redis.transaction(apply, key)
        return after


def missing(
    after: int, newest: Certificate | None, hosts: tuple[str, ...], known: dict[str, Installation]
) -> str | None:
    """What has to come before the certificate of generation `after` may go; None: nothing any more."""
    if newest is None or newest.generation <= after:
        return "waits for the new certificate"
    behind = [host for host in hosts if host not in known or known[host].served != newest.generation]
    if not behind:
        return None
    some = ", ".join(behind[:3]) + (f" and {len(behind) - 3} more" if len(behind) > 3 else "")  # noqa: PLR2004
    done = f"{len(hosts) - len(behind)} of {len(hosts)} hosts"
    return f"generation {newest.generation} is served on {done}, not yet on {some}"


def put_off(entry: Revocation, stands: str, at: datetime, *, failed: bool = False) -> Revocation:
    """The same, to be looked at again."""
    return replace(entry, stands=stands, retry_at=at, attempts=entry.attempts + failed)
