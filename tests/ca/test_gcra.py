"""The arithmetic: every known answer of Boulder's bucket of ten, one token a second."""

from __future__ import annotations

import pytest

from tests.ca.gcra import SECOND, Rate, refund, spend

# seconds to wait, verb, cost -> allowed, remaining, retry in, reset in (seconds; None: not told)
Step = tuple[float, str, int, bool, int, float | None, float | None]

SPEND: list[Step] = [
    (0, "spend", 1, True, 9, 0, 1),
    (0, "spend", 9, True, 0, 9, 10),
    (0, "spend", 1, False, 0, 1, 10),
    (1, "spend", 0, True, 1, 0, 9),
    (0, "spend", 1, True, 0, 1, 10),
    (10, "spend", 1, True, 9, 0, 1),
    (0.999, "spend", 0, True, 9, 0, 0.001),
    (72_000, "spend", 0, True, 10, 0, 0),
    (0, "spend", 10, True, 0, 10, 10),
    (0, "spend", 0, True, 0, 0, 10),
    (0, "spend", 1, False, 0, 1, 10),
    (1, "spend", 1, True, 0, 1, 10),
    (5, "spend", 7, False, 5, 2, 5),
]
REFUND: list[Step] = [
    (0, "spend", 1, True, 9, 0, 1),
    (0, "refund", 1, True, 10, 0, 0),
    (0, "refund", 0, False, 10, 0, 0),
    (0, "spend", 1, True, 9, 0, 1),
    (1, "refund", 1, False, 10, 0, 0),
    (0, "spend", 10, True, 0, 10, 10),
    (0, "refund", 10, True, 10, 0, 0),
    (11, "refund", 1, False, 10, 0, 0),
    (0, "spend", 5, True, 5, None, None),
    (0, "refund", 1, True, 6, None, None),
    (2.5, "spend", 0, True, 8, 0, 1.5),
    (0, "refund", 2, True, 10, 0, 0),
]


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
