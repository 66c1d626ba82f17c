"""The rounds: servers, clients in processes of their own, and the same question to each kind of client in turn."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench import ROOT, BenchFailed
from bench.private_redis import cpu_ms, private_redis, socket_of
from certfleet.store import Store

CLIENTS = {
    "certfleet": "certfleet, all or none in one script call",
    "incr_expire": "INCR and EXPIRE in one round trip",
    "limits": "limits, moving window, a script call each",
}
SERVERS = {"memory": False, "disk": True}
"""Name -> whether it keeps everything; `disk` has appendfsync always."""
BUCKETS = (1, 5)
AT_ONCE = (1, 4)  # processes
ROUNDS = 10  # of each case, however short
START = 20.0  # seconds until a client is warm
PATIENCE = 15.0  # seconds that a client may answer later than it should


@dataclass(frozen=True, slots=True)
class Case:
    """The same question to every client."""

    server: str
    buckets: int
    clients: int

    def __str__(self) -> str:
        return f"{self.server}, {self.buckets} bucket{'s' * (self.buckets > 1)}, {self.clients} at once"


@dataclass(frozen=True, slots=True)
class Sample:
    """One round of one client."""

    per_second: float
    client_ms: float
    server_ms: float


Samples = dict[tuple[Case, str], list[Sample]]


async def measure(directory: Path, seconds: float) -> tuple[Samples, str]:
    """So many seconds of each kind of client in each case; and what the server is. Raises BenchFailed."""
    samples: Samples = {}
    server = {}
    for name, persistent in SERVERS.items():
        async with (
            private_redis(directory / name, persistent=persistent) as store,
            _clients(socket_of(directory / name), max(AT_ONCE)) as clients,
        ):
            server = await store.redis.info("server")
            for buckets in BUCKETS:
                for at_once in AT_ONCE:
                    case = Case(name, buckets, at_once)
                    say(f"{case}: {len(CLIENTS)} times {seconds:g} s")
                    samples |= await _case(store, clients[:at_once], case, seconds / ROUNDS)
    return samples, f"{server.get('server_name', 'redis')} {server.get('valkey_version') or server['redis_version']}"


def say(line: str) -> None:
    """How far it is, for a person."""
    print(f"bench: {line}", file=sys.stderr, flush=True)


@asynccontextmanager
async def _clients(socket: Path, count: int) -> AsyncIterator[list[asyncio.subprocess.Process]]:
    """So many warm processes; they end with the block."""
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(_client(socket)) for _ in range(count)]
        async with _in_time(START, "a client did not get warm"):
            for client in clients:
                if await _line(client) != b"warm\n":
                    raise BenchFailed("a client did not get warm; its message is above")
        yield clients


@asynccontextmanager
async def _client(socket: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.deciding", str(socket), *map(str, BUCKETS)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=ROOT,
    )
    try:
        yield process
    finally:
        if process.stdin is not None:
            process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), 5)
        except TimeoutError:
            process.kill()
            await process.wait()


@asynccontextmanager
async def _in_time(seconds: float, what: str) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise BenchFailed(f"{what} in {seconds:.0f} s") from None


async def _line(client: asyncio.subprocess.Process) -> bytes:
    assert client.stdout is not None
    return await client.stdout.readline()


async def _case(
    store: Store, clients: Sequence[asyncio.subprocess.Process], case: Case, seconds: float
) -> dict[tuple[Case, str], list[Sample]]:
    """All rounds of one case; who begins changes from round to round."""
    keys = list(CLIENTS)
    samples: Samples = {(case, key): [] for key in keys}
    for number in range(ROUNDS):
        first = number % len(keys)
        await store.redis.flushall()  # a moving window keeps every hit
        for key in keys[first:] + keys[:first]:
            samples[case, key].append(await _round(store, clients, key, case.buckets, seconds))
    return samples


async def _round(
    store: Store, clients: Sequence[asyncio.subprocess.Process], key: str, buckets: int, seconds: float
) -> Sample:
    todo = json.dumps({"key": key, "buckets": buckets, "seconds": seconds}).encode() + b"\n"
    before = await cpu_ms(store)
    async with _in_time(seconds + PATIENCE, f"{key} did not finish a round"):
        for client in clients:
            assert client.stdin is not None
            client.stdin.write(todo)
        lines = [await _line(client) for client in clients]
    if not all(lines):
        raise BenchFailed(f"{key} ended without figures; its message is above")
    done: list[dict[str, Any]] = [json.loads(line) for line in lines]
    thousands = sum(one["decisions"] for one in done) / 1000
    return Sample(
        per_second=sum(one["decisions"] / one["seconds"] for one in done),
        client_ms=sum(one["cpu_ms"] for one in done) / thousands,
        server_ms=(await cpu_ms(store) - before) / thousands,
    )
