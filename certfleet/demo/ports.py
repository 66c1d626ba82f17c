"""Ports for servers of demonstration, tests and benchmarks, which run beside others of their kind.

A port that is given out is often listened on much later (nginx: with its first certificate), and is free again while a
server is down. So each process holds blocks of ports that no other one is given anything of: by a name in the kernel's
table of abstract sockets, which ends with the process and belongs to a network namespace, as ports do.
"""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator
from contextlib import suppress

from certfleet.errors import ConfigurationError

LOOPBACK = "127.0.0.1"
# Below 32768: above, a connection's own port could take one away (Linux, ip_local_port_range).
LOWEST, HIGHEST = 10_240, 32_767
BLOCK = 64  # ports: few sockets for a process that asks for thousands, and room for 352 processes

_held: list[socket.socket] = []


def _own_ports() -> Iterator[int]:
    for first in random.sample(range(LOWEST, HIGHEST + 1, BLOCK), (HIGHEST + 1 - LOWEST) // BLOCK):
        holder = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            holder.bind(f"\0certfleet-ports-{first}")
        except OSError:
            holder.close()
            continue
        _held.append(holder)
        yield from range(first, first + BLOCK)


_ports = _own_ports()


def free_port() -> int:
    """A port on 127.0.0.1 that nobody uses for TCP or UDP, and that no process is given as long as this one lives.

    Raises ConfigurationError when there is none.
    """
    for port in _ports:
        with (
            suppress(OSError),
            socket.socket(socket.AF_INET, socket.SOCK_STREAM) as stream,
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagram,
        ):
            stream.bind((LOOPBACK, port))
            datagram.bind((LOOPBACK, port))
            return port
    raise ConfigurationError(f"no free port between {LOWEST} and {HIGHEST} on {LOOPBACK}: are many tests running?")
