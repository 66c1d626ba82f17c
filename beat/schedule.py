"""What Celery beat enqueues. One entry: everything else has its own time on the agenda.

RedBeat keeps the schedule in Redis and a lock on it, so that of several beats one ticks; the lock
of a killed beat runs out after `redbeat_lock_timeout` and another one goes on.
"""

from __future__ import annotations

from typing import Any

PERIOD = 1.0  # seconds

SCHEDULE: dict[str, dict[str, Any]] = {
    "tick": {
        "task": "certfleet.tick",
        "schedule": PERIOD,
        # A tick that waited longer than this finds its successor behind it.
        "options": {"queue": "tick", "expires": 5},
    },
}
