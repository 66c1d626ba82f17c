"""Apps and hosts in Redis.

apps          sorted set  every app's name, score 0: listed by name, a page at a time
app:<name>    string      the App as JSON
hosts         hash        name -> the Host as JSON
hosted:<host> set         the apps on this host
properties    hash        the global properties
"""

from __future__ import annotations

import contextlib
import ipaddress
import re
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import Any

from certfleet.errors import UnknownName, UsageError
from certfleet.identifiers import normalise
from certfleet.models import App, Host, dump, load
from certfleet.store import Store

NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
PAGE = 500  # apps read at once when all are listed


def check_name(kind: str, name: str) -> str:
    """The name of an app or host. Raises UsageError; names become file names and Redis keys."""
    if not NAME.fullmatch(name):
        raise UsageError(kind, name, "is not a name: use up to 63 of a-z, 0-9 and -, a letter or digit first")
    return name


def check_address(address: str) -> None:
    """Where a host is asked for its certificate. Raises UsageError unless it is an IP address or a host name."""
    with contextlib.suppress(ValueError):
        ipaddress.ip_address(address)
        return
    try:
        normalise(f"{address}.invalid")  # a host name may be a single label here
    except UsageError:
        raise UsageError("address", address, "is neither an IP address nor a host name") from None


def host_exists(name: str) -> UsageError:
    """Why a host of this name cannot be added."""
    return UsageError("host", name, "is there already: choose another name, or `certfleet host rm` it first")


class Inventory:
    """What there is to take care of."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._redis = store.redis

    async def app(self, name: str) -> App:
        """Raises UnknownName."""
        text = await self._redis.get(self._store.key("app", name))
        if text is None:
            raise UnknownName("app", name, "is not known: `certfleet app list` shows every app")
        return load(App, text)

    async def find_apps(self, names: Iterable[str]) -> dict[str, App]:
        """Those of the named apps that there are."""
        keys = [self._store.key("app", name) for name in names]
        texts = await self._redis.mget(keys) if keys else []
        return {app.name: app for app in (load(App, text) for text in texts if text)}

    async def apps(self) -> AsyncIterator[App]:
        """Every app by name."""
        key, after = self._store.key("apps"), "-"
        # By name, not by place: places move while apps are added and removed, and one would be passed over.
        while names := await self._redis.zrangebylex(key, after, "+", start=0, num=PAGE):
            for app in (await self.find_apps(names)).values():
                yield app
            after = f"({names[-1]}"

    async def add_app(self, app: App) -> None:
        """Raises UsageError when there is one of this name."""
        if not await self._redis.set(self._store.key("app", app.name), dump(app), nx=True):
            raise UsageError("app", app.name, "is there already: choose another name, or `certfleet app rm` it first")
        pipe = self._redis.pipeline()
        self._index(pipe, app)
        await pipe.execute()

    async def save_app(self, app: App, before: App) -> None:
        """Replace an app's record. Raises UsageError when it is not as it was before: somebody else changed it."""
        key = self._store.key("app", app.name)

        async def change(pipe: Any) -> None:
            text = await pipe.get(key)
            pipe.multi()
            if text is None or load(App, text) != before:
                raise UsageError("app", app.name, "was changed by somebody else just now: look at it, and ask again")
            pipe.set(key, dump(app))
            for host in set(before.hosts) - set(app.hosts):
                pipe.srem(self._store.key("hosted", host), app.name)
            self._index(pipe, app)

        await self._redis.transaction(change, key)

    def _index(self, pipe: Any, app: App) -> None:
        pipe.zadd(self._store.key("apps"), {app.name: 0})
        for host in app.hosts:
            pipe.sadd(self._store.key("hosted", host), app.name)

    async def remove_app(self, app: App, *more: Sequence[str]) -> None:
        """Forget an app, and do what goes with it: all of it or nothing. Its files on hosts stay."""
        pipe = self._redis.pipeline()
        pipe.delete(self._store.key("app", app.name))
        pipe.zrem(self._store.key("apps"), app.name)
        for host in app.hosts:
            pipe.srem(self._store.key("hosted", host), app.name)
        for command in more:
            pipe.execute_command(*command)
        await pipe.execute()

    async def host(self, name: str) -> Host:
        """Raises UnknownName."""
        text = await self._redis.hget(self._store.key("hosts"), name)
        if text is None:
            raise UnknownName("host", name, f"is not known: `certfleet host add {name}` first")
        return load(Host, text)

    async def find_hosts(self, names: Iterable[str]) -> dict[str, Host]:
        """Those of the named hosts that there are."""
        names = list(names)
        texts = await self._redis.hmget(self._store.key("hosts"), names) if names else []
        return {host.name: host for host in (load(Host, text) for text in texts if text)}

    async def hosts(self) -> list[Host]:
        """Every host by name."""
        texts = await self._redis.hgetall(self._store.key("hosts"))
        return [load(Host, texts[name]) for name in sorted(texts)]

    async def add_host(self, host: Host) -> None:
        """Raises UsageError when there is one of this name."""
        if not await self._redis.hsetnx(self._store.key("hosts"), host.name, dump(host)):
            raise host_exists(host.name)

    async def save_host(self, host: Host, before: Host) -> None:
        """Replace a host's record. Raises UsageError when it is not as it was before: somebody else changed it."""
        key = self._store.key("hosts")

        async def change(pipe: Any) -> None:
            text = await pipe.hget(key, host.name)
            pipe.multi()
            if text is None or load(Host, text) != before:
                raise UsageError("host", host.name, "was changed by somebody else just now: look at it, and ask again")
            pipe.hset(key, host.name, dump(host))

        await self._redis.transaction(change, key)

    async def remove_host(self, name: str) -> None:
        """Raises UnknownName, and UsageError while apps are on it."""
        await self.host(name)
        apps = await self._redis.smembers(self._store.key("hosted", name))
        if apps:
            some = ", ".join(sorted(apps)[:3]) + (", …" if len(apps) > 3 else "")  # noqa: PLR2004
            raise UsageError("host", name, f"still serves {len(apps)} apps ({some}): remove these first")
        await self._redis.hdel(self._store.key("hosts"), name)
        await self._redis.delete(self._store.key("audit", name))

    async def hosted(self, host: str) -> list[str]:
        """The apps on a host, by name."""
        return sorted(await self._redis.smembers(self._store.key("hosted", host)))

    async def properties(self) -> dict[str, str]:
        """The global ones that are set."""
        return dict(await self._redis.hgetall(self._store.key("properties")))

    async def set_properties(self, values: Mapping[str, str]) -> None:
        """Globally and all at once; checked by the caller. An empty value takes one away."""
        key = self._store.key("properties")
        pipe = self._redis.pipeline()
        for name, value in values.items():
            if value:
                pipe.hset(key, name, value)
            else:
                pipe.hdel(key, name)
        await pipe.execute()
