"""Renewal information on the whole fleet, before a CA that has it: windows kept, moved, missing; replacements."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from certfleet.models import Renewal, utcnow
from certfleet.overview import Overview, State
from tests.ca.renewals import WIDTH
from tests.ca.report import Replacement
from tests.rig import Rig, running_rig

# One certificate for a name, and none again within the test's time: what is renewed is exempt, or waits.
LIMITS = {
    "orders-per-account": (1, 3600.0, 20),
    "certificates-per-domain": (1, 3600.0, 20),
    "certificates-per-set": (1, 3600.0, 1),
}
WHY = "https://ca.example/why"


@asynccontextmanager
async def suggesting(
    directory: Path,
    *,
    limits: Mapping[str, tuple[int, float, int]] | None = None,
    conflict: str = "alreadyReplaced",
    share: float | None = None,
    width: float = WIDTH,
) -> AsyncIterator[Rig]:
    """A fleet whose CA has renewal information, and one app that is served."""
    async with running_rig(directory, bad_nonce_percent=0, limits=limits or {}) as rig:
        await rig.client.set_limits({"ari-exempt": "on"}, ca=rig.ca.directory)
        await rig.strict.suggest_renewals(share=share, width=width, conflict=conflict)
        await enable(rig, "blog")
        await rig.all_served()
        yield rig


async def enable(rig: Rig, name: str) -> None:
    await rig.add(name)
    await rig.nginx.reload()
    await rig.client.enable(name)


async def known(rig: Rig, name: str = "blog") -> Renewal | None:
    return (await rig.client._fleet.records.renewals([name])).get(name)


async def told(rig: Rig, name: str = "blog") -> Overview:
    """As soon as the CA was asked."""
    await rig.until("asked", lambda views: any(view.name == name and view.window_start for view in views))
    return await rig.view(name)


async def generation(rig: Rig, number: int, name: str = "blog") -> None:
    await rig.until(
        f"generation {number}",
        lambda views: any(v.name == name and v.generation == number and v.state is State.SERVED for v in views),
    )


async def replacements(rig: Rig) -> tuple[Replacement, ...]:
    return (await rig.strict.book()).replacements


async def events(rig: Rig, name: str = "blog") -> list[str]:
    return [entry.event for entry in await rig.client.history(name)]


async def test_renewed_at_the_instant_that_was_chosen(short_directory: Path) -> None:
    """Asked after issue, kept and shown; when the window moves another instant is chosen, and waited for."""
    async with suggesting(short_directory) as rig:
        view = await told(rig)
        first = await known(rig)
        assert first is not None
        assert first.at is not None
        assert view.window_start is not None
        assert view.window_end is not None
        assert view.renew_at == first.at
        assert view.window_start <= first.at < view.window_end
        assert first.next_look > utcnow()
        await rig.client.renew(["blog"])  # the same window: the same instant
        await looked_again(rig, 2)
        again = await known(rig)
        assert again is not None
        assert again.at == first.at

        now = time.time()
        await rig.strict.suggest("blog.demo.test", now + 4, now + 12, WHY)
        await rig.client.renew(["blog"])
        await rig.until("moved", lambda views: views[0].explanation == WHY)
        assert WHY in rig.run("info", "blog").stdout
        chosen = await known(rig)
        assert chosen is not None
        assert chosen.at is not None
        assert now + 4 <= chosen.at.timestamp() < now + 12
        await generation(rig, 2)
        [entry] = await replacements(rig)
        assert entry.at >= chosen.at.timestamp()
        assert (entry.exempt, entry.issued) == (entry.at < now + 12, True)
        [moved] = [entry for entry in await rig.client.history("blog") if entry.event == "window moved"]
        assert WHY in moved.detail
        # Of the certificate that was replaced nobody asks any more; of the new one soon.
        await rig.until("asked anew", lambda views: views[0].window_start is not None)
        book = await rig.strict.book()
        assert len(book.looks) == 2
        assert (await rig.view("blog")).explanation is None


async def test_inside_the_window_no_token_is_needed(short_directory: Path) -> None:
    """The limit on the exact set is spent: inside the window (here all its life) it is replaced all the same."""
    async with suggesting(short_directory, limits=LIMITS, share=0.0, width=1.0) as rig:
        await told(rig)
        await rig.client.renew(["blog"], force=True)
        await generation(rig, 2)
        [entry] = await replacements(rig)
        assert (entry.exempt, entry.issued) == (True, True)
        assert (await rig.strict.book()).rate_limited_answers == 0


async def test_a_waiting_order_goes_when_its_window_opens(short_directory: Path) -> None:
    """It lacks a token that comes in an hour; in its window it needs none, and is not left standing in line."""
    async with suggesting(short_directory, limits=LIMITS) as rig:
        await told(rig)
        await rig.client.renew(["blog"], force=True)
        await rig.until("waiting", lambda views: views[0].state is State.LIMITED)
        opens = time.time() + 5
        await rig.strict.suggest("blog.demo.test", opens, opens + 60)
        await rig.client.renew(["blog"])  # the look that learns of it
        await rig.until("told", lambda views: views[0].window_start.timestamp() > time.time() - 60)  # type: ignore[union-attr]
        await generation(rig, 2)
        [entry] = await replacements(rig)
        assert (entry.exempt, entry.issued) == (True, True)
        assert opens <= entry.at < opens + 60
        assert (await rig.strict.book()).rate_limited_answers == 0


async def test_a_ca_that_does_not_exempt_it_is_believed(short_directory: Path) -> None:
    """We take it for exempt, the CA answers 429: once, and the order waits as any other until the CA's time."""
    async with suggesting(short_directory, limits=LIMITS, share=0.0, width=1.0) as rig:
        await told(rig)
        detail = "too many certificates (1) already issued for this exact set of identifiers in the last 1h0m0s"
        await rig.strict.answer_orders(1, 429, type="rateLimited", detail=detail, retry_after="3600")
        await rig.client.renew(["blog"], force=True)
        [view] = await rig.until("limited", lambda views: views[0].state is State.LIMITED)
        assert view.waits_for is not None
        assert "exact set" in view.waits_for
        assert (await rig.strict.book()).rate_limited_answers == 1
        order = (await rig.client._fleet.records.orders(["blog"]))["blog"]
        assert (order.exempt, order.ordinary) == (False, True)


