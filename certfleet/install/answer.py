"""What the receiver answers, validated: a host's word is outside input."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, StringConstraints, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from certfleet.errors import InstallError

LARGEST = 4 * 1024 * 1024  # bytes; a thousand apps that all failed stay far below

AppName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9-]{0,62}\z")]
Generation = Annotated[int, Field(ge=0, le=999_999_999)]


class State(StrEnum):
    """What became of one app on the host."""

    INSTALLED = "installed"
    UNCHANGED = "unchanged"
    """This generation was current already."""
    ROLLED_BACK = "rolled-back"
    """A rollback was asked for and done."""
    REMOVED = "removed"
    """`remove`: nothing of certfleet's is there any more."""
    CLEANED = "cleaned"
    """`cleanup`: old generations were looked for; `message` says how many were deleted."""
    STALE = "stale"
    """A newer generation is current, or another certificate under the same number: nothing changed."""
    FOREIGN = "foreign"
    """What is there was not put there by certfleet; `adopt` takes it over."""
    BROKEN_BEFORE = "broken-before"
    """The configuration test failed before anything was touched; `message` says how."""
    KEY_LOST = "key-lost"
    """The key that the host made for this certificate is not there any more: nothing changed."""
    REQUESTED = "requested"
    """`request`: the host has a key, and `csr` is the request for its certificate."""
    FAILED = "failed"
    """The test or the reload refused this app's certificate; what was current before is current again."""
    CURRENT = "current"
    """`status`: this generation is current."""
    EMPTY = "empty"
    """`status`: certfleet's, without a current generation."""


@dataclass(frozen=True, slots=True)
class AppAnswer:
    """One app on the host after the run."""

    state: State
    generation: Generation
    """Current now; 0: none."""
    previous: Generation = 0
    """Current before the run, and what a rollback goes to; 0: none."""
    serial: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{0,64}\z")] = ""
    """Of the current generation; empty when there is none."""
    message: Annotated[str, StringConstraints(max_length=4096)] | None = None
    csr: Annotated[str, StringConstraints(max_length=65_536, pattern=r"^[A-Za-z0-9+/]*={0,2}\z")] = ""
    """`request`: PKCS #10 in DER, base64; a hundred long names are half of that."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One run of the receiver."""

    version: Literal[1]
    reloads: Annotated[int, Field(ge=0)]
    """Reloads that the run asked the web server for."""
    apps: dict[AppName, AppAnswer]
    pending: bool = False
    """A switch still waits for its reload; the next run sees to it."""
    error: Annotated[str, StringConstraints(max_length=4096)] | None = None
    """Why the run as a whole did nothing."""
    release: Annotated[str, StringConstraints(max_length=64)] = ""
    """The receiver that answered (install/receiver)."""


@dataclass(frozen=True, slots=True)
class Point:
    """One thing that a host has to be able to do."""

    name: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z -]{0,39}\z")]
    ok: bool
    message: Annotated[str, StringConstraints(max_length=4096)] = ""
    """What was seen; for a point that is not ok, what to do about it too."""


@dataclass(frozen=True, slots=True)
class Report:
    """What the receiver says about its host."""

    version: Literal[1]
    release: Annotated[str, StringConstraints(max_length=64)] = ""
    time: Annotated[int, Field(ge=0, le=2**53)] = 0
    """The host's clock: Unix time in seconds."""
    root: Annotated[str, StringConstraints(max_length=4096)] = ""
    points: Annotated[tuple[Point, ...], Field(max_length=50)] = ()
    error: Annotated[str, StringConstraints(max_length=4096)] | None = None


Said = TypeVar("Said", Answer, Report)

_answers: TypeAdapter[Answer] = TypeAdapter(Answer)
_reports: TypeAdapter[Report] = TypeAdapter(Report)


def parse(output: bytes, *, host: str, expected: Iterable[str] = ()) -> Answer:
    """The receiver's standard output as an Answer that has a word on each expected app.

    Raises InstallError when it is no answer, lacks an app, or says that the run as a whole failed.
    """
    answer = _read(_answers, output, host)
    if missing := sorted(set(expected) - set(answer.apps)):
        raise InstallError(f"host {host}: the receiver said nothing about {', '.join(missing)}; install again")
    return answer


def parse_report(output: bytes, *, host: str) -> Report:
    """The answer of `check`. Raises InstallError as `parse` does."""
    return _read(_reports, output, host)


def _read(adapter: TypeAdapter[Said], output: bytes, host: str) -> Said:
    if len(output) > LARGEST:
        raise InstallError(
            f"host {host}: the receiver's answer is longer than {LARGEST} bytes; look at what runs there"
        )
    try:
        said = adapter.validate_json(output)
    except ValidationError as error:
        first: Any = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the whole"
        raise InstallError(f"host {host}: the receiver's answer is not understood ({where}: {first['msg']})") from None
    if said.error is not None:
        raise InstallError(f"host {host}: {said.error}")
    return said
