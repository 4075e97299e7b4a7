"""Fingerprints: what dead letters of one cause have in common. Scripts compute the same (`lib/letter_index.lua`)."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rapids._wire.entry_format import Fields, pairs

__all__ = ["MAX_PART", "Fingerprint", "fingerprint_name", "netstrings", "unpack_netstrings"]

MAX_PART = 200
"""How many bytes of each part count."""

_PARTS = (b"original_group", b"handler", b"event_type", b"reason", b"error_type", b"position")
_NOTHING = (b"",) * len(_PARTS)


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """The parts as text; bytes that are not UTF-8 are replaced."""

    group: str
    handler: str
    event_type: str
    reason: str
    error_type: str
    position: str
    cut: frozenset[str] = frozenset()
    """The names of parts that may have been cut: letters with longer parts may differ from each other."""

    @classmethod
    def read(cls, description: bytes) -> "Fingerprint":
        """The fingerprint in a script's description; all parts are empty if it cannot be read."""
        try:
            parts = tuple(unpack_netstrings(description))
        except ValueError:
            parts = _NOTHING
        if len(parts) != len(_PARTS):
            parts = _NOTHING
        names = cls.__match_args__[: len(_PARTS)]
        cut = frozenset(name for name, part in zip(names, parts, strict=True) if len(part) >= MAX_PART)
        return cls(*(part.decode(errors="replace") for part in parts), cut=cut)


def fingerprint_name(letter: Fields) -> str:
    """The name of a letter's fingerprint: 16 hexadecimal digits."""
    values: dict[bytes, bytes] = {}
    for name, value in pairs(letter):
        values.setdefault(name, value)
    described = netstrings([values.get(name, b"")[:MAX_PART] for name in _PARTS])
    return hashlib.sha1(described, usedforsecurity=False).hexdigest()[:16]


def netstrings(parts: Sequence[bytes]) -> bytes:
    """The parts one after another, each with its length before it (https://cr.yp.to/proto/netstrings.txt)."""
    return b"".join(b"%d:%b," % (len(part), part) for part in parts)


def unpack_netstrings(packed: bytes) -> Iterator[bytes]:
    """The parts. Raises `ValueError` if they were not packed as netstrings."""
    at = 0
    while at < len(packed):
        colon = packed.index(b":", at)
        if not packed[at:colon].isdigit():
            raise ValueError(f"no length at byte {at}")
        end = colon + 1 + int(packed[at:colon])
        if packed[end : end + 1] != b",":
            raise ValueError(f"no comma at byte {end}")
        yield packed[colon + 1 : end]
        at = end + 1
