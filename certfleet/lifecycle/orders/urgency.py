"""Which order goes first when tokens are short. Decisions only: no clock, no I/O.

    u           the emergency lane: `--urgent`
    r           whoever has a certificate to lose, by the end of its validity, or by when its CA revoked it; a first
                issue with an urgency of its own
    t:<tenant>  new names, first come first served within a tenant, one tenant after the other

Ranks are moments: they do not change while an order waits, and the one that runs out first goes first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from certfleet.models import Certificate, Order
from certfleet.properties import parse_first_issue

EMERGENCY = "u"
RENEWALS = "r"


@dataclass(frozen=True, slots=True)
class Urgency:
    """Where an order stands among others (limits/rooms.lua)."""

    party: str
    rank: float
    """Unix seconds; smaller is more urgent."""

    @property
    def new_names(self) -> bool:
        """Whether it has to leave alone what is kept for renewals."""
        return self.party not in (EMERGENCY, RENEWALS)


def is_emergency(served: Certificate) -> bool:
    """Whether its replacement goes before everything else: revoked, or its key in other hands, at an operator's word.

    What a CA revokes it may revoke by the thousand: these take their turns among the renewals.
    """
    return (served.revoked is not None or served.leaked) and not served.unasked


def urgency(order: Order, served: Certificate | None, properties: Mapping[str, str]) -> Urgency:
    """`served`: the app's certificate as it is now."""
    if order.urgent:
        return Urgency(EMERGENCY, order.created.timestamp())
    if served is not None and set(served.identifiers) == set(order.identifiers):
        ends = min(served.not_after, served.revoked or served.not_after)
        return Urgency(RENEWALS, ends.timestamp())
    left = parse_first_issue(properties["first-issue"])
    if left is not None:
        return Urgency(RENEWALS, (order.created + left).timestamp())
    return Urgency(f"t:{properties['tenant']}", order.created.timestamp())
