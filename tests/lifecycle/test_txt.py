"""TXT records of orders that come and go at the same moment: none stays, and none goes that is needed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta

import pytest

from certfleet.agenda import Claim
from certfleet.dns.authority import Server
from certfleet.dns.provider import TXTRecord
from certfleet.errors import DNSProviderError, OwnerError
from certfleet.lifecycle.challenges import txt
from certfleet.lifecycle.challenges.written import Written, field_of
from certfleet.lifecycle.orders.ordering import make_order
from certfleet.lifecycle.records import dns_member
from certfleet.lifecycle.work import work
from certfleet.lifecycle.workbench import Workbench, open_workbench
from certfleet.models import App, dump, utcnow
from certfleet.properties import effective
from certfleet.settings import Settings
from certfleet.store import Store
from certfleet.vault import ensure_key

BLOG = App("blog", ("blog.example.com",), ("web1",), enabled=True)
OWNER = "_acme-challenge.blog.example.com"
RECORD = TXTRecord(OWNER, "value", "example.com", OWNER)
WRITTEN = Written(RECORD, "corp", "https://ca.example/order/1", since=utcnow(), done=utcnow())
PROPERTIES = effective({"dns": "corp", "self-check": "off"}, {})


async def nothing() -> None:
    """Nobody does anything meanwhile."""


@dataclass
class Zone:
    """What the DNS servers have; `meanwhile` happens while a record is being removed."""

    values: set[str] = field(default_factory=lambda: {RECORD.value})
    meanwhile: Callable[[], Awaitable[None]] = nothing

    async def present(self, record: TXTRecord) -> None:
        self.values.add(record.value)

    async def cleanup(self, record: TXTRecord) -> None:
        self.values.discard(record.value)
        meanwhile, self.meanwhile = self.meanwhile, nothing
        await meanwhile()


@pytest.fixture
async def bench(settings: Settings, store: Store) -> AsyncIterator[Workbench]:
    """An app with one record, which an order that is no more has written."""
    del store  # emptied
    ensure_key(settings)
    async with open_workbench(settings) as opened:
        await opened.fleet.inventory.add_app(BLOG)
        await opened.fleet.written.keep("blog", {field_of(RECORD): WRITTEN})
        yield opened


@pytest.fixture
def zone(monkeypatch: pytest.MonkeyPatch) -> Zone:
    """That of the credentials."""
    found = Zone()

    async def provider(*_: object) -> Zone:
        return found

    monkeypatch.setattr(txt, "_provider", provider)
    return found


async def show(bench: Workbench, url: str) -> None:
    """The CA's order at this URL asks for the same value: an authorization that is pending may be used again."""
    fleet = bench.fleet
    await make_order(fleet, BLOG, PROPERTIES, "renewal", utcnow())
    made = await fleet.records.order("blog")
    assert made is not None
    order = replace(made, url=url)
    await fleet.store.redis.set(fleet.store.key("order", "blog"), dump(order))
    await txt.show(bench, BLOG, order, PROPERTIES, [(OWNER, RECORD.value)])


async def tidy(bench: Workbench) -> None:
    await bench.fleet.agenda.schedule(dns_member("blog"), utcnow())
    await work(bench, [Claim(dns_member("blog"), 0)], txt.tidy)


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("written", [WRITTEN, replace(WRITTEN, done=None)])
async def test_what_an_order_writes_while_it_is_removed_stays_until_that_ends(
    bench: Workbench, zone: Zone, number: int, written: Written
) -> None:
    """The app is disabled and enabled again, say, and the CA gives the same order: its record is there, then gone."""
    await bench.fleet.written.keep("blog", {field_of(RECORD): written})
    zone.meanwhile = lambda: show(bench, f"https://ca.example/order/{number}")
    await tidy(bench)
    assert zone.values == {RECORD.value}
    assert await bench.fleet.agenda.time_of(dns_member("blog")) is not None
    await bench.fleet.store.redis.delete(bench.fleet.store.key("order", "blog"))
    await tidy(bench)
    assert zone.values == set()
    assert not await bench.fleet.written.any("blog")


async def test_what_the_next_order_needs_too_is_not_removed(bench: Workbench, zone: Zone) -> None:
    """It is that order's from then on."""
    await show(bench, "https://ca.example/order/2")
    await tidy(bench)
    assert zone.values == {RECORD.value}


@dataclass
class Broken(Zone):
    """A provider with a fault of its own, whose words hold a secret."""

    async def present(self, record: TXTRecord) -> None:
        del record
        raise ValueError("t0ken")

    async def cleanup(self, record: TXTRecord) -> None:
        await self.present(record)


async def test_what_no_provider_should_raise_is_told(
    bench: Workbench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An order that writes fails with words, a removal is tried again later; where it happened is in the log."""

    async def provider(*_: object) -> Zone:
        return Broken()

    monkeypatch.setattr(txt, "_provider", provider)
    said = rf"^the DNS credentials corp do not work for {OWNER} \(ValueError; the worker's log has more\): are their"
    with pytest.raises(DNSProviderError, match=said):
        await show(bench, "https://ca.example/order/2")
    await bench.fleet.store.redis.delete(bench.fleet.store.key("order", "blog"))
    await tidy(bench)
    [kept] = (await bench.fleet.written.of("blog")).values()
    assert kept.attempts == 1
    assert kept.retry_at is not None
    assert not [entry for entry in await bench.fleet.journal.latest("blog") if "t0ken" in entry.detail]
    log = capsys.readouterr().out
    assert "DNS provider failed" in log
    assert ", in present" in log


class Unseen:
    """A zone with two servers that show nothing."""

    def __init__(self, *_: object, **__: object) -> None:
        pass

    async def servers(self, zone: str) -> list[Server]:
        del zone
        return [Server("ns1", ("192.0.2.1",)), Server("ns2", ("192.0.2.2",))]

    async def not_shown(self, record: TXTRecord, servers: Sequence[Server]) -> list[str]:
        return [f"{server.name} does not show the TXT record {record.name} yet" for server in servers]


async def test_a_name_and_its_wildcard_are_told_once(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    """They have a record each at one name: every server's sentence stands there once, in order, and none is counted."""
    monkeypatch.setattr(txt, "Zones", Unseen)
    since = utcnow() - timedelta(hours=1)
    records = [replace(RECORD, value=value) for value in ("the name's", "the wildcard's")]
    await bench.fleet.written.keep(
        "blog", {field_of(one): replace(WRITTEN, record=one, since=since) for one in records}
    )
    await make_order(bench.fleet, BLOG, PROPERTIES, "renewal", utcnow())
    made = await bench.fleet.records.order("blog")
    assert made is not None
    order = replace(made, url=WRITTEN.order)
    properties = effective({"dns": "corp", "dns-propagation": "1m"}, {})
    with pytest.raises(OwnerError) as caught:
        await txt.show(bench, BLOG, order, properties, [(OWNER, one.value) for one in records])
    assert f"in 0:01:00: ns1 does not show the TXT record {OWNER} yet; ns2 does not" in str(caught.value)
    assert f"ns2 does not show the TXT record {OWNER} yet; do these servers get the zone?" in str(caught.value)
