"""The connection to Redis, the one prefix of every key, and the Lua scripts beside their modules."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff, NoBackoff
from redis.exceptions import AuthenticationError, BusyLoadingError, RedisError, ResponseError
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
PATIENCE = 10.0  # seconds that a process waits for Redis at its start; a command that a person types waits less
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


AT_ONCE = Retry(NoBackoff(), 0)
LOOK_AGAIN = 0.1  # seconds between two looks whether Redis answers


@dataclass(frozen=True, slots=True)
class Store:
    """Redis with our prefix. `key("app", "blog")` is `certfleet:app:blog`."""

    redis: Any
    """A redis.asyncio.Redis that decodes; Any, because its annotations are unions over every protocol version."""
    prefix: str

    def key(self, *parts: str) -> str:
        """The full name of a key."""
        return self.prefix + ":".join(parts)

    def script(self, *paths: Path) -> Script:
        """A Lua script that stands beside its module, behind the pieces that it shares with others."""
        return Script(self.redis.register_script("\n".join(path.read_text() for path in paths)))


@dataclass(frozen=True, slots=True)
class Script:
    """One Lua script; runs by hash, sent in full when Redis does not know it (yet, or since a restart)."""

    _script: Any

    async def __call__(self, keys: list[str], args: list[str | int | float | bytes]) -> Any:
        """Run it; keys carry the prefix already."""
        return await self._script(keys=keys, args=args)


@asynccontextmanager
async def open_store(settings: Settings, patience: float = PATIENCE) -> AsyncIterator[Store]:
    """A connection pool for one event loop. Raises RedisUnavailable when nothing answers in `patience` seconds."""
    pool = _pool(settings)
    client = redis.asyncio.Redis.from_pool(pool)
    try:
        await _answering(client, settings, patience)
        client.set_retry(RETRY)
        yield Store(client, settings.prefix)
    finally:
        await client.aclose()


def _pool(settings: Settings) -> redis.asyncio.BlockingConnectionPool:
    try:
        # Blocking: a burst of steps waits for a connection instead of failing for want of one.
        return redis.asyncio.BlockingConnectionPool.from_url(
            redis_url(settings),
            decode_responses=True,
            socket_timeout=SOCKET_TIMEOUT,
            socket_connect_timeout=CONNECT_TIMEOUT,
            retry=AT_ONCE,
            max_connections=CONNECTIONS,
            timeout=POOL_TIMEOUT,
        )
    except ValueError as error:
        raise RedisUnavailable(f"CERTFLEET_REDIS_URL cannot be used: {error}") from error


async def _answering(client: Any, settings: Settings, patience: float) -> None:
    """Return when Redis answers. Raises RedisUnavailable."""
    deadline = asyncio.get_running_loop().time() + patience
    while True:
        try:
            async with asyncio.timeout_at(deadline):
                await client.ping()
        except TypeError as error:  # redis-py hands every option of the URL to the connection's own arguments
            raise RedisUnavailable(f"CERTFLEET_REDIS_URL has an option that does not fit: {error}") from error
        except (AuthenticationError, ResponseError) as error:
            message = f"Redis refuses us: {str(error).rstrip('.')}; check user and password in CERTFLEET_REDIS_URL"
            raise RedisUnavailable(message) from error
        except (OSError, RedisError) as error:
            if asyncio.get_running_loop().time() + LOOK_AGAIN > deadline:
                raise RedisUnavailable(_silence(settings, error)) from error
        else:
            return
        await asyncio.sleep(LOOK_AGAIN)


def _silence(settings: Settings, error: Exception) -> str:
    if settings.redis_url is None:
        return f"Redis does not answer (the embedded one in {settings.redis_directory}): is `certfleet up` running?"
    reason = str(error) or type(error).__name__  # redis-py names host and port there, never the password
    return f"Redis does not answer (CERTFLEET_REDIS_URL): {reason}"
