"""The run's own server, which it may kill and start again: what it has confirmed is on disk before it says so."""

from __future__ import annotations

import asyncio
from pathlib import Path

from redis.asyncio import Redis
from redis.exceptions import RedisError

from rapids.embedded.server import find_server_binary
from tests.chaos.processes import Process

START_PATIENCE = 60.0


class Server:
    """A Valkey on a unix socket in the folder, with an append-only file that is synced at each write."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: Process | None = None
        self.url = f"unix://{folder}/s.sock"

    async def start(self) -> None:
        """Start it, and return once it answers: it has read its file by then."""
        self._process = await Process.start(
            *(str(find_server_binary()), "--port", "0", "--unixsocket", "s.sock", "--unixsocketperm", "700"),
            *("--dir", str(self._folder), "--appendonly", "yes", "--appendfsync", "always", "--save", ""),
            cwd=self._folder,
            log=self._folder / "server.log",
        )
        async with asyncio.timeout(START_PATIENCE):
            while not await self._answers():
                await asyncio.sleep(0.02)

    async def kill(self) -> None:
        """End it as `kill -9` does."""
        if self._process is not None:
            await self._process.kill()

    async def close(self) -> None:
        await self.kill()

    async def _answers(self) -> bool:
        async with Redis.from_url(self.url) as client:
            try:
                return bool(await client.ping())
            except RedisError:
                return False
