"""The simulated arithmetic is the reference's."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from certfleet.limits.gcra import left, opens, spent
from tests.limits.reference import ReferenceBucket

steps = st.lists(st.tuples(st.integers(0, 50), st.integers(0, 4)), max_size=30)


@given(interval=st.integers(1, 20), burst=st.integers(4, 9), steps=steps)
def test_a_bucket_behaves_as_the_reference(interval: int, burst: int, steps: list[tuple[int, int]]) -> None:
    """Whether a cost is allowed, when it would be, and what is left then."""
    reference, tat, now = ReferenceBucket(interval, burst), 0, 1000
    for wait, cost in steps:
        now += wait
        said = reference.spend(now, cost)
        at = opens(tat, interval, burst, cost)
        assert (at <= now) == said.allowed
        if said.allowed:
            tat = spent(tat, now, interval, cost)
        else:
            assert at - now == said.retry_in
        assert left(tat, now, interval, burst) == said.remaining


def test_known_answers() -> None:
    """Burst 10, one token a second (facts/letsencrypt.md §2): empty, one second later one, full after ten."""
    second, start = 1_000_000, 1_800_000_000_000_000
    tat = spent(0, start, second, 10)
    assert left(tat, start, second, 10) == 0
    assert opens(tat, second, 10, 1) == start + second
    assert left(tat, start + second, second, 10) == 1
    assert left(tat, start + 72_000 * second, second, 10) == 10
