"""The server the suite runs on, by the name given to `pytest --server`."""

from __future__ import annotations

from typing import TypeAlias

from tests.servers.builds import BUILDS, NEWEST, OLDEST, Build
from tests.servers.cluster import Cluster
from tests.servers.sentinel import SentinelFleet
from tests.servers.standalone import Standalone

Servers: TypeAlias = Standalone | SentinelFleet | Cluster

DEFAULT = NEWEST.name
FLEETS = {
    "sentinel": (SentinelFleet, NEWEST),
    "cluster": (Cluster, NEWEST),
    f"sentinel-{OLDEST.name}": (SentinelFleet, OLDEST),
    f"cluster-{OLDEST.name}": (Cluster, OLDEST),
}
NAMES = (*BUILDS, *FLEETS)


def servers_named(name: str) -> Servers:
    """The servers, not yet started. Raises `ValueError` for a name that is none of `NAMES`."""
    if name in BUILDS:
        return Standalone(BUILDS[name], unix=True)
    if name in FLEETS:
        kind, build = FLEETS[name]
        return kind(build)
    raise ValueError(f"--server must be one of {', '.join(NAMES)}, not {name!r}")


def is_one_machine(name: str) -> bool:
    return name in BUILDS


def build_of(name: str) -> Build:
    """What the servers of this name are started from."""
    return BUILDS[name] if name in BUILDS else FLEETS[name][1]
