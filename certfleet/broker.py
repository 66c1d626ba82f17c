"""How every process finds the Celery broker: URL, key prefix, queues. Knows no Celery."""

from __future__ import annotations

from typing import Any

from certfleet.settings import Settings
from certfleet.store import redis_url

TICK = "tick"
"""The tick and the gates of waiting rooms: short, and never behind longer work (workers/stack.py)."""
EXPIRY = "expiry"
ORDERS = "orders"
INSTALL = "install"

TASKS = {
    "check": ("certfleet.expiry.check", "apps", EXPIRY),
    "order": ("certfleet.orders.advance", "orders", ORDERS),
    "revoke": ("certfleet.revocation.revoke", "apps", ORDERS),
    "crl": ("certfleet.revocation.look", "lists", EXPIRY),
    "dns": ("certfleet.dns.tidy", "apps", ORDERS),
    "gate": ("certfleet.admission.open", "gates", TICK),
    "outage": ("certfleet.admission.retry", "cas", TICK),
    "host": ("certfleet.install.host", "hosts", INSTALL),
}
"""Kind of agenda member -> its task, the argument that carries {name: fence}, its queue."""

EXCHANGE = "certfleet"
VISIBILITY_TIMEOUT = 900  # seconds; above every step's deadline, or a long step's message would run twice


def install_queue(zone: str | None) -> str:
    """The queue of a zone's hosts; only workers started with the zone listen there."""
    return f"{INSTALL}.{zone}" if zone else INSTALL


def broker_url(settings: Settings) -> str:
    """The URL for kombu, which spells a unix socket its own way. Holds the password: never log it."""
    url = redis_url(settings)
    if url.startswith("rediss://") and "ssl_cert_reqs=" not in url:
        # kombu takes a rediss:// URL without this for a wish not to verify the server; redis-py verifies it.
        url += ("&" if "?" in url else "?") + "ssl_cert_reqs=required"
    return "redis+socket://" + url.removeprefix("unix://") if url.startswith("unix://") else url


def broker_configuration(settings: Settings) -> dict[str, Any]:
    """Celery's settings for whoever sends or receives messages."""
    return {
        "broker_url": broker_url(settings),
        "broker_transport_options": {
            "global_keyprefix": settings.prefix + "broker:",
            "visibility_timeout": VISIBILITY_TIMEOUT,
            "unacked_restore_interval": 5,
            "unacked_restore_throttle": 1,
            "max_connections": settings.threads + 20,
            "socket_timeout": 30,
            "socket_connect_timeout": 5,
            "socket_keepalive": not redis_url(settings).startswith("unix://"),
        },
        "task_serializer": "json",
        "task_ignore_result": True,
        "task_default_exchange": EXCHANGE,
        "task_default_queue": EXPIRY,
        "task_default_routing_key": EXPIRY,
    }
