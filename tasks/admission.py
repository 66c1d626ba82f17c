"""Who goes on: the gates of waiting rooms, and CAs that were away."""

from celery import shared_task

from certfleet.lifecycle.orders.gate import open_gate
from certfleet.lifecycle.orders.outage import look_at_outage
from tasks.shell import run_members


@shared_task(name="certfleet.admission.open")
def open_gates(gates: dict[str, int]) -> None:
    """Let in whoever finds all tokens. `gates`: room -> fence (0: none)."""
    run_members("gate", gates, open_gate)


@shared_task(name="certfleet.admission.retry")
def retry(cas: dict[str, int]) -> None:
    """Let one order try a CA that is away, or all go when it is back. `cas`: id of the CA -> fence (0: none)."""
    run_members("outage", cas, look_at_outage)
