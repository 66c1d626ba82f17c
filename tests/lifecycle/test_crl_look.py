"""Looks at revocation lists, step by step: a real server, a real Redis, no workers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from certfleet.acme_ca.reasons import Reason
from certfleet.errors import CAMisbehaved, CAUnreachable, LeaseLost
from certfleet.lifecycle.orders.ordering import LONG_AGO, make_order
from certfleet.lifecycle.records import check_member, order_member
from certfleet.lifecycle.revocations import crl_look, revoked_by_ca
from certfleet.lifecycle.revocations.book import Revocation
from certfleet.lifecycle.revocations.crl_book import WatchedList, crl_member
from certfleet.lifecycle.revocations.crl_look import look
from certfleet.lifecycle.revocations.withdrawal import SAFETY
from certfleet.models import Certificate, utcnow
from certfleet.properties import effective
from certfleet.settings import Settings
from certfleet.store import Store
from tests.lifecycle.crl_desk import Desk, another, open_desk
from tests.revoking_ca import RevokingCA, part, point

FLAGS = x509.ReasonFlags
NOW = datetime(2026, 11, 28, 10, tzinfo=UTC)
LIST = WatchedList("ab", "http://lists.example/7.crl", "", next_look=NOW)


@pytest.fixture
async def desk(settings: Settings, store: Store) -> AsyncIterator[Desk]:
    """An empty list is published."""
    del store  # emptied
    async with open_desk(settings) as opened:
        yield opened


async def test_one_fetch_for_all_apps_that_share_it(desk: Desk) -> None:
    """One time on the agenda, soon; one question for all; and again only whether it has changed."""
    apps = await desk.watched(*(f"a{number}" for number in range(20)))
    agenda = desk.bench.fleet.agenda
    first = await agenda.time_of(crl_member(desk.name))
    assert first is not None
    assert utcnow() - timedelta(minutes=1) < first < utcnow() + crl_look.FIRST_LOOK
    await desk.check(*apps)
    assert await agenda.size() == 1
    assert await desk.look() == ()
    again = await agenda.time_of(crl_member(desk.name))
    assert again == (await desk.known()).next_look
    assert again is not None
    assert timedelta(hours=2.9) < again - utcnow() < timedelta(hours=4.1)
    await desk.look()
    assert desk.served.asked == ["200", "304"]
    assert not any([(await desk.now(app.app)).revoked for app in apps])


async def test_a_revoked_one_is_marked_and_its_check_is_due(desk: Desk) -> None:
    """With when and why, in the journal; its neighbour is left alone, and it is not told twice."""
    blog, wiki = await desk.watched("blog", "wiki")
    desk.publish(blog, reason=FLAGS.key_compromise)
    assert await desk.look() == (check_member("blog"),)
    found = await desk.now("blog")
    assert (found.revoked_for, found.unasked, found.leaked) == ("keyCompromise", True, True)
    assert found.revoked is not None
    assert found.revoked < utcnow()
    [told] = await desk.events("blog")
    assert told.startswith(f"revoked by the CA: serial {blog.serial} on 20")
    assert told.endswith(f"UTC, keyCompromise ({desk.served.url})")
    due = await desk.bench.fleet.agenda.time_of(check_member("blog"))
    assert due is not None
    assert due <= utcnow() + SAFETY
    assert await desk.now("wiki") == wiki
    assert await desk.bench.fleet.agenda.time_of(check_member("wiki")) is None
    assert not await desk.is_watched(blog)
    await desk.check(found)
    assert not await desk.is_watched(blog), "it is known"
    desk.publish(blog, made=utcnow())
    assert await desk.look() == ()
    assert len(await desk.events("blog")) == 1


async def test_another_reason_leaves_the_key_alone(desk: Desk) -> None:
    """Only a key that leaked is given up."""
    [blog] = await desk.watched("blog")
    desk.publish(blog, reason=FLAGS.superseded)
    await desk.look()
    found = await desk.now("blog")
    assert (found.revoked_for, found.leaked) == ("superseded", False)


async def test_an_entry_that_takes_a_revocation_back(desk: Desk) -> None:
    """removeFromCRL: it is not revoked, and goes on being watched."""
    [blog] = await desk.watched("blog")
    desk.publish(blog, reason=FLAGS.remove_from_crl)
    assert await desk.look() == ()
    assert (await desk.now("blog")).revoked is None
    assert await desk.is_watched(blog)


async def test_one_that_was_replaced_meanwhile(desk: Desk) -> None:
    """Its entry is nobody's any more: the new certificate is not marked, the old one not watched."""
    [old] = await desk.watched("blog")
    new = await desk.have("blog", generation=2)
    await desk.check(old)
    desk.publish(old)
    assert await desk.look() == ()
    assert await desk.now("blog") == new
    assert not await desk.is_watched(old)
    assert await desk.events("blog") == []
    await desk.check(old)
    assert not await desk.is_watched(old), "a check that read the old one is too late"


