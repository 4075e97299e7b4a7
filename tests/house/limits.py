"""The limits of the house, and how far the source is from each of them today."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tests.house import source

__all__ = ["LIMITS", "NOT_YET", "PASSED", "Limit", "limit_of"]

SHORTEST = 60
"""Lines: a shorter module with one importer belongs into that one."""


@dataclass(frozen=True)
class Limit:
    """What is allowed of something that the source is searched for."""

    rule: str
    find: Callable[[], Sequence[object]]
    """Everything that breaks the rule."""
    most: int = 0


LIMITS: Mapping[str, Limit] = {
    "base_names": Limit("Two modules never share a base name", lambda: source.base_names_used_twice()),
    "ing": Limit("No module is named in -ing", source.names_in_ing),
    "small_modules": Limit(
        f"A module under {SHORTEST} lines with one importer is part of that one",
        lambda: source.small_modules_with_one_importer(SHORTEST),
    ),
    "unpacked_tuples": Limit("No call has *(a, b, c): keywords say what is what", source.calls_with_unpacked_tuples),
    "wire_names": Limit(
        "Names of fields on the wire are in the wire package and in scripts only",
        lambda: source.wire_names_outside("rapids.wire", "rapids._wire"),
    ),
    "key_names": Limit(
        "Names of keys are in keys.py only, and handed to scripts", lambda: source.key_names_outside("keys")
    ),
}

HELPERS = {"rapids": 12, "rapids_fastapi": 12}
"""Percent of a package's functions that may be private and have one caller."""

PASSED = {"delivery": 18, "emit": 8, "bulk_replay": 15}
"""How many modules may run while one entry is delivered, one event emitted, three letters replayed."""

NOT_YET: Mapping[str, float] = {}
"""Limits that are not reached: what was counted last. Lower a number when it falls, remove it when it is the limit."""


def limit_of(name: str, limit: float) -> float:
    """The limit of today."""
    return NOT_YET.get(name, limit)
