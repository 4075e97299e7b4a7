"""A server of a test's own, which it may kill and start again."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from redis.asyncio import Redis
from redis.exceptions import RedisError

from tests.servers.builds import Build
from tests.support import eventually


class OwnServer:
    """A server on a unix socket that writes every command to its append-only file before it answers."""

    def __init__(self, build: Build, folder: Path) -> None:
        self.folder = folder
        self.build = build
        self._process: asyncio.subprocess.Process | None = None

    @property
    def url(self) -> str:
        return f"unix://{self.folder}/s.sock"

    async def start(self, *options: str) -> None:
        await self.launch(*options)
        await eventually(self._answers)

    async def launch(self, *options: str) -> None:
        """Start it without waiting until it has loaded its data."""
        self._process = await asyncio.create_subprocess_exec(
            *(str(self.build.executable), "--port", "0", "--unixsocket", "s.sock", "--dir", str(self.folder)),
            *("--appendonly", "yes", "--appendfsync", "always", "--save", "", *options),
            cwd=self.folder,
            stdout=asyncio.subprocess.DEVNULL,
        )

    async def kill(self) -> None:
        """End it as a power cut would."""
        if self._process is not None:
            self._process.kill()
            await self._process.wait()
            self._process = None

    def lose_data(self) -> None:
        """While it is down: forget everything it stored."""
        shutil.rmtree(self.folder)
        self.folder.mkdir()

    async def _answers(self) -> bool:
        async with Redis.from_url(self.url) as client:
            try:
                return bool(await client.ping())
            except RedisError:
                return False


@asynccontextmanager
async def own_server(build: Build, *options: str) -> AsyncIterator[OwnServer]:
    folder = Path(tempfile.mkdtemp(prefix="rapids-test-"))
    server = OwnServer(build, folder)
    await server.start(*options)
    try:
        yield server
    finally:
        await server.kill()
        shutil.rmtree(folder)
