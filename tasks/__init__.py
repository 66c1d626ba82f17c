"""Celery tasks: validate the message, run a lifecycle step on the process's loop, sort its outcome."""

MODULES = [
    "tasks.admission",
    "tasks.dns",
    "tasks.expiry",
    "tasks.orders",
    "tasks.install",
    "tasks.revocation",
    "tasks.tick",
]
