"""Admission: all tokens or a place in a waiting room; who goes first; what becomes of tokens."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from certfleet.errors import LeaseLost
from certfleet.limits import line
from certfleet.limits.buckets import Bucket, Rate
from certfleet.limits.line import Lines, redis_time, waiters
from certfleet.limits.rooms import Sending
from certfleet.models import from_microseconds
from certfleet.store import Store
from tests.limits.conftest import SECOND, Watch
from tests.limits.desk import CA, Desk, candidate, domain, orders


@pytest.fixture
async def desk(store: Store, watch: Watch) -> AsyncIterator[Desk]:
    return Desk(store, watch)  # type: ignore[return-value]


async def test_tokens_then_a_waiting_room_then_the_gate(desk: Desk) -> None:
    """Two tokens go at once, the third order waits, and its gate opens when the next token is there."""
    account, name = orders(), domain()
    assert [await desk.enter(app, account, name) for app in ("a", "b", "c")] == ["admitted", "admitted", "waiting"]
    assert (await desk.left(account), await desk.left(name)) == (8, 0)
    assert await desk.tick() == []
    for app in ("a", "b"):
        await desk.rooms.issued(candidate(app, [account, name]), [])
    assert (await desk.left(account), await desk.left(name)) == (8, 0), "what was reserved is counted, once"
    desk.watch.move(9.9)
    assert await desk.tick() == []
    desk.watch.move(0.2)
    assert await desk.tick() == ["c"]
    assert await desk.enter("c", account, name) == "admitted", "the order finds that it was let in"
    assert await Lines(desk.store, desk.watch).rooms() == []


async def test_all_of_an_orders_tokens_or_none(desk: Desk) -> None:
    """Names under three registered domains need a token of each; while one lacks it, the others lose none."""
    names = [domain(f"{n}.example", count=1) for n in range(3)]
    assert await desk.enter("one", orders(), names[1]) == "admitted"
    assert await desk.enter("three", orders(), *names) == "waiting"
    assert [await desk.left(bucket) for bucket in (orders(), *names)] == [9, 1, 0, 1]
    places = await Lines(desk.store, desk.watch).places(["three"])
    assert places["three"].bucket.key == "1.example"
    assert places["three"].at == from_microseconds(desk.watch.now + 20 * SECOND)


async def test_the_most_urgent_goes_first(desk: Desk) -> None:
    """The emergency lane, then renewals by the end of their certificate, then new names as they came."""
    name = domain(count=1, period=10)
    await desk.enter("first", name)
    for app, party, rank in (
        ("new1", "t:", 1),
        ("new2", "t:", 2),
        ("late", "r", 300),
        ("soon", "r", 100),
        ("alarm", "u", 900),
        ("middle", "r", 200),
    ):
        assert await desk.enter(app, name, party=party, rank=rank) == "waiting"
    await desk.rooms.issued(candidate("first", [name]), [])
    line = await Lines(desk.store, desk.watch).places(["alarm", "soon", "middle", "late", "new1", "new2"])
    assert [(p.place, p.waiting) for p in line.values()] == [(n, 6) for n in range(1, 7)]
    told = [(p.at - from_microseconds(desk.watch.now)).total_seconds() for p in line.values()]
    assert told == [10, 20, 30, 40, 50, 60]
    went = []
    for _ in range(6):
        desk.watch.move(10)
        for app in await desk.tick():
            went.append(app)
            await desk.rooms.issued(candidate(app, [name]), [])
    assert went == ["alarm", "soon", "middle", "late", "new1", "new2"]


async def test_nobody_passes_by_those_who_wait(desk: Desk) -> None:
    """A token that has just come is not for whoever asks at this moment, unless nobody more urgent waits."""
    name = domain(count=1, period=10)
    await desk.enter("first", name, party="r")
    await desk.enter("renewal", name, party="r", rank=50)
    await desk.rooms.leave("first")
    assert await desk.left(name) == 1
    assert await desk.enter("new", name) == "waiting"
    assert await desk.enter("later", name, party="r", rank=51) == "waiting"
    assert await desk.enter("sooner", name, party="r", rank=49) == "admitted"
    assert await desk.tick() == []


async def test_tenants_take_turns(desk: Desk) -> None:
    """Ten thousand names of one tenant do not starve the one of another, wherever they wait."""
    name, account = domain(count=1, period=10), orders(count=100)
    await desk.enter("first", name, account)
    for number in range(20):
        await desk.enter(f"big{number:02}", name, account, party="t:big", rank=number)
    await desk.enter("small1", name, account, party="t:small", rank=1000)
    await desk.enter("small2", name, account, party="t:small", rank=1001)
    await desk.enter("tiny", name, account, party="t:tiny", rank=2000)
    await desk.rooms.issued(candidate("first", [name, account]), [])
    went: list[str] = []
    for _ in range(7):
        desk.watch.move(10)
        for app in await desk.tick():
            went.append(app)
            await desk.rooms.issued(candidate(app, [name, account]), [])
    assert sorted(went[:3]) == ["big00", "small1", "tiny"], "each of the three once"
    assert went[3:] == [app for app in ("big01", "small2", "big02", "big03") if app in went[3:]]
    assert {"big01", "small2", "big02", "big03"} == set(went[3:])


@pytest.mark.parametrize("name", ["a", "z"])
async def test_a_tenant_that_comes_back_stands_behind_those_who_wait(desk: Desk, name: str) -> None:
    """It has one order for each token that comes, another has many: whatever it is called, each has half of them."""
    limit = domain(count=1, period=10)
    await desk.enter("first", limit)
    await desk.rooms.issued(candidate("first", [limit]), [])
    for number in range(10):
        await desk.enter(f"many{number}", limit, party="t:many", rank=number)
    went = [f"{name}0"]
    for number in range(10):
        if went[-1].startswith(name):
            await desk.enter(f"{name}{number}", limit, party=f"t:{name}", rank=number)
        desk.watch.move(10)
        went += await desk.tick()
        await desk.rooms.issued(candidate(went[-1], [limit]), [])
    assert len([app for app in went[1:] if app.startswith("many")]) == 5


async def test_new_names_leave_alone_what_is_kept_for_renewals(desk: Desk) -> None:
    """With three of ten orders kept, seven new names go; renewals go on."""
    account = orders()
    new = [await desk.enter(f"new{n}", account, keep=3) for n in range(8)]
    assert new == ["admitted"] * 7 + ["waiting"]
    assert await desk.enter("renewal", account, party="r") == "admitted"
    place = (await Lines(desk.store, desk.watch).places(["new7"]))["new7"]
    assert place.at == from_microseconds(desk.watch.now + 2 * SECOND), "when there are three again, and one for it"
    for n in range(7):
        await desk.rooms.ordered(f"new{n}")
    await desk.rooms.ordered("renewal")
    desk.watch.move(1)
    assert await desk.tick() == []
    desk.watch.move(1)
    assert await desk.tick() == ["new7"]


async def test_a_token_is_not_kept_for_somebody_who_lacks_another(desk: Desk) -> None:
    """The most urgent of a domain waits for its account; the next one, of another account, takes the token."""
    poor, rich, name = orders("poor", count=1, period=100), orders("rich"), domain(count=1, period=10)
    assert await desk.enter("first", poor, name) == "admitted"
    assert await desk.enter("urgent", poor, name, party="r", rank=1) == "waiting"
    assert await desk.enter("other", rich, name, party="r", rank=2) == "waiting"
    await desk.rooms.issued(candidate("first", [poor, name]), [])
    desk.watch.move(10.1)
    assert await desk.tick() == ["other"]
    await desk.rooms.issued(candidate("other", [rich, name]), [])
    desk.watch.move(90)
    assert await desk.tick() == ["urgent"]


async def test_an_order_held_by_its_own_limit_holds_nobody_else(desk: Desk) -> None:
    """The exact set has had its five; the next order of the domain goes by."""
    name = domain(count=2, period=10)
    own = Bucket(CA, "certificates-per-set", "www.example.com+0/1", Rate(1, 10_000 * SECOND, 1))
    await desk.enter("first", name, own)
    await desk.rooms.issued(candidate("first", [name, own]), [])
    assert await desk.enter("again", name, own, party="r", rank=1) == "waiting"
    assert await desk.enter("other", name, party="r", rank=2) == "admitted"
    assert await desk.enter("another", name, party="r", rank=3) == "waiting"
    desk.watch.move(10)
    assert await desk.tick() == ["another"]


async def test_what_is_given_back_opens_the_gate(desk: Desk) -> None:
    """An order that ends without a certificate: its tokens are somebody else's at once."""
    account, name = orders(), domain(count=1, period=1000)
    await desk.enter("first", account, name)
    await desk.enter("second", account, name)
    await desk.rooms.ordered("first")
    await desk.rooms.leave("first")
    await desk.rooms.leave("first")
    assert await desk.tick() == ["second"]
    assert (await desk.left(account), await desk.left(name)) == (8, 0), "newOrder was counted, issuing was not"


