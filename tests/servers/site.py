"""Where the servers of one fleet run: their folder, their ports, and that nothing of them outlives this process."""

from __future__ import annotations

import random
import socket
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

WATCHDOG = Path(__file__).parent / "watchdog.py"

HOST = "127.0.0.1"
LOWEST_PORT, HIGHEST_PORT = 10_000, 22_700
"""A cluster's nodes talk on their port + 10,000. Both lie below the ports Linux gives to outgoing connections."""


class Site:
    """A folder for servers' files, and a watchdog that ends the servers and removes it when this process is gone."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="rapids-fleet-"))
        self._held: list[socket.socket] = []
        self._watchdog = subprocess.Popen(
            [sys.executable, "-I", "-S", str(WATCHDOG), str(self.folder)], stdin=subprocess.PIPE, process_group=0
        )

    def free_port(self) -> int:
        """A free port, as is the one 10,000 above it; no other call gets it until this is closed."""
        while True:
            port = random.randint(LOWEST_PORT, HIGHEST_PORT)
            if held := _hold(port, port + 10_000):
                self._held += held
                return port

    def started(self, pid: int) -> None:
        self._tell(f"+{pid}\n")

    def ended(self, pid: int) -> None:
        self._tell(f"-{pid}\n")

    def close(self) -> None:
        """End every server that runs, and return when they and the folder are gone."""
        assert self._watchdog.stdin is not None
        with suppress(BrokenPipeError):
            self._watchdog.stdin.close()
        try:
            self._watchdog.wait(60)
        finally:
            for holder in self._held:
                holder.close()

    def _tell(self, line: str) -> None:
        assert self._watchdog.stdin is not None
        with suppress(BrokenPipeError):  # it was killed
            self._watchdog.stdin.write(line.encode())
            self._watchdog.stdin.flush()


def _hold(port: int, bus: int) -> tuple[socket.socket, socket.socket] | None:
    """Both, bound by us, or None if one of them is in use."""
    if first := _bound(port):
        if second := _bound(bus):
            return first, second
        first.close()
    return None


def _bound(port: int) -> socket.socket | None:
    """A socket that has the port and does not listen, or None if the port is in use.

    A server may bind it nevertheless, since it sets SO_REUSEADDR (socket(7)); another holder sets that too late.
    """
    holder = socket.socket()
    try:
        holder.bind((HOST, port))
    except OSError:
        holder.close()
        return None
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return holder
