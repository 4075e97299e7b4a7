"""Where embedded servers live: private folders under one runtime folder of the user, and the locks that guard them.

A lock is a `flock` that a supervisor holds for its life, so the kernel gives it back however the supervisor ends.
What is found unlocked was left behind, and is cleared away by whoever comes next.
"""

import contextlib
import os
import re
import shutil
import socket
import stat
import tempfile
import time
from collections.abc import Generator
from pathlib import Path

from rapids.embedded_supervisor import SERVER_SOCKET, remove_if_empty
from rapids.exceptions import RapidsError

__all__ = [
    "DIRECTORY_LOCK",
    "EmbeddedServerError",
    "folder_named_in",
    "make_server_folder",
    "name_folder",
    "remove_stale",
    "runtime_folder",
    "take_lock",
]

DIRECTORY_LOCK = "rapids.lock"

_ALIVE = "alive"
_SERVER_FOLDER = re.compile(r"server-[a-z0-9_]+")
_LONGEST_SOCKET_PATH = 100  # 107 bytes on Linux, 103 on macOS
_ORPHAN_GRACE = 5.0


class EmbeddedServerError(RapidsError):
    """The embedded server could not be found, started or reached; the message says why and what to do."""


def runtime_folder() -> Path:
    """The user's own folder for embedded servers, made if it is not there.

    Raises `EmbeddedServerError` if somebody else could have put something into it.
    """
    name = f"rapids-{os.getuid()}"
    folder = Path(tempfile.gettempdir(), name)
    if len(os.fsencode(folder / "server-12345678" / SERVER_SOCKET)) > _LONGEST_SOCKET_PATH:
        folder = Path("/tmp", name)  # noqa: S108 - checked below
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    if not _is_private(folder):
        raise EmbeddedServerError(
            f"{folder} is not a folder that only you can use (it must be yours, with permissions 0700), so the "
            "embedded server does not trust it. Remove it, or set TMPDIR to a folder of your own."
        )
    return folder


def make_server_folder() -> tuple[Path, int]:
    """A new folder for one server, and the descriptor of its lock; clears away what dead supervisors left."""
    with _runtime_locked() as runtime:
        for left in runtime.iterdir():
            if _SERVER_FOLDER.fullmatch(left.name):
                remove_stale(left)
            elif left.suffix == ".lock" and (lock := take_lock(left)) is not None:
                left.unlink(missing_ok=True)
                os.close(lock)
        folder = Path(tempfile.mkdtemp(prefix="server-", dir=runtime))
        alive = take_lock(folder / _ALIVE)
        if alive is None:
            raise EmbeddedServerError(f"{folder} was just made and is locked by somebody else")
        return folder, alive


@contextlib.contextmanager
def _runtime_locked() -> Generator[Path, None, None]:
    import fcntl  # POSIX only, while this module can be imported anywhere

    while True:
        runtime = runtime_folder()
        descriptor = os.open(runtime, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if _is_still(runtime, descriptor):
                yield runtime
                return
        finally:
            os.close(descriptor)


def take_lock(path: Path) -> int | None:
    """Lock the file, made if it is not there: its descriptor, or None if another has it (or has just removed it).

    Raises `EmbeddedServerError` for a file of another user.
    """
    import fcntl

    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        if os.fstat(descriptor).st_uid != os.getuid():
            raise EmbeddedServerError(f"{path} belongs to another user, who may be running a server there")
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if _is_still(path, descriptor):
            return descriptor
    except BlockingIOError:
        pass
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None


def name_folder(lock: int, folder: Path) -> None:
    """Write down in the lock's file where its holder's server lives."""
    os.ftruncate(lock, 0)
    os.pwrite(lock, os.fsencode(folder), 0)


def folder_named_in(lock_path: Path) -> Path | None:
    """The server's folder that a lock's file names; None if it names none that could be one of ours.

    The file may lie in a project's directory, so it is not trusted further than that.
    """
    try:
        folder = Path(os.fsdecode(lock_path.read_bytes()))
    except (OSError, ValueError):
        return None
    ours = folder.parent.name == f"rapids-{os.getuid()}" and _SERVER_FOLDER.fullmatch(folder.name)
    return folder if ours and _is_private(folder.parent) and _is_private(folder) else None


def remove_stale(folder: Path) -> None:
    """Clear away a server's folder, and the server itself, if its supervisor was killed; else do nothing."""
    if not (_SERVER_FOLDER.fullmatch(folder.name) and _is_private(folder)):
        return
    try:
        lock = take_lock(folder / _ALIVE)
    except FileNotFoundError:
        return
    if lock is None:
        return
    try:
        _stop_orphan(folder / SERVER_SOCKET)
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(lock)
    remove_if_empty(folder.parent)


def _stop_orphan(server_socket: Path) -> None:
    """Where the system does not end a server with its supervisor (macOS), it is asked to end itself."""
    deadline = time.monotonic() + _ORPHAN_GRACE
    while time.monotonic() < deadline:
        try:
            with socket.socket(socket.AF_UNIX) as orphan:
                orphan.settimeout(1.0)
                orphan.connect(str(server_socket))
                orphan.sendall(b"SHUTDOWN NOSAVE\r\n")
                orphan.recv(64)
        except (ConnectionResetError, BrokenPipeError, TimeoutError):
            pass
        except OSError:
            return
        time.sleep(0.01)
    raise EmbeddedServerError(f"A server whose supervisor was killed still answers at {server_socket} and does not end")


def _is_private(folder: Path) -> bool:
    try:
        seen = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(seen.st_mode) and seen.st_uid == os.getuid() and not seen.st_mode & 0o077


def _is_still(path: Path, descriptor: int) -> bool:
    """Whether the path still names what was opened: a holder removes its file before it lets the lock go."""
    try:
        return os.path.samestat(path.lstat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
