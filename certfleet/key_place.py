"""Where the key of an app's certificate is made: by a worker, or on the app's host (property key-on-host).

Decisions only: no clock, no I/O.
"""

from __future__ import annotations

from collections.abc import Mapping

from certfleet.errors import UsageError
from certfleet.models import App, Certificate, Host

PROPERTY = "key-on-host"
ABLE = ("local", "ssh")
"""Drivers of hosts that can make a key; Dokku takes a certificate with its key or not at all."""


def key_host(app: App, values: Mapping[str, str]) -> str:
    """The host that makes the keys of an app's certificates; empty: workers do. `values` are effective properties."""
    return app.hosts[0] if values[PROPERTY] == "on" and app.hosts else ""


def may_have(certificate: Certificate, host: str) -> bool:
    """Whether a host may get a certificate: one whose key another host has made stays there."""
    return certificate.key_on in ("", host)


def require_one_host(app: App, values: Mapping[str, str]) -> None:
    """Raise UsageError when the property is on, and the app has several hosts or keeps its keys."""
    if values[PROPERTY] != "on":
        return
    if len(app.hosts) > 1:
        wanted = f"is for apps on one host, because the key never leaves it; {app.name} is on {', '.join(app.hosts)}"
        raise UsageError(PROPERTY, "on", f"{wanted}: make it one app for each host, or set {PROPERTY}=off")
    if values["reuse-key"] == "on":
        wanted = f"makes a new key for each certificate: set reuse-key=off for app {app.name}, or {PROPERTY}=off"
        raise UsageError(PROPERTY, "on", wanted)


def require_able(app: App, values: Mapping[str, str], hosts: Mapping[str, Host]) -> None:
    """Raise UsageError when the host that is to make the keys cannot; `hosts` by name."""
    host = hosts.get(key_host(app, values))
    if host is not None and host.driver not in ABLE:
        wanted = f"is not for app {app.name}: host {host.name} has the driver {host.driver}, which takes a certificate"
        raise UsageError(PROPERTY, "on", f"{wanted} only with its key; set {PROPERTY}=off")
