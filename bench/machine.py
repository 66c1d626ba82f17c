"""What was measured on what: without it a figure says nothing."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

PACKAGES = ("certfleet", "celery", "kombu", "redis", "aiohttp", "uvloop", "cryptography", "pydantic", "flower")
ANSWER = 10.0  # seconds for a program to tell its version


def machine() -> dict[str, Any]:
    """Processor, cores, memory, kernel, and the load before we began."""
    names = re.findall(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "processor": names[0] if names else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(memory / 1e9),
        "system": f"{platform.system()} {platform.release()}",
        "load_before": round(os.getloadavg()[0], 2),
    }


def versions(redis: str) -> dict[str, str]:
    """Python, packages, and the programs that took part; `redis` is what the server says of itself."""
    return {
        "python": platform.python_version(),
        **{name: version(name) for name in PACKAGES},
        "redis_server": redis,
        "nginx": first_line(["nginx", "-v"], r"nginx/(\S+)"),
        "pebble": first_line(["dpkg-query", "-W", "-f", "${Version}", "pebble"], r"(\S+)"),
    }


def first_line(command: list[str], pattern: str) -> str:
    """What a program says of itself, the pattern's first group; `unknown` when it says nothing like it."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin"
    try:
        told = subprocess.run(
            command,
            env=os.environ | {"PATH": path},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=ANSWER,
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    found = re.search(pattern, told)
    return found[1] if found else "unknown"
