"""In which order hosts get a new certificate, what holds them, and what never does."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from certfleet.errors import UsageError
from certfleet.lifecycle.hosts.waves import (
    PATIENCE,
    Rollout,
    ends,
    first_looks,
    hosts_named,
    is_skipped,
    next_look,
    parse_waves,
    rollout,
)
from certfleet.models import Fault, Installation
from certfleet.properties import PROPERTIES

NOW = datetime(2026, 1, 1, tzinfo=UTC)
DEFAULT = PROPERTIES["wave"].default
NEW = 7
"""The generation that goes out; every host has the one before it unless a test says otherwise."""
OLD = Installation("blog", "", wanted=NEW, installed=6, served=6, proven=6)
SERVED = Installation("blog", "", wanted=NEW, installed=NEW, served=NEW, proven=NEW)
DRIFTED = replace(SERVED, served=0, error="shows something else", fault=Fault.UNSERVED)
DOWN = replace(OLD, error="no answer", fault=Fault.DOWN, attempts=1, retry_at=NOW)
REFUSED = replace(OLD, error="no", fault=Fault.REFUSED, attempts=1, retry_at=NOW)
LONG_DOWN = replace(DOWN, attempts=PATIENCE, retry_at=NOW + timedelta(minutes=10))
FRESH = Installation("blog", "", wanted=NEW)


def fleet(*states: Installation, wave: str = DEFAULT) -> Rollout:
    """Hosts a, b, c, … in these states."""
    hosts = [chr(ord("a") + number) if number < 26 else f"z{number}" for number in range(len(states))]
    known = {host: replace(state, host=host) for host, state in zip(hosts, states, strict=True)}
    return rollout(hosts, known, NEW, parse_waves(wave))


@pytest.mark.parametrize(
    ("value", "hosts", "expected"),
    [
        ("1, 25%, 100%", 20, (1, 5, 20)),
        ("1, 25%, 100%", 1, (1,)),
        ("1, 25%, 100%", 2, (1, 2)),
        ("1, 25%, 100%", 50, (1, 13, 50)),
        ("1,25%,100%", 0, ()),
        ("100%", 9, (9,)),
        ("2", 9, (2, 9)),
        ("1%, 50%", 10, (1, 5, 10)),
        ("10, 25%", 20, (5, 10, 20)),
    ],
)
def test_sizes(value: str, hosts: int, expected: tuple[int, ...]) -> None:
    """How many hosts have the certificate at the end of each wave; the last always has all."""
    assert ends(parse_waves(value), hosts) == expected


@pytest.mark.parametrize(
    "value", ["", "0", "0%", "101%", "a", "1;2", "5, 1", "50%, 25%", "1,,2", "-1", "1 %", "25%, 25%"]
)
def test_sizes_that_are_none(value: str) -> None:
    """One sentence that shows what would be right."""
    with pytest.raises(UsageError, match="wave"):
        parse_waves(value)


def test_more_waves_than_anybody_needs() -> None:
    with pytest.raises(UsageError, match="at most 20"):
        parse_waves(", ".join(str(size) for size in range(1, 30)))


def test_one_host_goes_first() -> None:
    """The canary is the first that the app names."""
    found = fleet(*[OLD] * 8)
    assert (found.go, found.held) == (("a",), ("b", "c", "d", "e", "f", "g", "h"))
    assert (found.wave, found.waves, found.proven) == (1, 3, 0)


def test_then_a_quarter_then_all() -> None:
    """A wave ends when as many serve the certificate as it says."""
    assert fleet(SERVED, *[OLD] * 7).go == ("b",)
    assert fleet(SERVED, SERVED, *[OLD] * 6).go == ("c", "d", "e", "f", "g", "h")
    assert fleet(*[SERVED] * 8) == Rollout((), (), (), proven=8, wave=3, waves=3)


@pytest.mark.parametrize("fault", [Fault.REFUSED, Fault.UNSERVED])
def test_a_failure_stops_the_rest(fault: Fault) -> None:
    """Whoever failed is tried again; everybody else keeps the old certificate."""
    found = fleet(SERVED, replace(REFUSED, fault=fault), *[OLD] * 6)
    assert (found.go, found.stopped_by) == (("b",), ("b",))
    assert found.held == ("c", "d", "e", "f", "g", "h")


def test_a_mended_failure_lets_the_rest_go_on() -> None:
    """`certfleet renew` takes the failure from the host: it is its turn again; once it serves, so it is the others'."""
    forgiven = replace(REFUSED, error=None, fault=None, retry_at=None)
    assert fleet(SERVED, forgiven, *[OLD] * 6).go == ("b",)
    assert fleet(SERVED, SERVED, *[OLD] * 6).go == ("c", "d", "e", "f", "g", "h")


def test_a_failure_with_an_older_certificate_stops_nobody() -> None:
    """What failed with generation 6 says nothing about 7."""
    assert fleet(replace(REFUSED, wanted=6), *[OLD] * 7).go == ("a",)


def test_a_host_that_is_down_is_waited_for_once() -> None:
    """Until its second failure; then the next host is the canary, and a certificate is never unproven."""
    assert fleet(DOWN, *[OLD] * 7).go == ("a",)
    assert fleet(LONG_DOWN, *[OLD] * 7).go == ("b",)
    assert fleet(LONG_DOWN, SERVED, *[OLD] * 6).go == ("c",)
    found = fleet(LONG_DOWN, SERVED, SERVED, *[OLD] * 5)
    assert set(found.go) == {"a", "d", "e", "f", "g", "h"}
    assert found.stopped_by == found.held == ()


