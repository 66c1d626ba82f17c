"""The documentation as data: pages, their tables, links, code."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).parents[2]
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Page:
    """One Markdown file."""

    path: Path

    def __str__(self) -> str:
        return str(self.path.relative_to(ROOT))

    @cached_property
    def text(self) -> str:
        """The whole."""
        return self.path.read_text()

    @cached_property
    def prose(self) -> str:
        """What is not in fenced blocks."""
        return _FENCE.sub("", self.text)

    @cached_property
    def blocks(self) -> list[tuple[str, str]]:
        """Fenced blocks: language, content."""
        return _FENCE.findall(self.text)

    @cached_property
    def inline(self) -> list[str]:
        """Inline code, on one line each."""
        return [" ".join(found.split()) for found in re.findall(r"`([^`]+)`", self.prose)]

    @cached_property
    def links(self) -> list[str]:
        """Where its links lead."""
        return re.findall(r"\]\(([^)\s]+)\)", self.prose)

    @cached_property
    def anchors(self) -> set[str]:
        """What a link can name in it: headings as GitHub spells them."""
        headings = re.findall(r"^#+ (.+)$", self.prose, re.MULTILINE)
        return {re.sub(r"[^a-z0-9 _-]", "", heading.lower()).replace(" ", "-") for heading in headings}

    def table(self, heading: str) -> list[list[str]]:
        """The rows of the first table after a heading, or after a paragraph that begins so; cells without backticks."""
        _, found, after = self.text.partition(f"\n{heading}")
        assert found, f"{self} has no {heading!r}"
        lines = after[after.index("\n|") + 1 :].splitlines()
        rows = []
        for line in lines[2:]:
            if not line.startswith("|"):
                break
            rows.append([cell.strip().replace("`", "") for cell in line.strip("|").split("|")])
        return rows


def page(name: str) -> Page:
    """One page by its path in the checkout."""
    return Page(ROOT / name)


PAGES = [Page(path) for path in sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("deploy/**/*.md")])]
