"""The command as a process of its own: what a shell sees."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import PATIENCE

COMMAND = [sys.executable, "-m", "rapids.cli"]


@pytest.mark.slow
@pytest.mark.smoke
def test_a_closed_pipe_and_ctrl_c_are_quiet(redis_url: str, tmp_path: Path) -> None:
    """A reader that goes away and Ctrl-C end the command without a traceback."""
    arguments = ["--url", redis_url, "--stream", "cli:{processes}"]

    def emit() -> None:
        done = subprocess.run(
            [*COMMAND, "emit", "x.y", "{}", "--yes", *arguments], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr

    emit()
    tail = subprocess.Popen([*COMMAND, "tail", *arguments, "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        assert tail.stdout is not None
        assert tail.stdout.readline().startswith(b'{"stream"')
        tail.stdout.close()
        emit()  # nobody reads this one
        assert tail.stderr is not None
        assert (tail.stderr.read(), tail.wait(PATIENCE)) == (b"", 1)
        tail.stderr.close()
    finally:
        tail.kill()
        tail.wait()

    waiting = subprocess.Popen([*COMMAND, "tail", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        assert waiting.stdout is not None
        assert b"x.y" in waiting.stdout.readline()
        waiting.send_signal(signal.SIGINT)
        _, said = waiting.communicate(timeout=PATIENCE)
        assert (waiting.returncode, said) == (130, b"")
    finally:
        waiting.kill()
        waiting.wait()
