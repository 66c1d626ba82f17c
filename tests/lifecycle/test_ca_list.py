"""A list of two real CAs: the second issues when the first cannot in time, and the next renewal is the first's."""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio
from typer.testing import CliRunner

from certfleet.acme_ca.accounts import account_id
from certfleet.acme_ca.presets import resolve_ca
from certfleet.cli.commands import app as commands
from certfleet.lifecycle.records import order_member
from certfleet.lifecycle.renewals.renewal import NotDue, decide
from certfleet.models import Cause, KeyType, OrderState
from certfleet.overview import State
from certfleet.properties import effective
from certfleet.settings import Settings
from tests.lifecycle.two_cas import Place, Two, fleet_of_two, two_cas

pytestmark = pytest.mark.asyncio(loop_scope="module")

DAY = timedelta(days=1)
DOMAIN = "certificates-per-domain"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def place() -> AsyncIterator[Place]:
    """The CAs of the module."""
    directory = Path(tempfile.mkdtemp(prefix="certfleet-", dir="/tmp"))
    async with two_cas(directory) as running:
        yield running
    shutil.rmtree(directory)


@pytest_asyncio.fixture(loop_scope="module")
async def two(
    place: Place, settings: Settings, redis_socket: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Two]:
    """An empty fleet."""
    monkeypatch.setenv("CERTFLEET_HOME", str(settings.home))
    monkeypatch.setenv("CERTFLEET_REDIS_URL", f"unix://{redis_socket}")
    async with fleet_of_two(place, settings, monkeypatch) as fleet:
        yield fleet


async def said(*words: str) -> str:
    """What a command prints."""
    result = await asyncio.to_thread(CliRunner().invoke, commands, list(words))
    assert result.exit_code == 0, result.stderr
    return result.stdout


async def new_orders(two: Two) -> tuple[int, int]:
    return (await two.first.counts())["newOrder"], (await two.second.counts())["newOrder"]


async def limit_first(two: Two, period: timedelta) -> None:
    """One certificate for the domain in this time, as the CA has it and as the fleet knows."""
    await two.first.set_limits({DOMAIN: (1, period.total_seconds(), 1)}, same_set_exempt=False)
    await two.client.set_limits({DOMAIN: f"1/{period.days}d"}, ca=two.names[0])


async def test_the_first_is_down(two: Two) -> None:
    """It has its hour; then the second issues, and everybody can see why; the next renewal is the first's again."""
    for ca in (two.first, two.second):
        await ca.suggest_renewals()
    await two.place.first.shut()
    await two.enabled()
    view = await two.until(lambda view: view.state is State.FAILING)
    assert view.asked_ca == two.names[0]
    two.later(timedelta(minutes=59))
    await two.look()
    assert (await two.order()).ca == two.names[0]
    assert (await two.second.counts())["directory"] == 0, "nobody else is asked before"

    two.later(timedelta(minutes=2))
    await two.look()
    order = await two.order()
    assert (order.ca, order.state, order.error, order.attempts) == (two.names[1], OrderState.NEW, None, 0)
    assert f"asked is {two.names[1]} instead of {two.names[0]}" in await said("ls")
    await two.look()
    found = await two.issued()
    assert found.ca == two.names[1]
    [passed] = found.passed_over
    assert (passed.ca, passed.cause) == (two.names[0], Cause.AWAY)
    assert "cannot be reached" in passed.why
    assert await new_orders(two) == (0, 1)
    events = await two.events()
    assert any(e.startswith(f"passed on: from {two.names[0]} to {two.names[1]}: the CA ") for e in events)
    assert any(f", by {two.names[1]} instead of {two.names[0]}" in e for e in events if e.startswith("issued: "))
    told = json.loads(await said("info", "blog", "--json"))["app"]
    assert (told["issued_by"], told["asked_ca"]) == (two.names[1], None)
    assert [(one["ca"], one["cause"]) for one in told["passed_over"]] == [(two.names[0], "away")]
    text = await said("info", "blog")
    assert f"passed over {two.names[0]}" in text
    assert f"issued by {two.names[1]} instead of {two.names[0]}" in await said("ls")

    # Renewal information is that of the CA that issued it, and nothing is due because it was not the first.
    await two.check()
    assert sum((await two.second.book()).looks.values()) == 1
    assert not (await two.first.book()).looks
    assert await two.bench.fleet.records.order("blog") is None

    await two.place.first.open()
    await two.try_now(two.names[0])
    await two.client.renew(["blog"], force=True)
    renewed = await two.issued(2)
    assert (renewed.ca, renewed.passed_over) == (two.names[0], ())
    assert await new_orders(two) == (1, 1)
    assert not (await two.first.book()).refusals
    for ca in (two.first, two.second):
        assert (await ca.book()).replacements == (), "`replaces` never crosses from one CA to another"
    await two.client.renew(["blog"], force=True)
    await two.issued(3)
    assert len((await two.first.book()).replacements) == 1, "at the same CA it is sent"


