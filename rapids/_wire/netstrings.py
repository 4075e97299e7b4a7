"""Byte strings one behind the other, each with its length before it (https://cr.yp.to/proto/netstrings.txt)."""

from collections.abc import Iterator, Sequence

__all__ = ["netstrings", "unpack_netstrings"]


def netstrings(parts: Sequence[bytes]) -> bytes:
    """The parts as one byte string."""
    return b"".join(b"%d:%b," % (len(part), part) for part in parts)


def unpack_netstrings(packed: bytes) -> Iterator[bytes]:
    """The parts. Raises `ValueError` where they were not packed so."""
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