def wish(certificate: Certificate, after: int = 0) -> Revocation:
    return Revocation(
        *(certificate.app, certificate.serial, certificate.leaf, "ca", "", "ops@example.com"),
        reason=Reason.SUPERSEDED,
        asked=utcnow(),
        not_after=certificate.not_after,
        after=after,
    )


async def test_what_was_revoked_at_our_word_is_no_news(desk: Desk) -> None:
    """Noted already, or the CA was faster than our note. What still waits for its replacement is news."""
    noted, sent, waits = await desk.watched("noted", "sent", "waits")
    fleet = desk.bench.fleet
    await fleet.revocations.ask(None, "noted", lambda one: replace(one, revoked=NOW, revoked_for="superseded"))
    await fleet.revocations.ask(wish(sent), "sent", lambda one: one)
    await fleet.revocations.ask(wish(waits, after=1), "waits", lambda one: one)
    desk.publish(noted, sent, waits)
    assert await desk.look() == (check_member("waits"),)
    assert (await desk.now("noted")).revoked == NOW
    assert (await desk.now("sent")).revoked is None
    assert (await desk.now("waits")).unasked
    assert await desk.events("noted") == await desk.events("sent") == []


async def test_an_order_in_line_takes_its_new_place(desk: Desk) -> None:
    """It is looked at at once; one that failed keeps its time."""
    waits, failed = await desk.watched("waits", "failed")
    fleet = desk.bench.fleet
    for certificate in (waits, failed):
        app = await fleet.inventory.app(certificate.app)
        await make_order(fleet, app, effective({}, {}), "renewal", utcnow())
        claim = await fleet.agenda.claim(order_member(app.name))
        assert claim is not None
        order = await fleet.records.order(app.name)
        assert order is not None
        later = utcnow() + timedelta(hours=20)
        if certificate is failed:
            await fleet.records.save_order(claim, replace(order, retry_at=later))
        await fleet.agenda.finish(claim, later)
    desk.publish(waits, failed)
    await desk.look()
    times = [await fleet.agenda.time_of(order_member(name)) for name in ("waits", "failed")]
    assert times[0] is not None
    assert times[0] <= utcnow() + SAFETY
    assert times[1] is not None
    assert times[1] > utcnow() + timedelta(hours=19)


async def test_lists_that_are_not_believed_change_nothing(desk: Desk) -> None:
    """Somebody else's signature, an older one, one that is out of date: said, and looked again soon."""
    [blog] = await desk.watched("blog")
    await desk.look()
    good = desk.served.content
    desk.served.content = RevokingCA().list({int(blog.serial, 16): None}, extensions=[(part(desk.served.url), True)])
    assert await desk.look() == ()
    known = await desk.known()
    assert "its signature is not that of the certificate's issuer" in known.error
    assert known.error.startswith(f"the revocation list {desk.served.url}: ")
    assert known.next_look is not None
    assert known.next_look < utcnow() + timedelta(minutes=1)
    desk.publish(made=utcnow() - timedelta(days=1))
    await desk.look()
    assert "does a cache, or somebody in between, give out old ones" in (await desk.known()).error
    assert (await desk.known()).failures == 2
    desk.served.content = good
    await desk.look()
    assert ((await desk.known()).error, (await desk.known()).failures) == ("", 0)
    assert (await desk.now("blog")).revoked is None


