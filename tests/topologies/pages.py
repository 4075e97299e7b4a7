"""What the pages of docs/ say, for tests that do it."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "running.md"


def console_commands(heading: str) -> list[list[str]]:
    """The commands a reader is asked to type under this heading, each as its words."""
    section = PAGE.read_text().partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    blocks = re.findall(r"```console\n(.*?)```", section, flags=re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [shlex.split(line)[1:] for line in lines if line.lstrip().startswith("$ ")]
