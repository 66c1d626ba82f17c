"""certbot from PyPI, in a virtual environment of its own, one certificate after another."""

from __future__ import annotations

import asyncio
import os
import resource
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from bench import BenchFailed
from bench.ground import Ground
from bench.peer import Peer

VERSION = "5.8.0"
INSTALL = 150.0  # seconds to make the environment, once
RUN = 60.0  # seconds for one certificate
DOMAIN = "certbot.test"


async def measure(ground: Ground, *, certificates: int) -> Peer:
    """`certbot certonly --webroot` for each name in turn. Raises BenchFailed when certbot cannot be had or fails."""
    program = await _installed()
    webroot = ground.directory / "webroot"
    (webroot / ".well-known" / "acme-challenge").mkdir(parents=True)
    await ground.site("certbot", f"*.{DOMAIN}", f"location /.well-known/acme-challenge/ {{ root {webroot}; }}")
    bundle = ground.directory / "ca" / "bundle.pem"
    environment = os.environ | {"REQUESTS_CA_BUNDLE": str(bundle)}
    common = [
        *(word for part in ("config", "work", "logs") for word in (f"--{part}-dir", str(ground.directory / "certbot"))),
        *("--server", ground.ca.directory, "--non-interactive"),
    ]
    register = ("register", "--agree-tos", "-m", "bench@example.com", *common)
    await _run([str(program), *register], environment, RUN)
    await ground.ca.reset()
    began, before = time.monotonic(), _children_ms()
    for number in range(certificates):
        order = ("certonly", "--webroot", "-w", str(webroot), "-d", f"c{number}.{DOMAIN}", *common)
        await _run([str(program), *order], environment, RUN)
    return Peer.of(
        "certbot",
        f"certbot {VERSION}, one after another",
        certificates=certificates,
        seconds=time.monotonic() - began,
        cpu_ms=_children_ms() - before,
        counts=await ground.ca.counts(),
    )


async def _installed() -> Path:
    """The program; its environment is made when it is missing."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    home = cache / "certfleet-bench" / f"certbot-{VERSION}-python{version}"
    complete = home / "complete"
    if not complete.exists():
        home.parent.mkdir(parents=True, exist_ok=True)
        deadline = time.monotonic() + INSTALL
        await _run([sys.executable, "-m", "venv", "--clear", str(home)], os.environ, INSTALL)
        install = ("-m", "pip", "install", "--quiet", "--no-input", f"certbot=={VERSION}")
        await _run([str(home / "bin" / "python"), *install], os.environ, deadline - time.monotonic())
        complete.touch()
    return home / "bin" / "certbot"


async def _run(command: list[str], environment: Mapping[str, str], limit: float) -> None:
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=environment,
    )
    try:
        output, _ = await asyncio.wait_for(process.communicate(), limit)
    except TimeoutError:
        raise BenchFailed(f"certbot is left out: `{' '.join(command[:4])} …` took longer than {limit:.0f} s") from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        last = output.decode(errors="replace").strip().rpartition("\n")[2][:300]
        raise BenchFailed(f"certbot is left out: `{' '.join(command[:4])} …` failed: {last}")


def _children_ms() -> float:
    """CPU of all children that have ended; nobody else's end while certbot runs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (used.ru_utime + used.ru_stime) * 1000
