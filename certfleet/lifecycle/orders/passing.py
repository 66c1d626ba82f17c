"""An order that does not come on at its CA: held up there, or passed on to the next of its app's list.

What it comes to is decided in fallback.py. The order for the next CA takes the place of the other in one write: a crash
leaves the one or the other, and what tokens the other still has are given back when the new one asks for its own.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from certfleet.agenda import Claim
from certfleet.ca_list import cas_of
from certfleet.lifecycle.challenges import txt
from certfleet.lifecycle.orders.fallback import Choice, Failed, GoesOn, Obstacle, Stays, decide, obstacle_of, told
from certfleet.lifecycle.orders.setback import troubled
from certfleet.lifecycle.orders.trouble import InVain, Parked
from certfleet.lifecycle.orders.wishes import as_wished
from certfleet.lifecycle.work import CASlow, InLine, Next, Waiting
from certfleet.lifecycle.workbench import Workbench
from certfleet.limits.line import Lines
from certfleet.limits.words import meaning
from certfleet.models import CA, App, Cause, Order, Passed, utcnow


@dataclass(frozen=True, slots=True)
class Stop:
    """An order that stopped, and why."""

    bench: Workbench
    claim: Claim
    app: App
    cas: tuple[CA, ...]
    why: Exception


async def held_up(bench: Workbench, claim: Claim, app: App, properties: Mapping[str, str], why: Exception) -> Next:
    """What follows when an order stopped: it waits, is tried again, or goes on at the next CA. Raises LeaseLost."""
    stop = Stop(bench, claim, app, cas_of(properties), why)
    records = bench.fleet.records
    kept = await records.order(app.name) if len(stop.cas) > 1 else None
    obstacle = await _obstacle(stop, kept.email) if kept is not None else None
    if kept is None or obstacle is None:
        return await _stay(stop)
    served = await records.certificate(app.name)
    order = as_wished(kept, app, properties)
    match decide(order, obstacle, Choice(stop.cas, served, utcnow(), secrets.token_hex(8))):
        case Stays(stays, by):
            return await _stay(stop, stays, by)
        case GoesOn(following, passed):
            return await _pass_on(stop, order, following, passed)
        case Failed() as failed:
            error = Parked(failed.sentence) if failed.parked else InVain(failed.sentence, owners=failed.owners)
            return await troubled(bench, claim, app, error, order=failed.order)


async def _obstacle(stop: Stop, email: str) -> Obstacle | None:
    """What stopped it, as far as it is the CA's; None: another one would not help. `email`: the account's."""
    match stop.why:
        case InLine():
            place = (await Lines(stop.bench.fleet.store).places([stop.app.name])).get(stop.app.name)
            if place is None:  # its gate has called it just now
                return None
            until = f"{place.at:%Y-%m-%d %H:%M:%S} UTC"
            return Obstacle(
                Cause.LIMITED,
                f"waiting for {meaning(place.bucket, {place.bucket.key: email})}, until {until}",
                place.at,
            )
        case CASlow():
            return Obstacle(Cause.AWAY, "the CA has not done its part of the order yet")
        case Waiting():
            return None
        case error:
            return obstacle_of(error)


async def _stay(stop: Stop, order: Order | None = None, by: datetime | None = None) -> Next:
    """It is looked at again when the CA says, or our back-off; `by` then at the latest.

    `order`: as it is to be kept; None: as it is.
    """
    if not isinstance(stop.why, Waiting):
        return await troubled(stop.bench, stop.claim, stop.app, stop.why, order=order, by=by)
    if order is not None:
        await stop.bench.fleet.records.save_order(stop.claim, order)
    return Next(min(stop.why.at, by) if by else stop.why.at, stop.why.members)


async def _pass_on(stop: Stop, order: Order, following: Order, passed: Passed) -> Next:
    """Let another order take this one's place. Raises LeaseLost."""
    fleet, app = stop.bench.fleet, stop.app
    entry = fleet.journal.entry(app.name, "passed on", f"from {order.ca} to {following.ca}: {told(passed)}")
    if order.sealed_key is not None or order.csr:  # the CA may issue it all the same: it counts, and before we can die
        await fleet.agenda.extend(stop.claim)
        await fleet.rooms.completed(app.name)
    await fleet.records.save_order(stop.claim, following, entry)
    await fleet.rooms.leave(app.name)
    return Next(utcnow(), await txt.settled(fleet, app))
