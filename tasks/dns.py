"""TXT records that have served their time."""

from celery import shared_task

from certfleet.lifecycle.challenges.txt import tidy
from tasks.shell import run_members


@shared_task(name="certfleet.dns.tidy")
def tidy_records(apps: dict[str, int]) -> None:
    """Remove the TXT records that orders of these apps wrote and do not need. `apps`: name -> fence (0: none)."""
    run_members("dns", apps, tidy)
