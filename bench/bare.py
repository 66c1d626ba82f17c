"""The floor: certfleet's own transport and protocol in one loop, and nothing else.

Nothing is stored, sealed, scheduled, checked or installed. The account key stays in memory, and nginx answers
every challenge with the account's thumbprint, so that nothing is provisioned either.

`python -m bench.bare` is the process that is measured: one JSON line in (what to do), `warm` out, an empty line in
(go), one JSON line out.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from dataclasses import asdict, dataclass
from typing import Any

import uvloop

from bench import BenchFailed
from bench.ground import ROOT, Ground
from bench.peer import Peer
from certfleet.acme_ca import protocol
from certfleet.acme_ca.challenges.http01 import PATH
from certfleet.acme_ca.keys import key_pem, load_account_key, make_account_key, make_csr, make_key
from certfleet.acme_ca.pace import poll
from certfleet.acme_ca.protocol import AcmeOrder, Signer
from certfleet.acme_ca.transport import Transport
from certfleet.errors import CAMisbehaved
from certfleet.models import CA, KeyType

LIMIT = 60.0  # seconds for a whole loop
STALL = 30.0  # seconds without a further certificate

DOMAIN = "bare.test"


@dataclass(frozen=True, slots=True)
class Work:
    """What the measured process is told."""

    directory: str
    bundle: str
    key: str
    certificates: int
    in_flight: int


async def measure(ground: Ground, *, certificates: int, in_flight: int) -> Peer:
    """Run the loop in a process of its own, on its own account. Raises BenchFailed."""
    key = make_account_key()
    answer = f'location ~ "^{PATH}([A-Za-z0-9_-]+)$" {{ return 200 "$1.{key.thumbprint}"; }}'
    await ground.site(f"bare-{in_flight}", f"*.{in_flight}.{DOMAIN}", answer)
    work = Work(ground.ca.directory, ground.ca.bundle, key_pem(key.private).decode(), certificates, in_flight)
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.bare"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=ROOT,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        async with asyncio.timeout(LIMIT):
            process.stdin.write(json.dumps(asdict(work)).encode() + b"\n")
            if await process.stdout.readline() != b"warm\n":
                raise BenchFailed("the bare loop did not get warm; its message is above")
            await ground.ca.reset()
            process.stdin.write(b"\n")
            told = json.loads(await process.stdout.readline() or b"{}")
    except TimeoutError:
        raise BenchFailed(f"the bare loop with {in_flight} in flight took longer than {LIMIT:.0f} s") from None
    finally:
        if process.returncode is None:
            process.stdin.close()
            try:
                await asyncio.wait_for(process.wait(), 5)
            except TimeoutError:
                process.kill()
                await process.wait()
    if "seconds" not in told:
        raise BenchFailed("the bare loop ended without figures; its message is above")
    return Peer.of(
        f"bare_{in_flight}",
        f"bare aiohttp loop, {in_flight} in flight",
        certificates=certificates,
        seconds=told["seconds"],
        cpu_ms=told["cpu_ms"],
        counts=await ground.ca.counts(),
    )


async def _loop(transport: Transport, signer: Signer, work: Work, prefix: str, count: int) -> None:
    turns = asyncio.Semaphore(work.in_flight)
    done = 0

    async def one(number: int) -> None:
        nonlocal done
        async with turns:
            await _certificate(transport, signer, f"{prefix}{number}.{work.in_flight}.{DOMAIN}")
        done += 1

    async def watch() -> None:
        seen = -1
        while seen < done:
            seen = done
            await asyncio.sleep(STALL)
        raise BenchFailed(f"no progress in {STALL:.0f} s: the bare loop stands at {done} of {count}")

    async with asyncio.TaskGroup() as group:
        watching = group.create_task(watch())
        await asyncio.gather(*(one(number) for number in range(count)))
        watching.cancel()


async def _certificate(transport: Transport, signer: Signer, name: str) -> None:
    order = await protocol.new_order(transport, signer, [name])

    async def look() -> AcmeOrder:
        return await protocol.get_order(transport, signer, order.url)

    seen: AcmeOrder | None = order
    if order.status == "pending":
        authorization = await protocol.get_authorization(transport, signer, order.authorizations[0])
        if authorization.status == "pending" and authorization.http01 is not None:
            await protocol.answer_challenge(transport, signer, authorization.http01.url)
        seen = await poll(look, lambda order: order.status != "pending", transport.ready)
    key = await make_key(KeyType.P256)
    seen = await protocol.finalize(transport, signer, seen or order, make_csr(key, [name]))
    if seen.status == "processing":
        seen = await poll(look, lambda order: order.status != "processing", transport.valid)
    if seen is None or seen.certificate is None:
        raise CAMisbehaved(f"{name}: the CA gave no certificate in time")
    await protocol.download(transport, signer, seen.certificate, key=key, identifiers=[name])


async def _main() -> None:
    work = Work(**json.loads(await asyncio.to_thread(sys.stdin.readline)))
    key = load_account_key(work.key.encode())
    async with Transport(CA("bare", work.directory, bundle=work.bundle, public=False)) as transport:
        kid = (await protocol.new_account(transport, key, "bench@example.com", agree_tos=True)).url
        signer = Signer(key, kid)
        await _loop(transport, signer, work, "w", 2 * work.in_flight)
        _say("warm")
        await asyncio.to_thread(sys.stdin.readline)
        wall, cpu = time.monotonic(), time.process_time()
        await _loop(transport, signer, work, "c", work.certificates)
        _say(json.dumps({"seconds": time.monotonic() - wall, "cpu_ms": (time.process_time() - cpu) * 1000}))


def _say(value: Any) -> None:
    print(value, flush=True)


if __name__ == "__main__":
    uvloop.run(_main())
