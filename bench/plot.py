"""Renewals over time as a small SVG that reads on light and on dark pages: plain text, no library."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from xml.sax.saxutils import escape

WIDTH, HEIGHT = 860, 340
LEFT, RIGHT, TOP, BOTTOM = 50, 850, 40, 305  # of the field
DAY = 24  # hours
MONTHS = 3  # between two dates below
LINES = 5  # across, at most
STYLE = """
  text { font: 12px sans-serif; fill: #57606a }
  .grid { stroke: #8c959f; stroke-opacity: .3 }
  .mark { stroke: #8c959f; stroke-dasharray: 2 3 }
  path { fill: none; stroke-width: 1.5 }
  .line0 { stroke: #0969da } .line1 { stroke: #cf222e; stroke-opacity: .55 }
  .need { stroke: #1a7f37; stroke-dasharray: 5 3 }
  text.line0 { fill: #0969da; stroke: none } text.line1 { fill: #cf222e; stroke: none }
  text.need { fill: #1a7f37; stroke: none }
  @media (prefers-color-scheme: dark) {
    text { fill: #9198a1 }
    .line0 { stroke: #58a6ff } .line1 { stroke: #ff7b72 } .need { stroke: #3fb950 }
    text.line0 { fill: #58a6ff } text.line1 { fill: #ff7b72 } text.need { fill: #3fb950 }
  }
"""


def plot(
    start: datetime,
    lines: Sequence[tuple[str, Sequence[float]]],
    need: Sequence[float],
    marks: Sequence[tuple[datetime, str]],
) -> str:
    """The SVG: two named lines of renewals in each hour from `start`, and what is needed; drawn as means of days.

    `marks`: what happened when, in a word or two.
    """
    drawn = [(f"line{number}", name, _days(hours)) for number, (name, hours) in enumerate(lines)]
    drawn.append(("need", "needed", _days(need)))
    step = _step(max(max(days) for _, _, days in drawn))
    top = step * LINES
    count = len(drawn[0][2])

    def x(day: float) -> float:
        return LEFT + (RIGHT - LEFT) * day / (count - 1)

    def y(value: float) -> float:
        return BOTTOM - (BOTTOM - TOP) * value / top

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-labelledby="title">',
        '<title id="title">Renewals an hour, mean of each day</title>',
        f"<style>{STYLE}</style>",
        f'<text x="{LEFT}" y="14">renewals an hour, mean of each day</text>',
    ]
    for number in range(LINES + 1):
        value = number * step
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{RIGHT}" y1="{y(value):.1f}" y2="{y(value):.1f}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y(value) + 4:.1f}" text-anchor="end">{value:g}</text>')
    for day, name in _dates(start, count):
        parts.append(f'<line class="grid" x1="{x(day):.1f}" x2="{x(day):.1f}" y1="{TOP}" y2="{BOTTOM}"/>')
        parts.append(f'<text x="{x(day):.1f}" y="{BOTTOM + 18}" text-anchor="middle">{name}</text>')
    for moment, name in marks:
        at = x((moment - start) / timedelta(days=1))
        parts.append(f'<line class="mark" x1="{at:.1f}" x2="{at:.1f}" y1="{TOP}" y2="{BOTTOM}"/>')
        parts.append(f'<text x="{at + 4:.1f}" y="{TOP + 12}">{escape(name)}</text>')
    for number, (kind, name, days) in reversed(list(enumerate(drawn))):
        points = " ".join(f"{x(day):.1f},{y(value):.1f}" for day, value in enumerate(days))
        parts.append(f'<path class="{kind}" d="M{points}"/>')
        parts.append(f'<text class="{kind}" x="{LEFT + 250 + 150 * number}" y="14">{escape(name)}</text>')
    return "\n".join([*parts, "</svg>", ""])


def _days(hours: Sequence[float]) -> list[float]:
    """Renewals an hour, as the mean of each whole day."""
    return [sum(hours[at : at + DAY]) / DAY for at in range(0, len(hours) - DAY + 1, DAY)]


def _step(most: float) -> float:
    """Between two lines across: a round number, so that LINES of them hold the highest point."""
    steps = (step * 10.0**size for size in range(-3, 9) for step in (1, 2, 2.5, 5))
    return next(step for step in steps if step * LINES >= most)


def _dates(start: datetime, days: int) -> list[tuple[float, str]]:
    """The first of every third month, as days since `start`."""
    found = []
    for day in range(1, days):
        date = start.replace(hour=0) + timedelta(days=day)
        if date.day == 1 and (date.month - 1) % MONTHS == 0:
            found.append(((date - start) / timedelta(days=1), f"{date:%Y-%m}"))
    return found
