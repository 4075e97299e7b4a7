"""What dead letters of one cause have in common, as the scripts that write letters work it out (`indexing.lua`)."""

import hashlib
from dataclasses import dataclass

from rapids._wire.entry_format import Fields, pairs
from rapids._wire.netstrings import netstrings, unpack_netstrings

__all__ = ["LONGEST_PART", "Fingerprint", "fingerprint_name"]

LONGEST_PART = 200
"""Bytes of each part that count."""

_PARTS = (b"original_group", b"handler", b"event_type", b"reason", b"error_type", b"position")
_NOTHING = (b"",) * len(_PARTS)


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """The parts, as text; what is not UTF-8 is replaced."""

    group: str
    handler: str
    event_type: str
    reason: str
    error_type: str
    position: str
    cut: frozenset[str] = frozenset()
    """The names of parts that may have been cut: letters with more of them than is told here may differ."""

    @classmethod
    def read(cls, description: bytes) -> "Fingerprint":
        """From how the script describes it; all parts empty where that cannot be read."""
        try:
            parts = tuple(unpack_netstrings(description))
        except ValueError:
            parts = _NOTHING
        if len(parts) != len(_PARTS):
            parts = _NOTHING
        names = cls.__match_args__[: len(_PARTS)]
        cut = frozenset(name for name, part in zip(names, parts, strict=True) if len(part) >= LONGEST_PART)
        return cls(*(part.decode(errors="replace") for part in parts), cut=cut)


def fingerprint_name(letter: Fields) -> str:
    """The name of a letter's fingerprint: 16 hexadecimal digits."""
    values: dict[bytes, bytes] = {}
    for name, value in pairs(letter):
        values.setdefault(name, value)
    described = netstrings([values.get(name, b"")[:LONGEST_PART] for name in _PARTS])
    return hashlib.sha1(described, usedforsecurity=False).hexdigest()[:16]
