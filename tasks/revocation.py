"""Revoking certificates."""

from celery import shared_task

from certfleet.lifecycle.revocation import revoke
from tasks.shell import run_members


@shared_task(name="certfleet.revocation.revoke")
def revoke_apps(apps: dict[str, int]) -> None:
    """Revoke what may be revoked of these apps' certificates now. `apps`: name -> fence (0: none)."""
    run_members("revoke", apps, revoke)