def test_hosts_that_are_unfit_count_as_down() -> None:
    """A configuration that was broken before we came is no verdict on the certificate."""
    assert fleet(replace(LONG_DOWN, fault=Fault.UNFIT), *[OLD] * 7).go == ("b",)


def test_when_all_are_down_whoever_is_due_first_is_asked() -> None:
    """After the network was away the first host that is back is the canary, not all at once."""
    later = replace(LONG_DOWN, retry_at=NOW + timedelta(hours=20))
    found = fleet(later, LONG_DOWN, later)
    assert found.go == ("b",)


def test_nothing_to_lose_waits_for_nobody() -> None:
    """A new app goes everywhere at once; so does a certificate onto a new host, even while a wave is stopped."""
    assert fleet(*[FRESH] * 5).go == ("a", "b", "c", "d", "e")
    assert fleet(REFUSED, FRESH, OLD).go == ("b", "a")


def test_what_has_shown_it_before_is_put_right_at_once() -> None:
    """Drift is no new certificate: it waits for no wave, and stops none."""
    assert fleet(DRIFTED, DRIFTED, DRIFTED).go == ("a", "b", "c")
    found = fleet(DRIFTED, REFUSED, OLD)
    assert (found.go, found.stopped_by) == (("a", "b"), ("b",))
    assert fleet(DRIFTED, SERVED, OLD, OLD, OLD, OLD, OLD, OLD).stopped_by == ()


class Counted(str):
    """A name that counts how often it is compared."""

    __slots__ = ()
    compared = 0
    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        Counted.compared += 1
        return super().__eq__(other)


def test_thousands_of_hosts() -> None:
    """Each of them asks how far the others are, twice with each visit: none is looked for in a list of all of them."""
    known: dict[str, Installation] = {Counted(f"web{n}"): SERVED if n % 2 else OLD for n in range(2000)}
    Counted.compared = 0
    assert rollout(list(known), known, NEW, parse_waves("1, 75%, 100%")).proven == len(known) // 2
    assert Counted.compared < len(known)


def test_held_hosts_look_once_a_second_all_together() -> None:
    """However many they are; a few look once a minute, and once an hour while a failure holds them."""
    many = fleet(*[OLD] * 5_000)
    first = first_looks(many.held)
    assert tuple(first) == many.held
    assert {b - a for a, b in pairwise(first.values())} == {timedelta(seconds=1)}
    assert next_look(many) == timedelta(seconds=len(many.held))
    assert first_looks(["b", "c"]) == {"b": timedelta(seconds=60), "c": timedelta(seconds=61)}
    assert next_look(fleet(OLD, OLD, OLD)) == timedelta(minutes=1)
    assert next_look(fleet(REFUSED, OLD, OLD)) == timedelta(hours=1)


def test_hosts_in_words() -> None:
    assert hosts_named(["a", "b", "c", "d", "e"]) == "a, b, c and 2 more"
    assert hosts_named(["a"]) == "a"


STATES = st.sampled_from([OLD, SERVED, DRIFTED, DOWN, LONG_DOWN, REFUSED, FRESH, replace(REFUSED, wanted=6)])
WAVES = st.lists(st.integers(1, 30), min_size=1, max_size=4, unique=True).map(
    lambda sizes: ", ".join(str(size) for size in sorted(sizes))
)


@given(st.lists(STATES, min_size=1, max_size=24), WAVES | st.just(DEFAULT))
def test_every_host_is_served_goes_or_is_held(states: list[Installation], wave: str) -> None:
    """Nobody is forgotten, and nobody is in two places."""
    found = fleet(*states, wave=wave)
    served = [s for s in states if s.served == NEW]
    assert len(found.go) + len(found.held) + len(served) == len(states)
    assert len({*found.go, *found.held}) == len(found.go) + len(found.held)
    assert 1 <= found.wave <= found.waves


@given(st.lists(STATES, min_size=1, max_size=24), WAVES | st.just(DEFAULT))
def test_somebody_always_goes(states: list[Installation], wave: str) -> None:
    """While any host has not got it, some host is to be tried (now, or when its next try is due): no dead end."""
    found = fleet(*states, wave=wave)
    assert found.go or all(state.served == NEW for state in states)


@given(st.lists(st.sampled_from(["up", "down", "bad"]), min_size=1, max_size=16), WAVES | st.just(DEFAULT))
def test_a_rollout_ends(kinds: list[str], wave: str) -> None:
    """Played to its end: with nothing bad, every host that is up serves it, and hosts that are down hold nobody.

    Before anything bad has shown, no more hosts were touched than the waves until then say.
    """
    states = [OLD] * len(kinds)
    touched: set[int] = set()
    for _ in range(200):
        found = fleet(*states, wave=wave)
        names = [chr(ord("a") + number) for number in range(len(states))]
        go = [names.index(host) for host in found.go]
        fit = [number for number in go if not is_skipped(states[number], NEW)] or go
        changed = False
        for number in fit:
            touched.add(number)
            after = {
                "up": SERVED,
                "down": replace(DOWN, attempts=min(states[number].attempts + 1, 9)),
                "bad": REFUSED,
            }[kinds[number]]
            changed = changed or after != states[number]
            states[number] = after
        if not changed:
            break
    if "bad" not in kinds:
        assert all(state == SERVED for state, kind in zip(states, kinds, strict=True) if kind == "up")
    bad = [number for number in touched if kinds[number] == "bad"]
    if bad:
        proven = sum(state == SERVED for state in states)
        last = next(end for end in ends(parse_waves(wave), len(kinds)) if end > proven or end == len(kinds))
        touched_up = [number for number in touched if kinds[number] != "down"]
        assert len(touched_up) <= last, "the wave that met it was the last"
