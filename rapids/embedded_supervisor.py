"""The process that owns an embedded server and ends it when the last process using it is gone.

A user holds a connection to this process; the kernel closes it however the user ends, so no user
can leave the server behind. It is run by its path, as ``python -I -S embedded_supervisor.py``, so
that a start costs neither pydantic nor redis: the standard library only, and nothing of Rapids.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SERVER_SOCKET = "valkey.sock"
CONTROL_SOCKET = "control.sock"
LOG = "server.log"

_PING_EVERY = 0.005
_PARENT_EVERY = 0.5
_GRACE = 10.0
_LOG_TAIL = 4_000


@dataclass(frozen=True, slots=True)
class Orders:
    """What a supervisor is told when it is started; travels as JSON on its command line."""

    binary: str
    """The server's executable."""
    folder: str
    """The private folder of sockets and log; removed at the end."""
    directory: str | None
    """Where the append-only file is kept; None for a server that keeps nothing."""
    lock_path: str | None
    """The lock file by which others find the server; None for a server nobody else may join."""
    starter: int
    """The file descriptor of the first user's connection."""
    parent: tuple[int, str] | None
    """Process id and start time of the workers' parent, for which the server is kept as well."""
    start_timeout: float
    """Seconds within which the server must answer."""


def started_at(pid: int) -> str | None:
    """When the process started, as an opaque text (a process id alone may be used again); None if it is gone."""
    if sys.platform == "linux":
        try:
            stat = Path(f"/proc/{pid}/stat").read_bytes()
        except OSError:
            return None
        # The second field, the name in parentheses, may hold spaces and parentheses itself.
        state, *fields = stat[stat.rindex(b")") + 2 :].split()
        return None if state in (b"Z", b"X") else fields[18].decode()
    ps = ["/bin/ps", "-o", "lstart=", "-p", str(pid)]
    seen = subprocess.run(ps, capture_output=True, check=False, env={"LC_ALL": "C"})  # noqa: S603
    return "-".join(seen.stdout.decode().replace(":", " ").split()) or None


def log_tail(folder: Path) -> str:
    """The end of the server's log; empty if there is none."""
    try:
        return (folder / LOG).read_text("utf-8", "replace")[-_LOG_TAIL:].strip()
    except OSError:
        return ""


