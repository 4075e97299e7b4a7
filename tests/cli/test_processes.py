"""The command as a process of its own: what a shell sees."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import PATIENCE, interruptible

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

    with interruptible():  # also if this run is a background job of a shell
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


@pytest.mark.slow
def test_streams_that_the_caller_has_closed_are_no_error(redis_url: str) -> None:
    """Nothing is written to a connection that would get the number of a closed stream."""
    script = '"$@" emit x.y "{}" --yes >&- 2>&- && "$@" streams --json && "$@" emit x.y "{}" 0<&-'
    arguments = ["bash", "-c", script, "bash", *COMMAND]
    done = subprocess.run(
        arguments, env={**os.environ, "RAPIDS_REDIS_URL": redis_url}, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr.count("\n")) == (2, 2), "there is no input: nobody can be asked"
    assert "give --yes" in done.stderr
    assert [json.loads(line)["stream"] for line in done.stdout.splitlines()] == ["events:all"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("rapids d", {"dlq", "doctor"}),
        ("rapids dlq list -s events:all --fi", {"--fingerprint"}),
        ("rapids dlq replay --scope ", {"handler", "group", "everyone"}),
    ],
)
def test_shells_complete_commands_options_and_their_values(typed: str, completed: set[str]) -> None:
    """As the scripts of `--show-completion` ask, and without Redis."""
    asked = {"COMP_WORDS": typed, "COMP_CWORD": str(typed.count(" ")), "_TYPER_COMPLETE_ARGS": typed}
    for shell in ("bash", "zsh"):
        done = subprocess.run(
            [sys.executable, "-c", "import sys; from rapids.cli import main; sys.argv = ['rapids']; main()"],
            env={**os.environ, **asked, "_RAPIDS_COMPLETE": f"complete_{shell}"},
            capture_output=True,
            text=True,
            check=False,
        )
        of_zsh = re.findall(r'^[^"\n]*"([^"]+)"', done.stdout, re.M)  # each with its description
        assert set(of_zsh if shell == "zsh" else done.stdout.split()) == completed, done
