"""A server of a test's own, which it may kill and start again."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from redis.asyncio import Redis
from redis.exceptions import RedisError

from tests.servers.builds import FAKETIME, FOLDER, Build, MissingBuildError
from tests.support import eventually


class OwnServer:
    """A server on a unix socket that writes every command to its append-only file before it answers."""

    def __init__(self, build: Build, folder: Path) -> None:
        self.folder = folder
        self.build = build
        self._process: asyncio.subprocess.Process | None = None
        self._environment: dict[str, str] = {}

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
            env=os.environ | self._environment,
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

    def use_clock(self) -> None:
        """While it is down: let `set_clock` work. Raises `MissingBuildError`."""
        if not FAKETIME.exists():
            raise MissingBuildError(f"{FAKETIME.name} is not there: `make servers` unpacks it into {FOLDER.name}/")
        self.set_clock(0)
        self._environment = {
            "LD_PRELOAD": str(FAKETIME),
            "FAKETIME_TIMESTAMP_FILE": str(self._clock),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def set_clock(self, seconds: float) -> None:
        """Set its clock so many seconds after this machine's, or before it."""
        written = self._clock.with_suffix(".new")
        written.write_text(f"{seconds:+}\n")
        written.rename(self._clock)

    @property
    def _clock(self) -> Path:
        return self.folder.with_suffix(".clock")

    async def _answers(self) -> bool:
        async with Redis.from_url(self.url) as client:
            try:
                return bool(await client.ping())
            except RedisError:
                return False


@asynccontextmanager
async def own_server(build: Build, *options: str, has_clock: bool = False) -> AsyncIterator[OwnServer]:
    """`has_clock`: whether its clock can be set."""
    with tempfile.TemporaryDirectory(prefix="rapids-test-") as parent:
        folder = Path(parent, "server")
        folder.mkdir()
        server = OwnServer(build, folder)
        if has_clock:
            server.use_clock()
        await server.start(*options)
        try:
            yield server
        finally:
            await server.kill()
