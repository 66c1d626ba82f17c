"""Looking whether a certificate is due."""

from celery import shared_task

from certfleet.lifecycle.renewals.check import check
from tasks.shell import run_members


@shared_task(name="certfleet.expiry.check")
def check_apps(apps: dict[str, int]) -> None:
    """Look at apps; order for those whose certificate is due. `apps`: name -> fence (0: none)."""
    run_members("check", apps, check)
