"""What the receiver is asked, in its own words (certfleet/install/receiver)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from certfleet.install.bundle import Item

KEPT = 3  # generations that stay when nothing is said


def install(items: Sequence[Item]) -> list[str]:
    """What is asked besides the archive."""
    adopt = [word for item in items if item.adopt for word in ("--adopt", item.app)]
    again = [word for item in items if item.again for word in ("--again", item.app)]
    keep = [word for item in items if item.keep != KEPT for word in ("--keep", f"{item.app}:{item.keep}")]
    made = [word for item in items if item.made_here for word in ("--made-here", item.app)]
    return [*adopt, *again, *keep, *made]


def rollback(previous: Mapping[str, int]) -> list[str]:
    """Each app with the generation that it is to have again."""
    return [f"{app}:{generation}" for app, generation in previous.items()]


def check(*, reload: bool) -> list[str]:
    """With or without a reload."""
    return ["reload"] if reload else []


def cleanup(keep: int) -> list[str]:
    """How many generations stay."""
    return ["--keep", str(keep)]
