"""Hosts themselves: what works on one, point by point, and what a person does to make it work."""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

import aiohttp
from yarl import URL

from certfleet.errors import HostKeyChanged, HostUnreachable, InstallError, LoginRefused
from certfleet.identifiers import authority
from certfleet.install.answer import Point, Report
from certfleet.install.challenge import PATH
from certfleet.install.drivers import Driver, Drivers
from certfleet.install.installer import Installer
from certfleet.install.presets import checked_root
from certfleet.install.receiver import release
from certfleet.install.setup import set_up
from certfleet.lifecycle.challenges.publishing import WEBROOT
from certfleet.lifecycle.fleet import Fleet
from certfleet.models import App, Host
from certfleet.properties import effective
from certfleet.vault import Vault, ensure_key

SKEW = 60  # seconds: a CA may date a certificate to the moment, and a host that is behind would call it invalid
TRIAL = 60  # seconds that the trial challenge stays published
ANSWER = aiohttp.ClientTimeout(total=10, sock_connect=5)  # seconds, redirects included
KEYS = "key on host"
"""The receiver's point of what makes keys: it matters where an app asks for that."""
BODY = 512  # bytes; a key authorization is some 90


async def installer_key(fleet: Fleet) -> str:
    """The public half of the fleet's SSH key, as a line of authorized_keys. Raises ConfigurationError."""
    return await _installer(fleet).public_key()


async def set_up_host(fleet: Fleet, host: Host, *, user: str, by: str) -> Host:
    """Set the host up (install/setup.py), and keep with which login. Raises InstallError, ConfigurationError."""
    ready = await set_up(host, await installer_key(fleet), user=user, by=by)
    if ready != host:
        await fleet.inventory.save_host(ready, host)
    await fleet.journal.write(host.name, "host set up", f"receiver {release()} for {ready.login}")
    return ready


def _installer(fleet: Fleet) -> Installer:
    ensure_key(fleet.settings)
    return Installer(fleet.store, Vault(fleet.settings))


async def check_host(fleet: Fleet, host: Host, *, reload: bool = False) -> list[Point]:
    """What works on a host, from the way to it to its challenges; the first points say why later ones are missing.

    Nothing is changed; with `reload`, its web server is reloaded, which is the only proof that it may be.
    Raises ConfigurationError without the vault's key, InstallError for a host that no driver knows.
    """
    async with Drivers(_installer(fleet)) as drivers:
        asked = time.time()
        try:
            report = await drivers.of(host).check(host, reload=reload)
        except InstallError as error:
            return _way(host, error)
        answered = time.time()
        everywhere = await fleet.inventory.properties()
        apps = await fleet.inventory.find_apps(await fleet.inventory.hosted(host.name))
        here = [(app, effective(app.properties, everywhere)) for app in apps.values()]
        challenge = await _challenge(fleet, drivers.of(host), host, here)
    points = _way(host, None)
    if host.driver == "dokku":  # there is no receiver of ours
        return [*points, *report.points, challenge]
    makes_keys = any(properties["key-on-host"] == "on" for _, properties in here)
    own = [point for point in report.points if makes_keys or point.name != KEYS]
    points += [_release(host, report), *own, _same_root(host, report), _clock(report, asked, answered)]
    return [*points, challenge]


def _way(host: Host, error: InstallError | None) -> list[Point]:
    """How far we got on the way to the receiver."""
    if host.driver == "local":
        return [Point("receiver", ok=False, message=str(error))] if error else []
    reached, trusted = Point("reachable", ok=True, message=host.login), Point("host key", ok=True)
    let_in = Point("login", ok=True)
    match error:
        case None:
            return [reached, trusted, let_in]
        case HostKeyChanged():
            return [reached, Point("host key", ok=False, message=str(error))]
        case LoginRefused():
            return [reached, trusted, Point("login", ok=False, message=str(error))]
        case HostUnreachable():
            return [Point("reachable", ok=False, message=str(error))]
        case _:
            return [reached, trusted, let_in, Point("receiver", ok=False, message=str(error))]


