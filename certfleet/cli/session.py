"""Running a command: a client for its time, one sentence on standard error when it fails, the exit status."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from enum import IntEnum
from typing import TYPE_CHECKING, NoReturn, TypeVar

import typer

from certfleet.errors import CertfleetError, UsageError

if TYPE_CHECKING:
    from certfleet.client import Client

Result = TypeVar("Result")


class Exit(IntEnum):
    """What the exit status says."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    NOT_IN_TIME = 3


def fail(message: str, status: Exit) -> NoReturn:
    """Say why on standard error, and end."""
    typer.echo(f"certfleet: {message}", err=True)
    raise typer.Exit(int(status))


def raise_usage(field: str, value: object, wanted: str) -> NoReturn:
    """End with exit status 2 and one sentence: field, value, what would be right."""
    fail(str(UsageError(field, value, wanted)), Exit.USAGE)


def by_name(field: str, kind: str, texts: Iterable[str], split: Callable[[str], tuple[str, str]]) -> dict[str, str]:
    """Name -> value of what may be given several times, once for each `kind`; another time ends with exit status 2."""
    given: dict[str, str] = {}
    for text in texts:
        name, value = split(text)
        if name in given:
            raise_usage(field, text, f"is the second one for the same {kind}: give one for each")
        given[name] = value
    return given


def ask(question: Callable[[Client], Awaitable[Result]]) -> Result:
    """Run a coroutine with a client. A CertfleetError ends the command with its sentence."""
    from certfleet.client import open_client  # noqa: PLC0415  `--help` does without Redis and its import

    answers: list[Result] = []

    async def run() -> None:
        # Not returned: asyncio.run writes a task's result out as text when it ends, 0.3 s for 100,000 apps.
        async with open_client() as client:
            answers.append(await question(client))

    guarded(lambda: asyncio.run(run()))
    return answers[0]


def guarded(action: Callable[[], Result]) -> Result:
    """Run an action; turn our errors into a sentence and an exit status."""
    from redis.exceptions import RedisError  # noqa: PLC0415  as above

    try:
        return action()
    except UsageError as error:
        fail(str(error), Exit.USAGE)
    except CertfleetError as error:
        fail(str(error), Exit.FAILED)
    except RedisError as error:
        fail(f"Redis went away in the middle ({type(error).__name__}): ask again", Exit.FAILED)
    except KeyboardInterrupt:
        fail("interrupted; what was asked for goes on in the workers", Exit.FAILED)