async def test_the_first_is_limited_for_longer_than_the_certificate_lives(two: Two) -> None:
    """Tokens in time are waited for; tokens that come too late are not: the second issues at once, and nobody waits."""
    await limit_first(two, 60 * DAY)  # half of the certificate's 90 days are 45
    await two.enabled()
    assert (await two.issued()).ca == two.names[0]
    await two.client.renew(["blog"], force=True)
    found = await two.issued(2)
    assert found.ca == two.names[1]
    [passed] = found.passed_over
    assert passed.cause is Cause.LIMITED
    assert passed.why.startswith("waiting for certificates per registered domain example.com, until 20")
    assert passed.until is not None
    assert await new_orders(two) == (1, 1), "the first was not asked for what it would not have given"
    redis = two.bench.fleet.store.redis
    assert await redis.keys("certfleet:admission:*") == []
    assert await redis.hgetall("certfleet:rooms") == {}

    await limit_first(two, 40 * DAY)
    await two.enabled("wiki", "wiki.example.org")
    assert (await two.issued(app="wiki")).ca == two.names[0]
    await two.client.renew(["wiki"], force=True)
    view = await two.until(lambda view: view.state is State.LIMITED, "wiki")
    assert (view.asked_ca, view.passed_over, view.place) == (two.names[0], (), 1)
    ends = (await two.order("wiki")).turn_ends
    assert ends is not None
    assert await new_orders(two) == (2, 1)
    at = await two.bench.fleet.agenda.time_of(order_member("wiki"))
    assert at is not None
    assert at < ends, "looked at again before its turn ends"
    two.later(50 * DAY)  # its gate should have opened long ago
    await two.look("wiki")
    await two.look("wiki")
    assert (await two.issued(2, "wiki")).ca == two.names[1]
    assert (await two.first.book()).rate_limited_answers == 0


async def test_a_first_that_says_it_is_full(two: Two) -> None:
    """A limit that nobody knew of: one 429 that names a time beyond the turn."""
    detail = "too many new orders (1) from this account in the last 3h0m0s, retry after …"
    await two.first.answer_orders(1, 429, type="rateLimited", detail=detail, retry_after=str(7200))
    await two.enabled()
    assert (await two.issued()).ca == two.names[1]
    assert await new_orders(two) == (1, 1)
    assert any(event.startswith("rate limited: until") for event in await two.events())


async def test_the_first_refuses(two: Two) -> None:
    """A name that it never certifies: its words are kept with the certificate, the second issues at once."""
    await two.first.answer_orders(1, 400, type="rejectedIdentifier", detail="policy forbids blog.example.com")
    await two.enabled()
    found = await two.issued()
    assert found.ca == two.names[1]
    [passed] = found.passed_over
    assert (passed.cause, "policy forbids blog.example.com" in passed.why) == (Cause.REFUSED, True)
    assert await new_orders(two) == (1, 1)
    assert found.account.startswith(two.names[1].removesuffix("/dir")), "by an account of its own"
    records = two.bench.accounts.records
    for name in two.names:
        assert await records.get(account_id(resolve_ca(name), "ops@example.com")) is not None


