"""The connection to Redis, the one prefix of every key, and the Lua scripts beside their modules."""

from __future__ import annotations

from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff
from redis.exceptions import BusyLoadingError
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from certfleet.errors import RedisUnavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from certfleet.settings import Settings

SOCKET_TIMEOUT = 10.0  # seconds; longer than any script of ours runs
CONNECT_TIMEOUT = 5.0  # seconds
CONNECTIONS = 64  # per process; a command takes a fraction of a millisecond
POOL_TIMEOUT = 30.0  # seconds that a command may wait for a connection
# A restart of Redis takes a second or two; commands that redis-py may repeat wait it out (about 6 s in all).
RETRY = Retry(
    ExponentialBackoff(cap=2.0, base=0.05),
    8,
    supported_errors=(RedisConnectionError, RedisTimeoutError, BusyLoadingError),
)


def redis_url(settings: Settings) -> str:
    """The URL for redis-py. Contains the password where there is one: never log it."""
    if settings.redis_url is not None:
        return settings.redis_url.get_secret_value()
    return f"unix://{settings.redis_socket}"


@dataclass(frozen=True, slots=True)
class Store:
    """Redis with our prefix. `key("app", "blog")` is `certfleet:app:blog`."""

    redis: Any
    """A redis.asyncio.Redis that decodes; Any, because its annotations are unions over every protocol version."""
    prefix: str

    def key(self, *parts: str) -> str:
        """The full name of a key."""
        return self.prefix + ":".join(parts)

    def script(self, path: Path) -> Script:
        """A Lua script that stands beside its module."""
        return Script(self.redis.register_script(path.read_text()))


@dataclass(frozen=True, slots=True)
class Script:
    """One Lua script; runs by hash, sent in full when Redis does not know it (yet, or since a restart)."""

    _script: Any

    async def __call__(self, keys: list[str], args: list[str | int | float | bytes]) -> Any:
        """Run it; keys carry the prefix already."""
        return await self._script(keys=keys, args=args)


@asynccontextmanager
async def open_store(settings: Settings) -> AsyncIterator[Store]:
    """A connection pool for one event loop. Raises RedisUnavailable when nothing answers."""
    # Blocking: a burst of steps waits for a connection instead of failing for want of one.
    pool = redis.asyncio.BlockingConnectionPool.from_url(
        redis_url(settings),
        decode_responses=True,
        socket_timeout=SOCKET_TIMEOUT,
        socket_connect_timeout=CONNECT_TIMEOUT,
        retry=RETRY,
        max_connections=CONNECTIONS,
        timeout=POOL_TIMEOUT,
    )
    client = redis.asyncio.Redis.from_pool(pool)
    try:
        try:
            await client.ping()
        except (OSError, redis.exceptions.RedisError) as error:
            where = "CERTFLEET_REDIS_URL" if settings.redis_url else f"the embedded Redis in {settings.redis_directory}"
            message = f"Redis does not answer ({where}): {type(error).__name__}; is `certfleet up` running?"
            raise RedisUnavailable(message) from error
        yield Store(client, settings.prefix)
    finally:
        await client.aclose()
