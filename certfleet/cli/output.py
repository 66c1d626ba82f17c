"""Tables for people, JSON for programs. JSON goes to standard output alone and carries a version."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, is_dataclass
from datetime import datetime, timedelta
from enum import Enum
from typing import TYPE_CHECKING, Any

from certfleet.models import utcnow

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
    from rich.table import Table

    from certfleet.overview import Overview

JSON_VERSION = 1
PLAIN_WIDTH = 100_000  # columns where there is no terminal: lines are never folded for a program
STYLES = {
    "served": "green",
    "failing": "bold red",
    "parked": "bold red",
    "limited": "cyan",
    "away": "cyan",
    "ordering": "yellow",
    "installing": "yellow",
    "waiting": "yellow",
    "disabled": "dim",
}


def print_json(**content: object) -> None:
    """One JSON object with `version`."""
    print(json.dumps({"version": JSON_VERSION} | content, default=_plain, ensure_ascii=False, indent=2))


def _plain(value: object) -> Any:
    if isinstance(value, datetime):
        return value.isoformat(timespec="seconds").replace("+00:00", "Z")
    if isinstance(value, Enum):
        return value.value
    if is_dataclass(value) and not isinstance(value, type):
        return {part.name: getattr(value, part.name) for part in fields(value)}
    if isinstance(value, set | tuple):
        return list(value)
    raise TypeError(f"{type(value).__name__} has no place in JSON output")


def print_table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A table that fits the terminal; plain unfolded lines without one."""
    print_renderable(make_table(headings, rows))


def print_renderable(table: RenderableType) -> None:
    """Show a table on standard output."""
    from rich.console import Console  # noqa: PLC0415  50 ms that JSON output does without

    width = None if sys.stdout.isatty() else PLAIN_WIDTH
    Console(width=width, highlight=False).print(table)


def make_table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> Table:
    """The table itself, for whoever shows it."""
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415  never markup: a name must not style the terminal

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in headings:
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*(cell if isinstance(cell, Text) else Text(str(cell)) for cell in row))
    return table


@dataclass(frozen=True, slots=True)
class NotedTable:
    """A table whose last column stands under its row instead, where the terminal is too narrow for both."""

    headings: Sequence[str]
    rows: Sequence[Sequence[object]]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """What rich asks for."""
        from rich.padding import Padding  # noqa: PLC0415
        from rich.segment import Segment  # noqa: PLC0415
        from rich.text import Text  # noqa: PLC0415

        whole = make_table(self.headings, self.rows)
        rest = make_table(self.headings[:-1], [row[:-1] for row in self.rows])
        unfolded = options.update_width(PLAIN_WIDTH)
        fits = console.measure(whole, options=unfolded).maximum <= options.max_width
        if fits or console.measure(rest, options=unfolded).maximum > options.max_width:
            yield whole
            return
        notes = ("", *(str(row[-1]) for row in self.rows))
        for line, note in zip(console.render_lines(rest, options, pad=False), notes, strict=True):
            yield from line
            yield Segment.line()
            if note:
                yield Padding(Text(note, overflow="fold"), (0, 0, 0, 4))


def overview_table(views: Iterable[Overview]) -> NotedTable:
    """What `ls` shows."""
    from rich.text import Text  # noqa: PLC0415

    rows = [
        (
            view.name,
            Text(view.state, STYLES.get(view.state, "")),
            names(view.domains),
            f"{view.served_on} of {len(view.hosts)}",
            expiry(view.not_after),
            left(view.renew_at) if view.state != "disabled" else "-",
            note(view),
        )
        for view in views
    ]
    return NotedTable(("APP", "STATE", "DOMAINS", "SERVED ON", "EXPIRES IN", "RENEWS IN", "NOTE"), rows)


def note(view: Overview) -> str:
    """What there is to know beyond the state, in a few words."""
    when = left(view.next_try)
    again = f" (again {when if when == 'now' else f'in {when}'})" if view.next_try and view.error else ""
    wave = f"wave {view.wave}" if view.wave else ""
    now = "; ".join(part for part in (view.error or waiting(view) or view.reason, wave, instead(view)) if part) + again
    return "; ".join(part for part in (now, view.warning) if part)


def instead(view: Overview) -> str:
    """Which CA stands in for which others of the app's list."""
    if not view.passed_over:
        return ""
    doing = f"asked is {view.asked_ca}" if view.asked_ca else f"issued by {view.issued_by}"
    return f"{doing} instead of {' and '.join(one.ca for one in view.passed_over)}"


def waiting(view: Overview) -> str:
    """What it waits for, when its turn comes, and how many are before it."""
    if view.away_since is not None:
        return away(view.away_since, view.waits_until)
    if view.waits_for is None:
        return ""
    when = f", at {moment(view.waits_until)}" if view.waits_until else ""
    place = f", {_nth(view.place)} of {view.places}" if view.place and view.places else ""
    return f"waiting for {view.waits_for}{when}{place}"


def away(since: datetime, next_try: datetime | None) -> str:
    """A CA that does not answer; no more than an hour lies between two tries."""
    again = f"tried again at {next_try:%H:%M:%S}" if next_try and next_try > utcnow() else "being tried just now"
    return f"the CA does not answer since {since:%Y-%m-%d %H:%M} UTC, {again}"


def _nth(number: int) -> str:
    ending = "th" if 10 < number % 100 < 14 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")  # noqa: PLR2004
    return f"{number}{ending}"


def names(domains: Sequence[str]) -> str:
    """The first name, and how many more."""
    more = f" +{len(domains) - 1}" if len(domains) > 1 else ""
    return f"{domains[0]}{more}"


def moment(value: datetime | None) -> str:
    """A time for people, in UTC."""
    return f"{value:%Y-%m-%d %H:%M:%S} UTC" if value else "-"


def expiry(value: datetime | None) -> str:
    """How long a certificate is still good for."""
    return "expired" if value is not None and value <= utcnow() else left(value)


def when(value: datetime | None, rest: str) -> str:
    """A time and, in words, how long that is from now; one that there is not has no such words."""
    return f"{moment(value)} ({rest if rest in ('now', 'expired') else f'in {rest}'})" if value else "-"


def left(value: datetime | None) -> str:
    """How long until then, in the largest unit that tells enough."""
    if value is None:
        return "-"
    span = value - utcnow()
    if span <= timedelta():
        return "now"
    for unit, seconds in (("d", 86400), ("h", 3600), ("m", 60)):
        if span.total_seconds() >= 2 * seconds:
            return f"{int(span.total_seconds() // seconds)} {unit}"
    return f"{int(span.total_seconds())} s"
