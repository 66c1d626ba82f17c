"""Revoking certificates, and noticing that CAs have."""

from celery import shared_task

from certfleet.lifecycle.revocations.crl_look import look
from certfleet.lifecycle.revocations.revocation import revoke
from tasks.shell import run_members


@shared_task(name="certfleet.revocation.revoke")
def revoke_apps(apps: dict[str, int]) -> None:
    """Revoke what may be revoked of these apps' certificates now. `apps`: name -> fence (0: none)."""
    run_members("revoke", apps, revoke)


@shared_task(name="certfleet.revocation.look")
def look_at_lists(lists: dict[str, int]) -> None:
    """Look for our certificates in these revocation lists. `lists`: name -> fence (0: none)."""
    run_members("crl", lists, look)
