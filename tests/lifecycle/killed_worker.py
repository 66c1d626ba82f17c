"""A worker that kills itself (SIGKILL) at one arrow of the order machine.

`python -m tests.lifecycle.killed_worker MARKS`: for an app named `arrow<N>` the worker dies at arrow N of
ARROWS, once (a file in the directory MARKS says that it was done). Everything else it does as any worker does:
the product has no switch for this, its functions are wrapped from here.
"""

from __future__ import annotations

import os
import signal
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from certfleet.acme_ca import protocol
from certfleet.agenda import Agenda
from certfleet.lifecycle.orders import advance as machine
from certfleet.lifecycle.records import Records
from certfleet.limits.rooms import Rooms


@dataclass(frozen=True)
class Arrow:
    """Before or after the `nth` call of one function."""

    when: str
    call: str
    nth: int = 1
    new_orders: int = 1
    """newOrder requests that the CA then sees for this app in all."""

    def __str__(self) -> str:
        return f"{self.when} {self.call} {self.nth}"


def _both(call: str, nth: int = 1, new_orders: tuple[int, int] = (1, 1)) -> list[Arrow]:
    return [Arrow("before", call, nth, new_orders[0]), Arrow("after", call, nth, new_orders[1])]


# In the order of the machine. Requests to the CA, and between them what is persisted.
ARROWS = [
    *_both("create_order"),
    *_both("enter"),  # the tokens
    *_both("send"),  # newOrder's turn, and that it is sent
    # Only between the CA's answer and our note of the URL is an order lost: nobody knows its URL.
    *_both("new_order", new_orders=(1, 2)),
    Arrow("before", "write", 1, 2),  # the URL
    Arrow("after", "write", 1),
    *_both("ordered"),  # the CA has counted it
    *_both("get_authorization"),
    *_both("write", 2),  # the tokens
    *_both("answer_challenge"),
    *_both("get_order", 1),
    *_both("write", 3),  # the sealed key
    *_both("finalize"),
    *_both("get_order", 2),
    *_both("download"),
    *_both("write", 4),  # the certificate, and the end of the order
    *_both("issued"),  # the CA has counted it
    *_both("finish"),
]

app_at_work: ContextVar[str] = ContextVar("app_at_work", default="")
calls: Counter[tuple[str, str]] = Counter()


def main(marks: Path) -> None:
    """Wrap, then be a worker."""
    inner = machine.advance

    async def advance(bench: Any, claim: Any) -> Any:
        app_at_work.set(claim.name)
        return await inner(bench, claim)

    machine.advance = advance
    for name in ("new_order", "get_order", "get_authorization", "answer_challenge", "finalize", "download"):
        setattr(protocol, name, deadly(name, getattr(protocol, name), marks))
    wrapped = [(Records, "write"), (Records, "create_order"), (Agenda, "finish")]
    wrapped += [(Rooms, name) for name in ("enter", "send", "ordered", "issued")]
    for owner, name in wrapped:
        setattr(owner, name, deadly(name, getattr(owner, name), marks))
    from celery.__main__ import main as celery  # noqa: PLC0415  after the wrapping

    sys.argv[1:] = ["-A", "workers.app:app", "worker", "--pool", "threads", "--concurrency", "4"]
    sys.argv += ["-n", "killed@%h", "--loglevel", "WARNING", "--without-gossip", "--without-mingle"]
    celery()


def deadly(name: str, inner: Callable[..., Awaitable[Any]], marks: Path) -> Callable[..., Awaitable[Any]]:
    """The function, deadly at its arrows."""

    async def wrapped(*args: Any, **kwargs: Any) -> Any:
        app = app_of(name, args)
        calls[app, name] += 1
        nth = calls[app, name]
        die_at(Arrow("before", name, nth), app, marks)
        result = await inner(*args, **kwargs)
        die_at(Arrow("after", name, nth), app, marks)
        return result

    return wrapped


def app_of(name: str, args: tuple[Any, ...]) -> str:
    """Whose call it is: the order's own where an argument tells, else the app that the machine works on."""
    if name in ("create_order", "issued"):
        return str(args[1].app)
    if name in ("send", "ordered"):
        return str(args[1])
    if name in ("write", "finish", "enter"):
        return str(args[1].name) if args[1].kind == "order" else ""
    return app_at_work.get()


def die_at(here: Arrow, app: str, marks: Path) -> None:
    """Die if this is the app's arrow, and it is the first time."""
    number = app.removeprefix("arrow")
    if not app.startswith("arrow") or str(ARROWS[int(number)]) != str(here):
        return
    mark = marks / app
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
