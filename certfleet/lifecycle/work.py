"""How a step is run: under a claim that is kept alive, with a deadline, and each member alone.

A step looks at one claimed member, does what is next, and says when to look again.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import structlog
from redis.exceptions import RedisError

from certfleet.agenda import Agenda, Claim
from certfleet.errors import CertfleetError, LeaseLost
from certfleet.models import utcnow

if TYPE_CHECKING:
    from certfleet.lifecycle.workbench import Workbench

log = structlog.get_logger(__name__)

STEP_DEADLINE = 180.0  # seconds; below the broker's visibility timeout, above what a step's own time-outs add up to
REDIS_RETRY = timedelta(seconds=3)  # longer than a restart takes
UNEXPECTED_RETRY = timedelta(minutes=5)  # after a fault of ours; the log has the traceback


@dataclass(frozen=True, slots=True)
class Next:
    """What a step leaves behind."""

    at: datetime | None
    """When to look at this member again; None: never, it is done."""
    members: tuple[str, ...] = ()
    """Members that became due by this step: worth a message right now."""


class Waiting(Exception):
    """Not an error: there is nothing to do before `at`, look again then. `members` are waited for, and due now."""

    def __init__(self, at: datetime, members: tuple[str, ...] = ()) -> None:
        super().__init__(at)
        self.at = at
        self.members = members


class InLine(Waiting):
    """It waits for tokens, in a waiting room whose gate calls earlier than `at`."""


class CASlow(Waiting):
    """It waits for the CA to do its part."""


Step = Callable[["Workbench", Claim], Awaitable[Next]]


async def work(bench: Workbench, claims: Iterable[Claim], step: Step) -> tuple[str, ...]:
    """Run the step for every claim at once; each succeeds or fails alone. The answer: what became due, each once."""
    outcomes = await asyncio.gather(*(_one(bench, claim, step) for claim in claims))
    return tuple(dict.fromkeys(member for members in outcomes for member in members))


async def _one(bench: Workbench, message: Claim, step: Step) -> Sequence[str]:
    claim = await (bench.fleet.agenda.begin(message) if message.fence else bench.fleet.agenda.claim_due(message.member))
    if claim is None:  # somebody else is at it, or it is done: the message was only a hint
        return ()
    try:
        async with asyncio.timeout(STEP_DEADLINE), _held(bench.fleet.agenda, claim):
            outcome = await step(bench, claim)
    except LeaseLost:
        log.warning("lease lost", member=claim.member)
        return ()
    except TimeoutError:
        log.error("step took too long", member=claim.member, seconds=STEP_DEADLINE)
        outcome = Next(utcnow() + UNEXPECTED_RETRY)
    except CertfleetError as error:
        # What a step expects it sorts itself; this is the machine's own trouble (Redis, vault).
        log.error("step could not run", member=claim.member, error=str(error))
        outcome = Next(error.retry_at or utcnow() + UNEXPECTED_RETRY)
    except RedisError as error:
        log.warning("Redis went away", member=claim.member, error=type(error).__name__)
        outcome = Next(utcnow() + REDIS_RETRY)
    except Exception:
        # A fault of ours in one member must not take the other members of the message with it.
        log.exception("step failed", member=claim.member)
        outcome = Next(utcnow() + UNEXPECTED_RETRY)
    await bench.fleet.agenda.finish(claim, outcome.at)
    return outcome.members


@asynccontextmanager
async def _held(agenda: Agenda, claim: Claim) -> AsyncIterator[None]:
    """Extend the claim while the body runs; cancel the body when somebody else has it."""
    owner = asyncio.current_task()
    lost = False

    async def extend() -> None:
        nonlocal lost
        while True:
            await asyncio.sleep(agenda.lease_seconds / 3)
            try:
                await agenda.extend(claim)
            except LeaseLost:
                lost = True
                if owner is not None:
                    owner.cancel()
                return
            except RedisError as error:  # it may be back before the lease runs out
                log.warning("claim not extended", member=claim.member, error=type(error).__name__)

    keeper = asyncio.create_task(extend())
    try:
        yield
    except asyncio.CancelledError:
        if lost:
            raise LeaseLost(f"{claim.member} is held by somebody else now") from None
        raise
    finally:
        keeper.cancel()