async def test_the_ca_is_believed(desk: Desk) -> None:
    """After a 429 nobody asks before its time, not even those who had their tokens already; one goes then."""
    account, name = orders(), domain(count=5, period=50)
    for app in ("a", "b", "c"):
        assert await desk.enter(app, account, name) == "admitted"
    assert await desk.rooms.send("a") == Sending.GO
    until = from_microseconds(desk.watch.now + 600 * SECOND)
    await desk.rooms.refused("a", [name], until)
    assert await desk.enter("a", account, name) == "waiting"
    assert await desk.rooms.send("b") == Sending.WAITING
    assert await desk.rooms.send("c") == Sending.WAITING
    assert await desk.left(account) == 10, "nothing was counted"
    desk.watch.move(599)
    assert await desk.tick() == []
    desk.watch.move(1)
    assert await desk.tick() == ["a"], "the CA said: one token then"
    await desk.rooms.issued(candidate("a", [account, name]), [])
    desk.watch.move(10)
    assert await desk.tick() == ["b"]


async def test_one_newOrder_at_a_time_for_one_bucket(desk: Desk) -> None:  # noqa: N802  RFC 8555's word
    """If the CA knows of fewer tokens than we, one refusal is enough to learn it."""
    account, name = orders(period=1000), domain(count=5, period=50_000)
    for app in ("a", "b"):
        await desk.enter(app, account, name)
    assert [await desk.rooms.send(app) for app in ("a", "b")] == [Sending.GO, Sending.BUSY]
    await desk.rooms.ordered("a")
    assert await desk.rooms.send("b") == Sending.GO
    quick = orders("quick", count=5, period=1)
    for number in range(5):
        await desk.enter(f"q{number}", quick)
    said = [await desk.rooms.send(f"q{number}") for number in range(5)]
    assert said == [Sending.GO] * 5, "as many as come back in a second"


