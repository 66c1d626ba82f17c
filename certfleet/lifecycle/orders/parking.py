"""When an order that keeps failing is left to a person. Decisions only: no clock, no I/O."""

from __future__ import annotations

from datetime import datetime, timedelta

from certfleet.models import Certificate, Order


def is_hopeless(order: Order, certificate: Certificate | None, after: timedelta | None, now: datetime) -> bool:
    """Whether it has failed for so long that it is not tried again by itself; `after` None: never.

    While a certificate is valid it is tried on: `after` counts from the first failure or from its end, whichever is
    later.
    """
    if after is None or order.failing_since is None:
        return False
    since = max(order.failing_since, certificate.not_after) if certificate else order.failing_since
    return after <= now - since  # no sum: a CA may write the end of the year 9999 (RFC 5280 §4.1.2.5)


def parked_sentence(order: Order, evidence: str) -> str:
    """Why it is parked, with the evidence, and what to do."""
    since = f"{order.failing_since:%Y-%m-%d %H:%M} UTC" if order.failing_since else "long ago"
    tries = f"{order.attempts} tries" if order.attempts != 1 else "1 try"
    return f"{evidence}; it has failed since {since} ({tries}): mend that, then `certfleet renew {order.app}`"
