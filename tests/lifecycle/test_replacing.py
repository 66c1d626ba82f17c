"""Which certificates are to be replaced, in a person's words, and what a revocation still waits for."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certfleet.errors import UsageError
from certfleet.lifecycle.revocations.book import missing
from certfleet.lifecycle.revocations.replacing import parse_serials, selection
from certfleet.models import App, Installation
from tests.certificate_records import CA, record

NOW = datetime(2026, 11, 2, 12, tzinfo=UTC)
FOUND = record(App("blog", ("blog.example.com",), ("web1",)), NOW, generation=7, serial="a1b2")


@given(st.integers(min_value=0, max_value=2**160 - 1))
def test_every_way_to_write_a_serial(serial: int) -> None:
    """As openssl, browsers and CAs' lists write it."""
    plain = f"{serial:x}"
    even = plain.zfill(len(plain) + len(plain) % 2)
    pairs = ":".join(even[at : at + 2] for at in range(0, len(even), 2))
    for text in (plain, plain.upper(), f"0x{plain}", even, pairs, f"  {pairs}  # remark\n\n"):
        assert parse_serials(text) == {plain}


@pytest.mark.parametrize("text", ["", "# nothing\n", "a1\na1b2, c3d4", "a1\nblog", "a" * 41, "-1"])
def test_what_is_no_serial(text: str) -> None:
    """One sentence."""
    with pytest.raises(UsageError, match=r"^file: "):
        parse_serials(text)


@pytest.mark.parametrize(
    ("words", "holds"),
    [
        (("A1:B2", None, None), True),
        (("a1b3", None, None), False),
        ((None, CA, None), True),
        ((None, "letsencrypt", None), False),
        ((None, None, ("2026-11-02", "2026-11-03")), True),
        ((None, None, ("2026-11-02T12:00Z", "2026-11-03")), True),
        ((None, None, ("2026-11-01", "2026-11-02T12:00")), False),
        ((None, None, ("2026-11-02T14:30+02:00", "2026-11-03")), False),
        (("a1b2", CA, ("2026-11-03", "2026-11-04")), False),
    ],
)
def test_selections(words: tuple[str | None, str | None, tuple[str, str] | None], holds: bool) -> None:  # noqa: FBT001
    """What fits everything that is given; the first time belongs to it, the second does not."""
    assert selection(*words).holds(FOUND) is holds


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((None, None, None), "which certificates"),
        ((None, "nonsense", None), "is not a CA"),
        ((None, None, ("yesterday", "2026-11-03")), "is not a time"),
        ((None, None, ("2026-11-03", "2026-11-02")), "ends before it begins"),
    ],
)
def test_selections_that_cannot_be(words: tuple[None, str | None, tuple[str, str] | None], said: str) -> None:
    """One sentence."""
    with pytest.raises(UsageError, match=said):
        selection(*words)


def test_what_a_revocation_waits_for() -> None:
    """First the new certificate, then each host that does not show it."""
    hosts = ("web1", "web2")
    known = {host: Installation("blog", host, 8, 8, 8) for host in hosts}
    newer = replace(FOUND, generation=8)
    assert missing(7, FOUND, hosts, known) == "waits for the new certificate"
    assert missing(7, None, hosts, known) == "waits for the new certificate"
    assert missing(7, newer, hosts, known) is None
    behind = known | {"web2": Installation("blog", "web2", 8, 8, 7)}
    assert missing(7, newer, hosts, behind) == "generation 8 is served on 1 of 2 hosts, not yet on web2"
    assert str(missing(7, newer, hosts, {})).endswith("on 0 of 2 hosts, not yet on web1, web2")
    many = tuple(f"web{number}" for number in range(9))
    assert str(missing(7, newer, many, {})).endswith("web0, web1, web2 and 6 more")
