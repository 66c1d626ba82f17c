"""The arithmetic: every known answer of Boulder's bucket of ten, one token a second."""

from __future__ import annotations

import pytest

from tests.ca.gcra import SECOND, Rate, refund, spend
from tests.known_answers import REFUND, SPEND, Step


@pytest.mark.parametrize("steps", [SPEND, REFUND], ids=["spend", "refund"])
def test_every_known_answer(steps: list[Step]) -> None:
    """Each step is allowed or denied, and leaves, exactly what Boulder says."""
    rate, now, tat = Rate(SECOND, 10), 1_790_000_000 * SECOND, 0
    for number, (wait, verb, cost, allowed, remaining, retry_in, reset_in) in enumerate(steps):
        now += round(wait * SECOND)
        said = (spend if verb == "spend" else refund)(rate, now, tat, cost)
        tat = said.tat
        step = f"step {number}: {verb} {cost}"
        assert (said.allowed, said.remaining) == (allowed, remaining), step
        assert retry_in is None or said.retry_in == round(retry_in * SECOND), step
        assert reset_in is None or said.reset_in == round(reset_in * SECOND), step


def test_a_missing_key_is_a_full_bucket() -> None:
    """Nothing to give back, everything to spend."""
    rate, now = Rate(SECOND, 10), 1_790_000_000 * SECOND
    assert refund(rate, now, 0, 3)[:2] == (False, 10)
    assert spend(rate, now, 0, 10)[:2] == (True, 0)
