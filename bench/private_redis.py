"""A Redis for one benchmark: the embedded one's program and configuration, with or without its persistence."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from pydantic import SecretStr

from certfleet.demo.pebble import child
from certfleet.settings import Settings
from certfleet.store import Store, open_store
from workers.embedded_redis import CONFIGURATION, server_program


def socket_of(directory: Path) -> Path:
    """Where the Redis that runs in this directory answers."""
    return directory / "redis.sock"


@asynccontextmanager
async def private_redis(directory: Path, *, persistent: bool) -> AsyncIterator[Store]:
    """Run a server in `directory`, which is made; it dies with us. Raises RedisUnavailable when it does not come up."""
    directory.mkdir(mode=0o700)
    socket = socket_of(directory)
    places = {"dir": str(directory), "unixsocket": str(socket), "logfile": ""}
    options = {**places, "pidfile": "", "appendonly": "yes" if persistent else "no"}
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    async with (
        child((server_program(), str(CONFIGURATION), *words), directory / "log"),
        open_store(Settings(home=directory, redis_url=SecretStr(f"unix://{socket}"))) as store,
    ):
        yield store


async def cpu_ms(store: Store) -> float:
    """What the server has spent, in user and system time."""
    told = await store.redis.info("cpu")
    return float((told["used_cpu_user"] + told["used_cpu_sys"]) * 1000)
