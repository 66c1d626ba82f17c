"""The Celery app: `celery -A workers.app worker`, `… beat`, `… flower`.

This module is where such a process starts, so settings are read when it is imported.
Celery runs one event loop per worker process beside its threads (loop.py).
"""

from __future__ import annotations

import warnings
from typing import Any

from celery import Celery
from celery.exceptions import SecurityWarning
from celery.signals import setup_logging, worker_init, worker_ready, worker_shutdown

import tasks
from certfleet.settings import load_settings
from tasks import shell
from workers.configuration import configuration
from workers.logs import configure_logs
from workers.loop import FleetLoop
from workers.supervisor import tell_ready

# Installing on this machine needs root, and what the warning is about (pickle) is switched off: JSON only.
warnings.filterwarnings("ignore", category=SecurityWarning)
settings = load_settings()
app = Celery("certfleet", include=tasks.MODULES)
app.conf.update(configuration(settings))


@setup_logging.connect
def _logs(**_: Any) -> None:
    configure_logs(settings.log_level)


@worker_init.connect
def _start_loop(**_: Any) -> None:
    shell.use(FleetLoop(settings))


@worker_ready.connect
def _ready(**_: Any) -> None:
    tell_ready()


@worker_shutdown.connect
def _stop_loop(**_: Any) -> None:
    shell.close()
