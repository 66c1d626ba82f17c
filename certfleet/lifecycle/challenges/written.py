"""Which TXT records were written for whom: kept before they are written, forgotten when they are removed.

written:<app>  hash  "<name> <value>" -> Written as JSON

The list does not hang on the app's order, nor on the app: whatever becomes of both, and of the process that wrote, each
record on it is removed (txt.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from certfleet.dns.provider import TXTRecord
from certfleet.lifecycle.records import Command
from certfleet.models import dump, load
from certfleet.store import Store


@dataclass(frozen=True, slots=True)
class Written:
    """One record, and what has to be known to remove it."""

    record: TXTRecord
    dns: str
    """The credentials' name."""
    order: str
    """URL of the CA's order that needs it."""
    since: datetime
    """When it was first to be written."""
    done: datetime | None = None
    """When it was written; None: perhaps it is."""
    attempts: int = 0
    """To remove it, in vain."""
    retry_at: datetime | None = None


def field_of(record: TXTRecord) -> str:
    """A record's place in its app's hash."""
    return f"{record.name} {record.value}"


class TXTBook:
    """The list for each app."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def _key(self, app: str) -> str:
        return self._store.key("written", app)

    async def of(self, app: str) -> dict[str, Written]:
        """What was written for an app and not removed yet."""
        found = await self._store.redis.hgetall(self._key(app))
        return {field: load(Written, text) for field, text in sorted(found.items())}

    async def keep(self, app: str, written: Mapping[str, Written]) -> None:
        """Put records on the list, or note what became of them."""
        if written:
            await self._store.redis.hset(self._key(app), mapping={f: dump(one) for f, one in written.items()})

    def changed(self, app: str, field: str, before: Written, after: Written | None) -> list[Command]:
        """Commands that note what became of a record (None: it is gone), unless an order has written meanwhile."""
        key = self._key(app)
        write: Command = ("HDEL", key, field) if after is None else ("HSET", key, field, dump(after))
        return [("NEEDS", key), ("STILL", key, field, dump(before)), write]

    async def apps(self) -> list[str]:
        """Every app, of this moment or an earlier one, that has something on its list."""
        prefix = self._key("")
        found = [key async for key in self._store.redis.scan_iter(match=f"{prefix}*", count=1000)]
        return sorted(key.removeprefix(prefix) for key in found)

    async def any(self, app: str) -> bool:
        """Whether there is anything on the list."""
        return bool(await self._store.redis.exists(self._key(app)))
