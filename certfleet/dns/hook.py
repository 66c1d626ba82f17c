"""A program of the operator's that writes TXT records: `PROGRAM present NAME VALUE`, `PROGRAM cleanup NAME VALUE`.

The contract, also in docs/operations.md:

- NAME is where the record belongs, behind every CNAME, without a final dot; VALUE has 43 characters of base64url.
- `present` adds the value and leaves others at the name alone; `cleanup` takes this value away and no other one. Both
  may be called again with the same words, and are to succeed then.
- Exit status 0: done. Any other: not done, and the last line of standard error says why.
- Its environment holds PATH, HOME and LANG, ACME_ZONE (the zone that NAME is in), ACME_OWNER (where the CA looks) and
  the keys that are written in capitals, and nothing else; standard input is empty.
- After `timeout` seconds it is killed with all that it started.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

from certfleet.dns.provider import TIME_LIMIT, TXTRecord, redacted
from certfleet.errors import DNSProviderError

KEPT = 65_536  # bytes of what it says; the rest is read and dropped


class Keys(BaseModel):
    """The program, and its environment: every key in capitals."""

    model_config = ConfigDict(extra="allow", hide_input_in_errors=True)
    __pydantic_extra__: dict[str, SecretStr]

    command: Path
    """Absolute path of the program, on every machine with workers."""
    timeout: float = Field(default=TIME_LIMIT, gt=0, le=100)
    """Seconds; a step of certfleet's has three minutes in all."""

    @field_validator("command")
    @classmethod
    def _absolute(cls, value: Path) -> Path:
        if not value.is_absolute():
            raise ValueError("is not an absolute path")
        if "\0" in str(value):
            raise ValueError("has a NUL in it, which no path has")
        return value

    @model_validator(mode="after")
    def _capitals(self) -> Keys:
        for name, value in self.__pydantic_extra__.items():
            if not name.replace("_", "A").isalnum() or not name.isascii() or not name.isupper() or name[0].isdigit():
                raise ValueError(f"{name} is neither command, timeout nor a variable in capitals")
            if "\0" in value.get_secret_value():
                raise ValueError(f"{name} has a NUL in it, which no variable can hold")
        return self

    def variables(self) -> dict[str, str]:
        """What the program finds in its environment by the operator's wish."""
        return {name: value.get_secret_value() for name, value in self.__pydantic_extra__.items()}


class Hook:
    """Runs the program."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys

    async def present(self, record: TXTRecord) -> None:
        """Run `PROGRAM present NAME VALUE`."""
        await self._run("present", record)

    async def cleanup(self, record: TXTRecord) -> None:
        """Run `PROGRAM cleanup NAME VALUE`."""
        await self._run("cleanup", record)

    async def _run(self, verb: Literal["present", "cleanup"], record: TXTRecord) -> None:
        words = (str(self._keys.command), verb, record.name, record.value)
        async with _last_words() as (said, stderr):
            try:
                process = await asyncio.create_subprocess_exec(
                    *words,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=asyncio.subprocess.DEVNULL,
                    stderr=stderr,
                    env=self._environment(record),
                    cwd="/",
                    start_new_session=True,  # so that all that it starts can be ended with it
                )
            except OSError as error:
                raise DNSProviderError(f"{self._keys.command} cannot be run here: {error.strerror}") from None
            finally:
                os.close(stderr)
            try:
                await asyncio.wait_for(process.wait(), self._keys.timeout)
            except TimeoutError:
                limit = f"was not done after {self._keys.timeout:g} s: it was killed"
                raise DNSProviderError(f"{self._keys.command} {verb} {record.name} {limit}") from None
            finally:
                await _end(process)
            if process.returncode != 0:
                why = redacted(await said(), self._keys.variables().values())
                status = f"with status {process.returncode}"
                raise DNSProviderError(f"{self._keys.command} {verb} {record.name} ended {status}: {why}")

    def _environment(self, record: TXTRecord) -> Mapping[str, str]:
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        of_the_record = {"ACME_ZONE": record.zone, "ACME_OWNER": record.owner}
        return self._keys.variables() | kept | of_the_record


@asynccontextmanager
async def _last_words() -> AsyncIterator[tuple[Callable[[], Awaitable[str]], int]]:
    """What gives the last line that was written, and where it is to be written (closed by whoever gets it).

    A pipe of our own: asyncio's would have us wait for everybody who holds it, also when the program has ended.
    """
    ours, theirs = os.pipe()
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(ours, "rb"))
    kept = b""

    async def read() -> None:
        nonlocal kept
        while part := await reader.read(KEPT):
            kept = (kept + part)[-KEPT:]

    reading = asyncio.create_task(read())

    async def said() -> str:
        await asyncio.wait([reading], timeout=1)
        return (kept.decode(errors="replace").strip().splitlines() or ["it says nothing"])[-1]

    try:
        yield said, theirs
    finally:
        reading.cancel()
        transport.close()


async def _end(process: asyncio.subprocess.Process) -> None:
    """Kill what is left of its session; its own process is never waited for by anybody else."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()
