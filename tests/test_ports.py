"""Ports for tests and demonstrations: nobody is given one that another may still be about to use."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from certfleet.demo import ports
from certfleet.demo.ports import BLOCK, HIGHEST, LOWEST, free_port
from certfleet.errors import ConfigurationError

NUMBER = 3 * BLOCK  # more than a block has
ANOTHER = f"""
from certfleet.demo.ports import free_port
print(*(free_port() for _ in range({NUMBER})), flush=True)
input()
"""


@contextmanager
def another() -> Iterator[set[int]]:
    """What another process was given, as long as it lives."""
    command = (sys.executable, "-c", ANOTHER)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        yield {int(word) for word in process.stdout.readline().split()}
        process.stdin.close()


def test_no_port_is_given_twice() -> None:
    """Not in one process, and not in several, though nobody listens on any of them yet."""
    with another() as one, another() as two:
        own = {free_port() for _ in range(NUMBER)}
        assert len(one) == len(two) == len(own) == NUMBER
        assert len(one | two | own) == 3 * NUMBER
        assert all(LOWEST <= port <= HIGHEST for port in one | two | own)


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_a_port_in_use_is_passed_over(kind: socket.SocketKind, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether it is listened on for TCP or UDP, and by whomever."""
    used, free = free_port(), free_port()
    monkeypatch.setattr(ports, "_ports", iter((used, free)))
    with socket.socket(socket.AF_INET, kind) as server:
        server.bind(("127.0.0.1", used))
        assert free_port() == free


def test_when_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them taken by others: a sentence that says so."""
    monkeypatch.setattr(ports, "_ports", iter(()))
    with pytest.raises(ConfigurationError, match=r"no free port between 10240 and 32767 on 127\.0\.0\.1"):
        free_port()


def test_what_a_process_held_is_free_after_it() -> None:
    """Else a day of tests would use all of them up."""
    for _ in range(2):
        with another() as one:
            held = {(port - LOWEST) // BLOCK * BLOCK + LOWEST for port in one}
            assert all(not bindable(first) for first in held)
        assert all(bindable(first) for first in held)


def bindable(first: int) -> bool:
    """Whether nobody holds the block that begins here."""
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.bind(f"\0certfleet-ports-{first}")
        except OSError:
            return False
        return True
