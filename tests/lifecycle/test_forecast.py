"""The fleet's own orders in a forecast: those that wait now, and renewals that fall due meanwhile."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta

import pytest

from certfleet.acme_ca.account_records import account_id
from certfleet.acme_ca.presets import resolve_ca
from certfleet.errors import UsageError
from certfleet.lifecycle.fleet import Fleet, open_fleet
from certfleet.lifecycle.forecasts.forecast import estimate
from certfleet.lifecycle.forecasts.whatif import WhatIf, what_if
from certfleet.lifecycle.records import order_member
from certfleet.lifecycle.renewals.renewal import due_time
from certfleet.limits.buckets import Buckets
from certfleet.limits.keys import order_buckets, refused_bucket
from certfleet.limits.line import Lines
from certfleet.limits.presets import limits_of
from certfleet.limits.rooms import Candidate, Standing
from certfleet.models import App, dump, microseconds, utcnow
from certfleet.plan import Planned
from certfleet.settings import Settings
from certfleet.store import Store
from tests.certificate_records import record

EMAIL = "ops@example.org"
LETSENCRYPT = resolve_ca("letsencrypt")
BUYPASS = "https://api.buypass.com/acme/directory"
TOKEN = timedelta(seconds=12_096)
"""In which a certificate per domain comes at Let's Encrypt."""
A_MOMENT = timedelta(seconds=10)


@pytest.fixture
async def fleet(settings: Settings, store: Store) -> AsyncIterator[Fleet]:
    """Empty books, an e-mail address for all apps."""
    del store  # emptied
    async with open_fleet(settings) as opened:
        await opened.inventory.set_properties({"email": EMAIL})
        yield opened


async def order(fleet: Fleet, app: str, party: str = "t:", rank: float = 0) -> Standing:
    """The app asks for its tokens at Let's Encrypt, as its order would."""
    limits = limits_of("letsencrypt", LETSENCRYPT.directory)
    account = account_id(LETSENCRYPT, EMAIL)
    asked = order_buckets(limits, account=account, identifiers=[f"{app}.example.org"])
    await fleet.agenda.schedule(order_member(app), utcnow())
    claim = await fleet.agenda.claim(order_member(app))
    assert claim is not None
    return await fleet.rooms.enter(
        claim, Candidate(app=app, order=app, wish="w", version="0", party=party, rank=rank, buckets=asked)
    )


async def fill_up(fleet: Fleet, waiting: int) -> None:
    """50 certificates of example.org are being issued, and so many more wait, the last of them a renewal."""
    for number in range(50):
        assert await order(fleet, f"busy{number}") is Standing.ADMITTED
    for number in range(waiting - 1):
        assert await order(fleet, f"new{number}", rank=number) is Standing.WAITING
    assert await order(fleet, "urgent", party="r") is Standing.WAITING


async def test_the_orders_that_wait(fleet: Fleet) -> None:
    """Each gets the next token of the domain, renewals first; the account's limit is in nobody's way."""
    await fill_up(fleet, 4)
    found = await estimate(fleet, WhatIf())
    assert [row.app for row in found.apps] == ["urgent", "new0", "new1", "new2"]
    for number, row in enumerate(found.apps, 1):
        assert row.done_at is not None
        assert abs(row.done_at - utcnow() - number * TOKEN) < A_MOMENT
        assert (row.limit, row.of) == ("certificates-per-domain", "example.org")
    assert found.summary.done_at == found.apps[-1].done_at
    assert found.binding == "certificates per registered domain example.org"
    assert [(row.limit, row.waited) for row in found.buckets] == [("certificates-per-domain", 4)]


async def test_the_orders_that_wait_under_another_limit(fleet: Fleet) -> None:
    """Tokens that are taken stay taken; with twice the rate the next ones come twice as fast."""
    await fill_up(fleet, 4)
    asked = what_if(limits={"certificates-per-domain": "50/84h"})
    last = (await estimate(fleet, asked)).summary.done_at
    assert last is not None
    assert abs(last - utcnow() - 2 * TOKEN) < A_MOMENT
    wide = await estimate(fleet, what_if(limits={"certificates-per-domain": "100/7d"}))
    assert wide.summary.done_at == wide.summary.asked_at


