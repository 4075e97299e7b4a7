"""Processes of a run: none of them outlives it, however it ends."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from rapids.embedded.supervisor import die_with_parent

ROOT = Path(__file__).parents[2]
NICENESS = 5
RESTART_PAUSE = 0.05
CRASH_PAUSE = 0.5
LAST_WORDS = 500


class Process:
    """A child in a session of its own, so that Ctrl-C reaches only the run, which then ends its children."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.pid = process.pid

    @classmethod
    async def start(
        cls, *command: str, cwd: Path = ROOT, log: Path, environment: Mapping[str, str] | None = None
    ) -> Process:
        creating = asyncio.create_task(_spawn(command, cwd, log, environment or {}))
        try:
            return cls(await asyncio.shield(creating))
        except asyncio.CancelledError:
            await cls(await creating).kill()  # otherwise it would be left running
            raise

    @property
    def ended(self) -> bool:
        return self._process.returncode is not None

    def send(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            self._process.send_signal(number)

    async def wait(self) -> int:
        return await self._process.wait()

    async def kill(self) -> None:
        """Works on a stopped process, too."""
        self.send(signal.SIGKILL)
        await self._process.wait()


async def _spawn(
    command: Sequence[str], cwd: Path, log: Path, environment: Mapping[str, str]
) -> asyncio.subprocess.Process:
    with log.open("ab") as output:
        return await asyncio.create_subprocess_exec(
            *command,
            cwd=cwd,
            env={**os.environ, **environment},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            preexec_fn=_before_exec(),
        )


def _before_exec() -> Callable[[], None]:
    """Linux ends the child with its parent, even if that is killed; and the load leaves the machine to others."""
    dies_with_parent = die_with_parent()

    def before_exec() -> None:
        if dies_with_parent is not None:
            dies_with_parent()
        os.nice(NICENESS)

    return before_exec


@dataclass(frozen=True, slots=True)
class Exit:
    """The end of a process. `wanted` says what ended it: `killed`, `asked to stop`, or empty: the process itself."""

    name: str
    pid: int
    code: int
    at: float
    wanted: str
    said: str = ""
    """Its last output, if it ended by itself."""


class Slot:
    """Keeps one process of a kind running: one that ended is followed by another, until the slot is closed."""

    def __init__(
        self,
        name: str,
        log: Path,
        command: Callable[[int], Sequence[str]],
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.pids: list[int] = []
        """All its processes. Each has a session of its own, which its children are in."""
        self.exits: list[Exit] = []
        self.started = 0
        self._log = log
        self._command = command
        self._environment = environment
        self._closing = False
        self._wanted = ""
        self._process: Process | None = None

    @property
    def process(self) -> Process | None:
        """The process, unless it is between two of them, or it is about to end."""
        alive = self._process is not None and not self._process.ended and not self._wanted
        return self._process if alive else None

    async def run(self) -> None:
        """Keep it running. Cancelled, it kills what runs."""
        try:
            while not self._closing:
                process = await Process.start(
                    sys.executable, "-m", *self._command(self.started), log=self._log, environment=self._environment
                )
                self.pids.append(process.pid)
                self._process, self._wanted = process, "asked to stop" if self._closing else ""
                self.started += 1
                if self._closing:
                    process.send(signal.SIGTERM)
                code = await process.wait()
                crashed = code != 0 and not self._wanted
                said = self._last_words() if crashed else ""
                self.exits.append(Exit(self.name, process.pid, code, time.monotonic(), self._wanted, said))
                await asyncio.sleep(CRASH_PAUSE if crashed else RESTART_PAUSE)
        finally:
            if self._process is not None and not self._process.ended:
                await self._process.kill()

    def kill(self) -> int | None:
        """End the process with SIGKILL: its id, or None if there is none."""
        return self._end("killed", signal.SIGKILL)

    def kill_child(self) -> int | None:
        """End a child of the process with SIGKILL: its id, or None if there is none."""
        if (process := self.process) is None:
            return None
        for pid, parent, _ in processes():
            if parent == process.pid and _is_worker(pid):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                    return pid
        return None

    def ask_to_stop(self) -> int | None:
        """Ask the process to stop: its id, or None if there is none."""
        return self._end("asked to stop", signal.SIGTERM)

    def close(self) -> None:
        """Start no more, and ask the last process to stop."""
        self._closing = True
        self.ask_to_stop()

    def _last_words(self) -> str:
        return self._log.read_bytes()[-LAST_WORDS:].decode(errors="replace").strip()

    def _end(self, wanted: str, number: signal.Signals) -> int | None:
        if (process := self.process) is None:
            return None
        self._wanted = wanted
        process.send(number)
        return process.pid


def processes() -> list[tuple[int, int, int]]:
    """The id, the parent and the session of each process that lives."""
    found: list[tuple[int, int, int]] = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has ended
            state, parent, _, session = path.read_text().rpartition(")")[2].split()[:4]
            if state != "Z":
                found.append((int(path.parent.name), int(parent), int(session)))
    return found


def _is_worker(pid: int) -> bool:
    with suppress(OSError):
        return b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()
    return False
