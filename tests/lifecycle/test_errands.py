"""Files are taken away when that was asked for, from every host, once each can be reached; nothing else is."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certfleet.errors import InstallError, UnknownName
from certfleet.install.answer import Answer, AppAnswer
from certfleet.install.answer import State as AnswerState
from certfleet.lifecycle.hosts.errands import GIVEN_UP, Errand, after_failure, app_of, is_superseded, most_kept, removal
from certfleet.lifecycle.orders.ordering import LONG_AGO
from certfleet.lifecycle.records import host_member
from certfleet.models import App, Host
from certfleet.settings import Settings
from certfleet.store import Store
from tests.lifecycle.farm import Farm, farm
from tests.lifecycle.test_many_hosts import replace_host

NOW = datetime(2026, 1, 1, tzinfo=UTC)
BLOG = App("blog", ("blog.example.com",), ("web1",), enabled=True)


@pytest.fixture
async def two(short_directory: Path, settings: Settings, store: Store) -> AsyncIterator[Farm]:
    """Two hosts that serve blog and wiki."""
    del store
    async with farm(short_directory, settings, 2) as running:
        for name in ("blog", "wiki"):
            await running.add(name)
        await running.reload()
        await running.issue("blog", "wiki")
        await running.run()
        yield running


def places(farm: Farm, app: str) -> list[Path]:
    """Where an app's files are, or would be."""
    return [Path(host.root) / app for host in farm.hosts.values()]


async def test_removing_an_app_leaves_its_files(two: Farm) -> None:
    """Nobody asked for them to be taken away: they are served on."""
    before = await two.seen("blog")
    done = await two.client.remove_app("blog")
    assert done.sentence == "blog: removed; its files stay on its hosts"
    await two.run()
    assert all((place / "current").exists() for place in places(two, "blog"))
    assert await two.seen("blog") == before


@pytest.mark.parametrize("command", ["remove", "disable"])
async def test_purged_everywhere(two: Farm, command: str) -> None:
    """With --purge they go from every host; other apps there stay, and a word is in the journal."""
    wiki = await two.seen("wiki")
    purge = two.client.remove_app if command == "remove" else two.client.disable
    done = await purge("blog", purge=True)
    assert "its files are being taken away from web1, web2" in done.sentence
    await two.run()
    assert not any(place.exists() for place in places(two, "blog"))
    await two.sees("wiki", wiki["web1"])
    purged = [line for line in await two.events("blog") if line.startswith("purged")]
    assert sorted(purged) == ["purged: web1", "purged: web2"]
    assert await two.bench.fleet.errands.of("web1") == {}
    if command == "disable":
        assert all(one.installed == one.served == 0 for one in (await two.state("blog")).values())


async def test_a_host_that_is_down_is_purged_when_it_is_back(two: Farm) -> None:
    """It stays on the host's list with a back-off, although nothing else remembers the app."""
    await replace_host(two, dataclasses.replace(two.hosts["web1"], driver="nowhere"))
    await two.client.remove_app("blog", purge=True)
    await two.run()
    one, other = places(two, "blog")
    assert one.exists()
    assert not other.exists()
    [errand] = (await two.bench.fleet.errands.of("web1")).values()
    assert errand.attempts == 1
    assert await two.bench.fleet.agenda.time_of(host_member("web1")) == errand.retry_at
    await replace_host(two, two.hosts["web1"])
    await two.bench.fleet.errands.ask("web1", removal("blog"))  # the back-off is over
    await two.visit("web1")
    assert not one.exists()


async def test_thousands_of_apps_leave_a_host_at_once(two: Farm, monkeypatch: pytest.MonkeyPatch) -> None:
    """Far more than the receiver takes in one session: it is visited until all are gone."""
    names = [f"{'a' * 55}-{number}" for number in range(2000)]
    asked: list[str] = []

    class Far:
        async def remove(self, host: Host, apps: Sequence[str]) -> Answer:
            asked.append(" ".join(["remove", *apps]))
            if len(asked[-1]) > 100_000:  # head.sh: asked_limit
                raise InstallError(f"host {host.name}: more than 100000 characters were asked for")
            return Answer(1, 1, {app: AppAnswer(AnswerState.REMOVED, 0) for app in apps})

    monkeypatch.setattr(type(two.bench), "driver", lambda _bench, _host: Far())
    fleet = two.bench.fleet
    await fleet.inventory.remove_app(await fleet.inventory.app("blog"))
    await fleet.inventory.remove_app(await fleet.inventory.app("wiki"))
    await fleet.errands.ask("web1", *map(removal, names))
    await fleet.agenda.schedule(host_member("web1"), LONG_AGO)
    await two.run()
    assert await fleet.errands.of("web1") == {}
    assert sorted(app for words in asked for app in words.split()[1:]) == sorted(names)