async def test_the_next_tenant_is_the_one_that_is_next_in_the_line(fleet: Fleet) -> None:
    """`ls` and the forecast tell the same order; the tenant of a plan comes in behind those that wait."""
    for number in range(50):
        assert await order(fleet, f"busy{number}") is Standing.ADMITTED
    apps = [f"{tenant}{number}" for tenant in ("zoo", "mid", "ant") for number in range(3)]
    for rank, app in enumerate(apps):
        assert await order(fleet, app, party=f"t:{app[:3]}", rank=rank) is Standing.WAITING
    places = await Lines(fleet.store).places(apps)
    in_line = sorted(apps, key=lambda app: places[app].place)
    assert in_line[:4] == ["zoo0", "mid0", "ant0", "zoo1"]
    assert [row.app for row in (await estimate(fleet, WhatIf())).apps] == in_line
    later = (await estimate(fleet, WhatIf(), [Planned("later", ("later.example.org",), tenant="all")])).summary
    assert later.done_at is not None
    assert abs(later.done_at - utcnow() - 4 * TOKEN) < A_MOMENT


async def test_a_plan_comes_behind_what_waits(fleet: Fleet) -> None:
    """Only the plan's apps are told of; those that wait for the same domain go first."""
    await fill_up(fleet, 4)
    found = await estimate(fleet, WhatIf(), [Planned("later", ("later.example.org",)), Planned("other", ("a.com",))])
    assert [row.app for row in found.apps] == ["other", "later"]
    done = found.apps[1].done_at
    assert done is not None
    assert abs(done - utcnow() - 5 * TOKEN) < A_MOMENT


async def have_certificate(fleet: Fleet, name: str, days_left: float) -> None:
    """An enabled app with a certificate of 90 days."""
    app = App(name, (f"{name}.example.org",), ("web1",), enabled=True, properties={"ca": BUYPASS})
    await fleet.inventory.add_app(app)
    end = utcnow() + timedelta(days=days_left)
    certificate = record(app, end - timedelta(days=90), ca=BUYPASS)
    await fleet.store.redis.set(fleet.store.key("certificate", name), dump(certificate))


async def test_renewals_that_fall_due_take_part(fleet: Fleet) -> None:
    """Buypass exempts none (10 at once, 11 in 7 days): a certificate that is due takes a token before new names."""
    plan = [Planned(f"new{number}", (f"new{number}.example.org",), ca=BUYPASS) for number in range(11)]
    alone = (await estimate(fleet, WhatIf(), plan)).summary
    await have_certificate(fleet, "due", 10)
    beside = (await estimate(fleet, WhatIf(), plan)).summary
    await have_certificate(fleet, "fresh", 89)
    assert alone.done_at is not None
    assert beside.done_at is not None
    assert (beside.done_at - beside.asked_at) / (alone.done_at - alone.asked_at) == pytest.approx(2)
    summary = (await estimate(fleet, WhatIf(), plan)).summary
    assert summary.renewals_per_day == pytest.approx(13 / 60, abs=0.001)
    assert summary.busiest_share == pytest.approx(13 / 60 * 7 / 11, abs=0.001)
    assert summary.sustainable


async def test_an_app_of_the_plan_that_is_there_already_counts_once(fleet: Fleet) -> None:
    """What the plan says of it is what is asked about."""
    await have_certificate(fleet, "blog", 10)
    summary = (await estimate(fleet, WhatIf(), [Planned("blog", ("blog.example.org",), ca=BUYPASS)])).summary
    assert summary.renewals_per_day == pytest.approx(1 / 60, abs=0.001)


