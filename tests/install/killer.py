"""The receiver, killed at a line: which lines a run can be killed before, and a copy that is."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from certfleet.install.receiver import program

LINES = program().splitlines()
CLOSERS = {"}", "fi", "done", "else", "esac", ";;"}
"""A command before one of these may change what a function returns."""


def with_killer(line: int, hit: int) -> str:
    """The receiver, killed when it comes to the line for the nth time."""
    killer = f"hits=$((${{hits:-0}} + 1)); [ $hits != {hit} ] || kill -9 $$"
    return "\n".join([*LINES[:line], killer, *LINES[line:]]) + "\n"


def with_trace(lines: set[int], trace: object) -> str:
    """The receiver, which notes in the file `trace` that it comes to one of these lines."""
    return "\n".join(f"echo {n} >>{trace}\n{line}" if n in lines else line for n, line in enumerate(LINES)) + "\n"


def state_of(tree: Path) -> str:
    """A tree in words, the same for the same state whatever its place, the run's number and the time."""
    words = []
    for path in sorted(tree.rglob("*")):
        content = str(path.readlink()) if path.is_symlink() else path.read_text() if path.is_file() else ""
        name = str(path.relative_to(tree))
        if name.endswith(".lock.owner"):
            content = "somebody"
        words.append(re.sub(r"(incoming|before-certfleet)\.\w+", r"\1", f"{name} {content}".replace(str(tree), "")))
    return "\n".join(words)


def killable(among: range = range(len(LINES))) -> list[int]:
    """The lines, of these, before which a command can stand."""
    return [
        number
        for number, line in enumerate(LINES)
        if number
        and number in among
        and line.strip()
        and not line.strip().startswith("#")
        and not re.match(r"\w+\(\) \{", line)
        and not LINES[number - 1].rstrip().endswith(("||", "&&", "|", "\\"))
        and _parses(with_killer(number, 1))
    ]


def _parses(script: str) -> bool:
    """Between two branches of a case, for example, no command can stand."""
    done = subprocess.run(["sh", "-n"], input=script.encode(), capture_output=True, check=False, timeout=10)
    return done.returncode == 0
