"""The tree in docs/architecture.md: every module with the first line of its docstring.

`python -m tests.house.tree` writes it.
"""

from __future__ import annotations

import ast
from pathlib import Path

__all__ = ["PAGE", "tree", "with_tree"]

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "architecture.md"
PACKAGES = ("rapids", "rapids_fastapi")
SUFFIXES = (".py", ".lua")
BEGIN, END = "<!-- tree:", "<!-- end of tree -->"


def first_line(path: Path) -> str:
    """What a module or script says of itself, up to the first full stop that ends a sentence."""
    text = path.read_text()
    if path.suffix == ".lua":
        said = [line.removeprefix("--").strip() for line in text.splitlines() if line.startswith("--")]
        line = next((line for line in said if line and not line.startswith("include")), "")
    else:
        line = (ast.get_docstring(ast.parse(text)) or "").split("\n\n")[0].replace("\n", " ")
    return line.split(". ")[0].rstrip(".")


def tree() -> str:
    """A table for each folder."""
    tables: list[str] = []
    for package in PACKAGES:
        folders = sorted({path.parent for suffix in SUFFIXES for path in (ROOT / package).rglob(f"*{suffix}")})
        for folder in folders:
            name = folder.relative_to(ROOT).as_posix()
            about = first_line(folder / "__init__.py") if (folder / "__init__.py").exists() else ""
            files = sorted(path for path in folder.iterdir() if path.suffix in SUFFIXES and path.name != "__init__.py")
            rows = [f"| `{path.name.removesuffix('.py')}` | {first_line(path)} |" for path in files]
            if rows:
                heading = [f"### `{name}/`", "", *([f"{about}.", ""] if about else [])]
                tables.append("\n".join([*heading, "| module | |", "|---|---|", *rows]))
    return "\n\n".join(tables)


def with_tree(page: str) -> str:
    """The page with the tree of today."""
    before, _, rest = page.partition(BEGIN)
    comment, _, rest = rest.partition("\n")
    after = rest.partition(END)[2]
    return f"{before}{BEGIN}{comment}\n\n{tree()}\n\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(with_tree(PAGE.read_text()))
