"""What a person sees of the demo: a live table in a terminal, plain lines without one. All on standard error."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.text import Text

from certfleet.cli.output import overview_table
from certfleet.overview import Overview

ROWS = 24  # more apps than this are shown as bars alone
STAGES = ("ordered", "issued", "installed", "served", "renewed")


class Show:
    """Counts per stage, and the table of apps while there is room for it."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._console = Console(stderr=True, highlight=False)
        self._began = time.monotonic()
        self._last: dict[str, int] = {}
        self._live: Live | None = None
        self._bars = Progress(
            TextColumn("{task.description:<10}"), BarColumn(bar_width=40), MofNCompleteColumn(), console=self._console
        )
        self._tasks: dict[str, TaskID] = {name: self._bars.add_task(name, total=total) for name in STAGES}

    @contextmanager
    def live(self) -> Iterator[None]:
        """Show the table while the body runs, in a terminal."""
        if not self._console.is_terminal:
            yield
            return
        with Live(console=self._console, refresh_per_second=8, transient=True) as self._live:
            yield
        self._live = None

    def say(self, line: str) -> None:
        """One line, with the seconds since the start."""
        text = f"{time.monotonic() - self._began:6.1f} s  {line}"
        if self._console.is_terminal:
            self._console.print(Text(text))
        else:
            print(text, file=sys.stderr, flush=True)

    def update(self, counts: dict[str, int], views: Sequence[Overview]) -> None:
        """Show how far everything is."""
        if self._live is not None:
            for name, task in self._tasks.items():
                self._bars.update(task, completed=counts.get(name, 0))
            parts = [self._bars]
            self._live.update(Group(*parts, overview_table(views)) if len(views) <= ROWS else Group(*parts))
        elif counts != self._last:
            states = Counter(str(view.state) for view in views)
            told = ", ".join(f"{name} {counts.get(name, 0)}" for name in STAGES)
            self.say(f"{told} of {self._total} ({', '.join(f'{n} {s}' for s, n in states.items())})")
        self._last = dict(counts)