async def test_a_new_order_of_which_nothing_was_heard_counts(desk: Desk) -> None:
    """The worker died between the request and the answer: the CA may have counted it, so it is sent on a new token."""
    account, name = orders(), domain()
    await desk.enter("a", account, name)
    assert await desk.rooms.send("a") == Sending.GO
    assert await desk.rooms.send("a") == Sending.GO
    assert (await desk.left(account), await desk.left(name)) == (8, 1)
    await desk.rooms.ordered("a")
    await desk.rooms.issued(candidate("a", [account, name]), [])
    assert (await desk.left(account), await desk.left(name)) == (8, 1)
    assert await desk.store.redis.keys("*admission:*") == []


async def test_other_limits_are_asked_for_anew_at_the_gate(desk: Desk) -> None:
    """Whoever entered by another version of the limits does not go in by it."""
    name = domain(count=1, period=1000)
    await desk.enter("first", name)
    await desk.enter("second", name)
    await desk.rooms.issued(candidate("first", [name]), [])
    await desk.store.redis.set(desk.store.key("limits", "version"), 1)
    assert await desk.enter("third", name) == "outdated"
    assert await desk.open(name, "1") == [], "still no token"
    wider = replace(name, rate=Rate(1, 1000 * SECOND, 3))
    assert await desk.open(wider, "1") == ["second"]
    assert await desk.enter("second", wider, version="1") == "admitted"


async def test_a_change_of_the_limits_lets_nobody_pass(desk: Desk) -> None:
    """Of any CA's limits: as many ask anew as there are tokens, in their order; the others keep their places."""
    name = domain(count=3, period=30)  # a token each ten seconds
    for app in ("x", "y", "z"):
        await desk.enter(app, name)
        await desk.rooms.issued(candidate(app, [name]), [])
    for number in range(6):
        await desk.enter(f"big{number}", name, party="t:big", rank=number)
    await desk.enter("small", name, party="t:small", rank=100)
    await desk.enter("renewal", name, party="r", rank=100)
    await desk.enter("urgent", name, party="u", rank=100)
    [room] = await Lines(desk.store).rooms()
    await desk.store.redis.set(desk.store.key("limits", "version"), 1)
    went: list[str] = []
    for _ in range(5):
        desk.watch.move(10)
        opened = await desk.rooms.open(room, "1", name)
        assert opened is not None
        [app] = opened.apps
        if len(went) == 1:
            assert await desk.enter("newcomer", name, party="t:new", rank=0, version="1") == "waiting"
        if app != "newcomer":  # which knows the limits
            assert opened.again == from_microseconds(desk.watch.now + SECOND), "whoever was called may not need it"
            party = {"urgent": "u", "renewal": "r", "small": "t:small"}.get(app, "t:big")
            assert await desk.enter(app, name, party=party, rank=100, version="1") == "admitted"
        await desk.rooms.issued(candidate(app, [name]), [])
        went.append(app)
    assert went[:2] == ["urgent", "renewal"]
    assert sorted(went[2:]) == ["big0", "newcomer", "small"], "each tenant once"


