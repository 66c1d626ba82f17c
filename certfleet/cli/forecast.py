"""`certfleet forecast`: when will these be done, and which limit decides it."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from certfleet.cli.output import left, moment, print_json, print_table
from certfleet.cli.session import ask, by_name, guarded, raise_usage

if TYPE_CHECKING:
    from certfleet.lifecycle.forecasts.estimate import AppForecast, Estimate, Summary

SHOWN = 5  # apps at each end of a long list


def forecast(
    plan: Annotated[
        str | None,
        typer.Option(
            "--plan",
            metavar="FILE",
            help="Apps to come (CSV or JSON: app, domains); those that are there already count once.",
        ),
    ] = None,
    ca: Annotated[
        str | None, typer.Option("--ca", metavar="CA", help="For planned apps that name none; as for `app add`.")
    ] = None,
    email: Annotated[
        str | None, typer.Option("--email", metavar="ADDRESS", help="For planned apps that name none.")
    ] = None,
    limit: Annotated[
        list[str] | None,
        typer.Option("--limit", metavar="NAME=RATE", help="What if a limit was this one; once for each."),
    ] = None,
    lifetime: Annotated[
        list[str] | None,
        typer.Option(
            "--lifetime",
            metavar="[PROFILE=]TIME",
            help="What if certificates were valid for this long (45d), or those of a profile; once for each.",
        ),
    ] = None,
    names_per_certificate: Annotated[
        int | None,
        typer.Option(
            "--names-per-certificate",
            metavar="N",
            help="What if planned names shared certificates, up to N of one domain on each; 1: none does.",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON on standard output.")] = False,
) -> None:
    """Tell when orders will be done.

    Those that wait now, or those of a plan; which limit of the CA's decides it; and what renewals
    need of the limits for ever. Nothing is ordered or changed.

    \b
    certfleet forecast
    certfleet forecast --plan apps.csv --limit certificates-per-domain=300/7d
    certfleet forecast --plan apps.csv --names-per-certificate 100
    certfleet forecast --lifetime 45d --lifetime shortlived=96h
    """  # noqa: D301  the character that tells click to keep the lines
    from certfleet.plan import read_plan  # noqa: PLC0415  late, like every import of a command

    limits = by_name("limit", "limit", limit or [], _pair)
    lifetimes = by_name("lifetime", "profile", lifetime or [], _profile_and_time)
    with _no_collection():
        planned = guarded(lambda: read_plan(Path(plan))) if plan is not None else None
        found = ask(
            lambda client: client.forecast(
                planned,
                ca=ca,
                email=email,
                limits=limits,
                lifetimes=lifetimes,
                names_per_certificate=names_per_certificate,
            )
        )
        if found.summary.already:
            typer.echo(_already(found.summary), err=True)
        if as_json:
            print_json(summary=found.summary, limits=found.limits, buckets=found.buckets, apps=found.apps)
        else:
            _show(found)


@contextmanager
def _no_collection() -> Iterator[None]:
    """A large plan is millions of objects that all stay: looking for those that do not costs a third of the time."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _show(found: Estimate) -> None:
    """Tables and sentences for people."""
    if found.limits:
        rows = [
            (row.ca, row.limit, row.waited, moment(row.until), row.of or "-", f"{row.renewals_share:.1%}")
            for row in found.limits
        ]
        print_table(("CA", "LIMIT", "WAIT", "UNTIL", "LAST FOR", "FOR RENEWALS"), rows)
        typer.echo("")
    if found.apps:
        print_table(("APP", "DONE", "WAITS FOR"), _ends(found.apps))
        typer.echo("")
    typer.echo(_done(found))
    for sentence in _kept_up(found):
        typer.echo(sentence)


def _pair(text: str) -> tuple[str, str]:
    name, equals, rate = text.partition("=")
    if not equals:
        raise_usage("limit", text, "is not NAME=RATE, such as certificates-per-domain=100/7d")
    return name, rate


def _profile_and_time(text: str) -> tuple[str, str]:
    profile, _, time = text.rpartition("=")
    return profile, time


def _ends(apps: tuple[AppForecast, ...]) -> Iterator[tuple[str, str, str]]:
    """The first and the last ones."""
    for number, row in enumerate(apps):
        if SHOWN <= number < len(apps) - SHOWN:
            if number == SHOWN:
                yield "...", f"{len(apps) - 2 * SHOWN:,} more", ""
        else:
            yield row.app, moment(row.done_at), f"{row.limit} {row.of}" if row.limit else ""


def _already(summary: Summary) -> str:
    are, they = ("is", "it is") if summary.already == 1 else ("are", "they are")
    return f"{summary.already:,} of these {summary.apps:,} apps {are} there already: counted once, as {they}"


def _done(found: Estimate) -> str:
    summary = found.summary
    if not summary.apps:
        return "no order waits for a limit; `certfleet forecast --plan FILE` tells of apps that are not added yet"
    binds = f"the limit that binds: {found.binding}" if found.binding else "no limit binds"
    if summary.done_at is None:
        never = f"{summary.apps - summary.done:,} of {summary.apps:,} are not done by {moment(summary.looked_until)}"
        return f"{never}; {binds}"
    if summary.done_at <= summary.asked_at:
        return f"all {summary.apps:,} can be done at once; {binds}"
    return f"all {summary.apps:,} done on {summary.done_at:%Y-%m-%d %H:%M} UTC, in {left(summary.done_at)}; {binds}"


def _kept_up(found: Estimate) -> Iterator[str]:
    """About the renewals."""
    summary = found.summary
    if not summary.renewals_per_day:
        return
    others = [f"{profile}: {_length(seconds)}" for profile, seconds in summary.profile_lifetimes_seconds.items()]
    more = f" ({', '.join(others)})" if others else ""
    lead = f"at a lifetime of {_length(summary.lifetime_seconds)}{more}, {_number(summary)} renewals a day"
    if found.busiest is None:
        yield f"{lead}: no limit holds for them"
    elif summary.sustainable:
        yield f"{lead}: they need at most {summary.busiest_share:.1%} of a limit, {found.busiest}"
    else:
        yield f"{lead}: too many for ever, they need {summary.busiest_share:.0%} of {found.busiest}"


def _length(seconds: int) -> str:
    return f"{seconds / 86400:g} d" if seconds >= 10 * 86400 else f"{seconds / 3600:g} h"


def _number(summary: Summary) -> str:
    return (
        f"{summary.renewals_per_day:,.0f}" if summary.renewals_per_day >= SHOWN else f"{summary.renewals_per_day:.2g}"
    )
