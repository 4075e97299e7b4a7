"""Processes of a run: none of them outlives it, however it ends."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from rapids.embedded.supervisor import die_with_parent

LAST_WORDS = 2_000


class Failed(Exception):
    """A process did not end well; the message is the end of what it said."""


async def output_of(
    *command: str, cwd: Path, cpu: int | None = None, timeout: float = 600.0, environment: Mapping[str, str] = {}
) -> str:
    """What the command prints. Raises `Failed` if it fails, or takes more than `timeout` seconds."""
    async with running(*command, cwd=cwd, cpu=cpu, environment=environment) as process:
        try:
            async with asyncio.timeout(timeout):
                said, complained = await process.communicate()
        except TimeoutError:
            raise Failed(f"took more than {timeout:g} s") from None
    if process.returncode != 0:
        raise Failed(_last_words(complained or said))
    return said.decode()


@dataclass(frozen=True, slots=True)
class Processors:
    """Where processes are kept: what is measured has one for itself. None: wherever the system puts them."""

    measured: int | None
    others: int | None


@asynccontextmanager
async def running(
    *command: str, cwd: Path, cpu: int | None = None, environment: Mapping[str, str] = {}
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process in a session of its own, so that Ctrl-C reaches only the run; it is killed at the end of the block."""
    starting = asyncio.create_task(_start(command, cwd, cpu, environment))
    try:
        process = await asyncio.shield(starting)
    except asyncio.CancelledError:
        await _kill(await starting)  # otherwise it would be left running
        raise
    try:
        yield process
    finally:
        await _kill(process)


async def end_and_hear(process: asyncio.subprocess.Process) -> str:
    """End a process that others depended on: what it complained of."""
    await _kill(process)
    return _last_words(await process.stderr.read() if process.stderr else b"")


async def _start(
    command: Sequence[str], cwd: Path, cpu: int | None, environment: Mapping[str, str]
) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *command,
        cwd=cwd,
        env={**_clean_environment(), **environment},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
        preexec_fn=_before_exec(cpu),
        limit=2**24,
    )


async def _kill(process: asyncio.subprocess.Process) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()


def _clean_environment() -> dict[str, str]:
    """Without what would make a contender import something else than what its environment has."""
    foreign = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "RAPIDS_REDIS_URL", "RAPIDS_ADMIN_TOKEN")
    return {name: value for name, value in os.environ.items() if name not in foreign}


def _before_exec(cpu: int | None) -> Callable[[], None]:
    """Linux ends the child with its parent, even if that is killed, and keeps it on the processor it is to be on."""
    dies_with_parent = die_with_parent()

    def before_exec() -> None:
        if dies_with_parent is not None:
            dies_with_parent()
        pin(0, cpu)

    return before_exec


def pin(pid: int, cpu: int | None) -> None:
    """Keep a process on one processor, where the system can; 0 is this process."""
    if cpu is not None and sys.platform == "linux":
        os.sched_setaffinity(pid, {cpu})


def _last_words(said: bytes) -> str:
    return said[-LAST_WORDS:].decode(errors="replace").strip() or "it said nothing"
