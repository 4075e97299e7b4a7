"""What a process has in memory, as Linux reports it; elsewhere nothing measured here can be known."""

from __future__ import annotations

from pathlib import Path


def resident_mib(process: int | str = "self") -> float:
    """What it has now."""
    return _reported(process, "VmRSS")


def most_mib(process: int | str = "self") -> float:
    """The most it ever had."""
    return _reported(process, "VmHWM")


def _reported(process: int | str, name: str) -> float:
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) / 1024
    raise AssertionError(f"no {name} in /proc/{process}/status")
