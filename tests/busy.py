"""`make test-busy`: run a command three times while four loops occupy the machine's cores.

python -m tests.busy python -m pytest
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

LOOPS = 4
TIMES = 3
LOOP = f"import os\nwhile os.getppid() == {os.getpid()}: pass"
"""Ends with the process that started it, even if that was killed."""


def main(command: Sequence[str]) -> int:
    """The exit code of the first run that fails, or 0."""
    with busy():
        for number in range(1, TIMES + 1):
            print(f"--- run {number} of {TIMES}, with {LOOPS} busy loops", flush=True)
            if code := subprocess.run(command, check=False).returncode:
                return code
    return 0


@contextmanager
def busy() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Processes that compute for as long as the block runs."""
    loops = [subprocess.Popen([sys.executable, "-I", "-S", "-c", LOOP]) for _ in range(LOOPS)]
    try:
        yield loops
    finally:
        for loop in loops:
            loop.kill()
        for loop in loops:
            loop.wait()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
