"""The arithmetic of one bucket for simulations: what gcra.lua decides with, in whole microseconds.

A bucket is its theoretical arrival time (TAT): when it is full again. `interval` is the time in which one token
comes, `burst` how many tokens the bucket holds.
"""

from __future__ import annotations


def opens(tat: int, interval: int, burst: int, tokens: int) -> int:
    """From when on the bucket holds so many tokens (at most its burst), if nobody takes any."""
    return tat - interval * (burst - tokens)


def spent(tat: int, now: int, interval: int, cost: int) -> int:
    """The TAT after so many tokens were taken now."""
    return max(now, tat) + interval * cost


def left(tat: int, now: int, interval: int, burst: int) -> int:
    """Whole tokens in the bucket now."""
    return max(0, (now + interval * burst - max(now, tat)) // interval)