async def looked_again(rig: Rig, times: int) -> None:
    for _ in range(600):
        if sum((await rig.strict.book()).looks.values()) >= times:
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"not asked {times} times: {(await rig.strict.book()).looks}")


async def test_a_window_in_the_past_renews_now_as_any_order(short_directory: Path) -> None:
    """As before a revocation: at once, named as a replacement, but not exempt; it waits for its token in the room."""
    async with suggesting(short_directory, limits=LIMITS) as rig:
        await told(rig)
        now = time.time()
        await rig.strict.suggest("blog.demo.test", now - 100, now - 50, WHY)
        await rig.client.renew(["blog"])
        [view] = await rig.until("waiting", lambda views: views[0].state is State.LIMITED)
        assert view.reason == "renewal"
        assert view.waits_for is not None
        assert "exact set" in view.waits_for
        assert (await rig.strict.book()).rate_limited_answers == 0
        await rig.strict.set_limits({}, same_set_exempt=False)
        await rig.client.set_limits({"certificates-per-set": "10/10h"}, ca=rig.ca.directory)
        await generation(rig, 2)
        [entry] = await replacements(rig)
        assert (entry.exempt, entry.issued) == (False, True)


@pytest.mark.parametrize(
    ("fault", "soon"),
    [
        pytest.param({"status": 500}, True, id="500"),
        pytest.param({"body": "nonsense"}, False, id="malformed"),
        pytest.param(
            {"body": '{"suggestedWindow": {"start": "2026-01-02T00:00:00Z", "end": "2026-01-01T00:00:00Z"}}'},
            False,
            id="inverted",
        ),
    ],
)
async def test_no_answer_is_no_harm(short_directory: Path, fault: dict[str, object], soon: bool) -> None:  # noqa: FBT001
    """The app is served, and has a time of renewal without the CA's word; it is asked again, and its word counts."""
    async with running_rig(short_directory, bad_nonce_percent=0, limits={}) as rig:
        await rig.strict.suggest_renewals()
        await rig.strict.fail_renewal_info(1, **fault)  # type: ignore[arg-type]
        await enable(rig, "blog")
        await rig.all_served()
        await looked_again(rig, 1)
        for _ in range(600):
            if (found := await known(rig)) is not None:
                break
            await asyncio.sleep(0.05)
        assert found is not None
        assert (found.at, found.failures) == (None, 1)
        wait = (found.next_look - utcnow()).total_seconds()
        assert wait <= 60 if soon else 21_000 < wait <= 21_600
        view = await rig.view("blog")
        assert (view.state, view.error, view.window_start) == (State.SERVED, None, None)
        assert view.renew_at is not None
        await rig.client.renew(["blog"])
        assert (await told(rig)).error is None


@pytest.mark.parametrize("conflict", ["alreadyReplaced", "malformed"])
async def test_somebody_else_has_replaced_it(short_directory: Path, conflict: str) -> None:
    """A 409 is told apart whatever its type: the order goes on without `replaces`, the CA's words in the journal."""
    async with suggesting(short_directory, conflict=conflict) as rig:
        await told(rig)
        await rig.client.renew(["blog"], force=True)
        await generation(rig, 2)
        [first] = await replacements(rig)
        # Another program with this account has replaced generation 2 meanwhile.
        await rig.strict.claim_replaced("blog.demo.test", first.order)
        await rig.client.renew(["blog"], force=True)
        await generation(rig, 3)
        assert len(await replacements(rig)) == 1
        assert "already replaced" in await events(rig)
        [entry] = [entry for entry in await rig.client.history("blog") if entry.event == "already replaced"]
        assert f"409 {conflict}" in entry.detail
        assert (await rig.view("blog")).error is None


async def test_another_account_replaces_nothing(short_directory: Path) -> None:
    """The e-mail address, and with it the account, has changed: `replaces` is not sent; back again it is."""
    async with suggesting(short_directory) as rig:
        await rig.client.set_property("email", "other@example.com", "blog")
        await rig.client.renew(["blog"], force=True)
        await generation(rig, 2)
        assert await replacements(rig) == ()
        await rig.client.renew(["blog"], force=True)
        await generation(rig, 3)
        assert len(await replacements(rig)) == 1
        book = await rig.strict.book()
        assert not book.refusals
