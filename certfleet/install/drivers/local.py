"""The driver for this machine: the receiver as a child process."""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from certfleet.errors import HostUnreachable, InstallError
from certfleet.install import presets
from certfleet.install.answer import Answer, parse
from certfleet.install.bundle import Item, pack
from certfleet.models import Host

RECEIVER = Path(__file__).parent.parent / "receiver.sh"
TIMEOUT = 60.0  # seconds for a whole run; `nginx -t` alone may wait for DNS


async def install(host: Host, items: Sequence[Item]) -> Answer:
    """Put the items into place. Raises HostUnreachable or InstallError."""
    adopt = [word for item in items if item.adopt for word in ("--adopt", item.app)]
    output = await _run(host, ["install", *_options(host), *adopt], pack(items, host.root))
    return parse(output, host=host.name, expected=[item.app for item in items])


async def rollback(host: Host, previous: Mapping[str, int]) -> Answer:
    """Make each app's given generation current again (0: none). Raises HostUnreachable or InstallError."""
    wanted = [f"{app}:{generation}" for app, generation in previous.items()]
    output = await _run(host, ["rollback", *_options(host), *wanted])
    return parse(output, host=host.name, expected=previous)


async def status(host: Host) -> Answer:
    """What is current for each app. Raises HostUnreachable or InstallError."""
    return parse(await _run(host, ["status", "--root", presets.checked_root(host.root)]), host=host.name)


def _options(host: Host) -> list[str]:
    run = presets.commands(host)
    root = presets.checked_root(host.root)
    return ["--root", root, "--test", shlex.join(run.test), "--reload", shlex.join(run.reload)]


async def _run(host: Host, arguments: list[str], archive: bytes = b"") -> bytes:
    try:
        process = await asyncio.create_subprocess_exec(
            "sh",
            str(RECEIVER),
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
    except OSError as error:
        raise HostUnreachable(f"host {host.name}: the receiver cannot be started here: {error}") from error
    try:
        output, complaints = await asyncio.wait_for(process.communicate(archive), TIMEOUT)
    except TimeoutError:
        raise InstallError(
            f"host {host.name}: the receiver was not done after {TIMEOUT:.0f} s and was stopped; "
            f"does `{shlex.join(presets.commands(host).test)}` hang there?"
        ) from None
    finally:
        # Its children too: a hanging configuration test would outlive it.
        if process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    if not output:
        last = complaints.decode(errors="replace").strip().rpartition("\n")[2][:300]
        raise InstallError(f"host {host.name}: the receiver ended with {process.returncode} and no answer: {last}")
    return output
