"""The responder: answers for tokens that are kept, nothing for anything else, waits for Redis."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from certfleet.demo.ports import free_port
from certfleet.settings import Settings
from certfleet.store import open_store
from workers import embedded_redis
from workers.embedded_redis import EmbeddedRedis

LONGEST = 60.0  # seconds that anything here may take
TOKEN = "evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA"
ANSWER = TOKEN + ".9jg46WB3rR_AHD-EBXdN7cBkH1WOu0tA3M9fm21mqTI"


@pytest.fixture
async def settings() -> AsyncIterator[Settings]:
    """A home of its own; its server, if any, is ended with the test."""
    with tempfile.TemporaryDirectory(prefix="certfleet-") as directory:
        settings = Settings(home=Path(directory), responder_port=free_port())
        yield settings
        if settings.redis_socket.exists():
            server = await embedded_redis.start(settings)
            await server.stop(LONGEST)


@pytest.fixture
async def server(settings: Settings) -> EmbeddedRedis:
    """A running Redis."""
    return await embedded_redis.start(settings)


def start(settings: Settings) -> subprocess.Popen[bytes]:
    own = {"CERTFLEET_HOME": str(settings.home), "CERTFLEET_RESPONDER_PORT": str(settings.responder_port)}
    return subprocess.Popen((sys.executable, "-m", "workers.responder"), env=os.environ | own, stderr=subprocess.PIPE)


def catches_sigterm(process: subprocess.Popen[bytes]) -> bool:
    """Whether it has got as far as to handle SIGTERM (proc(5), SigCgt)."""
    status = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    caught = next(line for line in status if line.startswith("SigCgt:"))
    return bool(int(caught.split()[1], 16) >> (signal.SIGTERM - 1) & 1)


@asynccontextmanager
async def responder(settings: Settings) -> AsyncIterator[subprocess.Popen[bytes]]:
    """The real program; it has to end well when it is asked to."""
    process = start(settings)
    try:
        yield process
        process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(process.wait, LONGEST) == 0
    finally:
        process.kill()
        process.communicate()


async def get(settings: Settings, path: str) -> tuple[int, str, str]:
    """Status, content type, body; waits until somebody listens."""
    url = f"http://127.0.0.1:{settings.responder_port}{path}"
    async with asyncio.timeout(LONGEST), aiohttp.ClientSession() as session:
        while True:
            try:
                async with session.get(url) as answer:
                    return answer.status, answer.content_type, await answer.text()
            except aiohttp.ClientConnectorError:
                await asyncio.sleep(0.02)


@pytest.mark.usefixtures("server")
async def test_a_kept_token_is_answered(settings: Settings) -> None:
    """The key authorization, exactly, as text; taken away, it is gone."""
    async with responder(settings), open_store(settings) as store:
        await store.redis.set(store.key("challenge", TOKEN), ANSWER, ex=60)
        assert await get(settings, f"/.well-known/acme-challenge/{TOKEN}") == (200, "text/plain", ANSWER)
        await store.redis.delete(store.key("challenge", TOKEN))
        status, _, _ = await get(settings, f"/.well-known/acme-challenge/{TOKEN}")
        assert status == 404


@pytest.mark.usefixtures("server")
@pytest.mark.parametrize("token", ["a:b", "a%3Ab", "*", "a%00b", "a.b", "x" * 129, "%2e%2e", "a%0ab", "é"])
async def test_what_is_no_token_never_reaches_redis(settings: Settings, token: str) -> None:
    """Only base64url of at most 128 characters is looked up; all else is unknown."""
    async with responder(settings), open_store(settings) as store:
        await store.redis.set(store.key("challenge", "a:b"), "reached")
        before = (await store.redis.info("commandstats")).get("cmdstat_get", {"calls": 0})["calls"]
        status, _, body = await get(settings, f"/.well-known/acme-challenge/{token}")
        after = (await store.redis.info("commandstats")).get("cmdstat_get", {"calls": 0})["calls"]
        assert status == 404
        assert "reached" not in body
        assert before == after


async def test_it_waits_for_redis_and_outlives_it(settings: Settings) -> None:
    """Started without Redis it waits; it says 503 while Redis is away and 200 when it is back."""
    async with responder(settings) as process:
        first = await embedded_redis.start(settings)
        assert await get(settings, "/healthz") == (200, "text/plain", "ok\n")
        first.kill()
        await asyncio.wait_for(first.wait(), LONGEST)
        status, _, _ = await get(settings, "/healthz")
        assert status == 503
        await embedded_redis.start(settings)
        assert (await get(settings, "/healthz"))[0] == 200
        assert process.poll() is None


async def test_it_ends_while_it_waits_for_redis(settings: Settings) -> None:
    """SIGTERM reaches a responder that has not started to listen yet."""
    async with responder(settings) as process:
        async with asyncio.timeout(LONGEST):
            while not catches_sigterm(process):  # noqa: ASYNC110  another process sets no event of ours
                await asyncio.sleep(0.01)


@pytest.mark.usefixtures("server")
async def test_a_taken_port_is_said_in_one_sentence(settings: Settings) -> None:
    """Somebody else on its port: status 1, the port and what to set."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", settings.responder_port))
        other.listen()
        process = start(settings)
        _, errors = await asyncio.to_thread(process.communicate, None, LONGEST)
    said = errors.decode()
    assert process.returncode == 1
    assert f"port {settings.responder_port}" in said
    assert "CERTFLEET_RESPONDER_PORT" in said
    assert "Traceback" not in said
