"""The one-machine stack: ready when it says so, mends itself, ends without remains, tells no secrets."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from base64 import b64encode
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from certfleet.demo.ports import free_port

LONGEST = 120.0  # seconds that anything here may take


def until(condition: Callable[[], object]) -> None:
    limit = time.monotonic() + LONGEST
    while not condition():
        assert time.monotonic() < limit, "it did not come to pass"
        time.sleep(0.05)


@dataclass
class Stack:
    """A running `python -m workers.stack`, its home and its ports."""

    home: Path
    responder: int
    flower: int
    process: subprocess.Popen[bytes]
    ready: int

    def wait_until_ready(self) -> None:
        """What it writes to --ready-fd once everything is up."""
        readable, _, _ = select.select([self.ready], [], [], LONGEST)
        assert readable, self.said()
        assert os.read(self.ready, 64) == b"ready\n", self.said()

    def said(self) -> str:
        """Its standard error so far."""
        return (self.home / "said").read_text()

    def pid(self, name: str) -> int:
        """The process that a service runs in by now."""
        lines = [line for line in self.said().splitlines() if line.startswith(f"certfleet: {name}: ready (process ")]
        return int(lines[-1].removesuffix(")").rsplit(" ", 1)[1])

    def get(self, port: int, path: str, password: str | None = None) -> tuple[int, str]:
        """Status and body of an HTTP answer; 0 where nobody listens."""
        headers = {"Authorization": "Basic " + b64encode(f"certfleet:{password}".encode()).decode()} if password else {}
        request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310  http, our own
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, ""
        except OSError:
            return 0, ""


def family(home: Path) -> set[int]:
    """Every process with this home in its environment: all that a stack started."""
    mark = f"CERTFLEET_HOME={home}".encode()
    return {pid for pid in processes() if mark in read(f"/proc/{pid}/environ").split(b"\0")}


def processes() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]


def read(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError:  # it ended
        return b""


def start(home: Path, ports: tuple[int, int]) -> Stack:
    own = {
        "CERTFLEET_HOME": str(home),
        "CERTFLEET_RESPONDER_PORT": str(ports[0]),
        "CERTFLEET_FLOWER_PORT": str(ports[1]),
        "CERTFLEET_WORKERS": "1",
    }
    ready_read, ready_write = os.pipe()
    command = (sys.executable, "-m", "workers.stack", "--ready-fd", str(ready_write))
    with (home / "said").open("w") as said:
        process = subprocess.Popen(command, env=os.environ | own, stderr=said, pass_fds=(ready_write,))
    os.close(ready_write)
    return Stack(home, ports[0], ports[1], process, ready_read)


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    """One stack for this file; each test leaves it up."""
    with tempfile.TemporaryDirectory(prefix="certfleet-") as directory:
        stack = start(Path(directory), (free_port(), free_port()))
        try:
            stack.wait_until_ready()
            yield stack
        finally:
            stack.process.terminate()
            try:
                stack.process.wait(LONGEST)
            finally:
                stack.process.kill()
                os.close(stack.ready)


def test_ready_means_everything_answers(stack: Stack) -> None:
    """When it says ready, the responder and Flower answer at once."""
    assert stack.get(stack.responder, "/healthz")[0] == 200
    assert stack.get(stack.flower, "/healthcheck")[0] == 200


def test_flower_asks_for_its_password(stack: Stack) -> None:
    """401 without the password or with a wrong one, on pages and API; the workers with the right one."""
    password = (stack.home / "flower.password").read_text().strip()
    for path in ("/", "/workers", "/tasks", "/broker", "/api/workers", "/api/tasks"):
        assert stack.get(stack.flower, path)[0] == 401, path
        assert stack.get(stack.flower, path, "wrong")[0] == 401, path
        assert stack.get(stack.flower, path, password)[0] == 200, path

    def queues() -> set[str]:
        """The queues of those workers that have answered Flower so far."""
        stack.get(stack.flower, "/api/workers?refresh=1", password)
        found = json.loads(stack.get(stack.flower, "/api/queues/length", password)[1])["active_queues"]
        return {queue["name"] for queue in found}

    until(lambda: {"expiry", "orders", "install", "tick"} <= queues())


def test_flower_only_shows(stack: Stack) -> None:
    """With the password too, Flower starts no task and stops no worker."""
    password = (stack.home / "flower.password").read_text().strip()
    header = {"Authorization": "Basic " + b64encode(f"certfleet:{password}".encode()).decode()}
    name = f"w1@{socket.gethostname()}"
    url = f"http://127.0.0.1:{stack.flower}/api/worker/shutdown/{name}"
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(urllib.request.Request(url, data=b"", headers=header), timeout=30)
    assert refused.value.code == 403


def test_no_secret_in_arguments_logs_or_words(stack: Stack) -> None:
    """Neither Flower's password nor the vault's key stands where others or logs show it."""
    secrets = [(stack.home / name).read_bytes().strip() for name in ("flower.password", "vault.key")]
    places = [read(f"/proc/{pid}/cmdline") for pid in processes()]
    places += [path.read_bytes() for path in (stack.home / "log").iterdir()]
    places += [stack.said().encode(), (stack.home / "redis" / "redis.log").read_bytes()]
    assert not [place for place in places for secret in secrets if secret in place]


def test_files_are_ours_alone(stack: Stack) -> None:
    """Every file of the home is 0600, every directory 0700."""
    (stack.home / "said").chmod(0o600)  # the test's own
    wrong = {
        str(path): oct(stat.S_IMODE(path.lstat().st_mode))
        for path in (stack.home, *stack.home.rglob("*"))
        if stat.S_IMODE(path.lstat().st_mode) != (0o700 if path.is_dir() else 0o600)
    }
    assert not wrong


def test_a_second_stack_is_refused(stack: Stack) -> None:
    """One stack per home: the second says who runs already, and disturbs nothing."""
    result = subprocess.run(
        (sys.executable, "-m", "workers.stack"),
        env=os.environ | {"CERTFLEET_HOME": str(stack.home)},
        capture_output=True, text=True, timeout=LONGEST, check=False,
    )  # fmt: skip
    assert result.returncode == 1
    expected = f"certfleet: certfleet already runs on {stack.home} (process {stack.process.pid})\n"
    assert result.stderr == expected
    assert stack.get(stack.responder, "/healthz")[0] == 200


@pytest.mark.parametrize("name", ["redis", "w1", "responder", "flower"])
def test_what_is_killed_comes_back(stack: Stack, name: str) -> None:
    """Kill -9 of any part: it is started again and does its work."""
    before = stack.pid(name)
    os.kill(before, signal.SIGKILL)
    until(lambda: stack.pid(name) != before)
    until(lambda: stack.get(stack.responder, "/healthz")[0] == 200)
    assert stack.process.poll() is None


@pytest.fixture
def home() -> Iterator[Path]:
    """A home of its own; whatever still runs for it is ended with the test."""
    with tempfile.TemporaryDirectory(prefix="certfleet-") as directory:
        yield Path(directory)
        for pid in family(Path(directory)):
            os.kill(pid, signal.SIGKILL)


def test_a_killed_stack_is_followed_by_another(home: Path) -> None:
    """After a kill -9 the workers end by themselves and the next start takes Redis over; SIGTERM leaves nothing."""
    ports = (free_port(), free_port())
    first = start(home, ports)
    first.wait_until_ready()
    redis, worker = first.pid("redis"), first.pid("w1")
    first.process.kill()
    first.process.wait(LONGEST)
    os.close(first.ready)
    until(lambda: worker not in family(home))
    second = start(home, ports)
    second.wait_until_ready()
    assert second.pid("redis") == redis
    second.process.terminate()
    assert second.process.wait(LONGEST) == 0
    os.close(second.ready)
    assert family(home) == set()
    parts = [line.split(": ") for line in second.said().splitlines()]
    stopped = [part[1] for part in parts if len(part) == 3 and part[2] == "stopped"]
    assert stopped[:1] + sorted(stopped[1:3]) + stopped[3:] == ["beat", "clock", "w1", "responder", "flower", "redis"]


def test_a_second_signal_ends_at_once(home: Path) -> None:
    """Ctrl-C twice, even while it starts: everything is gone."""
    stack = start(home, (free_port(), free_port()))
    until(lambda: "redis: ready" in stack.said())
    stack.process.send_signal(signal.SIGINT)
    stack.process.send_signal(signal.SIGINT)
    stack.process.wait(LONGEST)
    os.close(stack.ready)
    until(lambda: not family(home))