async def test_a_list_that_its_ca_forgot_still_tells(desk: Desk) -> None:
    """What it says of ours holds; that it is out of date is said."""
    [blog] = await desk.watched("blog")
    desk.publish(blog, made=utcnow() - timedelta(days=9))
    assert await desk.look() == (check_member("blog"),)
    assert "the CA should have replaced it on" in (await desk.known()).error


async def test_a_server_that_is_away(desk: Desk) -> None:
    """As it says, at most a day; then as ever."""
    await desk.watched("blog")
    desk.served.status, desk.served.headers = 503, {"Retry-After": "7200"}
    await desk.look()
    known = await desk.known()
    assert "answered 503" in known.error
    assert known.next_look is not None
    assert timedelta(hours=1.9) < known.next_look - utcnow() <= timedelta(hours=2)


async def test_a_certificate_that_comes_late_is_looked_for(desk: Desk) -> None:
    """It was issued before the list was read (an older record, a restore): the list is read though it is as it was."""
    old = await desk.have("old", issued=utcnow() - timedelta(days=3))
    await desk.watched("blog")
    desk.publish(old)
    await desk.look()
    assert (await desk.now("old")).revoked is None
    await desk.check(old)
    assert await desk.look() == (check_member("old"),)
    await desk.look()
    assert desk.served.asked == ["200", "200", "304"]


async def test_a_list_that_nobody_names_any_more(desk: Desk) -> None:
    """Its record and its time on the agenda go; a certificate that names it again brings both back."""
    [blog] = await desk.watched("blog")
    await desk.bench.fleet.crls.drop("blog")
    await desk.look()
    assert await desk.bench.fleet.crls.get(desk.name) is None
    assert await desk.bench.fleet.agenda.time_of(crl_member(desk.name)) is None
    assert desk.served.asked == []
    await desk.check(blog)
    assert await desk.bench.fleet.agenda.time_of(crl_member(desk.name)) is not None
    assert await desk.is_watched(blog)


async def test_certificates_that_are_not_watched(desk: Desk) -> None:
    """No list named, an issuer that is not there, expired, known to be revoked: nothing is kept."""
    found = await desk.have("blog")
    await desk.check(
        replace(found, leaf=desk.ca.leaf(points=[])),
        replace(found, leaf=RevokingCA().leaf(points=[point(desk.served.url)])),
        replace(found, not_after=utcnow()),
        replace(found, revoked=utcnow()),
    )
    assert await desk.bench.fleet.agenda.size() == 0
    assert not await desk.is_watched(found)


