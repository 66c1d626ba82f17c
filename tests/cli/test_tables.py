"""What people read in tables: times that are over, and notes that are longer than a terminal is wide."""

from __future__ import annotations

from datetime import timedelta

from certfleet.models import App, dump, utcnow
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
