"""Sending agenda members as messages, several of one kind in each."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from celery import current_app

from certfleet.agenda import Claim
from certfleet.broker import EXCHANGE, TASKS, install_queue


def send(claims: Iterable[tuple[Claim, str | None]]) -> None:
    """Send claims (or hints, fence 0), each with its host's zone."""
    by_queue: dict[tuple[str, str, str], list[Claim]] = defaultdict(list)
    for claim, zone in claims:
        task, argument, queue = TASKS[claim.kind]
        by_queue[task, argument, install_queue(zone) if claim.kind == "host" else queue].append(claim)
    batch = current_app.conf.certfleet_batch
    for (task, argument, queue), together in by_queue.items():
        for start in range(0, len(together), batch):
            names = {claim.name: claim.fence for claim in together[start : start + batch]}
            current_app.send_task(task, kwargs={argument: names}, exchange=EXCHANGE, routing_key=queue)
