"""What became of an app on a host, as it is kept: whose fault, in words for a person, and when it is tried again.

Decisions only: no I/O.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from certfleet.errors import HostUnreachable, InstallError
from certfleet.install.answer import AppAnswer, State
from certfleet.lifecycle.hosts.waves import Rollout
from certfleet.lifecycle.renewals.renewal import retry_after
from certfleet.models import App, Certificate, Fault, Installation


@dataclass(frozen=True, slots=True)
class Job:
    """One app's newest certificate for one host."""

    app: App
    certificate: Certificate
    installation: Installation
    properties: dict[str, str]
    standing: Rollout
    """How far the certificate has come on all hosts of the app, when the visit began."""

    @property
    def again(self) -> bool:
        """It is there already, by our records: the visit is to put right what the endpoint shows."""
        return self.installation.installed == self.certificate.generation


def success(job: Job, now: datetime) -> Installation:
    """The endpoint presents it."""
    generation = job.certificate.generation
    return Installation(
        app=job.app.name,
        host=job.installation.host,
        wanted=generation,
        installed=generation,
        served=generation,
        proven=generation,
        changed=now,
        asked=now,
    )


def failure(job: Job, error: str, fault: Fault, now: datetime) -> Installation:
    """It is tried again after a while that grows to a day."""
    attempts = job.installation.attempts + 1
    return replace(
        job.installation,
        wanted=job.certificate.generation,
        error=" ".join(error.split()),  # a web server says it in several lines
        fault=fault,
        attempts=attempts,
        retry_at=now + retry_after(attempts),
        changed=now,
    )


def untaken(job: Job, error: InstallError, now: datetime) -> Installation:
    """The host could not be reached, or did nothing at all."""
    fault = Fault.DOWN if isinstance(error, HostUnreachable) else Fault.UNFIT
    return failure(job, error.at(job.installation.host), fault, now)


def refused(job: Job, said: AppAnswer, now: datetime) -> Installation:
    """The host did not take this one."""
    fault = Fault.REFUSED if said.state is State.FAILED else Fault.UNFIT
    return replace(failure(job, _reason(job, said), fault, now), installed=said.generation)


def _reason(job: Job, said: AppAnswer) -> str:
    match said.state:
        case State.FOREIGN:
            return f"{said.message}; `certfleet enable {job.app.name} --adopt` takes it over"
        case State.STALE:
            newer = f"`certfleet renew {job.app.name} --force` makes one above it"
            return f"the host has generation {said.generation}, which this fleet does not know (restored?): {newer}"
        case State.KEY_LOST:
            return f"{said.message}, and no copy is anywhere: a certificate with a new key is ordered"
        case State.BROKEN_BEFORE:
            return f"the web server's configuration was broken before we came, nothing was touched: {said.message}"
        case _:
            return f"the web server refused it, the old one is back: {said.message}"


def unserved(job: Job, said: AppAnswer, error: InstallError, now: datetime) -> Installation:
    """It is in place, and the endpoint presents something else."""
    anew = "; it was put there anew and the web server reloaded" if said.previous == job.certificate.generation else ""
    outcome = failure(job, f"{error}{anew}", Fault.UNSERVED, now)
    return replace(outcome, installed=said.generation, served=0, asked=now)


def put_back(outcome: Installation, previous: int, *, served: bool) -> Installation:
    """The generation before is current again; `served`: the endpoint shows it."""
    back = "the old one is back" if previous else "it was taken away again"
    silent = " but not served either" if previous and not served else ""
    return replace(
        outcome,
        installed=previous,
        served=previous if served else 0,
        error=f"{outcome.error}; {back}{silent}",
    )


def not_put_back(outcome: Installation, reason: str) -> Installation:
    """Even that failed."""
    return replace(outcome, error=f"{outcome.error}; putting the old one back failed too: {' '.join(reason.split())}")
