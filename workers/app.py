"""The Celery app of workers: `celery -A workers.app worker`.

This module is where such a process starts, so settings are read when it is imported.
Celery runs one event loop per worker process beside its threads (loop.py).
"""

from __future__ import annotations

from typing import Any

from celery.signals import worker_init, worker_ready, worker_shutdown

import tasks
from tasks import shell
from workers.loop import FleetLoop
from workers.schedule import app, settings
from workers.supervisor import tell_ready

app.conf.include = tasks.MODULES


@worker_init.connect
def _start_loop(**_: Any) -> None:
    shell.use(FleetLoop(settings))


@worker_ready.connect
def _ready(**_: Any) -> None:
    tell_ready()


@worker_shutdown.connect
def _stop_loop(**_: Any) -> None:
    shell.close()
