"""dns-persist-01 with real DNS servers, before a CA that reads the records itself: what stands is enough."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator

import dns.asyncquery
import dns.message
import pytest
from cryptography import x509
from typer.testing import CliRunner, Result

from certfleet.cli.commands import app
from certfleet.errors import OwnerError
from certfleet.overview import Overview, State
from certfleet.settings import Settings
from certfleet.store import Store
from tests.dns.bind import PRIMARY, SECONDARY, Bind
from tests.dns.standing import CA_NAME, Parts, Shop, common, shop

__all__ = ["common"]  # a fixture

RECORD = re.compile(r'make (\S+)\. IN TXT "([^"]+)" \(')
HASHES = "https://ca.example.net/account-hash/"


@pytest.fixture
async def fleet(settings: Settings, store: Store, common: Parts) -> AsyncIterator[Shop]:
    """A fleet that knows nothing yet."""
    del store  # emptied
    async with shop(settings, common) as opened:
        yield opened


def told(view: Overview) -> tuple[str, str]:
    """The record that an error says is to be made: name and value."""
    assert view.error is not None, view
    found = RECORD.search(view.error)
    assert found is not None, view.error
    return found[1], found[2]


async def serial(servers: Bind, zone: str = "corp.test") -> int:
    """The zone's serial, which grows with each change."""
    query = dns.message.make_query(zone, "SOA", flags=0)
    answer = await dns.asyncquery.udp(query, PRIMARY, timeout=5, port=servers.port)
    return int(answer.answer[0][0].serial)


async def names(fleet: Shop, app: str) -> set[str]:
    """What the app's certificate is for."""
    certificate = await fleet.bench.fleet.records.certificate(app)
    assert certificate is not None
    leaf = x509.load_pem_x509_certificate(certificate.leaf.encode())
    return set(
        leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value.get_values_for_type(x509.DNSName)
    )


async def test_a_missing_record_is_told_and_made_once(fleet: Shop) -> None:
    """The error has the very record; made by hand it does for this certificate and all that follow it."""
    name, value = told(await fleet.enable("blog"))
    assert name == "_validation-persist.blog.corp.test"
    assert re.fullmatch(rf"{CA_NAME}; accounturi=https://127\.0\.0\.1:\d+/my-account/\w+", value)
    assert await fleet.ca.persist_looks() == [], "the CA was not asked to look"
    await fleet.make(name, value)
    before = await serial(fleet.servers)
    assert (await fleet.renew("blog")).generation == 1
    assert (await fleet.renew("blog", force=True)).generation == 2
    looks = await fleet.ca.persist_looks()
    assert set(looks) == {("blog.corp.test", True)}
    assert len(looks) in (1, 2), "Pebble uses one authorization in a hundred again, whatever it is told"
    assert await serial(fleet.servers) == before, "nothing is written for a certificate"
    assert await fleet.servers.values(name) == {value}
    assert not await fleet.bench.fleet.written.any("blog")
    assert (await fleet.ca.counts())["newOrder"] == 2, "the order that was refused is the one that went on"


async def certfleet(*words: str) -> Result:
    """The command line, beside the test's own event loop."""
    return await asyncio.to_thread(lambda: CliRunner().invoke(app, list(words)))


