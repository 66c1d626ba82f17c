"""Where records belong, and whether every server shows them; RFC 2136 updates: on BIND."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from certfleet.dns.authority import Server, Zones
from certfleet.dns.provider import TXTRecord
from certfleet.dns.rfc2136 import RFC2136, Keys
from certfleet.errors import DNSProviderError, OwnerError
from tests.dns.bind import PRIMARY, SECONDARY, Bind, bind

MORE = {
    "corp.test": """\
_acme-challenge.shop CNAME shop.delegated.test.
_acme-challenge.twice CNAME once
once CNAME twice.delegated.test.
_acme-challenge.round CNAME _acme-challenge.round
*.covered CNAME elsewhere
""",
}
VALUE = "a" * 43


@pytest.fixture
async def servers(short_directory: Path) -> AsyncIterator[Bind]:
    """Both servers; the secondary fetches when it is told."""
    async with bind(short_directory / "bind", notify=False, more=MORE) as running:
        yield running


@pytest.fixture
def zones(servers: Bind) -> Zones:
    """Questions to them."""
    return Zones([servers.resolver], port=servers.port)


async def test_where_a_record_belongs(zones: Zones) -> None:
    """At the name, or where its CNAMEs lead; a CNAME that a wildcard makes up is none."""

    async def place(name: str) -> tuple[str, str]:
        record = await zones.place(name, VALUE)
        assert (record.owner, record.value) == (name, VALUE)
        return record.name, record.zone

    assert await place("_acme-challenge.corp.test") == ("_acme-challenge.corp.test", "corp.test")
    assert await place("_acme-challenge.a.b.corp.test") == ("_acme-challenge.a.b.corp.test", "corp.test")
    assert await place("_acme-challenge.shop.corp.test") == ("shop.delegated.test", "delegated.test")
    assert await place("_acme-challenge.twice.corp.test") == ("twice.delegated.test", "delegated.test")
    assert await place("_acme-challenge.covered.corp.test") == ("_acme-challenge.covered.corp.test", "corp.test")


async def test_what_leads_nowhere(zones: Zones) -> None:
    """A CNAME to itself, and a name below no zone."""
    with pytest.raises(OwnerError, match=r"round\.corp\.test leads through more than 8 CNAMEs|did not answer"):
        await zones.place("_acme-challenge.round.corp.test", VALUE)
    with pytest.raises(OwnerError):
        await zones.place("_acme-challenge.nowhere.invalid", VALUE)


async def test_every_server_has_to_show_it(servers: Bind, zones: Zones) -> None:
    """The secondary is named until it has fetched the zone."""
    provider = RFC2136(Keys.model_validate(servers.keys()), zones)
    record = await zones.place("_acme-challenge.corp.test", VALUE)
    of_the_zone = await zones.servers(record.zone)
    assert [(server.name, server.addresses) for server in of_the_zone] == [
        ("ns1.corp.test", (PRIMARY,)),
        ("ns2.corp.test", (SECONDARY,)),
    ]
    assert len(await zones.not_shown(record, of_the_zone)) == 2
    await provider.present(record)
    [told] = await zones.not_shown(record, of_the_zone)
    assert told == f"ns2.corp.test ({SECONDARY}) does not show the TXT record _acme-challenge.corp.test yet"
    await servers.notify("corp.test")
    for _ in range(600):
        if not await zones.not_shown(record, of_the_zone):
            break
        await asyncio.sleep(0.1)
    assert await zones.not_shown(record, of_the_zone) == []


async def test_a_server_that_does_not_have_the_zone_or_does_not_answer(zones: Zones) -> None:
    """Both are said, with the server's name."""
    record = TXTRecord(name="x.other.test", value=VALUE, zone="other.test", owner="x.other.test")
    told = await zones.not_shown(
        record, [Server("ns2.corp.test", (SECONDARY,)), Server("gone.corp.test", ("127.0.0.9",))]
    )
    assert told[0] == f"ns2.corp.test ({SECONDARY}) answers REFUSED for other.test"
    assert told[1].startswith("gone.corp.test (127.0.0.9) does not answer")
    assert await zones.not_shown(record, [Server("nowhere.corp.test", ())]) == ["nowhere.corp.test has no address"]


async def test_records_are_added_and_removed_by_value(servers: Bind, zones: Zones) -> None:
    """What somebody else wrote at the same name stays; repeating either changes nothing."""
    provider = RFC2136(Keys.model_validate(servers.keys()), zones)
    ours, theirs = [await zones.place("_acme-challenge.corp.test", letter * 43) for letter in "ab"]
    for record in (ours, theirs, ours):
        await provider.present(record)
    assert await servers.values(ours.name) == {"a" * 43, "b" * 43}
    for _ in range(2):
        await provider.cleanup(ours)
        assert await servers.values(ours.name) == {"b" * 43}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        pytest.param({"secret": base64.b64encode(b"x" * 32).decode()}, "BADSIG", id="another secret"),
        pytest.param({"key": "somebody"}, "BADKEY", id="another key"),
        pytest.param({"server": "127.0.0.9"}, "did not answer the update", id="nobody there"),
        pytest.param({"server": "nobody.corp.invalid"}, "nobody.corp.invalid", id="no such host"),
    ],
)
async def test_updates_that_are_refused(servers: Bind, zones: Zones, change: dict[str, str], said: str) -> None:
    """The sentence says what is wrong and does not hold the secret."""
    keys = servers.keys(**change)
    record = await zones.place("_acme-challenge.corp.test", VALUE)
    with pytest.raises(OwnerError, match=said) as caught:
        await RFC2136(Keys.model_validate(keys), zones).present(record)
    assert keys["secret"] not in str(caught.value)
    assert await servers.values(record.name) == set()


async def test_a_zone_that_the_server_does_not_have(servers: Bind, zones: Zones) -> None:
    """NOTAUTH, and which key it was."""
    record = TXTRecord(name="x.other.test", value=VALUE, zone="other.test", owner="x.other.test")
    with pytest.raises(DNSProviderError, match=r"refused the update of x\.other\.test in zone other\.test"):
        await RFC2136(Keys.model_validate(servers.keys()), zones).present(record)
