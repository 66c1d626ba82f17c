"""Waiting rooms: their gates."""

from celery import shared_task

from certfleet.lifecycle.gate import open_gate
from tasks.shell import run_members


@shared_task(name="certfleet.admission.open")
def open_gates(gates: dict[str, int]) -> None:
    """Let in whoever finds all tokens. `gates`: room -> fence (0: none)."""
    run_members("gate", gates, open_gate)
