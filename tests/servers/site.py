"""Where the servers of one fleet run: their folder, their ports, and that nothing of them outlives this process."""

from __future__ import annotations

import random
import socket
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

KEEPER = Path(__file__).parent / "keeper.py"

LOWEST_PORT, HIGHEST_PORT = 10_000, 22_700
"""A cluster's nodes talk on their port + 10,000. Both lie below the ports Linux gives to outgoing connections."""


class Site:
    """A folder for servers' files, and a keeper that ends the servers and removes it when this process is gone."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="rapids-fleet-"))
        self._taken: set[int] = set()
        self._keeper = subprocess.Popen(
            [sys.executable, "-I", "-S", str(KEEPER), str(self.folder)], stdin=subprocess.PIPE, process_group=0
        )

    def free_port(self) -> int:
        """A port nobody listens on, nor on the one 10,000 above it; never the same twice."""
        while True:
            port = random.randint(LOWEST_PORT, HIGHEST_PORT)
            if port not in self._taken and _is_free(port) and _is_free(port + 10_000):
                self._taken.add(port)
                return port

    def started(self, pid: int) -> None:
        self._tell(f"+{pid}\n")

    def ended(self, pid: int) -> None:
        self._tell(f"-{pid}\n")

    def close(self) -> None:
        """End every server that runs, and return when they and the folder are gone."""
        assert self._keeper.stdin is not None
        with suppress(BrokenPipeError):
            self._keeper.stdin.close()
        self._keeper.wait(10)

    def _tell(self, line: str) -> None:
        assert self._keeper.stdin is not None
        with suppress(BrokenPipeError):  # somebody killed it
            self._keeper.stdin.write(line.encode())
            self._keeper.stdin.flush()


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
