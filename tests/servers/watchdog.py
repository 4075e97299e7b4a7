"""The process that kills servers and removes their folder once their owner is gone, however it ended.

The owner holds the other end of this one's stdin and writes a line for each server, `+pid` when it starts and `-pid`
when it was reaped. Run by its path, with the standard library only, so that a start is quick.
"""

from __future__ import annotations

import contextlib
import glob
import os
import shutil
import signal
import sys
import time


def main(folder: str) -> None:
    """Wait until the other end of stdin is closed, then end what is left."""
    for ignored in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(ignored, signal.SIG_IGN)
    running: set[int] = set()
    for line in sys.stdin.buffer:
        (running.add if line[:1] == b"+" else running.discard)(int(line[1:]))
    deadline = time.monotonic() + 5
    while (os.path.exists(folder) or running) and time.monotonic() < deadline:
        for pid in running | started_inside(folder):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        running.clear()
        shutil.rmtree(folder, ignore_errors=True)  # a dying server may still write into it
        time.sleep(0.01)


def started_inside(folder: str) -> set[int]:
    """Processes that work in the folder, where the system shows that: one may not have been reported in time."""
    found: set[int] = set()
    for link in glob.glob("/proc/[0-9]*/cwd"):
        with contextlib.suppress(OSError):  # it ended, or is another user's
            if os.readlink(link).startswith(f"{folder}/"):
                found.add(int(link.split("/")[2]))
    return found


if __name__ == "__main__":
    main(sys.argv[1])
