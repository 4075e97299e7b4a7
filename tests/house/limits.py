"""The limits of the house."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tests.house import source

__all__ = ["HELPERS", "LIMITS", "PASSED", "Limit"]

MIN_LINES = 60
"""Lines: a shorter module with one importer belongs into that one."""


@dataclass(frozen=True)
class Limit:
    """What is allowed of something that the source is searched for."""

    rule: str
    find: Callable[[], Sequence[object]]
    """Everything that breaks the rule."""


LIMITS: Mapping[str, Limit] = {
    "base_names": Limit("Two modules never share a base name", lambda: source.base_names_used_twice()),
    "ing": Limit("No module is named in -ing", source.names_in_ing),
    "words": Limit("Names have no word that the glossary replaces", source.replaced_words_in_names),
    "small_modules": Limit(
        f"A module under {MIN_LINES} lines with one importer is part of that one",
        lambda: source.small_modules_with_one_importer(MIN_LINES),
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
