"""Sending agenda members as messages, several of one kind in each."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from celery import current_app
from kombu import Exchange, Queue

from certfleet.agenda import Claim
from certfleet.broker import EXCHANGE, INSTALL, TASKS, install_queue

ZONE_BOUND = 40
"""Messages in a zone's queue; when nobody inside takes them, more are of no use: what is due comes again."""


def send(claims: Iterable[tuple[Claim, str | None]]) -> None:
    """Send claims (or hints, fence 0), each with its host's zone."""
    by_queue: dict[tuple[str, str, str], list[Claim]] = defaultdict(list)
    for claim, zone in claims:
        task, argument, name = TASKS[claim.kind]
        by_queue[task, argument, install_queue(zone) if claim.kind == "host" else name].append(claim)
    batch = current_app.conf.certfleet_batch
    for (task, argument, name), together in by_queue.items():
        for start in range(0, len(together), batch):
            if name.startswith(f"{INSTALL}.") and waiting(name) >= ZONE_BOUND:
                break
            current_app.send_task(
                task,
                kwargs={argument: {claim.name: claim.fence for claim in together[start : start + batch]}},
                exchange=EXCHANGE,
                routing_key=name,
                # A zone's first worker may be still to come: without its queue the message would be dropped.
                declare=[queue(name)],
            )


def queue(name: str) -> Queue:
    """The queue of this name, to listen to or to send to."""
    return Queue(name, Exchange(EXCHANGE), routing_key=name)


def waiting(*names: str) -> int:
    """Messages in these queues."""
    with current_app.pool.acquire(block=True) as connection:
        # One that broke lies in the pool closed, and gives no channel.
        connection.ensure_connection(max_retries=1, interval_start=0.2)
        with connection.channel() as channel:
            return sum(channel.queue_declare(name).message_count for name in names)
