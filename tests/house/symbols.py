"""`python -m tests.house.symbols`: every exported symbol has a complete type, as type checkers of users see it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.house.source import PACKAGES, ROOT

__all__ = ["Symbols", "exported_symbols"]


@dataclass(frozen=True)
class Symbols:
    """What pyright says of a package's exported symbols."""

    package: str
    count: int
    complete: float
    """Percent of them."""
    problems: tuple[str, ...]


def exported_symbols(package: str) -> Symbols:
    """Asks pyright, which finds the package by the first Python on the path."""
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)))
    command = [shutil.which("pyright", path=path) or "pyright", "--verifytypes", package]
    ran = subprocess.run(
        [*command, "--ignoreexternal", "--outputjson"],
        env={**os.environ, "PATH": path},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    report = json.loads(ran.stdout)
    found = report["typeCompleteness"]
    count = sum(found["exportedSymbolCounts"].values())
    problems = [
        *described(report["generalDiagnostics"]),
        *(one for symbol in found["symbols"] for one in lacks(symbol)),
    ]
    return Symbols(package, count, 100 * found["completenessScore"], tuple(problems))


def lacks(symbol: dict[str, Any]) -> Iterator[str]:
    """What is wrong with an exported symbol whose type is not complete."""
    if symbol["isExported"] and not symbol["isTypeKnown"]:
        yield from (f"{symbol['name']}: {one}" for one in described(symbol["diagnostics"]) or ["unknown"])


def described(diagnostics: list[dict[str, Any]]) -> list[str]:
    return [one["message"].strip() for one in diagnostics if one["severity"] == "error"]


def main() -> None:
    incomplete = False
    for symbols in map(exported_symbols, PACKAGES):
        print(f"{symbols.package}: {symbols.count:,} exported symbols, {symbols.complete:.1f} % complete")
        print("".join(f"  {problem}\n" for problem in symbols.problems), end="")
        incomplete = incomplete or not symbols.count or symbols.complete < 100
    sys.exit(incomplete)


if __name__ == "__main__":
    main()
