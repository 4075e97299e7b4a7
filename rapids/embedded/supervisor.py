"""The process that owns an embedded server, and ends it when the last process that uses it is gone.

It is run by its path, as `python -I -S supervisor.py`, and imports only the standard library, to start quickly.
"""

import contextlib
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

if sys.platform != "win32":
    import fcntl

SERVER_SOCKET = "valkey.sock"
PROCESS_IDS = "pids.json"
ZONE = "rapids-embedded"  # Rapids recognises such a server by it, and logs no server warnings
SHUTDOWN = b"SHUTDOWN NOSAVE\r\n"  # it writes the append-only file to disk all the same


def try_lock(descriptor: int, *, shared: bool = False) -> bool:
    """Lock an open folder, or change the lock on it, if no other lock forbids it. Does not wait."""
    with contextlib.suppress(BlockingIOError):
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        return True
    return False


def is_at(path: Path, descriptor: int) -> bool:
    """Whether the path still refers to the opened file."""
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(path.lstat(), os.fstat(descriptor))
    return False


def ask(folder: Path, command: bytes) -> bytes:
    """The answer of the server in a folder to a command; empty if there is no server, or if it has ended."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(5.0)
        connection.connect(str(folder / SERVER_SOCKET))
        connection.sendall(command)
        return connection.recv(64)
    return b""


def remove(folder: Path) -> None:
    """Remove a server's folder after its end, and the user's folder for embedded servers if it was the last one."""
    ask(folder, SHUTDOWN)
    shutil.rmtree(folder, ignore_errors=True)
    with contextlib.suppress(OSError):
        folder.parent.rmdir()


def die_with_parent() -> Callable[[], None] | None:
    """A function that a child calls before exec, so that it is killed with this process; None if it is unsupported."""
    if sys.platform != "linux":
        return None
    import ctypes

    prctl, me, set_parent_death_signal = ctypes.CDLL(None).prctl, os.getpid(), 1

    def before_exec() -> None:
        prctl(set_parent_death_signal, int(signal.SIGKILL), 0, 0, 0)
        if os.getppid() != me:  # killed between the fork and the line above
            os._exit(1)

    return before_exec


def run(binary: str, folder: str, directory: str | None, data_lock: int, parent: int | None) -> int:
    """Run the server until no user is left and the workers' parent is gone. Returns the server's exit code."""
    home, ends = Path(folder), (signal.SIGTERM, signal.SIGCHLD)
    lock = os.open(home, os.O_RDONLY)
    if parent is not None:
        fcntl.flock(lock, fcntl.LOCK_SH)  # on behalf of the parent
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)  # some systems drop a blocked signal without a handler
    options = {"port": "0", "unixsocket": f"{folder}/{SERVER_SOCKET}", "unixsocketperm": "700", "save": ""}
    options |= {"dir": directory or folder, "appendonly": "yes" if directory else "no", "availability-zone": ZONE}
    server = subprocess.Popen(  # noqa: S603
        [binary, *(part for name, value in options.items() for part in (f"--{name}", value))],
        env={**os.environ, "LC_ALL": "C"},  # a locale that is named but not installed must not matter
        preexec_fn=die_with_parent(),
        pass_fds=(data_lock,),  # so that no other process opens the data before the server has ended
    )
    (home / PROCESS_IDS).write_text(json.dumps([server.pid, os.getpid()]))
    signal.pthread_sigmask(signal.SIG_SETMASK, ends)  # from here on, in all threads, they wait for sigwait()
    threading.Thread(target=_stop_when_unused, args=(lock, parent), daemon=True).start()
    if server.poll() is None:
        signal.sigwait(ends)
    if is_at(home, lock):
        ask(home, SHUTDOWN)
    server.kill()
    code = server.wait()
    if try_lock(lock, shared=True) and is_at(home, lock):  # otherwise the last user removes it, or has removed it
        remove(home)
    return code


def _stop_when_unused(lock: int, parent: int | None) -> None:
    if parent is not None:
        try:
            select.select([os.pidfd_open(parent)], [], [])
        except (AttributeError, OSError):  # this is not Linux, or the process is gone
            with contextlib.suppress(OSError):
                while not os.kill(parent, 0):
                    time.sleep(0.5)
    fcntl.flock(lock, fcntl.LOCK_EX)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(run(**json.loads(sys.argv[1])))
