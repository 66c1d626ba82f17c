"""Orders that ask for tokens and wait in rooms, with a clock of the test's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from certfleet.agenda import Agenda, Claim
from certfleet.limits.buckets import Bucket, Buckets, Rate
from certfleet.limits.keys import OrderBuckets
from certfleet.limits.line import Lines
from certfleet.limits.rooms import Candidate, Rooms, Standing, gate_member
from certfleet.models import from_microseconds
from certfleet.store import Store
from tests.limits.conftest import SECOND, Watch

CA = "https://ca.test/dir"


def orders(account: str = "account", count: int = 10, period: float = 10, burst: int | None = None) -> Bucket:
    return Bucket(CA, "orders-per-account", account, Rate(count, round(period * SECOND), burst or count))


def domain(name: str = "example.com", count: int = 2, period: float = 20, burst: int | None = None) -> Bucket:
    return Bucket(CA, "certificates-per-domain", name, Rate(count, round(period * SECOND), burst or count))


@dataclass
class Desk:
    """A worker and a clock that the test moves: what the fleet does with orders, without a CA."""

    store: Store
    watch: Watch
    agenda: Agenda = field(init=False)
    rooms: Rooms = field(init=False)
    buckets: Buckets = field(init=False)
    claims: dict[str, Claim] = field(default_factory=dict)
    version: str = "0"
    """Of the limits."""
    asked: dict[str, Candidate] = field(default_factory=dict)
    """What each order asked for last."""

    def __post_init__(self) -> None:
        self.agenda = Agenda(self.store, 1000, self.watch)
        self.rooms = Rooms(self.store, self.agenda, self.watch)
        self.buckets = Buckets(self.store, self.watch)

    async def enter(
        self, app: str, *buckets: Bucket, party: str = "t:", rank: float = 1, ordered: bool = True, **more: object
    ) -> Standing:
        """Ask for `orders-per-account` at newOrder and for everything else at issuance."""
        claim = await self.claim(app)
        asked = candidate(app, buckets, **{"version": self.version, "party": party, "rank": rank} | more)
        return await self.ask(claim, asked, ordered=ordered)

    async def ask(self, claim: Claim, asked: Candidate, *, ordered: bool = True) -> Standing:
        """As a worker asks that has this claim."""
        self.asked[asked.app] = asked
        standing = await self.rooms.enter(claim, asked, ordered=ordered)
        await self.agenda.finish(claim, from_microseconds(self.watch.now + 10**12))
        return standing

    async def change(self) -> None:
        """Some limit, of whichever CA, is another one from now on."""
        self.version = str(int(self.version) + 1)
        await self.store.redis.set(self.store.key("limits", "version"), self.version)
        await self.rooms.open_all(from_microseconds(self.watch.now))

    async def claim(self, app: str) -> Claim:
        await self.agenda.schedule(f"order:{app}", from_microseconds(self.watch.now))
        claim = await self.agenda.claim(f"order:{app}")
        assert claim is not None
        return claim

    async def open(self, bucket: Bucket, version: str = "0") -> list[str]:
        """Open the gate of a bucket's room, as its time on the agenda would; who went in."""
        for room in await Lines(self.store).rooms():
            found = await self.rooms.bucket(room)
            assert found is not None
            if found.name == bucket.name:
                opened = await self.rooms.open(room, version, bucket)
                assert opened is not None
                return list(opened.apps)
        return []

    async def tick(self) -> list[str]:
        """Open every gate that is due, and let those that are called ask anew; who went in."""
        went: list[str] = []
        for claim in await self.agenda.due(1000):
            if claim.kind == "gate":
                bucket = await self.rooms.bucket(claim.name)
                again = None
                if bucket is not None:
                    opened = await self.rooms.open(claim.name, self.version, bucket)
                    assert opened is not None
                    again = opened.again
                    went += [app for app in opened.apps if not await self._is_called(app)]
                await self.agenda.finish(claim, again)
            else:
                await self.agenda.finish(claim, from_microseconds(self.watch.now + 10**12))
        return went

    async def _is_called(self, app: str) -> bool:
        """Whether it has to ask anew, and still waits after that."""
        if await self.store.redis.hget(self.store.key("admission", app), "state") != "called":
            return False
        asked = replace(self.asked[app], version=self.version)
        return await self.ask(await self.claim(app), asked) is Standing.WAITING

    async def left(self, bucket: Bucket) -> int | None:
        return (await self.buckets.look([bucket]))[0].remaining

    async def gates(self) -> list[float]:
        """Seconds until each gate is due."""
        found = []
        for room in await Lines(self.store).rooms():
            at = await self.agenda.time_of(gate_member(room))
            assert at is not None, "a room without a gate on the agenda"
            found.append((at - from_microseconds(self.watch.now)).total_seconds())
        return found


def candidate(app: str, buckets: Sequence[Bucket], **more: object) -> Candidate:
    split = OrderBuckets(
        ordered=tuple(b for b in buckets if b.limit == "orders-per-account"),
        issued=tuple(b for b in buckets if b.limit.startswith("certificates")),
        checked=tuple(b for b in buckets if not b.limit.startswith(("certificates", "orders"))),
    )
    asked = Candidate(app=app, order="1", wish="w", version="0", party="t:", rank=1, buckets=split)
    return replace(asked, **more)  # type: ignore[arg-type]
