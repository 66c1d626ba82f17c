"""Standing records are watched: what would be in the way of the next renewal is told before it is."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certfleet.acme_ca.challenges.dns_persist01 import Wanted
from certfleet.cli.output import note
from certfleet.demo.ports import free_port
from certfleet.dns import authority
from certfleet.dns.authority import Place, Shown
from certfleet.errors import OwnerError
from certfleet.lifecycle.challenges.standing import Sighting, require_standing, sighted, standing_records
from certfleet.lifecycle.challenges.watching import warning
from certfleet.lifecycle.doctor import diagnose
from certfleet.models import Account, load, utcnow
from certfleet.overview import State
from certfleet.settings import Settings
from certfleet.store import Store
from tests.dns.standing import CA_NAME, Parts, Shop, common, shop
from tests.lifecycle.test_renewal import APP, certificate

__all__ = ["common"]  # a fixture

NOW = datetime(2026, 1, 10, tzinfo=UTC)
URL = "https://ca.example/acct/1"
WANT = Wanted("example.com", (CA_NAME,), (URL,), wildcard=False)
PLACE = Place(WANT.name, "example.com")
RECORD = "_validation-persist.blog.corp.test"


@pytest.fixture
async def fleet(settings: Settings, store: Store, common: Parts) -> AsyncIterator[Shop]:
    """One app, `blog`, whose certificate is there and whose record stands."""
    del store  # emptied
    async with shop(settings, common) as opened:
        await opened.enable("blog")
        for value in await opened.servers.values(RECORD):  # the test before, with another account
            await opened.take_away(RECORD, value)
        await opened.make(RECORD, await record(opened))
        view = await opened.renew("blog")
        assert view.state is State.INSTALLING, view
        yield opened


async def record(fleet: Shop, until: datetime | None = None) -> str:
    """What stands for the fleet's one account."""
    redis = fleet.bench.fleet.store.redis
    [key] = [key async for key in redis.scan_iter(match="*:account:*")]
    url = load(Account, await redis.get(key)).url
    return Wanted("", (CA_NAME,), (url or "",), wildcard=False).value(until)


async def doctors_word(fleet: Shop) -> tuple[bool, str]:
    """The doctor's point about challenges."""
    found = await diagnose(fleet.bench.fleet, await fleet.client.app("blog"))
    [point] = [point for point in found if point.name == "challenge"]
    return point.ok, point.message


async def test_a_record_that_goes_is_told_and_comes_back(fleet: Shop) -> None:
    """By the next check: in the overview, the list and the journal, once; and by the doctor."""
    value = await record(fleet)
    assert (await fleet.check("blog")).warning is None
    assert await doctors_word(fleet) == (True, f"{RECORD}: good for ever")
    await fleet.take_away(RECORD, value)
    view = await fleet.check("blog")
    assert view.warning is not None
    assert view.warning.startswith(f"the next renewal will fail: {RECORD} is not as it has to be (ns1.corp.test (")
    assert "`certfleet dns-persist show blog`" in view.warning
    assert (view.state, view.error) == (State.INSTALLING, None), "nothing has failed"
    assert view.warning in note(view)
    await fleet.check("blog")
    assert [event for event in await fleet.events("blog") if event.startswith("standing")] == [
        f"standing record wrong: {view.warning}"
    ]
    ok, said = await doctors_word(fleet)
    assert not ok
    assert "has no such record" in said
    await fleet.make(RECORD, value)
    assert (await fleet.check("blog")).warning is None
    assert (await fleet.events("blog"))[-1].startswith("standing record right")
    assert await fleet.ca.persist_looks() == [("blog.corp.test", True)], "the CA was asked for the certificate alone"


async def test_a_record_that_ends_before_the_certificate(fleet: Shop) -> None:
    """It is good enough for an order today; a later one beside it ends the warning, and the property its watching."""
    soon, late = [await record(fleet, utcnow() + timedelta(days=days)) for days in (30, 300)]
    await fleet.make(RECORD, soon)
    await fleet.take_away(RECORD, await record(fleet))
    view = await fleet.check("blog")
    assert view.warning is not None
    assert view.warning.startswith(f"{RECORD} is good until ")
    assert "put a later one in its place" in view.warning
    assert (await doctors_word(fleet))[0] is False
    await fleet.make(RECORD, late)
    assert (await fleet.check("blog")).warning is None
    await fleet.take_away(RECORD, late)
    assert (await fleet.check("blog")).warning is not None
    await fleet.client.set_property("challenge", "http-01", "blog")
    assert (await fleet.view("blog")).warning is None, "names are proven in another way now"
    await fleet.client.set_property("challenge", "dns-persist-01", "blog")
    await fleet.client.remove_app("blog")
    assert await fleet.bench.fleet.records.warnings(["blog"]) == {}