def remove_if_empty(runtime: Path) -> None:
    """Remove the user's runtime folder unless somebody has something there or is about to."""
    import fcntl  # POSIX only

    with contextlib.suppress(OSError):
        descriptor = os.open(runtime, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            runtime.rmdir()
        finally:
            os.close(descriptor)


def server_command(orders: Orders) -> list[str]:
    """The server's command line: reachable by its unix socket only, and by its owner only."""
    options = {
        "port": "0",
        "unixsocket": str(Path(orders.folder) / SERVER_SOCKET),
        "unixsocketperm": "700",
        "protected-mode": "yes",
        "daemonize": "no",
        "dir": orders.directory or orders.folder,
        "save": "",
        "appendonly": "yes" if orders.directory else "no",
        "appendfsync": "everysec",
        "maxmemory-policy": "noeviction",
        "availability-zone": "rapids-embedded",  # by which it is known, so that nobody is warned of it
    }
    return [orders.binary, *(part for name, value in options.items() for part in (f"--{name}", value))]


def die_with_parent() -> Callable[[], None] | None:
    """What a child calls before exec so that it is killed when this process is; None where there is no such thing."""
    if sys.platform != "linux":
        return None
    try:
        import ctypes

        prctl = ctypes.CDLL(None).prctl
    except (ImportError, OSError, AttributeError):
        return None
    set_parent_death_signal, me = 1, os.getpid()

    def before_exec() -> None:
        prctl(set_parent_death_signal, int(signal.SIGKILL), 0, 0, 0)
        if os.getppid() != me:  # killed between the fork and the line above
            os._exit(1)

    return before_exec


class Supervisor:
    """Runs the server for as long as it is needed, in one thread, on one selector."""

    def __init__(self, orders: Orders) -> None:
        self._orders = orders
        self._folder = Path(orders.folder)
        self._selector = selectors.DefaultSelector()
        self._users: set[socket.socket] = set()
        self._leaving: list[socket.socket] = []
        self._parent_lives: Callable[[], bool] = lambda: False
        self._polls_parent = False
        self._told_to_stop = False
        self._greeting: dict[str, Any] | None = None
        self._server: subprocess.Popen[bytes] | None = None
        self._listener: socket.socket | None = None

    def run(self) -> None:
        """Start the server, serve until nobody needs it, and leave nothing behind."""
        try:
            self._watch_signals()
            self._greet_user(socket.socket(fileno=self._orders.starter))
            if self._orders.lock_path is not None:
                self._listen()
            if self._orders.parent is not None:
                self._watch_parent(*self._orders.parent)
            self._server = self._start_server()
            self._serve(self._server)
        finally:
            self._end()

    def _start_server(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(  # noqa: S603
            server_command(self._orders),
            stdin=subprocess.DEVNULL,
            # A locale that is named but not installed must not matter.
            env={**os.environ, "LC_ALL": "C"},
            preexec_fn=die_with_parent(),
        )

    def _serve(self, server: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + self._orders.start_timeout
        while self._needed() and server.poll() is None:
            for user in self._leaving:
                _tell(user, {"kept": True})
                user.close()
            self._leaving.clear()
            for key, _ in self._selector.select(self._patience()):
                key.data()
            if self._greeting is None:
                if self._answers():
                    self._announce({"pid": server.pid, "supervisor_pid": os.getpid()})
                elif time.monotonic() > deadline:
                    self._fail(f"it did not answer within {self._orders.start_timeout:g} s")
                    return
        if self._greeting is None and self._needed():
            self._fail(f"it ended with exit code {server.returncode}")

    def _needed(self) -> bool:
        return not self._told_to_stop and (bool(self._users) or self._parent_lives())

    def _patience(self) -> float | None:
        if self._greeting is None:
            return _PING_EVERY
        return _PARENT_EVERY if self._polls_parent else None

    def _answers(self) -> bool:
        try:
            with socket.socket(socket.AF_UNIX) as probe:
                probe.settimeout(1.0)
                probe.connect(str(self._folder / SERVER_SOCKET))
                probe.sendall(b"PING\r\n")
                return probe.recv(64).startswith(b"+PONG")  # not while it still loads its file
        except OSError:
            return False

    # Users

    def _listen(self) -> None:
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self._folder / CONTROL_SOCKET))
        self._listener.listen(128)
        self._listener.setblocking(False)
        self._selector.register(self._listener, selectors.EVENT_READ, self._accept)

    def _accept(self) -> None:
        if self._listener is not None:
            with contextlib.suppress(OSError):
                self._greet_user(self._listener.accept()[0])

    def _greet_user(self, user: socket.socket) -> None:
        user.setblocking(False)
        self._users.add(user)
        self._selector.register(user, selectors.EVENT_READ, lambda: self._hear(user))
        if self._greeting is not None:
            _tell(user, self._greeting)

    def _hear(self, user: socket.socket) -> None:
        """Users say nothing; what there is to hear is that one left."""
        try:
            gone = not user.recv(64)
        except BlockingIOError:
            return
        except OSError:
            gone = True
        if gone:
            self._selector.unregister(user)
            self._users.discard(user)
            # The last one's is closed, without a word, by the end of this process: then all is gone.
            self._leaving.append(user)

    def _announce(self, message: dict[str, Any]) -> None:
        self._greeting = message
        for user in self._users:
            _tell(user, self._greeting)

    def _fail(self, why: str) -> None:
        self._announce({"error": f"{why}; its log ends with:\n{log_tail(self._folder) or '(nothing)'}"})

    # What else decides how long the server is needed

    def _watch_signals(self) -> None:
        woken, wake = socket.socketpair()
        woken.setblocking(False)
        wake.setblocking(False)
        self._wake = wake
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        for ignored in (signal.SIGINT, signal.SIGHUP):
            signal.signal(ignored, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, self._stop_when_told)
        signal.signal(signal.SIGCHLD, _wake_up)
        signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
        self._selector.register(woken, selectors.EVENT_READ, lambda: woken.recv(64))

    def _stop_when_told(self, signum: int, frame: object) -> None:
        self._told_to_stop = True

    def _watch_parent(self, pid: int, start: str) -> None:
        self._parent_lives = lambda: started_at(pid) == start
        self._polls_parent = True
        if sys.platform == "linux":
            with contextlib.suppress(OSError):
                ended = os.pidfd_open(pid)
                # Readable for good once the process ended, so it is heard once and then dropped.
                self._selector.register(ended, selectors.EVENT_READ, lambda: self._selector.unregister(ended))
                self._polls_parent = False

    # The end

    def _end(self) -> None:
        if self._listener is not None:
            self._listener.close()
        self._stop_server()
        shutil.rmtree(self._folder, ignore_errors=True)
        if self._orders.lock_path is not None:
            # Still locked by this process: who waits for it finds the file gone and makes a new one.
            Path(self._orders.lock_path).unlink(missing_ok=True)
        remove_if_empty(self._folder.parent)

    def _stop_server(self) -> None:
        server = self._server
        if server is None:
            return
        if self._orders.directory is not None:
            server.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.wait(_GRACE)
        # Where there is nothing to save there is nothing to wait for.
        server.kill()
        server.wait()


def _wake_up(signum: int, frame: object) -> None:
    """There only so that the signal ends a wait."""


def _tell(user: socket.socket, message: dict[str, Any]) -> None:
    with contextlib.suppress(OSError):  # it left; that is heard in its turn
        user.sendall(json.dumps(message).encode() + b"\n")


def main() -> None:
    """Do as the command line says."""
    Supervisor(Orders(**json.loads(sys.argv[1]))).run()


if __name__ == "__main__":
    main()
