"""The synchronous shell around the event loop: what every task does, once.

The worker process hands its loop in at start (`use`). A task gives its members here; they are worked on
under their claims, and what became due by that is sent on at once.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, Any, Protocol

import structlog
from pydantic import Field, NonNegativeInt, StringConstraints, TypeAdapter, ValidationError

from certfleet.agenda import Claim
from certfleet.lifecycle.work import STEP_DEADLINE, Step, work
from certfleet.lifecycle.workbench import Workbench
from tasks.send import send

log = structlog.get_logger(__name__)

DEADLINE = STEP_DEADLINE + 20.0  # seconds for a message: its members run side by side, each with its own deadline
Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
_message: TypeAdapter[dict[str, int]] = TypeAdapter(Annotated[dict[Name, NonNegativeInt], Field(max_length=1000)])


class Loop(Protocol):
    """The worker's event loop (workers/loop.py)."""

    def run(self, step: Callable[[Workbench], Awaitable[Any]], timeout: float) -> Any:
        """Run a coroutine on the fleet and wait for it."""

    def close(self) -> None:
        """End it."""


_loop: Loop | None = None


def use(loop: Loop) -> None:
    """Hand in the process's loop."""
    global _loop  # noqa: PLW0603  one per process, set once at its start
    _loop = loop


def close() -> None:
    """End the loop with the process."""
    if _loop is not None:
        _loop.close()


def run(step: Callable[[Workbench], Awaitable[Any]]) -> Any:
    """Run a coroutine on the process's loop, with the message's deadline."""
    if _loop is None:
        raise RuntimeError("this process has no event loop: tasks run in `celery -A workers.app worker`")
    return _loop.run(step, DEADLINE)


def run_members(kind: str, message: object, step: Step) -> None:
    """Run the step for every member of a message, then send what became due by it.

    A message is `{name: fence}`; fence 0 is a hint, which claims for itself, if what it was sent for is still due.
    """
    try:
        names: Mapping[str, int] = _message.validate_python(message)
    except ValidationError as error:
        # Not retried: it would be as wrong the next time. What is really due comes again from the agenda.
        log.error("message refused", kind=kind, faults=error.error_count(), first=error.errors()[0]["msg"])
        return
    claims = [Claim(f"{kind}:{name}", fence) for name, fence in names.items()]

    async def everything(bench: Workbench) -> list[tuple[Claim, str | None]]:
        members = await work(bench, claims, step)
        return await bench.fleet.with_zones([Claim(member, 0) for member in members])

    send(run(everything))
