"""A word to the workers that something is due, so that nobody waits for the next tick."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from certfleet.broker import EXCHANGE, TASKS, broker_configuration
from certfleet.settings import Settings


def send_hint(settings: Settings, kind: str, names: Sequence[str]) -> None:
    """Send one message per batch. A message is only a hint: without it the next tick finds the same."""
    from celery import Celery  # noqa: PLC0415  170 ms of imports that a quick `ls` does not need
    from kombu.exceptions import OperationalError  # noqa: PLC0415

    task, argument, queue = TASKS[kind]
    # Redis going away just now harms nothing: the agenda has them.
    with contextlib.suppress(OperationalError), Celery("certfleet", set_as_current=False) as app:
        app.conf.update(broker_configuration(settings))
        for start in range(0, len(names), settings.batch):
            message = dict.fromkeys(names[start : start + settings.batch], 0)
            app.send_task(task, kwargs={argument: message}, exchange=EXCHANGE, routing_key=queue)