async def test_enabled_again_before_it_was_done(two: Farm) -> None:
    """Who is wanted on the host again is not taken away."""
    await two.client.disable("blog", purge=True)
    await two.client.enable("blog")
    await two.run()
    assert all((place / "current").exists() for place in places(two, "blog"))


async def test_enabled_again_after_it_was_done(two: Farm) -> None:
    """The certificate that there is goes to every host again."""
    serial = (await two.seen("blog"))["web1"]
    await two.client.disable("blog", purge=True)
    await two.run()
    await two.client.enable("blog")
    await two.run("check", "host")
    await two.sees("blog", serial)


async def test_a_disabled_app_is_not_installed(two: Farm) -> None:
    """What waited for a host when it was disabled does not go there any more."""
    await two.issue("blog")
    await two.client.disable("blog")
    await two.run()
    assert {one.installed for one in (await two.state("blog")).values()} == {1}


async def test_a_removed_host_takes_its_list_with_it(two: Farm) -> None:
    """What could not be taken away there is given up with a word."""
    await replace_host(two, dataclasses.replace(two.hosts["web1"], driver="nowhere"))
    for app in ("blog", "wiki"):
        await two.client.remove_app(app, purge=True)
    await two.run()
    await two.client.remove_host("web1")
    assert "given up: remove blog: web1: the host was removed" in await two.events("blog")
    assert await two.bench.fleet.agenda.time_of(host_member("web1")) is None


async def test_old_generations_stay_as_many_as_asked_and_are_cleaned_up(two: Farm) -> None:
    """keep-generations with every install; `cleanup` for what is there from before."""
    await two.client.set_property("keep-generations", "5")
    for _ in range(5):
        await two.issue("blog")
        await two.run()
    [place, _] = places(two, "blog")
    assert sorted(path.name for path in place.glob("[0-9]*")) == ["2", "3", "4", "5", "6"]
    await two.client.set_property("keep-generations", "2")
    [done] = await two.client.clean_up(["web1"])
    assert done.sentence == "web1: is being cleaned up"
    await two.run()
    assert sorted(path.name for path in place.glob("[0-9]*")) == ["5", "6"]
    assert (place / "current").readlink() == Path("6")
    with pytest.raises(UnknownName):
        await two.client.clean_up(["web9"])


def test_the_names_of_errands() -> None:
    assert app_of(removal("blog")) == "blog"
    assert app_of("cleanup") is None


def test_superseded() -> None:
    """Only an enabled app on this host keeps its files."""
    assert is_superseded(BLOG, "web1")
    assert not is_superseded(BLOG, "web2")
    assert not is_superseded(dataclasses.replace(BLOG, enabled=False), "web1")
    assert not is_superseded(None, "web1")


def test_the_most_cautious_app_decides_what_stays() -> None:
    apps = [BLOG, dataclasses.replace(BLOG, properties={"keep-generations": "7"})]
    assert most_kept(apps, {}) == 7
    assert most_kept([], {"keep-generations": "2"}) == 2


@given(st.integers(0, 60), st.integers(0, 40))
def test_an_errand_ends(days: int, attempts: int) -> None:
    """It is tried at least daily, and given up after its time."""
    again = after_failure(Errand(LONG_AGO, attempts), LONG_AGO + timedelta(days=days))
    if timedelta(days=days) >= GIVEN_UP:
        assert again is None
    else:
        assert again is not None
        assert again.retry_at is not None
        assert timedelta(0) < again.retry_at - (LONG_AGO + timedelta(days=days)) <= timedelta(days=1)
