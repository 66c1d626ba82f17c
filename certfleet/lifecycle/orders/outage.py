"""Orders and a CA that does not answer: each step of an order tells the fleet what it saw, and asks before it sends.

a step ── is the CA away? ──▶ no: its requests ──▶ answered: all who wait are due   (limits/outages.py)
  │ yes                                      └──▶ no answer: the third in a row closes the way for all
  ▼
waits, at no cost; outage:<id> on the agenda lets one try at a time
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from certfleet.acme_ca.presets import resolve_ca
from certfleet.acme_ca.transport import Transport
from certfleet.agenda import Claim
from certfleet.errors import CAError, UsageError
from certfleet.lifecycle.orders.trouble import Unanswered, is_silence
from certfleet.lifecycle.orders.urgency import EMERGENCY, RENEWALS, urgency
from certfleet.lifecycle.records import order_member
from certfleet.lifecycle.work import Next
from certfleet.lifecycle.workbench import Workbench
from certfleet.limits.outages import Outage
from certfleet.models import Certificate, Order, OrderState, utcnow

LANES = {EMERGENCY: -2e11, RENEWALS: -1e11}
"""Added to ranks, which are Unix seconds: whoever waits in a lane goes before those of the next."""
STALE = 20  # orders that a look passes over because they are gone; what is left comes with the next tick


async def require_answering(
    bench: Workbench, transport: Transport, order: Order, served: Certificate | None, properties: Mapping[str, str]
) -> None:
    """Raise Unanswered while the CA is away, unless it is this order's turn to try; it is let go when that is back."""
    outage = await bench.fleet.outages.enter(transport.ca.directory, order.app, _rank(order, served, properties))
    if outage is not None:
        raise Unanswered(told(outage), outage)


@asynccontextmanager
async def answering(
    bench: Workbench, transport: Transport, order: Order, served: Certificate | None, properties: Mapping[str, str]
) -> AsyncIterator[None]:
    """One step of an order with its CA: what it shows of that is for everybody. Raises Unanswered."""
    await require_answering(bench, transport, order, served, properties)
    heard = transport.heard
    try:
        yield
    except Unanswered:
        raise
    except CAError as error:
        if is_silence(error):
            raise await _silent(bench, transport, order.app, _rank(order, served, properties), error) from error
        await _seen(bench, transport, order.app, heard)
        raise
    except Exception:  # whatever it was, the CA's answers until then count; it goes on to whoever sorts it
        await _seen(bench, transport, order.app, heard)
        raise
    await _seen(bench, transport, order.app, heard)


def _rank(order: Order, served: Certificate | None, properties: Mapping[str, str]) -> float:
    """Who goes first of all that wait for a CA: as before a limit, renewals by the end of what is served."""
    found = urgency(order, served, properties)
    return LANES.get(found.party, 0.0) + found.rank


async def _silent(bench: Workbench, transport: Transport, app: str, rank: float, error: CAError) -> Unanswered:
    found = await bench.fleet.outages.failed(transport.ca.directory, app, rank, error.retry_at)
    if found.closed:
        await bench.fleet.journal.write("", "CA away", f"{transport.ca.name}: {error}")
    return Unanswered(str(error), found.outage, found.failures, error.retry_at)


async def _seen(bench: Workbench, transport: Transport, app: str, heard: int) -> None:
    """Whether the CA answered meanwhile, this order or another of this process."""
    directory = transport.ca.directory
    if transport.heard == heard:
        await bench.fleet.outages.unheard(directory, app)
    elif await bench.fleet.outages.answered(directory):
        await bench.fleet.journal.write("", "CA back", transport.ca.name)


async def look_at_outage(bench: Workbench, claim: Claim) -> Next:
    """Let one order try a CA that is away, or all go when it is back."""
    outages, members = bench.fleet.outages, list[str]()
    directory = await outages.directory(claim.name)
    for _ in range(STALE):
        again, apps = await outages.open(claim.name)
        if len(apps) == 1 and directory is not None and not await _waits(bench, apps[0], directory):
            await outages.unheard(directory, apps[0])  # its app is gone, or has another CA by now
            continue
        members += [order_member(app) for app in apps]
        if again is None or again > utcnow():
            return Next(again, tuple(members))
    return Next(utcnow(), tuple(members))


async def _waits(bench: Workbench, app: str, directory: str) -> bool:
    """Whether the app still has an order that waits for this CA."""
    order = await bench.fleet.records.order(app)
    if order is None or order.state is OrderState.PARKED:
        return False
    try:
        return resolve_ca(order.ca).directory == directory
    except UsageError:
        return False


def told(outage: Outage) -> str:
    """A CA that is away, for a person."""
    return f"the CA does not answer since {outage.since:%Y-%m-%d %H:%M} UTC, tried again at {outage.next_try:%H:%M:%S}"
