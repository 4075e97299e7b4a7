"""Python that a page prints, run by the tests as a reader would run it: each script in a process of its own.

The processes are forked from one that has imported what most scripts import: to start Python for each takes a second.
"""

from __future__ import annotations

import gc
import json
import os
import runpy
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

import pytest

__all__ = ["RunPrinted", "run_printed"]

RunPrinted: TypeAlias = Callable[..., tuple[int, str]]
"""Takes a script's path, and variables of its environment. Returns its exit code, and what it wrote to stderr."""


@pytest.fixture(scope="session")
def run_printed() -> Iterator[RunPrinted]:
    """Runs a script in its folder. A warning is an error."""
    with subprocess.Popen(
        [sys.executable, "-W", "error", __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        requests, answers = server.stdin, server.stdout

        def run(script: Path, **environment: str) -> tuple[int, str]:
            requests.write(json.dumps([str(script), environment]) + "\n")
            requests.flush()
            code = int(answers.readline())
            return code, script.with_suffix(".err").read_text()

        yield run
    assert server.returncode == 0


# --- in the process -------------------------------------------------------------------------------------------------


def serve() -> None:
    sys.path.pop(0)  # the folder of the tests, in which there is another `fastapi`

    import fastapi.testclient  # noqa: F401
    import redis.asyncio  # noqa: F401
    import sqlalchemy.orm  # noqa: F401

    import rapids_fastapi  # noqa: F401

    gc.freeze()  # no forked process looks through what was imported when it ends
    for line in sys.stdin:
        script, environment = json.loads(line)
        if (child := os.fork()) == 0:
            os.environ.update(environment)
            run_forked(Path(script))
            return
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def run_forked(script: Path) -> None:
    """An error is printed at the end of the process, as it always is."""
    for descriptor, path in ((1, os.devnull), (2, script.with_suffix(".err"))):
        opened = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
        os.dup2(opened, descriptor)
        os.close(opened)
    os.chdir(script.parent)
    sys.path.insert(0, str(script.parent))
    sys.argv = [str(script)]
    runpy.run_path(str(script), run_name="__main__")


if __name__ == "__main__":
    serve()