async def add(fleet: Fleet, name: str, *names: str, **properties: str) -> App:
    """An enabled app, by default with the name that `order` asks for."""
    app = App(name, names or (f"{name}.example.org",), ("web1",), enabled=True, properties=properties)
    await fleet.inventory.add_app(app)
    return app


async def test_planned_apps_that_wait_already_count_once(fleet: Fleet) -> None:
    """The same apps, asked about in both ways, are done at the same time; one that is new comes behind them."""
    await fill_up(fleet, 4)
    names = ["new0", "new1", "new2", "urgent"]
    for name in names:
        await add(fleet, name)
    rows = [Planned(name, (f"{name}.example.org",)) for name in names]
    waiting, planned = await estimate(fleet, WhatIf()), await estimate(fleet, WhatIf(), rows)
    assert [row.app for row in planned.apps] == [row.app for row in waiting.apps]
    assert (planned.summary.apps, planned.summary.certificates, planned.summary.already) == (4, 4, 4)
    assert planned.summary.done_at is not None
    assert waiting.summary.done_at is not None
    assert abs(planned.summary.done_at - waiting.summary.done_at) < A_MOMENT
    assert planned.summary.renewals_per_day == waiting.summary.renewals_per_day
    more = await estimate(fleet, WhatIf(), [Planned("more", ("more.example.org",)), *rows])
    assert [row.app for row in more.apps] == ["urgent", "new0", "new1", "new2", "more"]
    assert (more.summary.certificates, more.summary.already) == (5, 4)
    some = await estimate(fleet, WhatIf(), rows[2:3])
    assert some.summary.done_at is not None
    assert abs(some.summary.done_at - waiting.summary.done_at) < A_MOMENT, "the others still go first"


async def test_a_planned_app_with_a_certificate_is_done(fleet: Fleet) -> None:
    """Nothing is ordered for it; what is under way has its tokens. What is expired or withdrawn is ordered."""
    for name, days_left in [("good", 80.0), ("expired", -1), ("withdrawn", 80)]:
        await have_certificate(fleet, name, days_left)
    one = (await fleet.records.certificates(["withdrawn"]))["withdrawn"]
    await fleet.store.redis.set(fleet.store.key("certificate", "withdrawn"), dump(replace(one, withdrawn="replaced")))
    await order(fleet, "busy")
    await add(fleet, "busy")
    names = {"good": BUYPASS, "expired": BUYPASS, "withdrawn": BUYPASS, "busy": None}
    found = await estimate(
        fleet, WhatIf(), [Planned(name, (f"{name}.example.org",), ca=ca) for name, ca in names.items()]
    )
    assert (found.summary.apps, found.summary.done, found.summary.already) == (4, 4, 2)
    assert found.summary.certificates == 2, "expired, withdrawn"
    assert found.summary.done_at == found.summary.asked_at
    assert found.summary.renewals_per_day == pytest.approx(4 / 60, abs=0.001)


@pytest.mark.parametrize(
    ("row", "asked"),
    [
        (Planned("new0", ("new0.example.org", "www.example.org")), WhatIf()),
        (Planned("new0", ("new0.example.org",), email="other@example.org"), WhatIf()),
        (Planned("new0", ("new0.example.org",)), what_if(email="other@example.org")),
        (Planned("new0", ("new0.example.org",)), what_if(names_per_certificate=2)),
    ],
)
async def test_a_planned_app_that_is_there_otherwise_counts_as_planned(
    fleet: Fleet, row: Planned, asked: WhatIf
) -> None:
    """Behind the two others that wait: its own order, which gives way, is not counted beside it."""
    await fill_up(fleet, 3)
    await add(fleet, "new0")
    found = await estimate(fleet, asked, [row])
    assert (found.summary.certificates, found.summary.already) == (1, 0)
    assert found.summary.done_at is not None
    assert abs(found.summary.done_at - utcnow() - 3 * TOKEN) < A_MOMENT
    assert found.summary.renewals_per_day == pytest.approx(1 / 60, abs=0.001)


