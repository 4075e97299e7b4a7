"""What the pages print: blocks of code with the heading that they stand under."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from tests.house.source import ROOT

__all__ = ["DOCS", "README", "Block", "blocks", "pages"]

DOCS = ROOT / "docs"
README = ROOT / "README.md"


@dataclass(frozen=True, slots=True)
class Block:
    """A block of code of a page."""

    page: Path
    heading: str
    language: str
    line: int
    """The line of its first line of code."""
    text: str

    @property
    def place(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def pages() -> list[Path]:
    """README, and every page of docs/."""
    return [README, *sorted(DOCS.rglob("*.md"))]


def blocks(page: Path, *languages: str) -> list[Block]:
    """The blocks in these languages (without any: Python), in the order of the page."""
    wanted = languages or ("python",)
    found: list[Block] = []
    heading, inside, first, lines = "", "", 0, list[str]()
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), start=1):
        fence = re.match(r"```(\w*)", line)
        if fence and not inside:
            inside, first, lines = fence[1] or "text", number + 1, []
        elif fence:
            if inside in wanted:
                found.append(Block(page, heading, inside, first, "".join(f"{one}\n" for one in lines)))
            inside = ""
        elif inside:
            lines.append(line)
        elif title := re.match(r"#+ (.+)", line):
            heading = title[1]
    return found
