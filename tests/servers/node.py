"""One server process of a fleet, which can be killed, paused and started again with its data."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import redis as redis_sync
from redis.asyncio import Redis
from redis.exceptions import RedisError

from tests.servers.builds import Build
from tests.servers.site import HOST, Site
from tests.support import eventually

T = TypeVar("T")

START_PATIENCE = 30.0
LAST_WORDS = 2_000

KEEPS_ITS_DATA = {"appendonly": "yes", "appendfsync": "no", "auto-aof-rewrite-percentage": "0"}
"""A write is in the file before its answer is sent, and no call waits for the disk: a killed server comes back with all
it confirmed, and only a power cut would lose something."""

KEEPS_NOTHING = {"appendonly": "no"}


class Node:
    """A server on a port, or a sentinel, with a folder and a configuration file of its own.

    `access`: options a client of it needs (its socket, its certificates), where host and port are not enough.
    Methods that wait are coroutines; the others return at once.
    """

    def __init__(
        self,
        site: Site,
        build: Build,
        name: str,
        settings: Mapping[str, str],
        *,
        sentinel: bool = False,
        access: Mapping[str, Any] | None = None,
    ) -> None:
        self.name = name
        self.port = site.free_port()
        self.folder = site.folder / name
        self._site = site
        self._build = build
        self._sentinel = sentinel
        self._access = dict(access or {})
        self._process: subprocess.Popen[bytes] | None = None
        self.folder.mkdir()
        common = {"port": str(self.port), "bind": HOST, "dir": str(self.folder), "protected-mode": "no"}
        self._settings: dict[str, str] = {}
        self.configure(common | ({} if sentinel else {"save": '""'}) | dict(settings))

    def configure(self, settings: Mapping[str, str]) -> None:
        """Set options in the configuration file, which it reads when it starts. What it wrote there itself is gone."""
        self._settings |= settings
        lines = [f"{name} {value}\n" for name, value in self._settings.items()]
        (self.folder / "node.conf").write_text("".join(lines))

    @property
    def address(self) -> str:
        """`host:port`."""
        return f"{HOST}:{self.port}"

    @property
    def url(self) -> str:
        return f"redis://{self.address}"

    @property
    def alive(self) -> bool:
        """Whether the process is there, paused or not."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        assert self._process is not None, f"{self.name} was not started"
        return self._process.pid

    def client(self, **options: Any) -> Redis:
        """A client of this very server, to be closed by the caller."""
        return Redis(**{"host": HOST, "port": self.port} | self._access | options)

    async def ask(self, *command: str | bytes | int) -> Any:
        """The answer to a command, as it came; raises `RedisError`."""
        async with self.client(socket_timeout=5.0, socket_connect_timeout=2.0, protocol=2) as client:
            return await client.execute_command(*command)

    def ask_now(self, *command: str | bytes | int) -> Any:
        """The same for fixtures, which are no coroutines."""
        access = {"host": HOST, "port": self.port} | self._access
        with redis_sync.Redis(**access, socket_timeout=5.0, protocol=2) as client:
            return client.execute_command(*command)

    def flush(self) -> None:
        """Empty it, of scripts and functions too."""
        self.ask_now("FLUSHALL")
        self.ask_now("SCRIPT", "FLUSH")
        if not self._build.version.startswith("6."):
            self.ask_now("FUNCTION", "FLUSH")

    def launch(self) -> None:
        """Start the process, without waiting until it answers."""
        assert not self.alive, f"{self.name} runs already"
        executable = str(self._build.executable)
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [executable, str(self.folder / "node.conf"), *(["--sentinel"] if self._sentinel else [])],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "LC_ALL": "C"},
                process_group=0,  # Ctrl-C is for the tests, which end it in their order
            )
        self._site.started(self._process.pid)

    async def start(self) -> None:
        """Start it, and return once it answers: it has read its data by then."""
        self.launch()
        await self.until_answers()

    async def restart(self) -> None:
        """Kill it if it runs, and start it again with its data."""
        self.kill()
        await self.start()

    async def until_answers(self) -> None:
        await eventually(self._answers, START_PATIENCE, 0.02)

    def kill(self) -> None:
        """End it as `kill -9` does, paused or not; nothing happens if it has ended."""
        if self._process is None:
            return
        with suppress(ProcessLookupError):
            self._process.kill()
        self._process.wait(60)
        self._site.ended(self._process.pid)
        self._process = None

    def pause(self) -> None:
        """Stop it where it stands: connections stay open and nothing answers."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    @property
    def log(self) -> str:
        """The end of what it logged."""
        return self._log.read_text(errors="replace")[-LAST_WORDS:] if self._log.exists() else ""

    @property
    def _log(self) -> Path:
        return self.folder / "node.log"

    async def _answers(self) -> bool:
        if not self.alive:
            raise RuntimeError(f"{self.name} ({self._build.name}) ended; its log ends with:\n{self.log}")
        try:
            return await self.ask("PING") in (True, b"PONG")
        except (RedisError, OSError):
            return False

    def __repr__(self) -> str:
        return f"<Node {self.name} at {self.address}, {'alive' if self.alive else 'down'}>"


def patient(condition: Callable[[], Awaitable[T]]) -> Callable[[], Awaitable[T]]:
    """A condition for `eventually` to which errors of nodes that are just dying or coming up mean "not yet"."""

    async def asked() -> T:
        try:
            return await condition()
        except (RedisError, OSError) as error:
            raise AssertionError(str(error)) from error

    return asked
