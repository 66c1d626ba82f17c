"""`certfleet revoke` and `certfleet replace`: certificates that have to go before their time."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from certfleet.cli.output import moment, print_json
from certfleet.cli.session import Exit, ask, fail, guarded, raise_usage

if TYPE_CHECKING:
    from certfleet.lifecycle.forecasts.estimate import Estimate
    from certfleet.lifecycle.revocations.book import Revocation
    from certfleet.lifecycle.revocations.crl_book import WatchedList
    from certfleet.lifecycle.revocations.replacing import Progress, Selection

REASONS = "unspecified, keyCompromise, superseded, cessationOfOperation, affiliationChanged"
LOOK = 1.0  # seconds between two looks of --wait
SHOWN = 5  # serials; the others are counted

AppName = Annotated[str, typer.Argument(metavar="APP", help="The app's name.")]
AsJSON = Annotated[bool, typer.Option("--json", help="JSON on standard output.")]


@dataclass(frozen=True, slots=True)
class RevocationView:
    """One certificate that is still to be revoked, as `info` shows it."""

    serial: str
    reason: str
    asked: datetime
    stands: str | None
    retry_at: datetime | None


def shown(found: Sequence[Revocation]) -> list[RevocationView]:
    """For JSON."""
    return [RevocationView(one.serial, one.reason, one.asked, one.stands or None, one.retry_at) for one in found]


def told(found: Sequence[Revocation]) -> str:
    """For people."""
    return "; ".join(f"serial {one.serial} ({one.reason}): {one.stands or 'now'}" for one in found) or "nothing"


@dataclass(frozen=True, slots=True)
class RevocationListView:
    """The CA's list in which a certificate would stand, as `info` shows it."""

    url: str
    read: datetime | None
    next_look: datetime | None
    error: str | None


def list_shown(found: WatchedList | None) -> list[RevocationListView]:
    """For JSON."""
    return [] if found is None else [RevocationListView(found.url, found.read, found.next_look, found.error or None)]


def list_told(found: WatchedList | None) -> str:
    """For people."""
    if found is None:
        return "none is looked at"
    return found.error or f"{found.url}, looked at on {moment(found.read)}"


def revoke(
    app: AppName,
    reason: Annotated[str, typer.Option("--reason", metavar="REASON", help=f"{REASONS}.")] = "unspecified",
    compromised: Annotated[
        bool,
        typer.Option("--compromised", help="Its key is in other hands: replace it everywhere first, then revoke it."),
    ] = False,
) -> None:
    """Revoke an app's certificate.

    An enabled app gets another one at once. Without --compromised, its hosts serve the revoked one until then.
    """
    if compromised and reason not in ("unspecified", "keyCompromise"):
        raise_usage("reason", reason, "is not the one of --compromised, which is keyCompromise")
    typer.echo(ask(lambda client: client.revoke(app, reason=reason, compromised=compromised)).sentence)


def replace(
    file: Annotated[
        str | None, typer.Option("--file", metavar="SERIALS", help="A file of serials in hexadecimal, one in a line.")
    ] = None,
    ca: Annotated[str | None, typer.Option("--ca", metavar="CA", help="Those of this CA.")] = None,
    between: Annotated[
        tuple[str, str] | None,
        typer.Option("--all-issued-between", metavar="A B", help="Those issued from A on and before B (UTC)."),
    ] = None,
    revoke: Annotated[
        bool, typer.Option("--revoke", help="Revoke each when all hosts of its app serve another one.")
    ] = False,
    reason: Annotated[
        str | None, typer.Option("--reason", metavar="REASON", help="With --revoke; superseded, if it is not given.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until all are done, and show how far they are.")] = False,
    timeout: Annotated[
        float, typer.Option("--timeout", metavar="SECONDS", min=0, help="How long --wait waits at most.")
    ] = 3600,
    as_json: AsJSON = False,
) -> None:
    """Replace many certificates before their time.

    Those of enabled apps that fit all that is given. Without any of it: show how far the last replacement has come.
    It may be given again at any time; what is done stays done.

    \b
    certfleet replace --file serials.txt --revoke
    certfleet replace --all-issued-between 2026-11-01 2026-11-03T12:00Z
    certfleet replace
    """  # noqa: D301  the character that tells click to keep the lines
    if reason is not None and not revoke:
        raise_usage("reason", reason, "is the one of a revocation: give --revoke too")
    if reason is not None:
        _require_reason(reason)
    if file is not None or ca is not None or between is not None:
        wanted = _selection(file, ca, between)
        if chosen := _chosen(wanted):
            if not yes:
                _confirm(wanted, chosen, revoke=revoke)
            ask(lambda client: client.replace(wanted, revoke=(reason or "superseded") if revoke else None))
    elif revoke:
        raise_usage("revoke", None, "say which: give --file, --ca or --all-issued-between too")
    found = ask(lambda client: client.replacement())
    if wait:
        found = _waited(found, timeout)
    if as_json:
        print_json(replacement=found)
    else:
        typer.echo(_words(found))
    if wait and not found.complete:
        fail(f"not all were done within {timeout:.0f} s; it goes on: `certfleet replace` shows how", Exit.NOT_IN_TIME)


