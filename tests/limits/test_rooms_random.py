"""Random fleets before a CA that counts for itself: nobody is refused, nobody is forgotten, no token lies idle."""

from __future__ import annotations

from itertools import count

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from certfleet.limits.buckets import Bucket, Charge
from certfleet.limits.line import Lines, waiters
from certfleet.limits.rooms import Sending, Standing
from certfleet.store import Store
from tests.limits.conftest import SECOND, Watch
from tests.limits.desk import Desk, candidate, domain, orders
from tests.limits.test_random import CaBucket

ACCOUNTS = [orders("one", count=4, period=8), orders("two", count=3, period=30)]
DOMAINS = [
    domain("a.test", count=2, period=8),
    domain("b.test", count=1, period=5),
    domain("c.test", count=3, period=60),
]
numbers = count()

new_order = st.tuples(
    st.just("enter"),
    st.sampled_from(ACCOUNTS),
    st.lists(st.sampled_from(DOMAINS), min_size=1, max_size=3, unique=True),
    st.sampled_from(["u", "r", "r", "t:", "t:big", "t:big", "t:small"]),
    st.integers(0, 20),
)
events = st.one_of(
    new_order,
    new_order,
    st.tuples(st.just("wait"), st.sampled_from([0, 1, 500_000, SECOND, 3 * SECOND, 20 * SECOND])),
    st.tuples(st.just("change")),
    st.tuples(st.sampled_from(["order", "order", "issue", "issue", "tell", "leave"]), st.integers(0, 50)),
)


class Fleet:
    """Orders on their way, and what the CA has counted of them."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.ca = {bucket.name: CaBucket(bucket.rate) for bucket in (*ACCOUNTS, *DOMAINS)}
        self.buckets: dict[str, list[Bucket]] = {}
        self.ordered: set[str] = set()
        """The CA has the order."""
        self.issued: set[str] = set()
        """The CA has issued, and we do not know it yet."""

    async def do(self, event: tuple[object, ...], app: str) -> None:  # noqa: C901  one case per event
        match event:
            case ("enter", Bucket() as account, list() as domains, str() as party, int() as rank):
                self.buckets[app] = [account, *domains]
                await self.desk.enter(app, account, *domains, party=party, rank=rank)
            case ("wait", int() as time):
                self.desk.watch.now += time
            case ("change",):
                await self.desk.change()
            case ("order", int() as which):
                await self.order(which)
            case ("issue", int() as which):
                if ordered := sorted(self.ordered - self.issued):
                    name = ordered[which % len(ordered)]
                    self.issued.add(name)
                    for bucket in self.buckets[name][1:]:
                        self.ca[bucket.name].count(self.desk.watch.now)
            case ("tell", int() as which):
                if self.issued:
                    await self.end(sorted(self.issued)[which % len(self.issued)], issued=True)
            case ("leave", int() as which):
                if self.buckets:
                    await self.end(sorted(self.buckets)[which % len(self.buckets)], issued=False)

    async def order(self, which: int) -> None:
        """One admitted order is sent: the CA must not refuse it."""
        waiting = {waiter.app for waiter in await waiters(self.desk.store)}
        admitted = sorted(set(self.buckets) - waiting - self.ordered)
        if not admitted:
            return
        app = admitted[which % len(admitted)]
        assert await self.desk.rooms.send(app) == Sending.GO
        for bucket in self.buckets[app]:
            assert self.ca[bucket.name].left(self.desk.watch.now) >= 1, f"the CA answers 429 for {bucket.key}"
        self.ca[self.buckets[app][0].name].count(self.desk.watch.now)
        self.ordered.add(app)
        await self.desk.rooms.ordered(app)

    async def end(self, app: str, *, issued: bool) -> None:
        if issued or app in self.issued:
            await self.desk.rooms.issued(candidate(app, self.buckets[app]), [])
        else:
            await self.desk.rooms.leave(app)
        del self.buckets[app]
        self.ordered.discard(app)
        self.issued.discard(app)

    async def check(self) -> None:
        """What has to hold whenever every gate that is due has been opened."""
        for _ in range(20):
            if not await self.desk.tick():
                break
        waiting = {waiter.app: waiter for waiter in await waiters(self.desk.store)}
        assert set(waiting) <= set(self.buckets)
        assert len(await self.desk.gates()) == len(await Lines(self.desk.store).rooms())
        places = await Lines(self.desk.store, self.desk.watch).places(list(waiting))
        assert set(places) == set(waiting), "everybody who waits stands in a room"
        for waiter in waiting.values():
            said = await self.desk.buckets.check(waiter.charges)
            assert not said.allowed, f"{waiter.app} waits, and its tokens are there"
        for bucket in (*ACCOUNTS, *DOMAINS):
            phase = 0 if bucket in ACCOUNTS else 1
            holding = [
                app
                for app, buckets in self.buckets.items()
                if app not in waiting and bucket in buckets and not (phase == 0 and app in self.ordered)
            ]
            text = await self.desk.store.redis.get(self.desk.store.key(bucket.name))
            assert int((text or "0 0").split()[1]) == len(holding), f"{bucket.key} is reserved for {holding}"


@settings(max_examples=100, suppress_health_check=list(HealthCheck))
@given(sequence=st.lists(events, max_size=50))
async def test_no_refusal_no_loss_no_idle_token(store: Store, sequence: list[tuple[object, ...]]) -> None:
    """Orders of several accounts and domains come, are issued late, end early; the CA counts when it likes."""
    own = Store(store.redis, f"rooms{next(numbers)}:")
    fleet = Fleet(Desk(own, Watch()))
    for number, event in enumerate(sequence):
        await fleet.do(event, f"app{number:02}")
        await fleet.check()


async def test_an_order_of_many_names_gets_through_a_crowd(store: Store) -> None:
    """Orders of one name each never take away for ever what an order of three names needs together."""
    desk = Desk(store, Watch())
    fleet = Fleet(desk)
    await fleet.do(("enter", ACCOUNTS[0], DOMAINS, "r", 1), "many")
    for number in range(12):
        await fleet.do(("enter", ACCOUNTS[0], [DOMAINS[number % 3]], "r", 10 + number), f"one{number:02}")
    for _ in range(200):
        await fleet.check()
        for app in sorted(set(fleet.buckets)):
            standing = await desk.enter(app, *fleet.buckets[app], party="r", rank=1 if app == "many" else 50)
            if standing is not Standing.WAITING:
                await fleet.end(app, issued=True)
        desk.watch.move(1)
    assert fleet.buckets == {}
    assert (await desk.buckets.check([Charge(bucket) for bucket in DOMAINS])).allowed
