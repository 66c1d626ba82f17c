"""A challenge that no CA asked for: published as an app's own would be, and fetched as the CA fetches it."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass

from certfleet.errors import InstallError, OwnerError
from certfleet.lifecycle.challenges.publishing import WEBROOT
from certfleet.lifecycle.hosts.host import on_trial
from certfleet.lifecycle.workbench import Workbench
from certfleet.models import App, Host

AT_ONCE = 20  # names asked at a time


@dataclass(frozen=True, slots=True)
class Served:
    """What came of it."""

    told: str
    faults: tuple[str, ...] = ()
    """A sentence for each name that did not answer, each host that could not be told."""


async def served_everywhere(
    bench: Workbench, app: App, hosts: Mapping[str, Host], properties: Mapping[str, str], thumbprint: str | None
) -> Served:
    """Whether every name of the app serves a challenge; `thumbprint`: of the account, where there is one."""
    via = properties["challenge-via"]
    if via == "stateless" and (thumbprint is None or not await _is_written(bench, app, thumbprint)):
        return Served("not asked: the hosts learn what to answer with the first order (stateless)")
    token = secrets.token_urlsafe(32)
    # A stateless web server knows no other answer than the account's; nobody else is to be able to guess the trial's.
    expected = f"{token}.{thumbprint if via == 'stateless' else secrets.token_urlsafe(32)}"
    faults: list[str] = []
    try:
        async with AsyncExitStack() as published:
            for host in hosts.values() if via == WEBROOT else [None]:
                try:
                    driver = bench.driver(host) if host else None
                    await published.enter_async_context(on_trial(bench.fleet, driver, host, expected))
                except InstallError as error:
                    faults.append(f"{host.name if host else ''}: {error}")
            faults += await _asked(bench, app, int(properties["http-port"]), token, expected)
    except InstallError as error:  # it could not be taken away again; the host's next look does
        faults.append(str(error))
    names = [name for name in app.identifiers if not name.startswith("*.")]
    return Served(f"{len(names)} of {len(names)} names answer by {via}", tuple(faults))


async def _is_written(bench: Workbench, app: App, thumbprint: str) -> bool:
    """Whether the web server of a host has been told the account's answer for the app (publishing.py)."""
    store = bench.fleet.store
    for host in app.hosts:
        text = await store.redis.hget(store.key("stateless", host), app.name)
        if text is not None and thumbprint in text.split():
            return True
    return False


async def _asked(bench: Workbench, app: App, port: int, token: str, expected: str) -> Sequence[str]:
    """Why names do not serve it."""
    turns, check = asyncio.Semaphore(AT_ONCE), bench.self_check(port)

    async def one(name: str) -> str | None:
        async with turns:
            try:
                await check.check(name, token, expected)
            except OwnerError as error:
                return str(error)
        return None

    names = [name for name in app.identifiers if not name.startswith("*.")]
    return [fault for fault in await asyncio.gather(*(one(name) for name in names)) if fault]
