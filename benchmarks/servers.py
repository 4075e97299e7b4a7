"""The private server of a run: the embedded one, or another that was named."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from redis.asyncio import Redis
from redis.exceptions import RedisError

from benchmarks.processes import Failed
from rapids.embedded import EmbeddedServer

START_TIMEOUT = 10.0
"""Seconds another server may take to answer."""


@dataclass(frozen=True, slots=True)
class Served:
    """A server that runs: its address and process."""

    url: str
    pid: int


@asynccontextmanager
async def private_server(executable: Path | None) -> AsyncGenerator[Served]:
    """A server for as long as the block, by default the embedded one; nothing of it is kept."""
    if executable is None:
        async with EmbeddedServer() as server:
            yield Served(server.url, server.pid)
        return
    with tempfile.TemporaryDirectory(prefix="rapids-bench-") as folder:
        socket = Path(folder) / "s.sock"
        options = ("--port", "0", "--unixsocket", str(socket), "--save", "", "--dir", folder)
        process = await asyncio.create_subprocess_exec(executable, *options, stdout=asyncio.subprocess.DEVNULL)
        try:
            url = f"unix://{socket}"
            await _answers(url, executable)
            yield Served(url, process.pid)
        finally:
            process.terminate()
            await process.wait()


async def _answers(url: str, executable: Path) -> None:
    async with Redis.from_url(url) as redis:
        for _ in range(round(START_TIMEOUT / 0.05)):
            try:
                await redis.ping()
                return
            except (RedisError, OSError):
                await asyncio.sleep(0.05)
    raise Failed(f"{executable} does not answer within {START_TIMEOUT:g} s")
