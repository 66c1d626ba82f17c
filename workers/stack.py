"""Everything on one machine (`python -m workers.stack`, what `certfleet up` becomes).

Redis first, then the responder, the workers, beat and Flower, all supervised. SIGTERM or Ctrl-C ends
them in order (beat, workers, responder, Flower, Redis), a second one at once.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import fcntl
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Sequence
from functools import partial

from certfleet.broker import EXPIRY, INSTALL, ORDERS, TICK, install_queue
from certfleet.errors import CertfleetError, ConfigurationError
from certfleet.settings import Settings, ensure_home, load_settings
from certfleet.vault import ensure_key
from workers import embedded_redis, flower
from workers.supervisor import Child, Running, Service, spawn, supervise

WORKER_GRACE = 220.0  # seconds; longer than any message's own deadline (tasks/shell.py)
BEAT_GRACE = 10.0
RESPONDER_GRACE = 10.0
FLOWER_GRACE = 5.0
REDIS_GRACE = 60.0
LOOK_AGAIN = 0.1  # seconds between two looks whether Flower listens
CLOCK = "clock"
"""The worker of ticks and gates."""
CLOCK_THREADS = 2
ANSWER_TIME = 2.0  # seconds for an answer on this machine


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the stack until it is told to stop; the exit status."""
    parser = argparse.ArgumentParser(prog="certfleet up", description="Run certfleet on this machine.")
    parser.add_argument("--ready-fd", type=int, metavar="N", help="write `ready` there once everything is up")
    options = parser.parse_args(arguments)
    try:
        settings = load_settings()
        ensure_home(settings)
        lock = _lock_home(settings)
        try:
            ensure_key(settings)
            asyncio.run(run(settings, options.ready_fd))
        finally:
            os.close(lock)
    except CertfleetError as error:
        sys.stderr.write(f"certfleet: {error}\n")
        return 1
    return 0


async def run(settings: Settings, ready_fd: int | None = None) -> None:
    """Supervise everything until SIGTERM, SIGINT or the end of the terminal."""
    stop, hurry = asyncio.Event(), asyncio.Event()

    def on_signal() -> None:
        if stop.is_set():
            hurry.set()
            say("ending at once")
        else:
            stop.set()
            tell_systemd("STOPPING=1")
            say("ending; a second signal ends everything at once")

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, on_signal)
    foundation, stages = services(settings)
    await supervise(foundation, stages, say=say, stop=stop, hurry=hurry, when_up=partial(_all_up, settings, ready_fd))
    say("stopped")


def services(settings: Settings) -> tuple[list[Service], list[list[Service]]]:
    """Redis, unless another one is named; then everything else in the order in which it ends."""
    environment = os.environ | {"CERTFLEET_HOME": str(settings.home), "PYTHONUNBUFFERED": "1"}

    def service(
        name: str,
        command: Sequence[str],
        grace: float,
        ready: Callable[[Running], Awaitable[None]] | None = None,
        env: Callable[[], dict[str, str]] = lambda: environment,
    ) -> Service:
        async def start() -> Running:
            return spawn(command, log=settings.home / "log" / f"{name}.log", environment=env())

        return Service(name, start, grace) if ready is None else Service(name, start, grace, ready)

    celery = (sys.executable, "-m", "celery", "--quiet", "-A")
    queues = [EXPIRY, ORDERS, INSTALL, *(install_queue(zone) for zone in settings.zones)]
    workers = [
        service(name, (*celery, "workers.app:app", *_worker(name, settings.threads, queues)), WORKER_GRACE, _told_ready)
        for name in (f"w{number}" for number in range(1, settings.workers + 1))
    ]
    # A process of its own: what is due is found in time however long the workers' messages take.
    workers.append(
        service(CLOCK, (*celery, "workers.app:app", *_worker(CLOCK, CLOCK_THREADS, [TICK])), WORKER_GRACE, _told_ready)
    )
    beat = (
        *celery,
        "workers.schedule:app",
        "beat",
        "--scheduler",
        "redbeat.RedBeatScheduler",
        "--pidfile=",
        "--loglevel",
        "WARNING",
    )
    stages = [
        [service("beat", beat, BEAT_GRACE)],
        workers,
        [service("responder", (sys.executable, "-m", "workers.responder"), RESPONDER_GRACE, _told_ready)],
    ]
    if settings.flower_port:
        shown = [
            service(
                "flower",
                flower.command(settings),
                FLOWER_GRACE,
                partial(_flower_listens, settings),
                lambda: flower.environment(settings, environment),
            )
        ]
        stages.append(shown)
    if settings.redis_url is not None:
        return [], stages
    return [Service("redis", partial(embedded_redis.start, settings), REDIS_GRACE)], stages


def _worker(name: str, threads: int, queues: Sequence[str]) -> tuple[str, ...]:
    return (
        "worker",
        *("--pool", "threads", "--concurrency", str(threads)),
        *("-Q", ",".join(queues), "-n", f"{name}@%h"),
        *("--loglevel", "WARNING", "--without-gossip", "--without-mingle"),
    )


async def _told_ready(running: Running) -> None:
    assert isinstance(running, Child)  # noqa: S101  what spawn() gives
    await running.told_ready.wait()


async def _flower_listens(settings: Settings, _: Running) -> None:
    while True:
        try:
            async with asyncio.timeout(ANSWER_TIME):
                _reader, writer = await asyncio.open_connection(settings.flower_address, settings.flower_port)
        except (OSError, TimeoutError):
            await asyncio.sleep(LOOK_AGAIN)
        else:
            writer.close()
            return


def _lock_home(settings: Settings) -> int:
    """The descriptor that keeps a second stack out of this home. Raises ConfigurationError with who runs already."""
    path = settings.home / "lock"
    try:
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigurationError(f"the lock {path} cannot be opened: {error.strerror}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(lock, 32, 0).decode(errors="replace").strip() or "unknown"
        os.close(lock)
        raise ConfigurationError(f"certfleet already runs on {settings.home} (process {holder})") from None
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
    return lock


def _all_up(settings: Settings, ready_fd: int | None) -> None:
    if settings.flower_port:
        say(f"ready; state in {settings.home}, Flower on http://{settings.flower_address}:{settings.flower_port}/")
        say(f"Flower's user is {flower.USER}, its password in {flower.password_file(settings)}")
    else:
        say(f"ready; state in {settings.home}, no Flower")
    tell_systemd("READY=1")
    if ready_fd is not None:
        try:
            os.write(ready_fd, b"ready\n")
            os.close(ready_fd)
        except OSError as error:
            say(f"nobody takes `ready` on descriptor {ready_fd}: {error.strerror}")


def say(line: str) -> None:
    """A line for the person at the terminal or in the system's journal."""
    with contextlib.suppress(OSError):  # the terminal may be gone; that ends nothing
        sys.stderr.write(f"certfleet: {line}\n")
        sys.stderr.flush()


def tell_systemd(state: str) -> None:
    """sd_notify(3): one datagram to the socket that systemd names; nothing without it."""
    if name := os.environ.get("NOTIFY_SOCKET"):
        address = "\0" + name[1:] if name.startswith("@") else name
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as out:
            out.settimeout(ANSWER_TIME)
            try:
                out.sendto(state.encode(), address)
            except OSError as error:
                say(f"systemd does not listen on {name}: {error.strerror}")


if __name__ == "__main__":
    sys.exit(main())
