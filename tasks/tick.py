"""Once a second: whatever is due becomes a message."""

from celery import current_app, shared_task

from certfleet.agenda import Claim
from certfleet.broker import EXPIRY, INSTALL, ORDERS
from certfleet.lifecycle.workbench import Workbench
from tasks.send import send, waiting
from tasks.shell import run

QUEUE_BOUND = (
    400  # messages waiting in our queues, without the zones'; more would only wait there instead of on the agenda
)


@shared_task(name="certfleet.tick")
def tick() -> None:
    """Claim what is due, as much as the queues have room for, and send it."""
    batch = current_app.conf.certfleet_batch
    room = (QUEUE_BOUND - waiting(EXPIRY, ORDERS, INSTALL)) * batch

    async def due(bench: Workbench) -> list[tuple[Claim, str | None]]:
        return await bench.fleet.with_zones(await bench.fleet.agenda.due(room))

    if room > 0:
        send(run(due))