def _selection(file: str | None, ca: str | None, between: tuple[str, str] | None) -> Selection:
    from certfleet.lifecycle.revocations.replacing import selection  # noqa: PLC0415  late, like every import of a command

    text: str | None = None
    if file is not None:
        try:
            text = Path(file).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise_usage("file", file, f"cannot be read: {getattr(error, 'strerror', None) or 'not UTF-8'}")
    return guarded(lambda: selection(text, ca, between))


def _require_reason(reason: str) -> None:
    from certfleet.acme_ca.reasons import parse_reason  # noqa: PLC0415  late as above

    guarded(lambda: parse_reason(reason))


def _chosen(wanted: Selection) -> int:
    """How many there are to replace; ends the command when there is none, and none was asked for before."""
    found = ask(lambda client: client.choose(wanted))
    if not found.apps and not found.asked:
        fail("no enabled app has such a certificate: nothing was changed", Exit.FAILED)
    if found.unknown:
        some = ", ".join(found.unknown[:SHOWN]) + ", …" * (len(found.unknown) > SHOWN)
        told = f"{len(found.unknown):,} of {len(wanted.serials or ()):,} serials are no enabled app's certificate now"
        typer.echo(f"{told}, and are left out: {some}", err=True)
    return len(found.apps)


def _confirm(wanted: Selection, chosen: int, *, revoke: bool) -> None:
    """Say how many these are and how long it will take, and ask."""
    found = ask(lambda client: client.forecast_replacement(wanted))
    typer.echo(f"{chosen:,} certificates are to be replaced{' and revoked' * revoke}: {_end(found)}", err=True)
    if not typer.confirm("Replace them?", err=True):
        fail("nothing was changed", Exit.FAILED)


def _end(found: Estimate) -> str:
    if found.summary.done_at is None:
        return f"the CA's limits do not let all of them by {moment(found.summary.looked_until)}"
    if found.summary.done_at <= found.summary.asked_at:
        return "the CA's limits let all of them at once"
    return f"the CA's limits let the last of them on {moment(found.summary.done_at)}"


def _words(found: Progress) -> str:
    if not found.asked:
        return "Nothing is being replaced: `certfleet replace --help`."
    parts = [f"{found.served:,} of {found.asked:,} replaced and served", f"{found.issued:,} issued"]
    parts += [f"{found.ordered:,} ordered"]
    parts += [f"{found.revoked:,} of {found.to_revoke:,} revoked"] if found.to_revoke else []
    parts += [f"{found.failing:,} failing: `certfleet ls`"] if found.failing else []
    return ", ".join(parts)


def _waited(found: Progress, timeout: float) -> Progress:
    """Look until all is done or the time is over; what changed goes to standard error."""
    deadline = time.monotonic() + timeout
    typer.echo(_words(found), err=True)
    while not found.complete and time.monotonic() < deadline:
        time.sleep(LOOK)
        before, found = found, ask(lambda client: client.replacement())
        if found != before:
            typer.echo(_words(found), err=True)
    return found
