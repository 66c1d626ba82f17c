"""Limits that the operator has set: kept in Redis, seen by every process within a second, all or none."""

from __future__ import annotations

import asyncio

import pytest

from certfleet.limits import overrides as module
from certfleet.limits.buckets import Rate
from certfleet.limits.overrides import LimitsBook
from certfleet.limits.presets import (
    Limit,
    Limits,
    Override,
    Switch,
    Switched,
    limits_of,
    override,
    parse_rate,
    presets,
    write_rate,
)
from certfleet.store import Store
from tests.limits.conftest import SECOND

HOME = "https://ca.internal/directory"
ORDERS = override(ca="letsencrypt", limit="orders-per-account", rate="600/3h", account="a1b2", email="ops@example.com")
WINDOW = override(ca=HOME, limit="requests-new-order", rate="100 in 1h")
DOMAIN = override(ca=HOME, limit="certificates-per-domain", rate="20/1s burst 10", domain="2001:db8::/64")
EXEMPT = Switched(ca=HOME, switch=Switch.ARI_EXEMPT, on=True)


def directory(name: str) -> str:
    return presets()[name].directory if name in presets() else name


async def test_what_is_set_is_read_back_by_every_process(store: Store) -> None:
    """Rates in windows, accounts, domains and switches come back as they were, beside the preset's own."""
    book = LimitsBook(store)
    assert await book.set(ORDERS, WINDOW, DOMAIN, EXEMPT)
    other = LimitsBook(store)
    assert {one.name: one for one in await other.all()} == {one.name: one for one in (ORDERS, WINDOW, DOMAIN, EXEMPT)}
    known = (await other.of("letsencrypt", directory("letsencrypt"))).limits
    assert known.by_account == {(Limit.ORDERS, "a1b2"): parse_rate("600/3h")}
    assert known.rates == limits_of("letsencrypt", directory("letsencrypt")).rates
    home = (await other.of(HOME, HOME)).limits
    assert home == Limits(
        ca=HOME,
        rates={Limit.REQUESTS_NEW_ORDER: Rate(51, 3600 * SECOND, 50)},
        by_domain={"2001:db8::/64": Rate(20, SECOND, 10)},
        ari_exempt=True,
    )


async def test_a_ca_without_a_preset_can_have_all_that_a_preset_has(store: Store) -> None:
    """Every limit and every exemption of Let's Encrypt, told about a private CA that runs Boulder."""
    whole = limits_of(HOME, directory("letsencrypt"))
    book = LimitsBook(store)
    await book.set(
        *(Override(ca=HOME, limit=limit, rate=rate) for limit, rate in whole.rates.items()),
        *(Switched(ca=HOME, switch=switch, on=True) for switch in (Switch.ARI_EXEMPT, Switch.SAME_SET_EXEMPT)),
    )
    assert (await book.of(HOME, HOME)).limits == whole


async def test_limits_and_their_version_belong_together(store: Store) -> None:
    """Each change is a new version; one that changes nothing is none; taking away brings the preset back."""
    book = LimitsBook(store)
    before = await book.of("letsencrypt", directory("letsencrypt"))
    assert before.version == "0"
    await book.set(ORDERS)
    changed = await book.of("letsencrypt", directory("letsencrypt"))
    assert changed.version == await book.version() == "1"
    assert changed.version == await store.redis.get(store.key("limits", "version"))
    assert not await book.set(ORDERS)
    assert await book.version() == "1"
    assert await book.change([WINDOW], [ORDERS.name])
    assert not await book.remove(ORDERS.name)
    back = await book.of("letsencrypt", directory("letsencrypt"))
    assert (back.limits, back.version) == (before.limits, "2")
    assert await book.all() == [WINDOW]


async def test_a_process_reads_once_a_second(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """An order costs no read of its own; a change elsewhere is seen after that second, by its version."""
    monkeypatch.setattr(module, "KEPT", 0.2)
    book, other = LimitsBook(store), LimitsBook(store)
    first = await book.of(HOME, HOME)
    await store.redis.config_resetstat()
    assert all(known is first for known in await asyncio.gather(*(book.of(HOME, HOME) for _ in range(100))))
    assert "get" not in {name.removeprefix("cmdstat_") for name in await store.redis.info("commandstats")}
    await other.set(WINDOW)
    assert (await book.of(HOME, HOME)) is first
    await asyncio.sleep(0.25)
    assert (await book.of(HOME, HOME)).limits.rates == {Limit.REQUESTS_NEW_ORDER: Rate(51, 3600 * SECOND, 50)}


async def test_whoever_changes_it_sees_it_at_once(store: Store) -> None:
    """And so does whoever was told that its limits are outdated."""
    book, other = LimitsBook(store), LimitsBook(store)
    await other.of(HOME, HOME)
    await book.of(HOME, HOME)
    await book.set(EXEMPT)
    assert (await book.of(HOME, HOME)).limits.ari_exempt
    assert not (await other.of(HOME, HOME)).limits.ari_exempt
    other.forget()
    assert (await other.of(HOME, HOME)).limits.ari_exempt


@pytest.mark.parametrize("name", presets())
def test_every_published_rate_can_be_written(name: str) -> None:
    """As text that is read as the same rate."""
    for rate in presets()[name].limits.values():
        assert parse_rate(write_rate(rate)) == rate
    assert write_rate(parse_rate("300/180m")) == "300/3h"
    assert write_rate(parse_rate("1/1d burst 1152")) == "1/1d burst 1152"
    assert write_rate(Rate(1, 1_500_000, 1)) == "1/1500ms"
    with pytest.raises(ValueError, match="cannot be written"):
        write_rate(Rate(1, 1, 1))
