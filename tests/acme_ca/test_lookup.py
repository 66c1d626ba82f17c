"""What DNS says about a name, and when that is certain."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from certfleet.acme_ca import lookup as module
from certfleet.acme_ca.caa import CAARecord, relevant
from certfleet.acme_ca.lookup import Lookup
from tests.acme_ca.dns import Zone, zone

HERE = {("shop.test", "A"): ["192.0.2.1"], ("shop.test", "AAAA"): ["2001:db8::1"]}


@pytest.fixture
async def served(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Zone]:
    """A name server that has `shop.test`; an answer is asked for anew each time."""
    monkeypatch.setattr(module, "KEPT", -1.0)
    monkeypatch.setattr(module, "LIFETIME", 0.5)
    async with zone(dict(HERE)) as found:
        yield found


async def test_a_name_that_does_not_exist(served: Zone) -> None:
    """By NXDOMAIN with the SOA of a zone, which is named."""
    look = Lookup([served.address])
    assert await look.missing("gone.test") == "test"
    assert await look.missing("shop.test") is None
    with pytest.raises(OSError, match=r"gone\.test does not exist in DNS"):
        await look.addresses("gone.test")


async def test_what_is_not_certain(served: Zone) -> None:
    """No SOA, SERVFAIL, silence, a server that denies a type that it does not know, a name with others below it."""
    look = Lookup([served.address])
    served.denied = {"CAA", "AAAA"}
    assert await look.missing("shop.test") is None
    served.denied = set()
    served.records["below.quiet.test", "A"] = ["192.0.2.2"]
    assert await look.missing("quiet.test") is None
    with pytest.raises(OSError, match=r"quiet\.test has no address in DNS"):
        await look.addresses("quiet.test")
    served.apex = None
    assert await look.missing("gone.test") is None
    served.apex, served.failing = "test", True
    assert await look.missing("gone.test") is None
    with pytest.raises(OSError, match="DNS did not answer for gone"):
        await look.addresses("gone.test")
    with pytest.raises(OSError, match="DNS did not answer for gone"):
        await look.caa("gone.test")
    served.failing, served.silent = False, True
    assert await look.missing("gone.test") is None


async def test_addresses(served: Zone) -> None:
    """Of both families, IPv4 first."""
    assert await Lookup([served.address]).addresses("shop.test") == ["192.0.2.1", "2001:db8::1"]


async def test_an_alias_to_nowhere_does_not_exist(served: Zone) -> None:
    """The CA follows it just as well."""
    served.records["www.test", "CNAME"] = ["gone.test."]
    assert await Lookup([served.address]).missing("www.test") == "test"


async def test_caa_records_come_by_way_of_aliases_and_parents(served: Zone) -> None:
    """RFC 8659 §3: an alias has its target's records, but never those of the target's parents."""
    look = Lookup([served.address])
    served.records |= {
        ("cdn.test", "CNAME"): ["edge.far.test."],
        ("edge.far.test", "A"): ["192.0.2.9"],
        ("far.test", "CAA"): ['0 issue "far.example.net"'],
        ("test", "CAA"): ['0 Issue "near.example.net"', '0 iodef "mailto:a@test"'],
    }
    where, found = await relevant("cdn.test", look.caa)
    assert where == "test"
    assert {str(record) for record in found} == {
        'CAA 0 issue "near.example.net"',
        'CAA 0 iodef "mailto:a@test"',
    }
    served.records["edge.far.test", "CAA"] = ['128 issue "edge.example.net"']
    assert await relevant("cdn.test", look.caa) == ("cdn.test", (CAARecord(128, "issue", "edge.example.net"),))
    where, found = await relevant("*.shop.test", look.caa)
    assert (where, len(found)) == ("test", 2)


async def test_names_of_one_domain_share_their_answers(served: Zone, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred apps below one domain ask for its records once, and again when the answer is old."""
    monkeypatch.setattr(module, "KEPT", 60.0)
    served.records["test", "CAA"] = ['0 issue "near.example.net"']
    look = Lookup([served.address])
    for _ in range(3):
        await relevant("shop.test", look.caa)
    assert served.asked.count(("test", "CAA")) == 1
    monkeypatch.setattr(module, "KEPT", -1.0)
    fresh = Lookup([served.address])
    for _ in range(3):
        await relevant("shop.test", fresh.caa)
    assert served.asked.count(("test", "CAA")) == 4


async def test_the_systems_resolver_knows_the_hosts_file() -> None:
    """Without name servers of our own a name that only this machine knows is not called missing."""
    assert await Lookup().missing("localhost") is None
    assert await Lookup().addresses("localhost")
