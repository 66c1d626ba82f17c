"""What people read in tables: times that are over, and notes that are longer than a terminal is wide."""

from __future__ import annotations

import io
from datetime import timedelta

from rich.console import Console

from certfleet.cli.output import NotedTable
from certfleet.models import App, Installation, dump, utcnow
from tests.certificate_records import record
from tests.cli.conftest import Door

APP = App("blog", ("blog.example.com",), ("web1",))


def times(fleet: Door) -> tuple[list[str], dict[str, str]]:
    """The line of `ls`, and what `info` says of expiry and renewal."""
    line = fleet.done("ls").out.splitlines()[1].split("  ")
    facts = (row.split(None, 1) for row in fleet.done("info", "blog").out.splitlines() if row)
    return [cell.strip() for cell in line if cell], {row[0]: row[-1].strip() for row in facts}


def test_an_expired_certificate_is_called_so(fleet: Door) -> None:
    """Not `now`, which is when something is about to happen; and a disabled app is not said to be renewed."""
    cells, facts = times(fleet)
    assert cells[4:6] == ["-", "-"]
    assert (facts["expires"], facts["renews"]) == ("-", "-")
    old = record(APP, utcnow() - timedelta(days=100))
    fleet.redis.set("certfleet:certificate:blog", dump(old))
    cells, facts = times(fleet)
    assert cells[4:6] == ["expired", "-"]
    assert facts["expires"].endswith(" UTC (expired)")
    assert facts["renews"] == "not while it is disabled"
    fleet.done("enable", "blog")
    cells, facts = times(fleet)
    assert cells[4:6] == ["expired", "now"]
    assert facts["renews"].endswith(" UTC (now)")
    fleet.redis.set("certfleet:certificate:blog", dump(record(APP, utcnow())))
    cells, facts = times(fleet)
    assert cells[4:6] == ["89 d", "59 d"]
    assert facts["expires"].endswith(" UTC (in 89 d)")
    assert facts["renews"].endswith(" UTC (in 59 d)")


LONG = "web1: " + "nothing answers there " * 30


ROWS = [("blog", "blog.example.com", "ok"), ("shop", "shop.example.com", "")]


def shown(width: int) -> list[str]:
    """A table in a terminal of so many columns."""
    there = io.StringIO()
    Console(file=there, width=width).print(NotedTable(("APP", "DOMAINS", "NOTE"), ROWS))
    return [line.rstrip() for line in there.getvalue().splitlines()]


def test_a_note_stands_under_its_row_where_there_is_no_room() -> None:
    """The other columns are as they are in a wide terminal, not squeezed by it."""
    assert shown(30) == ["APP   DOMAINS           NOTE", "blog  blog.example.com  ok", "shop  shop.example.com"]
    assert shown(24) == ["APP   DOMAINS", "blog  blog.example.com", "    ok", "shop  shop.example.com"]
    assert max(len(line) for line in shown(15)) <= 15, "where even these have no room, all is folded"


def test_without_a_terminal_no_line_is_folded(fleet: Door) -> None:
    """One line for each app, however long its note is: `ls | grep` finds it whole."""
    fleet.done("enable", "blog")
    broken = Installation("blog", "web1", 1, 0, 0, error=LONG, retry_at=utcnow())
    fleet.redis.set("certfleet:certificate:blog", dump(record(APP, utcnow())))
    fleet.redis.hset("certfleet:installations:blog", "web1", dump(broken))
    assert LONG.strip() in fleet.done("ls").out
    assert LONG.strip() in fleet.done("info", "blog").out
