"""What is kept of CAs' revocation lists: of each one record, and which of our certificates could stand in it.

crl:<name>      string  the WatchedList as JSON
watched:<name>  hash    serial -> app, for every certificate of an enabled app that names this list
unread:<name>   string  a serial that came when the list had been read already: it is read in full with the next look

No list itself is kept. A serial is written after its list's record and time on the agenda, so that it is looked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from certfleet.acme_ca.crl import Point, distribution_point
from certfleet.agenda import Claim
from certfleet.lifecycle.records import Command, Records
from certfleet.models import Certificate, dump, load
from certfleet.store import Store


@dataclass(frozen=True, slots=True)
class WatchedList:
    """One revocation list that certificates of ours name."""

    name: str
    url: str
    issuer: str
    """PEM of the certificate whose key has to have signed it."""
    bundle: str = ""
    """PEM of roots for a server by https, besides the system's."""
    etag: str = ""
    modified: str = ""
    """Last-Modified, as the server wrote it."""
    read: datetime | None = None
    """When the list was last read, or found to be as it was."""
    this_update: datetime | None = None
    """When the CA made the one that was read last."""
    next_update: datetime | None = None
    """When it has to be replaced, as it says."""
    next_look: datetime | None = None
    failures: int = 0
    """Looks in a row that brought nothing to be believed."""
    error: str = ""
    """Why the last one did not."""


def crl_member(name: str) -> str:
    """The agenda member of a list."""
    return f"crl:{name}"


class CRLBook:
    """The lists, and the certificates that are watched in each."""

    def __init__(self, store: Store, records: Records) -> None:
        self._store = store
        self._redis = store.redis
        self._records = records

    async def get(self, name: str) -> WatchedList | None:
        """One list."""
        text = await self._redis.get(self._store.key("crl", name))
        return load(WatchedList, text) if text else None

    async def of(self, certificate: Certificate) -> WatchedList | None:
        """The list that a certificate is looked for in."""
        point = distribution_point(certificate.leaf)
        return await self.get(point.name) if point is not None else None

    async def is_watched(self, point: Point, serial: str) -> bool:
        """Whether this certificate is, and its list has a record."""
        pipe = self._redis.pipeline(transaction=False)
        pipe.hexists(self._store.key("watched", point.name), serial)
        pipe.exists(self._store.key("crl", point.name))
        return all(await pipe.execute())

    async def begin(self, new: WatchedList) -> WatchedList:
        """Keep a list that nobody knew; the answer is the one of whoever came first."""
        await self._redis.set(self._store.key("crl", new.name), dump(new), nx=True)
        return await self.get(new.name) or new

    async def watch(self, claim: Claim, known: WatchedList, certificate: Certificate) -> None:
        """Watch a certificate from the next look on, unless the app has another one by now. Raises LeaseLost."""
        app, serial = certificate.app, certificate.serial
        commands: list[Command] = [
            ("NEEDS", self._store.key("certificate", app)),
            ("SAME", self._store.key("generation", app), str(certificate.generation)),
            ("HSET", self._store.key("watched", known.name), serial, app),
        ]
        if known.read is not None and certificate.issued <= known.read:
            commands.append(("SET", self._store.key("unread", known.name), serial))
        await self._records.write(claim, commands)

    def unwatched(self, certificate: Certificate) -> list[Command]:
        """Commands by which a certificate is not watched any more: it was replaced, or its app is left alone."""
        point = distribution_point(certificate.leaf)
        return [] if point is None else [self.dropped(point.name, certificate.serial)]

    def dropped(self, name: str, serial: str) -> Command:
        """The same, for one that is known to be in this list."""
        return ("HDEL", self._store.key("watched", name), serial)

    async def drop(self, app: str) -> None:
        """The app is left alone: its certificate is nobody's concern."""
        certificate = await self._records.certificate(app)
        for command in self.unwatched(certificate) if certificate is not None else ():
            await self._redis.execute_command(*command)

    async def count(self, name: str) -> int:
        """How many certificates are watched in a list."""
        return int(await self._redis.hlen(self._store.key("watched", name)))

    async def apps_of(self, name: str, serials: Sequence[str]) -> list[str | None]:
        """Whose certificates these are; None: not one of ours."""
        found: list[str | None] = await self._redis.hmget(self._store.key("watched", name), list(serials))
        return found

    async def unread(self, name: str) -> str | None:
        """The mark by which a list has to be read in full, changed or not."""
        mark: str | None = await self._redis.get(self._store.key("unread", name))
        return mark

    async def save(self, claim: Claim, known: WatchedList, *more: Command, unread: str | None = None) -> None:
        """Keep what came of a look; `unread`: the mark that it was made for, which goes unless there is another by now.

        Raises LeaseLost.
        """
        commands: list[Command] = [*more, ("SET", self._store.key("crl", known.name), dump(known))]
        if unread is not None:
            key = self._store.key("unread", known.name)
            commands += [("NEEDS", key), ("SAME", key, unread), ("DEL", key)]
        await self._records.write(claim, commands)

    async def forget(self, claim: Claim, name: str) -> None:
        """Nobody's certificate names it any more. Raises LeaseLost."""
        await self._records.write(claim, [("DEL", self._store.key(kind, name)) for kind in ("crl", "unread")])
