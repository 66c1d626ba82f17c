"""The property key-on-host at the door: what cannot be good is refused in one sentence, and nothing is changed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping

import pytest

from certfleet.client import Client, open_client
from certfleet.errors import UsageError
from certfleet.models import Host
from certfleet.settings import Settings
from certfleet.store import Store

ON = {"key-on-host": "on"}


@pytest.fixture
async def client(settings: Settings, store: Store) -> AsyncIterator[Client]:
    """Hosts of each driver, and an app on one of them."""
    del store  # emptied
    async with open_client(settings) as opened:
        for host in (
            Host("web1"),
            Host("web2"),
            Host("far", driver="ssh", login="root@192.0.2.1", host_keys=("ssh-ed25519 AAAA",)),
            Host("paas", driver="dokku", login="dokku@192.0.2.1", host_keys=("ssh-ed25519 AAAA",)),
        ):
            await opened._fleet.inventory.add_host(host)
        await opened.set_property("email", "ops@example.com")
        await opened.add_app("blog", ["blog.example.com"], ["web1"])
        yield opened


async def test_one_host(client: Client) -> None:
    """When it is set, when a host is added, and when an app is added."""
    await client.set_properties(ON, "blog")
    with pytest.raises(UsageError, match=r"key-on-host: 'on' is for apps on one host, .* blog is on web1, web2"):
        await client.change_app("blog", hosts=["web1", "web2"])
    assert (await client.app("blog")).hosts == ("web1",)
    with pytest.raises(UsageError, match="make it one app for each host, or set key-on-host=off"):
        await client.add_app("shop", ["shop.example.com"], ["web1", "far"], ON)
    await client.add_app("shop", ["shop.example.com"], ["web1", "far"])
    with pytest.raises(UsageError, match="is for apps on one host"):
        await client.set_properties(ON, "shop")
    assert (await client.properties("shop"))["key-on-host"] == "off"
    await client.change_app("blog", hosts=["far"])


@pytest.mark.parametrize("other", [{"reuse-key": "on"}, {}])
async def test_no_key_is_kept(client: Client, other: Mapping[str, str]) -> None:
    """Whichever of the two comes second, and wherever the first was set."""
    if other:
        await client.set_properties(other)
        with pytest.raises(UsageError, match="makes a new key for each certificate: set reuse-key=off for app blog"):
            await client.set_properties(ON, "blog")
        await client.set_properties(ON | {"reuse-key": "off"}, "blog")
    else:
        await client.set_properties(ON, "blog")
        with pytest.raises(UsageError, match="makes a new key for each certificate"):
            await client.set_properties({"reuse-key": "on"}, "blog")


async def test_dokku_cannot(client: Client) -> None:
    """It says which host, and why."""
    words = r"is not for app (blog|shop): host paas has the driver dokku, which takes a certificate only with its key"
    await client.set_properties(ON, "blog")
    with pytest.raises(UsageError, match=words):
        await client.change_app("blog", hosts=["paas"])
    with pytest.raises(UsageError, match=words):
        await client.add_app("shop", ["shop.example.com"], ["paas"], ON)


async def test_for_all_apps(client: Client) -> None:
    """Refused while an enabled app could not go on with it; one that is not enabled is refused when it is."""
    await client.add_app("shop", ["shop.example.com"], ["paas"])
    await client.set_properties(ON)
    with pytest.raises(UsageError, match="host paas has the driver dokku"):
        await client.enable("shop")
    assert not (await client.app("shop")).enabled
    await client.set_properties({"key-on-host": ""})
    await client.enable("shop")
    with pytest.raises(UsageError, match="enabled app shop could not go on: key-on-host"):
        await client.set_properties(ON)
    await client.set_properties({"key-on-host": "off"}, "shop")
    await client.set_properties(ON)
    await client.enable("blog")
    with pytest.raises(UsageError, match="enabled app blog could not go on: key-on-host"):
        await client.set_properties({"reuse-key": "on"})
