"""Locks that record which processes use an embedded server. The kernel releases them when a process ends.

All functions block. Each user of a server holds a shared lock on its folder, whose name identifies the server. The
process that gets the exclusive lock removes the folder: the last user; if users were killed, the supervisor; if that
was killed too, the next start. Supervisor and server lock the data directory: a process with that lock starts a server.
"""

import contextlib
import json
import os
import stat
import subprocess
import sys
import tempfile
import threading
import time
from multiprocessing import parent_process
from pathlib import Path
from typing import IO

from rapids.embedded import supervisor
from rapids.embedded.supervisor import PROCESS_IDS, ask, is_at, remove, try_lock
from rapids.exceptions import RapidsError


class EmbeddedServerError(RapidsError):
    """The embedded server could not be found, started or reached. The message says why and what to do."""


class EmbeddedServerMissingError(EmbeddedServerError):
    """The wheel with the server is not installed, or has no server for this platform. The message says what to do."""


def name_and_parent(directory: Path | None, *, shared_by_workers: bool) -> tuple[str, int | None]:
    """The name of a server's folder, equal for all processes that share the server, and the parent of these workers."""
    if directory is not None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        seen = directory.stat()
        return f"data-{seen.st_dev:x}-{seen.st_ino:x}", None
    process = parent_process()
    is_forked = process is None and "gunicorn.arbiter" in sys.modules  # it forks its workers without multiprocessing
    parent = process.pid if process is not None else os.getppid() if is_forked else None
    if parent is None or not shared_by_workers:
        return f"own-{os.urandom(8).hex()}", None
    with contextlib.suppress(OSError):  # two containers that share a temporary folder may have equal process ids
        started = Path(f"/proc/{parent}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()[19]
        return f"workers-{parent}-{started}", parent
    return f"workers-{parent}", parent


def runtime_folder() -> Path:
    """The user's own folder for embedded servers, created if missing and refused if others can use it."""
    folder = Path(tempfile.gettempdir(), f"rapids-{os.getuid()}")
    if len(os.fsencode(folder)) > 60:  # with the other 42 bytes, it fits in the 103 bytes of a socket's path on macOS
        folder = Path("/tmp", folder.name)  # noqa: S108 - checked below
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    seen = folder.lstat()
    if not stat.S_ISDIR(seen.st_mode) or seen.st_uid != os.getuid() or seen.st_mode & 0o077:
        advice = "It must be yours, with permissions 0700. Remove it, or set TMPDIR to a folder of your own"
        raise EmbeddedServerError(f"{folder} is not a folder that only you can use. {advice}")
    return folder


def take_lock(folder: Path, *, shared: bool = False) -> int | None:
    """Lock a folder, created if missing, and return its descriptor. None if it is in use or was just removed."""
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except (FileNotFoundError, FileExistsError):
        return None
    if try_lock(descriptor, shared=shared) and is_at(folder, descriptor):
        return descriptor
    os.close(descriptor)
    return None


class Use:
    """One use of a server, from `acquire` to `release`. The server runs as long as a use has a lock on its folder."""

    def __init__(self, directory: Path | None, *, shared_by_workers: bool) -> None:
        self.folder: Path = Path()
        self.pid: int = 0
        self.supervisor_pid: int = 0
        self._directory = None if directory is None else directory.absolute()
        self._shared_by_workers = shared_by_workers
        self._lock: int | None = None
        self._supervisor: subprocess.Popen[bytes] | None = None

    def acquire(self, binary: Path, start_timeout: float) -> None:
        """Start or join the server and wait until it answers. Raises `EmbeddedServerError` if that fails."""
        # A forked process is no user unless it becomes one, so it must not keep the server running.
        os.register_at_fork(after_in_child=self._forget)
        deadline = time.monotonic() + start_timeout
        with tempfile.TemporaryFile() as log:
            try:
                name, parent = name_and_parent(self._directory, shared_by_workers=self._shared_by_workers)
                while not self._attempt(name, parent, binary, log):
                    if time.monotonic() > deadline:
                        hint = "" if self.pid else ", or the directory is in use with another TMPDIR or by another user"
                        raise EmbeddedServerError(f"it did not answer within {start_timeout:g} s{hint}")
                    time.sleep(0.005)
            except BaseException as error:
                self.release()
                if not isinstance(error, OSError | EmbeddedServerError):
                    raise
                said = os.pread(log.fileno(), 1_000_000, 0)[-4_000:].decode("utf-8", "replace").strip() or "(nothing)"
                raise EmbeddedServerError(f"The embedded server could not be started: {error}; log:\n{said}") from error

    def release(self) -> None:
        """End the use. If nobody else uses the server, it has ended and its folder is gone when this returns."""
        lock, self._lock = self._lock, None
        if lock is None:
            return
        while is_at(self.folder, lock):
            if try_lock(lock):
                remove(self.folder)
            elif try_lock(lock, shared=True):
                break  # others use it
            else:
                time.sleep(0.005)  # its supervisor is removing it
        ended = not is_at(self.folder, lock)
        os.close(lock)
        if self._supervisor is not None:
            reaper = threading.Thread(target=self._supervisor.wait, name="rapids-embedded-reaper", daemon=True)
            reaper.start()
            reaper.join(15.0 if ended else 0)  # longer than it waits for a server that hangs

    def _attempt(self, name: str, parent: int | None, binary: Path, log: IO[bytes]) -> bool:
        """Join the server, or start it first. Returns whether it answers."""
        if self._supervisor is not None:
            if (code := self._supervisor.poll()) is not None:
                raise EmbeddedServerError(f"it ended with exit code {code}")
        elif self._lock is None or not is_at(self.folder, self._lock):
            self._forget()
            self.folder = runtime_folder() / name
            self._lock = take_lock(self.folder, shared=True)
            return False
        elif (data_lock := take_lock(self._directory or self.folder / "data")) is not None:
            try:
                if is_at(self.folder, self._lock):  # otherwise its supervisor has just removed it
                    self._start_supervisor(parent, binary, data_lock, log)
            finally:
                os.close(data_lock)
        with contextlib.suppress(OSError, ValueError):
            self.pid, self.supervisor_pid = json.loads((self.folder / PROCESS_IDS).read_bytes())
            return ask(self.folder, b"PING\r\n").startswith(b"+PONG")
        return False

    def _start_supervisor(self, parent: int | None, binary: Path, data_lock: int, log: IO[bytes]) -> None:
        (self.folder / PROCESS_IDS).unlink(missing_ok=True)
        for left in self.folder.parent.iterdir():
            if (lock := take_lock(left)) is not None:
                remove(left)
                os.close(lock)
        orders = {"binary": binary, "folder": self.folder, "directory": self._directory}
        orders |= {"data_lock": data_lock, "parent": parent}
        self._supervisor = subprocess.Popen(  # noqa: S603
            [sys.executable, "-I", "-S", supervisor.__file__, json.dumps(orders, default=str)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=self.folder,
            pass_fds=(data_lock,),
            start_new_session=True,  # Ctrl-C and hang-up of the terminal must reach only its users
        )

    def _forget(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
        self._lock = None
