"""A process's hold on an embedded server: start one, or join the one that is there, and let go of it again.

Everything here blocks; `rapids.embedded` runs it in threads.
"""

import contextlib
import json
import multiprocessing
import os
import socket
import subprocess
import sys
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from rapids import embedded_supervisor as supervisor
from rapids.embedded_folders import (
    DIRECTORY_LOCK,
    EmbeddedServerError,
    folder_named_in,
    make_server_folder,
    name_folder,
    remove_stale,
    runtime_folder,
    take_lock,
)
from rapids.embedded_supervisor import CONTROL_SOCKET, Orders, started_at

__all__ = ["Hold", "Place", "Running", "directory_place", "private_place", "workers_place"]

_RETRY_EVERY = 0.01
# The supervisor keeps to the same limit and knows better what went wrong, so it gets to say so.
_REPORT_WITHIN = 5.0
# Longer than a supervisor waits for a server that has something to save.
_END_WITHIN = 15.0

_connections: set[socket.socket] = set()
_supervisors: dict[Path, subprocess.Popen[bytes]] = {}


@dataclass(frozen=True, slots=True)
class Place:
    """Which server is meant: its data directory, and the lock file by which others find the same one."""

    directory: Path | None = None
    lock_path: Path | None = None
    parent: tuple[int, str] | None = None


@dataclass(frozen=True, slots=True)
class Running:
    """A server that answers: its folder and process ids."""

    folder: Path
    pid: int
    supervisor_pid: int


def private_place() -> Place:
    """A server of one's own."""
    return Place()


def directory_place(directory: Path) -> Place:
    """The one server of a directory, which is made if it is not there."""
    try:
        directory = directory.resolve()
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise EmbeddedServerError(f"{directory} cannot hold an embedded server's data: {error}") from error
    return Place(directory=directory, lock_path=directory / DIRECTORY_LOCK)


def workers_place() -> Place:
    """The one server of all workers of this process's parent; a private one in a process that is no worker."""
    parent = multiprocessing.parent_process()
    if parent is None or parent.pid is None:
        return private_place()
    start = started_at(parent.pid)
    if start is None:
        return private_place()
    lock_path = runtime_folder() / f"workers-{parent.pid}-{start}.lock"
    return Place(lock_path=lock_path, parent=(parent.pid, start))


