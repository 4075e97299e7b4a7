"""What the tests of the embedded server share: processes that use one, and a temp folder that must end up empty."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import pytest


def is_gone(pid: int) -> bool:
    """Whether the process has ended; one that only waits to be reaped by an idle init has."""
    seen = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return seen.stdout.strip()[:1] in ("", "Z")


@pytest.fixture
def private_temp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A temp folder of the test's own, for its child processes too; when the test is over nothing may be in it."""
    folder = Path(tempfile.mkdtemp(prefix="t-"))
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setenv("TMPDIR", str(folder))
    try:
        yield folder
        deadline = time.monotonic() + 60
        # Unlike `rglob`, `walk` does not mind a folder that somebody removes at that moment.
        while left := sorted(os.path.join(at, name) for at, *names in os.walk(folder) for name in chain(*names)):
            assert time.monotonic() < deadline, f"still there: {left}"
            time.sleep(0.01)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class Script:
    """A Python script in a process of its own that reports by printing JSON lines and ends when its stdin does."""

    def __init__(self, path: Path, source: str, *args: str) -> None:
        path.write_text(textwrap.dedent(source))
        self.process = subprocess.Popen(
            [sys.executable, str(path), *args], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    async def hear(self) -> Any:
        assert self.process.stdout is not None
        line = await asyncio.to_thread(self.process.stdout.readline)
        assert line, "the script ended without a word"
        return json.loads(line)

    def say(self, text: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(text + "\n")
        self.process.stdin.flush()

    def end(self) -> None:
        self.process.communicate(timeout=60)
        assert self.process.returncode == 0

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def run_script(tmp_path: Path) -> Iterator[ScriptRunner]:
    scripts: list[Script] = []

    def start(source: str, *args: str) -> Script:
        scripts.append(Script(tmp_path / f"script_{len(scripts)}.py", source, *args))
        return scripts[-1]

    yield start
    for script in scripts:
        if script.process.returncode is None:
            script.kill()


USER = """
    import asyncio, json, sys
    from rapids.embedded import open_embedded

    async def main():
        async with open_embedded(sys.argv[1]) as server:
            print(json.dumps([server.url, server.pid, server.supervisor_pid]), flush=True)
            await asyncio.to_thread(sys.stdin.read)

    asyncio.run(main())
"""


ScriptRunner = Callable[..., Script]