async def test_what_the_ca_has_closed_bars_a_plan(fleet: Fleet) -> None:
    """After a 429 that named no limit, nobody of that account orders before the time it named."""
    limits = limits_of("letsencrypt", LETSENCRYPT.directory)
    until = utcnow() + timedelta(hours=2)
    await Buckets(fleet.store).block(refused_bucket(limits, account_id(LETSENCRYPT, EMAIL)), until)
    found = await estimate(fleet, WhatIf(), [Planned("a", ("a.com",)), Planned("b", ("b.com",), email="b@example.org")])
    assert [row.app for row in found.apps] == ["b", "a"]
    assert found.summary.done_at is not None
    assert abs(found.summary.done_at - until) < A_MOMENT
    assert found.summary.binding_of == EMAIL


@pytest.mark.parametrize(("first_issue", "keep"), [("after-renewals", True), ("7d", False)])
async def test_what_is_kept_for_renewals_is_kept_from_new_names(fleet: Fleet, first_issue: str, keep: bool) -> None:  # noqa: FBT001
    """A quarter of the account's orders, unless first certificates have an urgency of their own."""
    await fleet.inventory.set_properties({"first-issue": first_issue})
    plan = [Planned(f"a{number}", (f"www.a{number}.com",)) for number in range(300)]
    found = await estimate(fleet, WhatIf(), plan)
    at_once = sum(row.done_at == found.summary.asked_at for row in found.apps)
    assert at_once == (225 if keep else 300)


async def test_renewals_are_charged_as_the_fleet_charges_them(fleet: Fleet) -> None:
    """What the upkeep counts is what order_buckets says of a renewal of the same set."""
    summary = (await estimate(fleet, WhatIf(), [Planned("a", ("a.com",))])).summary
    limits = limits_of("letsencrypt", LETSENCRYPT.directory)
    met = order_buckets(limits, account="x", identifiers=["a.com"], same_set=True)
    [bucket] = met.ordered + met.issued + met.uncontrolled
    assert (summary.busiest_limit, summary.busiest_of) == (bucket.limit, "a.com")
    assert summary.busiest_share == pytest.approx(bucket.rate.interval / 1e6 / (60 * 86_400), abs=1e-6)
    late = await estimate(fleet, what_if(lifetimes={"classic": "200d"}), [Planned("a", ("a.com",))])
    needed = {row.limit for row in late.limits if row.renewals_share}
    assert needed == {"orders-per-account", "certificates-per-domain", "certificates-per-set"}, "after 120 days: as new"


@pytest.mark.parametrize(
    ("given", "ca", "profile", "days"),
    [
        ({}, "letsencrypt", "", 90),
        ({}, "letsencrypt", "tlsserver", 45),
        ({}, "letsencrypt", "new-one", 90),
        ({"": "64d"}, "letsencrypt", "", 64),
        ({"": "64d"}, "letsencrypt", "classic", 64),
        ({"": "64d"}, "letsencrypt", "tlsserver", 45),
        ({"": "64d"}, "letsencrypt", "new-one", 64),
        ({"classic": "64d"}, "letsencrypt", "", 64),
        ({"tlsserver": "7d", "": "64d"}, "letsencrypt", "tlsserver", 7),
        ({}, BUYPASS, "", 90),
        ({"": "64d"}, BUYPASS, "any", 64),
        ({"any": "7d"}, BUYPASS, "any", 7),
        ({"any": "7d"}, BUYPASS, "", 90),
    ],
)
def test_lifetimes_by_profile(given: dict[str, str], ca: str, profile: str, days: int) -> None:
    """What was assumed of it, else what the CA documents, else what was assumed of all."""
    assert what_if(lifetimes=given).lifetime(ca, profile) == timedelta(days=days)