async def test_caa_allows_the_second_only(two: Two, place: Place) -> None:
    """Nothing is ordered where it is forbidden; the doctor says so for each, and that nothing stops the app."""
    await two.first.identify("first.example")
    await two.second.identify("second.example")
    policies = {"host": "blog.example.com", "policies": [{"tag": "issue", "value": "second.example"}]}
    timeout = aiohttp.ClientTimeout(total=10)
    async with aiohttp.ClientSession(timeout=timeout, raise_for_status=True) as session:
        await session.post(f"{place.first.ca.dns_management}/add-caa", json=policies)
    await two.enabled()
    found = {(one.name, one.ca): one for one in await two.client.doctor("blog")}
    forbidden, allowed = (found["caa", name] for name in two.names)
    assert (forbidden.ok, forbidden.stops, allowed.ok) == (False, False, True)
    assert [found["directory", name].ok for name in two.names] == [True, True]
    assert found["hosts", None].ok
    table = await asyncio.to_thread(CliRunner().invoke, commands, ["doctor", "blog"])
    assert f"caa, {two.names[0]}" in table.stdout
    issued = await two.issued()
    assert issued.ca == two.names[1]
    assert "CAA forbids it" in issued.passed_over[0].why
    assert await new_orders(two) == (0, 1)


async def test_a_first_that_has_paused_the_name(two: Two) -> None:
    """The second issues; the link that ends the pause is shown, and is not in the journal."""
    await two.first.pause("blog.example.com")
    await two.enabled()
    found = await two.issued()
    assert found.ca == two.names[1]
    assert "jwt=" in found.passed_over[0].why
    assert "jwt=" in await said("info", "blog", "--json")
    assert not any("jwt" in event for event in await two.events())
    await two.first.unpause("blog.example.com")


async def test_a_profile_that_only_the_first_offers(two: Two) -> None:
    """The second is asked by its default, and that is no reason to order again; at the first it is asked for again."""
    await two.first.offer({"classic": "", "shortlived": "six days"})
    await two.first.answer_orders(1, 400, type="rejectedIdentifier", detail="not today")
    await two.enabled(profile="shortlived")
    found = await two.issued()
    assert (found.ca, found.profile, found.unoffered) == (two.names[1], "", "shortlived")
    assert await two.second.asked_profiles() == [None]
    app = await two.client.app("blog")
    properties = effective(app.properties, await two.bench.fleet.inventory.properties())
    cas = [resolve_ca(name) for name in two.names]
    wish = {"cas": cas, "key_type": KeyType.P256, "grace": None, "told": None, "now": found.issued}
    assert isinstance(decide(app, found, profile=properties["profile"], **wish), NotDue)  # type: ignore[arg-type]
    await two.client.set_property("profile", "", "blog")
    assert (await two.issued(2)).profile == ""
    await two.client.set_property("profile", "shortlived", "blog")
    again = await two.issued(3)
    assert (again.ca, again.profile, again.unoffered) == (two.names[0], "shortlived", "")


async def test_the_list_is_changed_by_a_person(two: Two) -> None:
    """Another first CA: a certificate of it at once; another one behind: nothing."""
    await two.client.set_property("ca", two.names[0])
    await two.enabled()
    assert (await two.issued()).ca == two.names[0]
    await two.client.set_property("ca", ",".join(two.names))
    await two.check()
    assert await two.bench.fleet.records.order("blog") is None
    await two.client.set_property("ca", ",".join(reversed(two.names)))
    assert (await two.issued(2)).ca == two.names[1]
    await two.client.set_property("ca", two.names[1])
    await two.check()
    assert await two.bench.fleet.agenda.time_of(order_member("blog")) is None
