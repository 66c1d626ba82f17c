"""The Celery app of beat and Flower: `celery -A workers.schedule beat`, `… flower`.

They send and show tasks by name. Without the tasks' code they start in half the time and take half the memory.
Settings are read when this module is imported, as in app.py, which is the same app with the tasks.
"""

from __future__ import annotations

import warnings
from typing import Any

from celery import Celery
from celery.exceptions import SecurityWarning
from celery.signals import setup_logging

from certfleet.settings import load_settings
from workers.configuration import configuration
from workers.logs import configure_logs

# Installing on this machine needs root, and what the warning is about (pickle) is switched off: JSON only.
warnings.filterwarnings("ignore", category=SecurityWarning)
settings = load_settings()
app = Celery("certfleet")
app.conf.update(configuration(settings))


@setup_logging.connect
def _logs(**_: Any) -> None:
    configure_logs(settings.log_level)
