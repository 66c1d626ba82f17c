"""An order that keeps failing is left to a person, with the evidence, and taken up again when one has looked."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certfleet.errors import AcmeProblem, CAMisbehaved, CAUnreachable, OwnerError, VaultError
from certfleet.install.snippet import snippet
from certfleet.lifecycle.orders.ordering import forgiven
from certfleet.lifecycle.orders.parking import is_hopeless, parked_sentence
from certfleet.lifecycle.orders.trouble import OrderInvalid, is_owners
from certfleet.lifecycle.renewals.renewal import retry_after
from certfleet.models import App, KeyType, Order, OrderState
from certfleet.overview import State
from tests.certificate_records import record
from tests.rig import running_rig

NOW = datetime(2026, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
ORDER = Order("1", "blog", "letsencrypt", "a@example.com", ("blog.test",), KeyType.P256, "renewal", NOW)
CERTIFICATE = record(App("blog", ("blog.test",), ("web1",)), NOW - 60 * DAY)


def test_a_new_name_is_parked_after_so_long() -> None:
    """Counted from its first failure; never when that is switched off, or when nothing is the owner's."""
    order = replace(ORDER, failing_since=NOW)
    assert not is_hopeless(order, None, 30 * DAY, NOW + 30 * DAY - timedelta(seconds=1))
    assert is_hopeless(order, None, 30 * DAY, NOW + 30 * DAY)
    assert not is_hopeless(order, None, None, NOW + 3000 * DAY)
    assert not is_hopeless(ORDER, None, DAY, NOW + 3000 * DAY)


def test_a_valid_certificate_is_tried_on() -> None:
    """Until it has expired, and for as long again."""
    order = replace(ORDER, failing_since=NOW)
    assert not is_hopeless(order, CERTIFICATE, 30 * DAY, NOW + 60 * DAY - timedelta(seconds=1))
    assert is_hopeless(order, CERTIFICATE, 30 * DAY, NOW + 60 * DAY)
    late = replace(ORDER, failing_since=NOW + 40 * DAY)
    assert not is_hopeless(late, CERTIFICATE, 30 * DAY, NOW + 60 * DAY)


@given(st.integers(1, 400), st.none() | st.integers(-100, 400))
def test_a_dead_name_never_adds_up_to_the_cas_pause(days: int, expires: int | None) -> None:
    """By a clock of our own: less and less often, then parked; long before 1152 failures in a row."""
    certificate = replace(CERTIFICATE, not_after=NOW + expires * DAY) if expires is not None else None
    order, now = replace(ORDER, failing_since=NOW), NOW
    while not is_hopeless(order, certificate, days * DAY, now):
        order = replace(order, attempts=order.attempts + 1)
        now += retry_after(order.attempts)
    last = NOW + (days + max(expires or 0, 0)) * DAY
    assert last <= now <= last + DAY
    assert order.attempts <= days + max(expires or 0, 0) + 4 < 1152


@pytest.mark.parametrize(
    ("error", "owners"),
    [
        (OwnerError("points away"), True),
        (OrderInvalid("the CA refused"), True),
        (AcmeProblem(status=400, type="rejectedIdentifier", detail="never"), True),
        (AcmeProblem(status=403, type="caa", detail="forbidden"), True),
        (AcmeProblem(status=403, type="unauthorized", detail="wait", retry_at=NOW), False),
        (AcmeProblem(status=500, type="serverInternal", detail="oops"), False),
        (AcmeProblem(status=429, type="rateLimited", detail="slowly"), False),
        (CAUnreachable("cut"), False),
        (CAMisbehaved("nonsense"), False),
        (VaultError("another key"), False),
    ],
)
def test_only_what_the_owner_can_mend_counts(error: Exception, *, owners: bool) -> None:
    """A CA that is down for a month parks nobody."""
    assert is_owners(error) is owners


def test_a_person_who_looks_begins_anew() -> None:
    """A parked order has its tries again; one that is not parked yet goes on counting, whoever looks."""
    parked = replace(ORDER, state=OrderState.PARKED, attempts=33, failing_since=NOW, error="gone")
    assert forgiven(parked) == ORDER
    failing = replace(parked, state=OrderState.RETRY, retry_at=NOW)
    assert forgiven(failing) == replace(failing, retry_at=None, error=None)


def test_the_sentence_has_the_evidence_and_the_way_out() -> None:
    """What was wrong, since when, how often, what to do."""
    said = parked_sentence(replace(ORDER, attempts=33, failing_since=NOW), "blog.test points away")
    assert said.startswith("blog.test points away; ")
    assert "since 2026-01-01 00:00 UTC (33 tries)" in said
    assert said.endswith("then `certfleet renew blog`")


async def test_parked_and_taken_up_again(short_directory: Path) -> None:
    """Nobody answers for the name: failing, then parked, and not tried again by itself; mended, `renew` ends it."""
    async with running_rig(short_directory) as rig:
        await rig.client.set_property("park-after", "2s")
        await rig.client.add_app("away", ["away.demo.test"], ["web1"])  # no site: the self-check finds nothing
        await rig.client.enable("away")
        await rig.until("failing", lambda views: views[0].state is State.FAILING)
        order = await rig.client._fleet.records.order("away")
        assert order is not None
        assert order.failing_since is not None
        while (await rig.view("away")).state is not State.PARKED:  # tries before the two seconds are over only fail
            await rig.client.renew(["away"])
            await asyncio.sleep(0.5)
        view = await rig.view("away")
        assert view.error is not None
        assert "instead of the challenge" in view.error
        assert view.error.endswith("then `certfleet renew away`")
        assert view.next_try is None
        line = next(line for line in rig.run("ls").stdout.splitlines() if line.startswith("away "))
        assert line.split()[1] == "parked"
        assert "parked" in [entry.event for entry in await rig.client.history("away")]
        before = await rig.ca.counts()
        await rig.client.renew([])  # for all: nobody has looked at this one
        await rig.until("checked", lambda views: views[0].state is State.PARKED)
        assert await rig.ca.counts() == before
        where = (rig.settings.responder_address, rig.settings.responder_port)
        app = await rig.client.app("away")
        rig.nginx.add_site("away", app.identifiers, snippet(app, await rig.client.host("web1"), *where))
        await rig.nginx.reload()
        await rig.client.renew(["away"])
        await rig.all_served()
