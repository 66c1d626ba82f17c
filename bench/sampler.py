"""Where CPU time goes in a process: every few milliseconds of it, a look at what its main thread is doing.

The kernel's profiling timer (setitimer(2), ITIMER_PROF) counts the time that this process runs, not the time that
passes, so a busy machine does not distort it. It is a sample, not an account: what a C function used (a signature,
TLS, a system call) goes to the Python code that called it, or, inside the event loop, to what runs next.
"""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import FrameType

INTERVAL = 0.004  # seconds of CPU; the kernel's own tick is often no finer

STEP: ContextVar[str] = ContextVar("STEP", default="")
"""What is being done in this context: set once where a step begins, inherited by every task it starts."""

# (part of a file name, what it is called); the innermost frame that matches decides.
PARTS = (
    ("/certfleet/acme_ca/jws.py", "signing requests (JWS)"),
    ("/certfleet/acme_ca/keys.py", "keys and CSR"),
    ("/certfleet/vault.py", "vault"),
    ("/cryptography/fernet.py", "vault"),
    ("/certfleet/acme_ca/protocol.py", "ACME objects, X.509 checks"),
    ("/certfleet/acme_ca/answers.py", "ACME objects, X.509 checks"),
    ("/certfleet/acme_ca/resolver.py", "DNS (dnspython)"),
    ("/dns/", "DNS (dnspython)"),
    ("/certfleet/acme_ca/challenges/", "self-check"),
    ("/certfleet/acme_ca/presets.py", "resolving the CA"),
    ("/certfleet/acme_ca/", "ACME transport"),
    ("/aiohttp/", "aiohttp, yarl"),
    ("/yarl/", "aiohttp, yarl"),
    ("/aiohappyeyeballs/", "aiohttp, yarl"),
    ("/certfleet/models.py", "records to and from JSON"),
    ("/certfleet/properties.py", "properties"),
    ("/certfleet/install/", "install"),
    ("/certfleet/lifecycle/", "lifecycle"),
    ("/certfleet/", "certfleet, other"),
    ("/structlog/", "logs"),
    ("/logging/", "logs"),
    ("/redis/", "redis-py"),
    ("/pydantic/", "pydantic"),
    ("/asyncio/runners.py", "event loop (uvloop)"),
    ("/asyncio/", "asyncio"),
)

Seen = Counter[tuple[str, str]]
"""Looks by (step, part)."""


@contextmanager
def sampling() -> Iterator[Seen]:
    """Count looks at this process's main thread while the block runs in it."""
    seen: Seen = Counter()

    def look(_number: int, frame: FrameType | None) -> None:
        seen[STEP.get(), _part(frame)] += 1

    before = signal.signal(signal.SIGPROF, look)
    signal.setitimer(signal.ITIMER_PROF, INTERVAL, INTERVAL)
    try:
        yield seen
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def _part(frame: FrameType | None) -> str:
    while frame is not None:
        file = frame.f_code.co_filename
        for piece, name in PARTS:
            if piece in file:
                return name
        frame = frame.f_back
    return "other"
