"""Limits that the operator has set, in Redis.

limits          hash    what it is about (Scope.name) -> the Override or Switched as JSON
limits:version  string  counts the changes; what was decided by an older version is decided anew
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from dataclasses import dataclass

from pydantic import TypeAdapter

from certfleet.limits.presets import Limits, Told, limits_of, overridden
from certfleet.store import Store

KEPT = 1.0  # seconds that a process goes by what it has read: an order costs no read of its own
NO_VERSION = "0"  # nothing was ever set


@dataclass(frozen=True, slots=True)
class Known:
    """The limits of one CA, and the version that they belong to."""

    limits: Limits
    version: str


class LimitsBook:
    """What holds at each CA: its preset, and what was set here."""

    def __init__(self, store: Store) -> None:
        self._redis = store.redis
        self._key, self._version_key = store.key("limits"), store.key("limits", "version")
        self._adapter: TypeAdapter[Told] = TypeAdapter(Told)
        self._lock = asyncio.Lock()
        self._read_at: float | None = None
        self._version = NO_VERSION
        self._told: list[Told] = []
        self._known: dict[tuple[str, str], Known] = {}

    async def of(self, ca: str, directory: str) -> Known:
        """The limits of the CA of this name and directory."""
        await self._refresh()
        if (ca, directory) not in self._known:
            limits = overridden(limits_of(ca, directory), self._told)
            self._known[ca, directory] = Known(limits, self._version)
        return self._known[ca, directory]

    async def version(self) -> str:
        """The version of what `of` says now."""
        await self._refresh()
        return self._version

    async def all(self) -> list[Told]:
        """Everything that is set, for every CA."""
        await self._refresh()
        return list(self._told)

    async def set(self, *told: Told) -> bool:
        """Set these, each in place of what was set for the same; whether that changed anything."""
        return await self.change(told, ())

    async def remove(self, *names: str) -> bool:
        """Take away what is set under these names (Scope.name); whether there was any."""
        return await self.change((), names)

    async def change(self, told: Iterable[Told], removed: Iterable[str]) -> bool:
        """Set and take away at once, under one new version; False, and the old version, when it is so already."""
        texts: dict[str, str | None] = dict.fromkeys(removed)
        texts |= {one.name: self._adapter.dump_json(one, exclude_defaults=True).decode() for one in told}
        names = list(texts)
        if not names or await self._redis.hmget(self._key, names) == list(texts.values()):
            return False
        pipe = self._redis.pipeline()
        for name, text in texts.items():
            if text is None:
                pipe.hdel(self._key, name)
            else:
                pipe.hset(self._key, name, text)
        pipe.incr(self._version_key)
        await pipe.execute()
        self.forget()
        return True

    def forget(self) -> None:
        """Read again at the next question: somebody has changed something."""
        self._read_at = None

    def _fresh(self) -> bool:
        return self._read_at is not None and time.monotonic() - self._read_at < KEPT

    async def _refresh(self) -> None:
        if self._fresh():
            return
        async with self._lock:
            if self._fresh():
                return
            asked = time.monotonic()
            never = self._read_at is None
            version = await self._redis.get(self._version_key) or NO_VERSION
            if never or version != self._version:
                await self._read()
            self._read_at = asked

    async def _read(self) -> None:
        """Take in everything, in one transaction with its version."""
        pipe = self._redis.pipeline()
        pipe.get(self._version_key)
        pipe.hgetall(self._key)
        version, texts = await pipe.execute()
        self._told = [self._adapter.validate_json(texts[name]) for name in sorted(texts)]
        self._version, self._known = version or NO_VERSION, {}