def _release(host: Host, report: Report) -> Point:
    if report.release == release():
        return Point("receiver", ok=True, message=report.release)
    wanted = f"is {report.release or 'an unknown one'}, not {release()}: `certfleet host setup {host.name}` renews it"
    return Point("receiver", ok=False, message=wanted)


def _same_root(host: Host, report: Report) -> Point:
    if report.root == checked_root(host.root).rstrip("/"):
        return Point("same root", ok=True, message=report.root)
    wanted = f"the host has {report.root}, the fleet {host.root}: `certfleet host setup {host.name}` tells the host"
    return Point("same root", ok=False, message=wanted)


def _clock(report: Report, asked: float, answered: float) -> Point:
    # The host looked at its clock at some moment in between.
    off = max(asked - 1 - report.time, report.time - answered, 0.0)
    if off <= SKEW:
        return Point("clock", ok=True, message=f"within {off + answered - asked:.0f} s of ours")
    return Point("clock", ok=False, message=f"off by {off:.0f} s from ours: let it ask a time server")


async def _challenge(fleet: Fleet, driver: Driver, host: Host, apps: Sequence[tuple[App, Mapping[str, str]]]) -> Point:
    """Whether port 80 of the host answers a challenge, for the first app that is on it and needs that."""
    name = "challenge snippet"
    for app, properties in apps:
        domain = next((one for one in app.identifiers if not one.startswith("*.")), None)
        if domain is None or properties["challenge"] != "http-01":
            continue
        token = secrets.token_urlsafe(32)
        expected = f"{token}.{secrets.token_urlsafe(32)}"
        try:
            async with on_trial(fleet, driver if properties["challenge-via"] == WEBROOT else None, host, expected):
                said = await _fetch(properties["address"] or host.address, int(properties["http-port"]), domain, token)
        except InstallError as error:
            return Point(name, ok=False, message=str(error))
        # By the responder, or by the account's own thumbprint without asking anybody.
        ok = said == expected or (said.startswith(f"{token}.") and len(said) == len(expected))
        wanted = f"{domain}: {said or 'nothing'} instead of a challenge; `certfleet snippet {app.name}` has the lines"
        return Point(name, ok=ok, message=domain if ok else wanted)
    return Point(name, ok=True, message="no app that needs it is on the host")


@asynccontextmanager
async def on_trial(fleet: Fleet, driver: Driver | None, host: Host | None, expected: str) -> AsyncIterator[None]:
    """A challenge that no CA asked for, where the responder finds it, or in the host's webroot by its driver."""
    token, _, _ = expected.partition(".")
    key = fleet.store.key("challenge", token)
    if driver is not None and host is not None:
        await driver.publish(host, {token: expected})
    await fleet.store.redis.set(key, expected, ex=TRIAL)
    try:
        yield
    finally:
        await fleet.store.redis.delete(key)
        if driver is not None and host is not None:
            await driver.withdraw(host, [token])


async def _fetch(address: str, port: int, domain: str, token: str) -> str:
    """What the host says for a token, or why it says nothing."""
    url = URL.build(scheme="http", host=address, port=port, path=PATH + token)
    host = authority(domain) if port == 80 else f"{authority(domain)}:{port}"  # noqa: PLR2004  http's own (RFC 9110 §4.2.1)
    try:
        async with (
            aiohttp.ClientSession(timeout=ANSWER, cookie_jar=aiohttp.DummyCookieJar()) as session,
            session.get(url, headers={"Host": host}, ssl=False) as answer,
        ):
            if answer.status != 200:  # noqa: PLR2004  RFC 8555 §8.3
                return f"status {answer.status}"
            content = await answer.content.read(BODY)
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
        return f"no answer on port {port} ({type(error).__name__})"
    return "".join(c if c.isprintable() else " " for c in content.decode(errors="replace")).strip()
