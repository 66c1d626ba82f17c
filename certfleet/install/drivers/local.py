"""The driver for this machine: the receiver as a child process."""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress

from certfleet.errors import HostUnreachable, InstallError
from certfleet.install import challenge, csr, presets
from certfleet.install.answer import Answer, Report, parse, parse_report
from certfleet.install.bundle import Item, pack
from certfleet.install.challenge import Answerer
from certfleet.install.csr import Wanted
from certfleet.install.drivers import words
from certfleet.install.receiver import descriptor
from certfleet.models import Host

TIMEOUT = 60.0  # seconds for a whole run; `nginx -t` alone may wait for DNS


async def install(host: Host, items: Sequence[Item]) -> Answer:
    """Put the items into place. Raises HostUnreachable or InstallError."""
    output = await _run(host, ["install", *_options(host), *words.install(items)], pack(items, host.root, host.preset))
    return parse(output, host=host.name, expected=[item.app for item in items])


async def rollback(host: Host, previous: Mapping[str, int]) -> Answer:
    """Make each app's given generation current again (0: none). Raises HostUnreachable or InstallError."""
    output = await _run(host, ["rollback", *_options(host), *words.rollback(previous)])
    return parse(output, host=host.name, expected=previous)


async def status(host: Host) -> Answer:
    """What is current for each app. Raises HostUnreachable or InstallError."""
    return parse(await _run(host, ["status", "--root", presets.checked_root(host.root)]), host=host.name)


async def check(host: Host, *, reload: bool = False) -> Report:
    """What works here, point by point. Raises HostUnreachable or InstallError."""
    return parse_report(await _run(host, ["check", *_options(host), *words.check(reload=reload)]), host=host.name)


async def remove(host: Host, apps: Sequence[str]) -> Answer:
    """Take the apps' certificates away. Raises HostUnreachable or InstallError."""
    return parse(await _run(host, ["remove", *_options(host), *apps]), host=host.name, expected=apps)


async def cleanup(host: Host, keep: int) -> Answer:
    """Delete old generations. Raises HostUnreachable or InstallError."""
    return parse(await _run(host, ["cleanup", *_options(host), *words.cleanup(keep)]), host=host.name)


async def publish(host: Host, answers: Mapping[str, str]) -> None:
    """Put challenges into the webroot: token -> key authorization. Raises HostUnreachable or InstallError."""
    parse(await _run(host, ["challenge", *_options(host)], challenge.answers(answers)), host=host.name)


async def withdraw(host: Host, tokens: Sequence[str]) -> None:
    """Take challenges away. Raises HostUnreachable or InstallError."""
    parse(await _run(host, ["withdraw", *_options(host)], challenge.tokens(tokens)), host=host.name)


async def snippet(host: Host, apps: Sequence[Answerer]) -> Answer:
    """Let the web server answer for the apps by itself. Raises HostUnreachable or InstallError."""
    output = await _run(host, ["snippet", *_options(host)], challenge.answerers(apps))
    return parse(output, host=host.name, expected=[one.app for one in apps])


async def request(host: Host, wanted: Sequence[Wanted]) -> Answer:
    """Have a key made for each, which stays there. Raises HostUnreachable or InstallError."""
    output = await _run(host, ["request", *_options(host)], csr.lines(wanted))
    return parse(output, host=host.name, expected=[one.app for one in wanted])


def _options(host: Host) -> list[str]:
    return [word for name, value in presets.settings(host).items() for word in (f"--{name}", value)]


async def _run(host: Host, arguments: list[str], archive: bytes = b"") -> bytes:
    receiver, sent = descriptor(), _open(archive)
    try:
        process = await asyncio.create_subprocess_exec(
            "sh",
            f"/proc/self/fd/{receiver}",
            *arguments,
            stdin=sent,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            pass_fds=(receiver,),
            start_new_session=True,
        )
    except OSError as error:
        raise HostUnreachable(f"host {host.name}: the receiver cannot be started here: {error}") from error
    finally:
        os.close(sent)
    try:
        output, complaints = await asyncio.wait_for(process.communicate(), TIMEOUT)
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


def _open(archive: bytes) -> int:
    """A file without a name that holds the archive, to be read from its beginning.

    No pipe: a receiver that ends before it has read one, as those without an archive do, is an error to uvloop.
    """
    file = os.memfd_create("certfleet-archive")
    with open(file, "wb", closefd=False) as writer:
        writer.write(archive)
    os.lseek(file, 0, os.SEEK_SET)
    return file
