"""The receiver: the one program that runs on a host, POSIX sh, put together from the parts beside this file.

`python -m certfleet.install.receiver` prints it.
"""

from __future__ import annotations

import os
from functools import cache
from hashlib import sha256
from pathlib import Path

from certfleet import __version__

PARTS = (
    "head",
    "answer",
    "words",
    "settings",
    "lock",
    "server",
    "tree",
    "key",
    "place",
    "archive",
    "switch",
    "install",
    "challenge",
    "upkeep",
    "check",
    "serve",
    "run",
)
"""Names of the files beside this one, in the order in which they make the program: functions first, the run last."""


@cache
def release() -> str:
    """What the program calls itself: certfleet's version and a hash, so that every other program has another name."""
    return f"{__version__}+{sha256(_text().encode()).hexdigest()[:12]}"


@cache
def program() -> str:
    """The whole program."""
    return _text().replace("release=''", f"release={release()}", 1)


@cache
def descriptor() -> int:
    """An open file with the program for child processes of this one; `/proc/self/fd/<it>` is its path there."""
    # Without a name: nothing has to be tidied up, and nobody else can change it.
    file = os.memfd_create("certfleet-receiver")
    os.write(file, program().encode())
    return file


def _text() -> str:
    here = Path(__file__).parent
    return "\n".join((here / f"{part}.sh").read_text() for part in PARTS)