async def test_two_that_write_at_once(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """A person asks for a revocation in the moment between our look at the record and our write: both are kept."""
    [blog] = await desk.watched("blog")
    desk.publish(blog)
    inner = desk.bench.fleet.revocations.asked_for
    asked: list[object] = []

    async def meanwhile(certificates: Sequence[tuple[str, str]]) -> list[bool]:
        said = await inner(certificates)
        if not asked:
            await desk.bench.fleet.revocations.ask(None, "blog", lambda one: replace(one, withdrawn="compromised"))
        asked.append(said)
        return said

    monkeypatch.setattr(type(desk.bench.fleet.revocations), "asked_for", staticmethod(meanwhile))
    await desk.look()
    found = await desk.now("blog")
    assert (found.withdrawn, found.revoked) == ("compromised", None)
    at = await desk.bench.fleet.agenda.time_of(crl_member(desk.name))
    assert at is not None
    assert at <= utcnow() + timedelta(minutes=1)
    await desk.look()
    found = await desk.now("blog")
    assert (found.withdrawn, found.unasked) == ("compromised", True)
    assert desk.served.asked == ["200", "200"]


async def test_a_look_that_lost_its_claim_writes_nothing(desk: Desk) -> None:
    """Its worker was away for too long; whoever took over does all of it, once."""
    [blog] = await desk.watched("blog")
    desk.publish(blog)
    agenda = desk.bench.fleet.agenda
    claim = await agenda.claim(crl_member(desk.name))
    assert claim is not None
    await agenda.drop(crl_member(desk.name))
    await agenda.schedule(crl_member(desk.name), LONG_AGO)
    async with another(desk) as other:
        assert await other.look() == (check_member("blog"),)
    before = await desk.now("blog"), await desk.known(), await desk.events("blog")
    with pytest.raises(LeaseLost):
        await look(desk.bench, claim)
    assert (await desk.now("blog"), await desk.known(), await desk.events("blog")) == before


async def test_many_at_once_are_told_a_few_at_a_time(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """All are marked and due; no more messages than queues take."""
    monkeypatch.setattr(revoked_by_ca, "PAGE", 3)
    monkeypatch.setattr(crl_look, "HINTED", 4)
    found = await desk.watched(*(f"a{number}" for number in range(10)))
    desk.publish(*found)
    assert len(await desk.look()) == 4
    for one in found:
        assert (await desk.now(one.app)).unasked
        assert await desk.bench.fleet.agenda.time_of(check_member(one.app)) is not None


async def test_few_lists_are_read_at_once(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whose turn does not come in time looks a little later, and nothing is wrong with it."""
    await desk.watched("blog")
    monkeypatch.setattr(crl_look, "TURN", 0.05)
    for _ in range(2):
        await desk.bench.lists.acquire()
    await desk.look()
    at = await desk.bench.fleet.agenda.time_of(crl_member(desk.name))
    assert at is not None
    assert timedelta() < at - utcnow() <= crl_look.HELD_UP
    assert (await desk.known()).failures == 0
    desk.bench.lists.release()
    await asyncio.sleep(0)
    await desk.look()
    assert desk.served.asked == ["200"]


@given(st.none() | st.timedeltas(timedelta(days=-9), timedelta(days=9)), st.floats(0, 1, exclude_max=True))
def test_when_it_is_looked_at_again(left: timedelta | None, chance: float) -> None:
    """Every four hours or sooner, when its CA replaces it, and never in a loop."""
    at = crl_look.next_look(None if left is None else NOW + left, NOW, chance)
    assert NOW + crl_look.SHORTEST <= at <= NOW + crl_look.EVERY
    if left is not None and crl_look.SHORTEST <= left < timedelta(hours=2.5):
        assert NOW + left <= at <= NOW + left + crl_look.SHORTEST


@given(st.lists(st.none() | st.timedeltas(timedelta(days=-1), timedelta(days=400)), max_size=8))
def test_how_long_failures_wait(asked: list[timedelta | None]) -> None:
    """1, 10, 100 minutes, then as ever; a server may ask for a day and no more."""
    known = LIST
    for number, wait in enumerate(asked):
        error = CAUnreachable("away") if number % 2 else CAMisbehaved("odd")
        error.retry_at = None if wait is None else NOW + wait
        known = crl_look.missed(known, error, NOW, number / 8)
        assert known.next_look is not None
        assert timedelta(minutes=1) <= known.next_look - NOW <= crl_look.LONGEST
        if wait is None and number < 3:
            assert known.next_look - NOW == timedelta(minutes=10**number)
    assert known.failures == len(asked)
    after = crl_look.found(known, NOW, 0.5)
    assert (after.failures, after.error, after.read) == (0, "", NOW)
