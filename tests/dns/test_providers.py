"""dns-lexicon's providers and acme-dns, against local APIs that check as the real ones do."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from aiohttp import web
from lexicon._private.providers import digitalocean as of_digitalocean

from certfleet.dns import lexicon, rfc2136
from certfleet.dns.acmedns import AcmeDNS, Keys
from certfleet.dns.authority import Zones
from certfleet.dns.credentials import OWN, Credentials, check_values, open_provider, providers, takes
from certfleet.dns.lexicon import Lexicon
from certfleet.dns.provider import TXTRecord
from certfleet.errors import DNSProviderError, UsageError
from certfleet.settings import Settings
from certfleet.vault import Vault, ensure_key
from tests.dns.apis import API, DigitalOcean, acme_dns, powerdns, served

ZONE = "example.com"
NAME = f"_acme-challenge.shop.{ZONE}"


def record(letter: str, name: str = NAME) -> TXTRecord:
    """A record with a value of this letter."""
    return TXTRecord(name=name, value=letter * 43, zone=ZONE, owner=name)


@pytest.fixture(params=["powerdns", "digitalocean"])
async def host(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[API, Lexicon]]:
    """One of the two, and the provider for it."""
    api = API()
    if request.param == "powerdns":
        async with served(api, powerdns(api, ZONE)):
            values = check_values("powerdns", {"auth-token": api.token, "pdns_server": api.url})
            yield api, Lexicon("powerdns", values)
        return
    async with served(api, DigitalOcean(api, ZONE)):
        begin: Any = of_digitalocean.Provider.__init__

        def local(self: Any, config: Any) -> None:
            begin(self, config)
            self.api_endpoint = f"{api.url}/v2"

        monkeypatch.setattr(of_digitalocean.Provider, "__init__", local)
        yield api, Lexicon("digitalocean", check_values("digitalocean", {"auth_token": api.token}))


async def test_lexicon_adds_and_removes_one_value(host: tuple[API, Lexicon]) -> None:
    """Values of others stay, at the name and beside it; repeating either changes nothing."""
    api, provider = host
    others = [record("b"), record("c", f"_acme-challenge.{ZONE}"), record("d", f"x.{ZONE}")]
    for one in (*others, record("a"), record("a")):
        await provider.present(one)
    assert sorted(api.records[NAME]) == ["a" * 43, "b" * 43]
    for _ in range(2):
        await provider.cleanup(record("a"))
        assert api.records == {NAME: ["b" * 43], f"_acme-challenge.{ZONE}": ["c" * 43], f"x.{ZONE}": ["d" * 43]}


async def test_lexicon_with_a_wrong_token(host: tuple[API, Lexicon]) -> None:
    """What the API answered, and not the token."""
    api, provider = host
    given, api.token = api.token, "another"
    for request in (provider.present, provider.cleanup):
        with pytest.raises(
            DNSProviderError, match=r"did not take _acme-challenge\.shop\.example\.com: it answered 401"
        ) as c:
            await request(record("a"))
        assert given not in str(c.value)
        assert c.value.__suppress_context__
    assert api.records == {}


async def test_lexicon_for_a_zone_that_the_host_does_not_have(host: tuple[API, Lexicon]) -> None:
    """404 is said."""
    _, provider = host
    foreign = TXTRecord(name="x.example.org", value="a" * 43, zone="example.org", owner="x.example.org")
    with pytest.raises(DNSProviderError, match="it answered 404"):
        await provider.present(foreign)


async def test_lexicon_that_does_not_answer_is_left_behind() -> None:
    """The time limit holds although the library waits for ever; the loop goes on meanwhile."""
    released = asyncio.Event()

    async def silent(request: web.Request) -> web.StreamResponse:
        del request
        await released.wait()
        return web.Response(status=500)

    async with served(API(), silent) as api:
        provider = Lexicon("powerdns", {"auth_token": "t0ken", "pdns_server": api.url}, limit=0.5)
        with pytest.raises(DNSProviderError, match=r"powerdns did not answer for .* in 0\.5 s"):
            await provider.present(record("a"))
        assert any(thread.name == "lexicon" and thread.daemon for thread in threading.enumerate())
        released.set()


def test_the_whole_list_can_be_named_and_every_key_is_known() -> None:
    """Each provider of dns-lexicon says its keys, and takes nothing else."""
    known = lexicon.known()
    assert len(known) > 80
    assert {"cloudflare", "route53", "hetzner", "gandi", "ovh", "digitalocean", "powerdns"} <= known.keys()
    assert list(providers())[:3] == list(OWN)
    for name, there in known.items():
        if there:
            assert takes(name)
            with pytest.raises(UsageError, match=f"'nonsense' is not one of {name}'s"):
                check_values(name, {"nonsense": "1"})


SECRET = "not-to-be-shown"
UPDATES = {"server": "192.0.2.1", "key": "certfleet", "secret": "bm90LXRvLWJlLXNob3du"}
ACME = {"url": "https://auth.example.org", "username": "u", "password": SECRET, "subdomain": "s"}


@pytest.mark.parametrize(
    ("provider", "values", "said"),
    [
        pytest.param("nobody", {}, "'nobody' is not known", id="no such provider"),
        pytest.param("rfc2136", {"server": "192.0.2.1", "secret": "c2VjcmV0"}, "'key' is missing", id="a key missing"),
        pytest.param(
            "rfc2136", {"server": "192.0.2.1", "key": "k", "secret": SECRET}, "'secret' is not base64", id="not base64"
        ),
        *(
            pytest.param(
                "rfc2136", UPDATES | {"key": key}, f"'key' cannot be {key!r}: names of keys", id=f"key {key!r}"
            )
            for key in ("bad key..", "a..b", ".", "@", "a" * 64, "a\\")
        ),
        *(
            pytest.param("rfc2136", UPDATES | {"server": server}, f"'server' cannot be {server!r}: give an", id=server)
            for server in ("127.0.0.1:14720", "[::1]:53", "ns 1..x", "a..b", "127.0.0.300", "dns://ns1.x", "a" * 64)
        ),
        pytest.param("exec", {"command": "/ho\0ok"}, "'command' has a NUL", id="NUL in a path"),
        pytest.param("exec", {"command": "/hook", "TOKEN": f"{SECRET}\0"}, "TOKEN has a NUL", id="NUL in a variable"),
        pytest.param(
            "acme-dns", ACME | {"url": "https://a..b/"}, "'url' cannot have the host 'a..b'", id="empty label"
        ),
        pytest.param(
            "acme-dns", ACME | {"url": f"https://{'a' * 64}.b"}, "'url' cannot have the host", id="long label"
        ),
        pytest.param("acme-dns", ACME | {"username": "a\nb"}, "'username' has characters", id="a user of two lines"),
        pytest.param("acme-dns", ACME | {"password": f"{SECRET}\n"}, "'password' has characters", id="two lines"),
        pytest.param("acme-dns", ACME | {"username": "u" * 101}, "'username' String should have", id="a long user"),
        pytest.param("acme-dns", ACME | {"subdomain": "s" * 64}, "'subdomain' String should have", id="a long label"),
        pytest.param("exec", {"command": "hook"}, "'command' is not an absolute path", id="relative path"),
        pytest.param("exec", {"command": "/hook", "token": SECRET}, "token is neither", id="not in capitals"),
        pytest.param("acme-dns", {"url": "https://auth.example.org"}, "needs username", id="no registration"),
        pytest.param(
            "acme-dns",
            {"url": "https://auth.example.org", "accounts": SECRET},
            "'accounts' Invalid JSON",
            id="not JSON",
        ),
        pytest.param("cloudflare", {}, "cloudflare takes auth_username", id="no key"),
        pytest.param("cloudflare", {"auth_token": SECRET, "ttl": "x"}, "'ttl' has to be", id="ttl"),
    ],
)
def test_values_that_cannot_be_used(provider: str, values: dict[str, str], said: str) -> None:
    """The sentence names the key and shows no secret."""
    with pytest.raises(UsageError) as caught:
        check_values(provider, values)
    assert said in str(caught.value)
    assert SECRET not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("server", "asked"),
    [("192.0.2.53", "192.0.2.53"),
     ("2001:DB8::53", "2001:db8::53"), ("ns1", "ns1"), ("NS1.Corp.test.", "ns1.corp.test"),
     ("dns_1.corp.test", "dns_1.corp.test"), ("ns.bücher.test", "ns.xn--bcher-kva.test")],
)  # fmt: skip
def test_servers_of_rfc2136(server: str, asked: str) -> None:
    """An address or a host name, in the spelling in which DNS answers for it."""
    assert rfc2136.Keys.model_validate(UPDATES | {"server": server}).server == asked


def test_credentials_that_were_kept_unchecked(settings: Settings) -> None:
    """What an older version took is told with what to do, as every fault of a DNS provider is, without the secret."""
    ensure_key(settings)
    vault, values = Vault(settings), UPDATES | {"key": "bad key.."}
    kept = Credentials("corp", "rfc2136", tuple(values), vault.seal(json.dumps(values).encode()))
    with pytest.raises(DNSProviderError) as caught:
        open_provider(kept, vault, Zones())
    said = str(caught.value)
    assert said.startswith("the DNS credentials corp cannot be used: key: 'key' cannot be 'bad key..': ")
    assert said.endswith("; `certfleet dns set corp rfc2136 …` replaces them")
    assert UPDATES["secret"] not in said


SUBDOMAIN, USER = "8e5700ea-a4bf-41c7-8a77-e990661dcc6a", "eabcdb41-d89f-4580-826f-3e62e9755ef2"
DELEGATED = TXTRecord(name=f"{SUBDOMAIN}.auth.test", value="a" * 43, zone="auth.test", owner=NAME)


@pytest.fixture
async def registry() -> AsyncIterator[API]:
    """An acme-dns with one registration."""
    api = API()
    async with served(api, acme_dns(api, SUBDOMAIN, USER)):
        yield api


def registration(api: API) -> dict[str, str]:
    return {"url": api.url, "username": USER, "password": api.token, "subdomain": SUBDOMAIN}


def accounts(api: API) -> dict[str, str]:
    one = {"fulldomain": f"{SUBDOMAIN}.auth.test", "subdomain": SUBDOMAIN, "username": USER, "password": api.token}
    other = one | {"subdomain": "other", "fulldomain": "other.auth.test"}
    return {"url": f"{api.url}/", "accounts": json.dumps({"other.test": other, "shop.test": one | {"allowfrom": []}})}


@pytest.mark.parametrize("keys", [registration, accounts])
async def test_acme_dns(registry: API, keys: Callable[[API], dict[str, str]]) -> None:
    """The registration is the one that the name leads to; two values at once, and nothing to clean up."""
    provider = AcmeDNS(Keys.model_validate(check_values("acme-dns", keys(registry))))
    for letter in "ab":
        await provider.present(TXTRecord(DELEGATED.name, letter * 43, DELEGATED.zone, DELEGATED.owner))
    assert registry.records[SUBDOMAIN] == ["a" * 43, "b" * 43]
    asked = len(registry.requests)
    await provider.cleanup(DELEGATED)
    assert len(registry.requests) == asked


async def test_acme_dns_that_refuses(registry: API) -> None:
    """Its words, without the password that they repeat; a name that leads elsewhere; nobody there."""
    keys = registration(registry)
    provider = AcmeDNS(Keys.model_validate(keys | {"username": "somebody"}))
    with pytest.raises(DNSProviderError, match=r"answered 401 for _acme-challenge\.shop\.example\.com") as caught:
        await provider.present(DELEGATED)
    assert registry.token not in str(caught.value)
    assert "****" in str(caught.value)
    with pytest.raises(DNSProviderError, match=f"let it be a CNAME to one of {SUBDOMAIN}"):
        await AcmeDNS(Keys.model_validate(keys)).present(record("a"))
    with pytest.raises(DNSProviderError, match="cannot be reached"):
        await AcmeDNS(Keys.model_validate(keys | {"url": "http://127.0.0.1:9"})).present(DELEGATED)


async def test_a_call_in_a_thread_does_not_keep_the_process() -> None:
    """What it raises and returns arrives; what comes too late harms nobody."""
    assert await lexicon.in_thread(lambda: 7, 5) == 7
    with pytest.raises(ZeroDivisionError):
        await lexicon.in_thread(lambda: 1 // 0, 5)
    with pytest.raises(TimeoutError):
        await lexicon.in_thread(lambda: time.sleep(0.3), 0.05)
    await asyncio.sleep(0.5)  # its result comes now