async def test_each_profile_is_renewed_as_it_lives(fleet: Fleet) -> None:
    """160 hours, renewed after 80; a name more than 25 and a certificate of 30 names are refused."""
    row = Planned("a", ("a.com",), profile="shortlived")
    summary = (await estimate(fleet, WhatIf(), [row, Planned("b", ("b.com",))])).summary
    assert summary.renewals_per_day == pytest.approx(24 / 80 + 1 / 60, abs=0.001)
    assert (summary.lifetime_seconds, summary.profile_lifetimes_seconds) == (90 * 86_400, {"shortlived": 160 * 3600})
    with pytest.raises(UsageError, match=r"^plan: app a: domain: 26 names are too many for the profile shortlived"):
        await estimate(fleet, WhatIf(), [replace(row, identifiers=tuple(f"{number}.a.com" for number in range(26)))])
    with pytest.raises(UsageError, match=r"^names-per-certificate: 30 is more than letsencrypt takes by the profile"):
        await estimate(fleet, what_if(names_per_certificate=30), [row])


async def test_the_lifetime_is_that_of_the_ca_that_most_are_for(fleet: Fleet) -> None:
    """Of a plan's apps, else of the fleet's; a profile that two CAs have counts as this one has it."""
    for number in range(3):
        await add(fleet, f"there{number}", ca=BUYPASS)
    await add(fleet, "short", ca=BUYPASS, profile="tlsserver")
    asked = what_if(lifetimes={"classic": "45d", "tlsserver": "30d"})
    plan = [Planned(f"a{number}", (f"a{number}.com",)) for number in range(2)]
    found = (await estimate(fleet, asked, [*plan, Planned("b", ("b.com",), ca=BUYPASS)])).summary
    assert found.lifetime_seconds == 45 * 86_400, "classic, by default"
    assert found.renewals_per_day == pytest.approx(2 / 30 + 4 / 60 + 1 / 20, abs=0.001)
    assert (await estimate(fleet, asked)).summary.lifetime_seconds == 90 * 86_400, "Buypass's"
    mixed = [*plan, Planned("c", ("c.com",), profile="tlsserver")]
    for first in (mixed, mixed[::-1]):
        summary = (await estimate(fleet, WhatIf(), first)).summary
        assert summary.profile_lifetimes_seconds == {"tlsserver": 45 * 86_400}, "Let's Encrypt's"
    summary = (await estimate(fleet, WhatIf(), [Planned("there0", ("there0.example.org",)), *plan])).summary
    assert (summary.lifetime_seconds, summary.profile_lifetimes_seconds) == (90 * 86_400, {"tlsserver": 90 * 86_400})


async def test_a_renewal_that_was_spread_counts_when_it_is(fleet: Fleet) -> None:
    """An early slot: its token is gone before the plan's next name comes."""
    await have_certificate(fleet, "early", 80)
    records = await fleet.records.certificates(["early"])
    due = due_time(records["early"], None, None)
    plan = [Planned(f"new{number}", (f"new{number}.example.org",), ca=BUYPASS) for number in range(11)]
    before = (await estimate(fleet, WhatIf(), plan)).summary
    slot = f"1 {microseconds(due)} {microseconds(utcnow())}"
    await fleet.store.redis.hset(fleet.store.key("slots"), "early", slot)
    after = (await estimate(fleet, WhatIf(), plan)).summary
    assert before.done_at is not None
    assert after.done_at is not None
    assert (after.done_at - after.asked_at) / (before.done_at - before.asked_at) == pytest.approx(2, abs=0.01)


async def test_certificates_that_are_replaced_need_less(fleet: Fleet) -> None:
    """The exact set was issued lately: Let's Encrypt lets it through at once, where a new app would wait for weeks."""
    await fill_up(fleet, 1)
    app = App("blog", ("blog.example.org",), ("web1",), enabled=True)
    await fleet.inventory.add_app(app)
    found = await estimate(fleet, WhatIf(), replaced=[app])
    assert [row.app for row in found.apps] == ["blog"]
    assert found.summary.done_at is not None
    assert found.summary.done_at <= found.summary.asked_at
    new = await estimate(fleet, WhatIf(), [Planned("wiki", ("wiki.example.org",))])
    assert new.summary.done_at is not None
    assert new.summary.done_at > new.summary.asked_at
