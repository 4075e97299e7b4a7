"""A run of pytest as a user has it: in a folder of its own, with nothing of this project's configuration."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Ran", "run_pytest"]

CONFIGURATION = """[pytest]
asyncio_mode = auto
asyncio_default_fixture_loop_scope = function
pythonpath = .
filterwarnings = error
"""


NOT_LOADED = ("cacheprovider", "hypothesispytest", "schemathesis")
"""Plug-ins that most users do not have either. To import these takes longer than the rest of such a run."""


@dataclass(frozen=True)
class Ran:
    """What pytest said."""

    code: int
    output: str

    @property
    def outcomes(self) -> dict[str, int]:
        """How many tests had which outcome, from the last line."""
        return {word: int(number) for number, word in re.findall(r"(\d+) (\w+)", self.output.splitlines()[-1])}


def run_pytest(folder: Path, files: Mapping[str, str], *options: str, ini: str = CONFIGURATION) -> Ran:
    """Write the files and run pytest on them, in a process of its own."""
    for name, text in {"pytest.ini": ini, **files}.items():
        (folder / name).write_text(text, encoding="utf-8")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "RAPIDS_"))}
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", *(f"-pno:{name}" for name in NOT_LOADED), "-q", *options],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    return Ran(ran.returncode, ran.stdout.strip() + ran.stderr)