async def test_a_gate_without_a_count_opens_slowly(desk: Desk) -> None:
    """The CA named a time and no limit: one order at first, then twice as many each second."""
    closed = Bucket(CA, "refused", "account", Rate(1, SECOND, 1))
    assert await desk.enter("first", closed) == "free", "nothing to take: nothing is kept"
    await desk.buckets.block([closed], from_microseconds(desk.watch.now + 60 * SECOND))
    for number in range(10):
        assert await desk.enter(f"app{number}", closed, rank=number) == "waiting"
    desk.watch.move(60)
    went = []
    for _ in range(5):
        went.append(len(await desk.tick()))
        desk.watch.move(1)
    assert went == [1, 2, 4, 3, 0]


async def test_asking_twice_is_asking_once(desk: Desk) -> None:
    """The same order keeps its place; with another wish it begins anew, and gives back what it had."""
    account, name, other = orders(), domain(count=1), domain("example.org")
    assert await desk.enter("a", account, name) == await desk.enter("a", account, name) == "admitted"
    assert await desk.enter("b", account, name) == await desk.enter("b", account, name) == "waiting"
    assert len(await waiters(desk.store)) == 1
    assert await desk.enter("a", account, other, wish="other") == "admitted"
    assert (await desk.left(account), await desk.left(name), await desk.left(other)) == (9, 1, 1)
    assert await desk.tick() == ["b"]


async def test_a_stale_worker_takes_nothing(desk: Desk) -> None:
    """Whoever lost its claim gets no token for it."""
    stale = await desk.claim("a")
    desk.watch.move(2000)
    await desk.claim("a")
    with pytest.raises(LeaseLost):
        await desk.rooms.enter(stale, candidate("a", [orders()]))
    assert await desk.left(orders()) == 10


async def test_those_who_wait_share_one_time_on_the_agenda(desk: Desk) -> None:
    """However many wait, a token that comes costs one look at one room."""
    name = domain(count=1, period=10)
    await desk.enter("first", name)
    for number in range(500):
        await desk.enter(f"app{number}", name, rank=number)
    assert await desk.gates() == [10]
    before = await calls(desk.store)
    desk.watch.move(5)
    assert await desk.tick() == []
    assert await calls(desk.store) - before <= 3, "the tick's own question, and this one"


async def calls(store: Store) -> int:
    statistics = await store.redis.info("commandstats")
    return int(sum(one["calls"] for name, one in statistics.items() if name in ("cmdstat_evalsha", "cmdstat_zadd")))


async def test_a_room_that_empties_while_somebody_looks(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last one there goes in between two reads: nobody waits."""
    name = domain(count=1)
    await desk.enter("first", name)
    await desk.enter("last", name)
    [room] = await Lines(desk.store).rooms()

    async def meanwhile(store: Store) -> int:
        await desk.rooms.leave("last")
        return await redis_time(store)

    monkeypatch.setattr(line, "redis_time", meanwhile)
    assert await Lines(desk.store).line(room) is None


async def test_an_order_given_up_after_it_was_sent_counts(desk: Desk) -> None:
    """The CA cannot be reached after newOrder: the account's token may be spent, the certificate's is not."""
    account, name = orders(), domain()
    await desk.enter("a", account, name)
    await desk.rooms.send("a")
    await desk.rooms.leave("a")
    assert (await desk.left(account), await desk.left(name)) == (9, 2)


async def test_an_order_that_is_given_up_asks_anew(desk: Desk) -> None:
    """Nobody gave its tokens back: the newOrder that takes its place may be sent all the same, on tokens of its own."""
    account, name = orders(), domain()
    await desk.enter("a", account, name)
    assert await desk.rooms.send("a") == Sending.GO
    await desk.rooms.ordered("a")
    assert await desk.enter("a", account, name, ordered=False) == "ordered", "the CA has it"
    assert await desk.enter("a", account, name) == "admitted", "the CA's is of no use any more"
    assert await desk.rooms.send("a") == Sending.GO
    assert (await desk.left(account), await desk.left(name)) == (8, 1)
