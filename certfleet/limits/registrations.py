"""New accounts per egress address: counted before newAccount, as the CA counts them."""

from __future__ import annotations

from datetime import datetime

from certfleet.errors import RateLimited
from certfleet.limits.buckets import Bucket, Buckets, Charge
from certfleet.limits.keys import registration_buckets
from certfleet.limits.overrides import LimitsBook
from certfleet.limits.words import meaning
from certfleet.models import CA


class Registrations:
    """The tokens of this machine's newAccount requests."""

    def __init__(self, buckets: Buckets, book: LimitsBook, address: str | None) -> None:
        """`address`: the egress address of this machine; None: all machines that do not say theirs count as one."""
        self._buckets = buckets
        self._book = book
        self._address = address

    async def spend(self, ca: CA) -> None:
        """Take a token for one newAccount. Raises RateLimited when there is none."""
        decision = await self._buckets.spend([Charge(bucket) for bucket in await self._asked(ca)])
        if not decision.allowed and decision.bucket is not None:
            at = decision.retry_at
            raise RateLimited(f"{meaning(decision.bucket, {})} at {ca.name}", at)

    async def give_back(self, ca: CA) -> None:
        """The CA made no account; it gives its token back too."""
        await self._buckets.refund([Charge(bucket) for bucket in await self._asked(ca)])

    async def block(self, ca: CA, until: datetime) -> None:
        """The CA said when it takes a newAccount from this address again.

        Only the address's own bucket is closed: whether its IPv6 range is full for others, these find out themselves.
        """
        await self._buckets.block((await self._asked(ca))[:1], until)

    async def _asked(self, ca: CA) -> tuple[Bucket, ...]:
        known = await self._book.of(ca.name, ca.directory)
        return registration_buckets(known.limits, self._address)
