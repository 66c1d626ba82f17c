"""Certificates onto hosts."""

from celery import shared_task

from certfleet.lifecycle.hosts.install import install
from tasks.shell import run_members


@shared_task(name="certfleet.install.host")
def install_hosts(hosts: dict[str, int]) -> None:
    """Install all that waits for these hosts, one reload each. `hosts`: name -> fence (0: none)."""
    run_members("host", hosts, install)