async def test_shown_by_the_command_line(fleet: Shop, common: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same record, as JSON and as a zone's line, before it stands and after; without an account: how to get one."""
    settings = fleet.bench.fleet.settings
    monkeypatch.setenv("CERTFLEET_HOME", str(settings.home))
    monkeypatch.setenv("CERTFLEET_REDIS_URL", settings.redis_url.get_secret_value() if settings.redis_url else "")
    monkeypatch.setenv("CERTFLEET_NAMESERVERS", common.servers.resolver)
    await fleet.client.add_app("early", ["early.corp.test", "*.early.corp.test"], ["web1"])
    said = await certfleet("dns-persist", "show", "early")
    assert (said.exit_code, said.stdout) == (1, "")
    assert "there is no account for ops@example.com" in said.stderr
    assert f"`certfleet account register ops@example.com --ca {common.ca.directory}` makes it" in said.stderr
    await fleet.client.enable("early")
    name, value = told(await fleet.settled("early"))
    said = await certfleet("dns-persist", "show", "early")
    assert said.exit_code == 0, said.stderr
    assert said.stdout.splitlines()[0] == f'{name}. IN TXT "{value}"'
    assert f"does not stand: ns1.corp.test ({PRIMARY}) has no such record (and 1 more of its servers)" in said.stdout
    await fleet.make(name, value)
    said = await certfleet("dns-persist", "show", "early", "--json")
    document = json.loads(said.stdout)
    assert document.keys() == {"version", "records"}
    assert document["records"] == [
        {
            "ca": common.ca.directory,
            "account": value.partition("accounturi=")[2].partition(";")[0],
            "names": ["early.corp.test", "*.early.corp.test"],
            "record": name,
            "value": value,
            "stands": True,
            "until": None,
            "message": "good for ever",
        }
    ]


async def test_a_wildcard_with_its_own_name(fleet: Shop) -> None:
    """One record for both; without its policy it is told, and would not have done at the CA either."""
    name, value = told(await fleet.enable("wild", "wild.corp.test", "*.wild.corp.test"))
    assert name == "_validation-persist.wild.corp.test"
    assert value.endswith("; policy=wildcard")
    plain = value.removesuffix("; policy=wildcard")
    await fleet.make(name, plain)
    view = await fleet.renew("wild")
    assert "has no policy=wildcard, which *.wild.corp.test needs" in (view.error or "")
    assert await fleet.ca.persist_looks() == []
    await fleet.make(name, value)
    assert (await fleet.renew("wild")).state is State.INSTALLING
    assert sorted(await fleet.ca.persist_looks()) == [("*.wild.corp.test", True), ("wild.corp.test", True)]
    assert await names(fleet, "wild") == {"wild.corp.test", "*.wild.corp.test"}


async def test_records_that_do_not_do(fleet: Shop) -> None:
    """Each is told in words, without the CA; the CA, asked all the same, thinks so too. Mended, it is issued."""
    name, value = told(await fleet.enable("wrong"))
    account = value.partition("accounturi=")[2]
    wrong = {
        f"{CA_NAME}; accounturi={account}0": ("is for another account than ours", "accounturi mismatch"),
        f"{value}; persistUntil={int(time.time()) - 60}": ("was good until", "after persistUntil"),
        f"{value};": ("ends with a semicolon", "not an issue-value"),
        f"{value}; accounturi={account}": ("says accounturi twice", "duplicate parameter accounturi"),
        f"{value}; persistUntil=soon": ("no number of seconds", "persistUntil soon"),
        f"other.example; accounturi={account}": ("has no such record", "for another CA: other.example"),
    }
    for record, (ours, theirs) in wrong.items():
        await fleet.make(name, record)
        view = await fleet.renew("wrong")
        assert ours in (view.error or ""), record
        assert await fleet.ca.persist_looks() == []
        await fleet.client.set_property("self-check", "off", "wrong")
        view = await fleet.settled("wrong")
        assert theirs in (view.error or ""), record
        assert await fleet.ca.persist_looks() == [("wrong.corp.test", False)]
        await fleet.client.set_property("self-check", "on", "wrong")
        await fleet.ca.offer_persist(fleet.servers.resolver, CA_NAME)  # forgets what it looked at
        await fleet.take_away(name, record)
    await fleet.make(name, f"  {CA_NAME.upper()};PERSISTUNTIL = 4102444800 ;x=y; AccountURI={account}  ")
    assert (await fleet.renew("wrong")).state is State.INSTALLING


async def test_every_server_has_to_show_it(fleet: Shop) -> None:
    """The CA may ask any of them: the one that does not have it yet is named."""
    name, value = told(await fleet.enable("slow"))
    await fleet.make(name, value, everywhere=False)
    view = await fleet.renew("slow")
    assert f"ns2.corp.test ({SECONDARY}) has no such record" in (view.error or "")
    assert await fleet.ca.persist_looks() == []
    await fleet.spread(name)
    assert (await fleet.renew("slow")).state is State.INSTALLING


async def test_where_a_cname_leads(fleet: Shop) -> None:
    """The record may stand in another zone, as for dns-01."""
    view = await fleet.enable("shop")
    name, value = told(view)
    assert name == "_validation-persist.shop.corp.test"
    assert "at shop.delegated.test, where a CNAME leads" in (view.error or "")
    await fleet.make(name, value)
    assert await fleet.servers.values("shop.delegated.test") == {value}
    assert (await fleet.renew("shop")).state is State.INSTALLING


async def test_records_that_end(fleet: Shop) -> None:
    """With `persist-for` the record to make has its end, counted from now."""
    _, value = told(await fleet.enable("year", persist_for="365d"))
    until = int(value.rpartition("; persistUntil=")[2])
    assert abs(until - time.time() - 365 * 86_400) < 3600
    await fleet.make("_validation-persist.year.corp.test", value)
    assert (await fleet.renew("year")).state is State.INSTALLING


async def test_accounts_by_their_hash(settings: Settings, store: Store, common: Parts) -> None:
    """Version 02 of the draft: the record does not show the account's URL, and outlives its key."""
    del store  # emptied
    async with shop(settings, common, prefix=HASHES) as fleet:
        name, value = told(await fleet.enable("hashed"))
        assert re.fullmatch(rf"{CA_NAME}; accounturi={HASHES}sha-256/[\w-]{{43}}", value)
        await fleet.make(name, value)
        assert (await fleet.renew("hashed")).generation == 1
        await fleet.client.roll_over_account("ops@example.com")
        [record] = await fleet.client.standing_records("hashed")
        assert record.value != value, "by the new key"
        assert record.stands, "the old one counts still"
        assert (await fleet.renew("hashed", force=True)).generation == 2
        assert set(await common.ca.persist_looks()) == {("hashed.corp.test", True)}


async def test_a_ca_that_says_its_name_in_the_challenge_alone(fleet: Shop) -> None:
    """The order learns it and tells the record; who asks beforehand hears why there is none yet."""
    await fleet.ca.identify()
    name, value = told(await fleet.enable("shy"))
    assert value.startswith(f"{CA_NAME}; ")
    with pytest.raises(OwnerError, match="does not say in its directory what it is called"):
        await fleet.client.standing_records("shy")
    await fleet.make(name, value)
    assert (await fleet.renew("shy")).state is State.INSTALLING
    assert (await fleet.check("shy")).warning is None
    await fleet.take_away(name, value)
    assert "the next renewal will fail" in ((await fleet.check("shy")).warning or "")


async def test_a_ca_that_does_not_offer_it(fleet: Shop) -> None:
    """Said at once; no challenge is answered."""
    await fleet.ca.offer_persist(fleet.servers.resolver)
    view = await fleet.enable("none")
    assert "none.corp.test: the CA does not offer dns-persist-01 for this name" in (view.error or "")
    assert (await fleet.ca.counts())["challenge"] == 0