class Hold:
    """One use of a server, from `take` to `let_go`. Its connection to the supervisor is what keeps the server up."""

    def __init__(self, start_timeout: float) -> None:
        self._start_timeout = start_timeout
        self._given_up = threading.Event()
        self._connection: socket.socket | None = None
        self._folder: Path | None = None

    def take(self, binary: Path, place: Place) -> Running:
        """Start or join the server and wait until it answers. Raises `EmbeddedServerError` if that fails."""
        deadline = time.monotonic() + self._start_timeout + _REPORT_WITHIN
        try:
            while not self._given_up.is_set():
                running = self._try(binary, place, deadline)
                if running is not None:
                    return running
                if time.monotonic() > deadline:
                    raise EmbeddedServerError(
                        f"{place.lock_path} is locked, but no embedded server could be reached by it "
                        f"within {self._start_timeout:g} s"
                    )
                time.sleep(_RETRY_EVERY)
            raise EmbeddedServerError("The embedded server is no longer wanted")
        except OSError as error:
            self.let_go()
            raise EmbeddedServerError(f"The embedded server could not be started: {error}") from error
        except BaseException:
            self.let_go()
            raise

    def give_up(self) -> None:
        """Make a `take` that runs in another thread end soon, and let go. Does not block."""
        self._given_up.set()
        if (connection := self._connection) is not None:
            _leave(connection)  # to which the supervisor answers, so that a wait for its word ends

    def let_go(self) -> None:
        """Leave the server; when nobody else uses it, wait (for a moment) until it and its folder are gone."""
        connection, self._connection = self._connection, None
        folder, self._folder = self._folder, None
        deadline = time.monotonic() + _END_WITHIN
        kept = False
        if connection is not None:
            if connection.fileno() < 0:
                return  # in a fork of the user: it was closed there, and the rest is not the fork's business
            _leave(connection)
            kept = b'"kept"' in _last_words(connection, deadline)
            _forget(connection)
        # It is still there if others use it, or if the supervisor was killed and is about to be gone.
        while folder is not None and not kept and folder.exists() and time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                remove_stale(folder)
            time.sleep(_RETRY_EVERY)
        _reap()

    def _try(self, binary: Path, place: Place, deadline: float) -> Running | None:
        """One attempt; None if the server that is there is just starting or ending."""
        if place.lock_path is None:
            return self._start(binary, place, None, deadline)
        lock = take_lock(place.lock_path)
        if lock is None:
            return self._join(folder_named_in(place.lock_path), deadline)
        try:
            left = folder_named_in(place.lock_path)
            if left is not None:
                remove_stale(left)
            return self._start(binary, place, lock, deadline)
        finally:
            os.close(lock)  # the supervisor has it too

    def _start(self, binary: Path, place: Place, lock: int | None, deadline: float) -> Running:
        folder, alive = make_server_folder()
        self._folder = folder
        try:
            if lock is not None:
                name_folder(lock, folder)
            self._connection, theirs = socket.socketpair()
            _connections.add(self._connection)
            with theirs:
                orders = Orders(
                    binary=str(binary),
                    folder=str(folder),
                    directory=None if place.directory is None else str(place.directory),
                    lock_path=None if place.lock_path is None else str(place.lock_path),
                    starter=theirs.fileno(),
                    parent=place.parent,
                    start_timeout=self._start_timeout,
                )
                descriptors = (theirs.fileno(), alive) if lock is None else (theirs.fileno(), alive, lock)
                _start_supervisor(orders, folder, descriptors)
        finally:
            os.close(alive)
        running = self._wait_until_ready(self._connection, folder, deadline)
        if running is None:
            log = supervisor.log_tail(folder) or "(nothing)"
            raise EmbeddedServerError(f"The embedded server's supervisor ended; its log ends with:\n{log}")
        return running

    def _join(self, folder: Path | None, deadline: float) -> Running | None:
        if folder is None:
            return None
        connection = socket.socket(socket.AF_UNIX)
        _connections.add(connection)
        self._connection, self._folder = connection, folder
        try:
            connection.settimeout(max(0.001, deadline - time.monotonic()))
            connection.connect(str(folder / CONTROL_SOCKET))
            running = self._wait_until_ready(connection, folder, deadline)
        except (FileNotFoundError, ConnectionError, BlockingIOError):
            running = None
        if running is None:
            self._connection = self._folder = None
            _forget(connection)
        return running

    def _wait_until_ready(self, connection: socket.socket, folder: Path, deadline: float) -> Running | None:
        """What the supervisor says first; None if it ends without a word."""
        if self._given_up.is_set():
            raise EmbeddedServerError("The embedded server is no longer wanted")
        said = b""
        while not said.endswith(b"\n"):
            connection.settimeout(max(0.001, deadline - time.monotonic()))
            part = connection.recv(65536)
            if not part:
                return None
            said += part
        message = json.loads(said.splitlines()[0])
        if "kept" in message:
            return None
        if "error" in message:
            raise EmbeddedServerError(f"The embedded server could not be started: {message['error']}")
        return Running(folder=folder, pid=message["pid"], supervisor_pid=message["supervisor_pid"])


def _start_supervisor(orders: Orders, folder: Path, descriptors: tuple[int, ...]) -> None:
    with (folder / supervisor.LOG).open("ab") as log:
        _supervisors[folder] = subprocess.Popen(  # noqa: S603
            [sys.executable, "-I", "-S", supervisor.__file__, json.dumps(asdict(orders))],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=folder,
            pass_fds=descriptors,
            start_new_session=True,  # the terminal's Ctrl-C and hang-up are for its users
        )


def _reap() -> None:
    """Take leave of the supervisors this process started and that have ended, or are just ending."""
    for folder, process in list(_supervisors.items()):
        if not folder.exists():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_END_WITHIN)
        if process.poll() is not None:
            _supervisors.pop(folder, None)


def _leave(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_WR)


def _last_words(connection: socket.socket, deadline: float) -> bytes:
    said = b""
    with contextlib.suppress(OSError):
        while True:
            connection.settimeout(max(0.001, deadline - time.monotonic()))
            part = connection.recv(4096)
            if not part:
                break
            said += part
    return said


def _forget(connection: socket.socket) -> None:
    _connections.discard(connection)
    connection.close()


def _forget_all() -> None:
    """A fork is no user unless it becomes one, so it must not keep the server up."""
    for connection in list(_connections):
        _forget(connection)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)
