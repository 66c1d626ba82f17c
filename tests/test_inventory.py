"""Apps and hosts in Redis: nobody's change is lost, and lists are whole."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from certfleet.errors import UnknownName, UsageError
from certfleet.inventory import PAGE, Inventory
from certfleet.models import App, Host
from certfleet.store import Store


def app(name: str, *hosts: str) -> App:
    return App(name, (f"{name}.example.com",), hosts or ("web1",), (f"{name}.example.com",))


@pytest.fixture
def inventory(store: Store) -> Inventory:
    """An empty one."""
    return Inventory(store)


async def test_apps_are_listed_by_name_page_by_page(inventory: Inventory) -> None:
    """Every app once, however many pages they fill."""
    names = [f"app-{number:04}" for number in range(2 * PAGE + 1)]
    await asyncio.gather(*(inventory.add_app(app(name)) for name in reversed(names)))
    assert [found.name async for found in inventory.apps()] == names


async def test_nobody_is_passed_over_while_others_come_and_go(inventory: Inventory) -> None:
    """Apps before the page that is read are added and removed: those after it are all found, once."""
    names = [f"app-{number:04}" for number in range(2 * PAGE + 1)]
    await asyncio.gather(*(inventory.add_app(app(name)) for name in names))
    found = []
    async for one in inventory.apps():
        found.append(one.name)
        if one.name == names[1]:
            await inventory.remove_app(app(names[0]))
        if one.name == names[PAGE]:
            await asyncio.gather(*(inventory.add_app(app(f"a-{number}")) for number in range(3)))
    assert found == names


async def test_one_of_many_adds_an_app(inventory: Inventory) -> None:
    """Twenty at once: one is told yes, the others that it is there already."""
    answers = await asyncio.gather(*(inventory.add_app(app("blog")) for _ in range(20)), return_exceptions=True)
    assert sum(answer is None for answer in answers) == 1
    assert sum(isinstance(answer, UsageError) for answer in answers) == 19


async def test_nobody_overwrites_anybody(inventory: Inventory) -> None:
    """A change of what somebody else changed meanwhile is refused, so that it can be looked at again."""
    await inventory.add_app(app("blog"))
    before = await inventory.app("blog")
    await inventory.save_app(replace(before, enabled=True), before)
    with pytest.raises(UsageError, match="changed by somebody else"):
        await inventory.save_app(replace(before, hosts=("web2",)), before)
    assert (await inventory.app("blog")).enabled


async def test_a_removed_app_does_not_come_back(inventory: Inventory) -> None:
    """A change that comes after the removal is refused."""
    await inventory.add_app(app("blog"))
    before = await inventory.app("blog")
    await inventory.remove_app(before)
    with pytest.raises(UsageError, match="changed by somebody else"):
        await inventory.save_app(replace(before, enabled=True), before)
    with pytest.raises(UnknownName):
        await inventory.app("blog")
    assert [found async for found in inventory.apps()] == []


async def test_a_host_stays_while_apps_are_on_it(inventory: Inventory) -> None:
    """Also after apps moved to other hosts."""
    for name in ("web1", "web2"):
        await inventory.add_host(Host(name))
    for number in range(5):
        await inventory.add_app(app(f"app{number}"))
    with pytest.raises(UsageError, match=r"still serves 5 apps \(app0, app1, app2, …\)"):
        await inventory.remove_host("web1")
    for number in range(5):
        before = await inventory.app(f"app{number}")
        await inventory.save_app(replace(before, hosts=("web2",)), before)
    await inventory.remove_host("web1")
    assert [host.name for host in await inventory.hosts()] == ["web2"]


async def test_global_properties_are_set_together(inventory: Inventory) -> None:
    """An empty value takes one away."""
    await inventory.set_properties({"email": "ops@example.com", "port": "8443"})
    await inventory.set_properties({"port": "", "key-type": "p384"})
    assert await inventory.properties() == {"email": "ops@example.com", "key-type": "p384"}
