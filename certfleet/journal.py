"""The audit trail: who asked, what was decided, what happened. One Redis stream with a maximum length."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from certfleet.models import from_microseconds
from certfleet.store import Store

MAXIMUM = 100_000  # entries, about 15 MB; Redis trims whole blocks, so a few more stay


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that happened."""

    at: datetime
    app: str
    event: str
    detail: str


class Journal:
    """Writes and reads the trail. Details are sentences for people and hold no secret."""

    def __init__(self, store: Store) -> None:
        self._redis = store.redis
        self._key = store.key("journal")

    async def write(self, app: str, event: str, detail: str = "") -> None:
        """Note one event of one app (or host)."""
        await self._redis.execute_command(*self.entry(app, event, detail))

    def entry(self, app: str, event: str, detail: str = "") -> tuple[str, str, *tuple[str, ...]]:
        """The same as a command, to go with a fenced write: what happened and that it happened are kept together."""
        options = ("MAXLEN", "~", str(MAXIMUM), "*")
        return ("XADD", self._key, *options, "app", app, "event", event, "detail", detail[:1000])

    async def latest(self, app: str, count: int = 10, depth: int = 5000) -> list[Entry]:
        """The last `count` entries of one app among the `depth` newest of all, oldest first."""
        entries = await self._redis.xrevrange(self._key, count=depth)
        mine = [_entry(key, fields) for key, fields in entries if fields["app"] == app]
        return mine[:count][::-1]


def _entry(key: str, fields: dict[str, str]) -> Entry:
    milliseconds = int(key.partition("-")[0])
    return Entry(from_microseconds(milliseconds * 1000), fields["app"], fields["event"], fields["detail"])
