"""Pins: what users, other services and other versions build on, held as text files that are reviewed when they change.

`make pins` writes the files again. `tests/test_public_api.py` compares.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from tests.pins import key_names, openapi, public_api, wire_format

__all__ = ["PINS", "path_of", "pinned", "write_pins"]

PINS: Mapping[str, Callable[[], list[str]]] = {
    "public_api": public_api.lines,
    "wire_format": wire_format.lines,
    "key_names": key_names.lines,
    "openapi": openapi.lines,
}
"""Each pin by name, and the function that makes its lines from the code as it is."""


def path_of(name: str) -> Path:
    return Path(__file__).parent / f"{name}.txt"


def pinned(name: str) -> list[str]:
    """The lines that are committed."""
    return path_of(name).read_text(encoding="utf-8").splitlines()


def write_pins() -> None:
    """Write the lines of today to the files."""
    for name, lines in PINS.items():
        path_of(name).write_text("".join(f"{line}\n" for line in lines()), encoding="utf-8")