async def test_each_ca_of_a_list_has_its_records(fleet: Shop) -> None:
    """The watch and the doctor say at which CA; without an account at one of them `show` says how to get it."""
    value, first = await record(fleet), fleet.ca.directory
    second = f"https://127.0.0.1:{free_port()}/dir"
    await fleet.client.set_property("ca", f"{first},{second}", "blog")
    with pytest.raises(OwnerError, match=f"no account for ops@example.com at {second} yet"):
        await standing_records(fleet.bench.fleet, await fleet.client.app("blog"))
    assert (await fleet.check("blog")).warning is None, "who is not asked before there is need has none"
    await fleet.take_away(RECORD, value)
    told = (await fleet.check("blog")).warning
    assert told is not None
    assert told.startswith(f"at {first}: the next renewal will fail: {RECORD}")
    found = await diagnose(fleet.bench.fleet, await fleet.client.app("blog"))
    assert [point.ca for point in found if point.name == "challenge"] == [first, second]
    await fleet.client.set_property("ca", first, "blog")
    await fleet.make(RECORD, value)
    assert (await fleet.check("blog")).warning is None
    [standing] = await standing_records(fleet.bench.fleet, await fleet.client.app("blog"))
    assert (standing.ca, standing.value, standing.stands) == (first, value, True)


async def test_dns_that_does_not_answer_changes_nothing(fleet: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither is a warning made of it, nor is one that is known forgotten."""
    monkeypatch.setattr(authority, "ANSWER", 0.3)  # seconds; nobody is there at all
    value = await record(fleet)
    port = str(fleet.servers.port)
    await fleet.client.set_property("dns-port", "9", "blog")
    assert (await fleet.check("blog")).warning is None
    ok, said = await doctors_word(fleet)
    assert not ok
    assert "does not answer" in said
    await fleet.client.set_property("dns-port", port, "blog")
    await fleet.take_away(RECORD, value)
    known = (await fleet.check("blog")).warning
    assert known is not None
    await fleet.client.set_property("dns-port", "9", "blog")
    assert (await fleet.check("blog")).warning == known


GOOD, BAD, MUTE = (
    frozenset({WANT.value(NOW + timedelta(days=9)), "v=spf1 -all"}),
    frozenset({f"{CA_NAME}; accounturi={URL}0"}),
    "does not answer (Timeout)",
)
ANSWERS = st.sampled_from(
    [Shown("ns", GOOD), Shown("ns", BAD), Shown("ns"), Shown("ns", fault=MUTE), Shown("ns", fault=MUTE, heard=False)]
)


@given(st.lists(ANSWERS, min_size=1, max_size=6))
def test_what_several_servers_come_to(answers: list[Shown]) -> None:
    """It stands when all that answer show it, and is unknown when none does."""
    shown = [replace(one, where=f"ns{number}.example") for number, one in enumerate(answers)]
    seen = sighted(WANT, PLACE, shown, NOW)
    heard = [one.values for one in shown if one.fault is None]
    assert seen.stands is (None if not heard else all(values == GOOD for values in heard))
    assert seen.until == (NOW + timedelta(days=9) if seen.stands else None)
    assert seen.message


def sighting(*, stands: bool | None, until: datetime | None = None) -> Sighting:
    return Sighting(WANT, stands, until, "was seen")


@given(st.lists(st.tuples(st.sampled_from([True, False, None]), st.none() | st.integers(-100, 100)), max_size=5))
def test_what_is_warned_of(seen: list[tuple[bool | None, int | None]]) -> None:
    """Wrong: always; ending before the certificate: too; nothing where nobody could say; empty: all is well."""
    issued = certificate()
    each = [
        sighting(stands=stands, until=issued.not_after + timedelta(days=days) if stands and days is not None else None)
        for stands, days in seen
    ]
    told = warning(APP, each, issued)
    if any(one.stands is False for one in each):
        assert told is not None
        assert told.startswith("the next renewal will fail")
    elif any(one.until and one.until < issued.not_after for one in each):
        assert told is not None
        assert "is good until" in told
    else:
        assert told == ("" if all(one.stands for one in each) else None)


def test_many_records_to_make() -> None:
    """Two are told in full, the number of the others, and where all of them are."""
    require_standing(APP, [sighting(stands=True)], None)
    with pytest.raises(OwnerError) as caught:
        require_standing(APP, [sighting(stands=True), *[sighting(stands=False)] * 3, sighting(stands=None)], NOW)
    said = str(caught.value)
    assert said.count("IN TXT") == 2
    assert f'"{WANT.value(NOW)}" (was seen)' in said
    assert ", and 2 more; " in said
