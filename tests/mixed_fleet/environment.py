"""The environment that has rapids-streams 0.3.0, which needs Python 3.12: `python -m tests.mixed_fleet.environment`."""

from __future__ import annotations

import asyncio
import shutil
import sys
from pathlib import Path

from benchmarks.environments import find_python
from benchmarks.processes import Failed, output_of

ROOT = Path(__file__).parents[2]
HOME = ROOT / ".servers" / "rapids-streams-0.3.0"
PYTHON = HOME / "bin" / "python"
REQUIREMENTS = ("rapids-streams==0.3.0", "redis[hiredis]")

_built = HOME / ".built"


async def prepare() -> None:
    """Make it, unless it is there. Raises `Failed`, which says what is missing."""
    wanted = "\n".join(REQUIREMENTS)
    if _built.exists() and _built.read_text() == wanted:
        return
    python = await find_python(None)
    if not python.runs_the_peer:
        raise Failed(f"rapids-streams 0.3.0 needs Python 3.12 or newer, and none was found: this is {python}")
    print(f"building {HOME.relative_to(ROOT)} with Python {python}", flush=True)
    await asyncio.to_thread(shutil.rmtree, HOME, ignore_errors=True)
    await output_of(python.path, "-m", "venv", str(HOME), cwd=ROOT)
    pip = (str(PYTHON), "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    await output_of(*pip, *REQUIREMENTS, cwd=HOME, timeout=600)
    _built.write_text(wanted)


if __name__ == "__main__":
    try:
        asyncio.run(prepare())
    except Failed as error:
        sys.exit(str(error))
