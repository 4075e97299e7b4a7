"""What the numbers were measured on."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.environments import Environment, Python

NOTED = (
    *("redis", "hiredis", "pydantic", "pydantic-core", "orjson", "uvloop", "fastapi", "starlette", "uvicorn"),
    *("httptools", "rapids-streams", "faststream"),
)


@dataclass(frozen=True, slots=True)
class Machine:
    system: str
    processor: str
    processors: int
    """How many this process may run on."""
    python: str
    server: str
    pinned: bool
    """Whether what is measured had a processor for itself."""
    packages: Mapping[str, Mapping[str, str]]
    """Versions, by contender and package."""

    def __str__(self) -> str:
        how = "what is measured has one for itself" if self.pinned else "placed by the system"
        redis_py = self.packages["ours"].get("redis", "?")
        return (
            f"{self.processors} processors ({self.processor}), {how}; {self.system}; "
            f"Python {self.python}, redis-py {redis_py}, {self.server}"
        )


def describe(python: Python, server: str, pinned: bool, environments: Mapping[str, Environment]) -> Machine:
    packages = {
        name: {package.replace("_", "-"): version for package, version in environment.packages.items()}
        for name, environment in environments.items()
    }
    return Machine(
        system=f"{platform.system()} {platform.machine()}",
        processor=_processor(),
        processors=len(available()),
        python=str(python),
        server=server,
        pinned=pinned,
        packages={name: {one: found[one] for one in NOTED if one in found} for name, found in packages.items()},
    )


def available() -> list[int]:
    """The processors this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"
