"""What a router knows of the trimming of its stream."""

from dataclasses import dataclass

__all__ = ["HeldBack", "Trimming"]


@dataclass(frozen=True, slots=True)
class HeldBack:
    """The group that is furthest behind, and the oldest entry of the stream that it has not settled."""

    group: str
    entry_id: str
    age: float
    """Seconds since that entry was appended, by its id and the server's clock."""
    consumer: str | None
    """Who has it (`rapids:waiting`: it waits to be delivered again, `rapids:parked`: it is not run again); None where
    the group has not read it yet."""


@dataclass(frozen=True, slots=True)
class Trimming:
    """How the trimming of a stream goes, as one router saw it last. Counts are entries."""

    removed: int
    """By this router, since it started."""
    left: int
    """In the stream."""
    held_back_by: HeldBack | None
    """None where every group has settled everything."""
