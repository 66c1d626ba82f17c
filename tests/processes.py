"""Which processes of this machine run, as proc(5) shows it."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path


def runs(pid: int) -> bool:
    """Whether there is such a process; one that ended and was not waited for yet is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):  # the second when it ends between open and read
        return False


async def ended(*pids: int) -> bool:
    """Whether all of them have ended within half a minute."""
    for _ in range(600):
        if not any(runs(pid) for pid in pids):
            return True
        await asyncio.sleep(0.05)
    return False


def descendants(pid: int) -> list[int]:
    """Every process below one, of this machine."""
    found: list[int] = []
    with suppress(FileNotFoundError, ProcessLookupError):
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            found += [int(child), *descendants(int(child))]
    return found
