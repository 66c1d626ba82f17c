"""Look-ups by name servers of our own choice."""

from __future__ import annotations

import socket

import pytest

from certfleet.acme_ca import resolver as module
from certfleet.acme_ca.resolver import DNSResolver, make_resolver
from certfleet.errors import UsageError

from .dns import zone

BOTH = {("a.test", "A"): ["127.0.0.1", "127.0.0.2"], ("a.test", "AAAA"): ["::1"]}


async def test_all_addresses_of_a_name_are_found() -> None:
    """IPv4 first, then IPv6; one family when only one is wanted."""
    async with zone(BOTH) as served:
        resolver = make_resolver([served.address])
        assert resolver is not None
        assert {r["host"] for r in await resolver.resolve("a.test", 80, socket.AF_UNSPEC)} == {
            "127.0.0.1",
            "127.0.0.2",
            "::1",
        }
        (six,) = await resolver.resolve("a.test", 80, socket.AF_INET6)
        assert (six["host"], six["port"], six["family"]) == ("::1", 80, socket.AF_INET6)
        await resolver.close()


async def test_a_name_with_one_family_resolves() -> None:
    """No AAAA record is no error."""
    async with zone({("four.test", "A"): ["127.0.0.1"]}) as served:
        resolver = make_resolver([served.address])
        assert resolver is not None
        assert [r["host"] for r in await resolver.resolve("four.test", 80, socket.AF_UNSPEC)] == ["127.0.0.1"]


async def test_answers_are_kept_for_seconds_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked again after 3 s or the TTL, whichever is shorter; never in between."""
    now = 1000.0
    monkeypatch.setattr("certfleet.acme_ca.resolver.monotonic", lambda: now)
    async with zone({("a.test", "A"): ["127.0.0.1"]}) as served:
        resolver = make_resolver([served.address])
        assert isinstance(resolver, DNSResolver)
        for moment, questions in ((1000.0, 1), (1002.9, 1), (1003.1, 2)):
            now = moment
            await resolver.resolve("a.test", 80, socket.AF_INET)
            assert len(served.asked) == questions
        served.ttl = 1
        for moment, questions in ((1010.0, 3), (1011.5, 4)):
            now = moment
            await resolver.resolve("a.test", 80, socket.AF_INET)
            assert len(served.asked) == questions


async def test_failures_say_what_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    """No such name, no address, no answer: an OSError with one sentence each, and nothing kept."""
    monkeypatch.setattr(module, "LIFETIME", 0.5)
    async with zone({("mail.test", "MX"): []}) as served:
        resolver = make_resolver([served.address])
        assert resolver is not None
        with pytest.raises(OSError, match=r"gone\.test does not exist in DNS"):
            await resolver.resolve("gone.test")
        with pytest.raises(OSError, match=r"mail\.test has no address in DNS"):
            await resolver.resolve("mail.test")
        served.failing = True
        with pytest.raises(OSError, match=r"DNS did not answer for mail\.test"):
            await resolver.resolve("mail.test")
        served.failing, served.silent = False, True
        with pytest.raises(OSError, match=r"DNS did not answer for mail\.test"):
            await resolver.resolve("mail.test")
        served.silent = False
        served.records[("mail.test", "A")] = ["127.0.0.1"]
        assert await resolver.resolve("mail.test")


@pytest.mark.parametrize("value", ["127.0.0.1", "127.0.0.1:5353", "::1", "[::1]", "[::1]:5353"])
def test_name_servers_are_addresses_with_or_without_a_port(value: str) -> None:
    """Both families, both forms."""
    assert make_resolver([value]) is not None


@pytest.mark.parametrize("value", ["", "dns.example.com", "127.0.0.1:", "127.0.0.1:0", "127.0.0.1:99999", "[::1]53"])
def test_a_bad_name_server_is_named(value: str) -> None:
    """A name, or a port that is none: one sentence."""
    with pytest.raises(UsageError, match=r"nameservers: .* is not a name server"):
        make_resolver([value])


def test_without_name_servers_the_system_resolves() -> None:
    """Nothing set, nothing of ours in the way."""
    assert make_resolver([]) is None
