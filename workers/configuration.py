"""What Celery is told beyond certfleet/broker.py. Each line that is not Celery's default stands for a reason."""

from __future__ import annotations

from typing import Any

from kombu import Queue

from beat.schedule import PERIOD, SCHEDULE
from certfleet.broker import EXPIRY, INSTALL, ORDERS, TICK, broker_configuration, install_queue
from certfleet.settings import Settings
from certfleet.store import redis_url
from tasks.send import queue


def queues(settings: Settings) -> list[Queue]:
    """The queues of a worker: hosts in a zone are reached only by workers that were given the zone."""
    names = (TICK, EXPIRY, ORDERS, INSTALL, *(install_queue(zone) for zone in settings.zones))
    return [queue(name) for name in names]


def configuration(settings: Settings) -> dict[str, Any]:
    """The configuration of every Celery process."""
    return {
        **broker_configuration(settings),
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,  # Redis may be away for long: wait, however often it takes
        # What the tick has claimed waits for its lease when its message is not sent: about 7 s outlast a restart.
        "task_publish_retry_policy": {"max_retries": 10, "interval_start": 0, "interval_step": 0.2, "interval_max": 1},
        # JSON only: a message never becomes code.
        "accept_content": ["json"],
        "event_serializer": "json",
        # A message is a hint, the record is the truth: redelivered when a worker dies, and nothing is kept of it.
        "task_acks_late": True,
        "task_reject_on_worker_lost": True,
        "worker_prefetch_multiplier": 1,
        "task_queues": queues(settings),
        "worker_send_task_events": True,  # for Flower; arguments are names and fences only
        "worker_hijack_root_logger": False,
        "worker_cancel_long_running_tasks_on_connection_loss": False,  # threads cannot be cancelled; fences guard
        "timezone": "UTC",
        "enable_utc": True,
        "certfleet_batch": settings.batch,
        "result_expires": None,  # there are no results: no daily task that would clean them up
        "beat_schedule": SCHEDULE,
        "beat_scheduler": "redbeat.RedBeatScheduler",
        # The lock of a killed beat (or one that Redis was killed under) holds the tick until it runs out:
        # 25 minutes with RedBeat's defaults. It is extended with each tick, and who waits looks once a loop.
        "beat_max_loop_interval": PERIOD,
        "redbeat_lock_timeout": 5 * PERIOD,
        "redbeat_redis_url": redis_url(settings),
        "redbeat_redis_options": {"socket_timeout": 30},  # seconds; the broker's options are not for its client
        "redbeat_key_prefix": settings.prefix + "beat:",
        "redbeat_lock_key": settings.prefix + "beat:lock",
    }
