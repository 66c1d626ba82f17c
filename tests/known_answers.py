"""Boulder's own answers (its package ratelimits) for one bucket of ten tokens, one a second."""

from __future__ import annotations

# seconds to wait, verb, cost -> allowed, remaining, retry in, reset in (seconds)
Step = tuple[float, str, int, bool, int, float, float]

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
    (0, "spend", 5, True, 5, 0, 5),
    (0, "refund", 1, True, 6, 0, 4),
    (2.5, "spend", 0, True, 8, 0, 1.5),
    (0, "refund", 2, True, 10, 0, 0),
]
