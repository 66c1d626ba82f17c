"""CPU time of processes, from /proc/<pid>/stat (proc(5)), to a clock tick of mostly 10 ms."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

TICK = 1000 / os.sysconf("SC_CLK_TCK")  # milliseconds
RECEIVER = "receiver, nginx -t"
"""What workers started and have seen end: the receiver, and the configuration test and reload that it runs."""

# Part of a command line -> what the process is called in figures.
STACK = {
    "-n w": "workers",
    "-n clock": "clock",
    " beat ": "beat",
    "workers.responder": "responder",
    "flower": "flower",
    "valkey-server": "redis",
    "redis-server": "redis",
}

Spent = Mapping[str, float]
"""Milliseconds of CPU by process name."""


@dataclass(frozen=True, slots=True)
class Times:
    """Milliseconds of one process since its start."""

    own: float
    children: float
    """Of children that have ended and were waited for, theirs included."""


def times(pid: int) -> Times:
    """What a process has spent. Raises ProcessLookupError when it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError:
        raise ProcessLookupError(pid) from None
    user, system, children_user, children_system = (int(text) * TICK for text in fields[11:15])
    return Times(user + system, children_user + children_system)


def children(pid: int) -> dict[int, str]:
    """The children of a process: pid -> command line."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                if parent == pid:
                    found[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except (FileNotFoundError, ProcessLookupError):  # it ended meanwhile
                continue
    return found


def of_stack(supervisor: int) -> dict[str, float]:
    """Everything of ours, by what it is: the supervisor, its children, and what the workers' children spent."""
    spent: defaultdict[str, float] = defaultdict(float)
    spent["supervisor"] = times(supervisor).own
    for pid, command in children(supervisor).items():
        name = next((name for part, name in STACK.items() if part in command), "other")
        used = times(pid)
        spent[name] += used.own
        spent[RECEIVER if name == "workers" else name] += used.children
    return dict(spent)


def of_others(named: Mapping[str, int]) -> dict[str, float]:
    """Processes by name with all their children, the living and the dead."""
    return {
        name: sum(sum((t.own, t.children)) for t in map(times, (pid, *children(pid)))) for name, pid in named.items()
    }


def of_trees(first: Iterable[int]) -> float:
    """Everything that these processes and all below them have spent, with what has ended."""
    spent, waiting = 0.0, list(first)
    while waiting:
        pid = waiting.pop()
        try:
            used = times(pid)
            waiting += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
        except (FileNotFoundError, ProcessLookupError):  # it ended meanwhile
            continue
        spent += used.own + used.children
    return spent


def between(before: Spent, after: Spent) -> dict[str, float]:
    """What was spent from one reading to the next."""
    return {name: after[name] - before.get(name, 0.0) for name in after}
