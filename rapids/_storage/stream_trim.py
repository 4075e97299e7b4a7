"""Trimming a stream of what all of its groups have settled."""

from dataclasses import dataclass

from rapids._storage import scripts
from rapids._storage.client.connections import Commands, checked, run
from rapids._storage.keys import Source

__all__ = ["Trim", "Unsettled", "trim"]

MARK_MS = 60_000
"""How long a stream is told to have been trimmed, after the last time (milliseconds)."""


@dataclass(frozen=True, slots=True)
class Unsettled:
    """The oldest entry of a stream that some group has not settled."""

    group: str
    entry_id: str
    age: float
    """Seconds since it was appended, by its id and the server's clock."""
    consumer: str | None
    """Who has it; None where the group has not read it yet."""


@dataclass(frozen=True, slots=True)
class Trim:
    """What a trim did. Counts are entries."""

    removed: int
    left: int
    unsettled: Unsettled | None


async def trim(commands: Commands, source: Source, *, least_age_ms: int, most: int) -> Trim:
    """Remove entries that every group of the stream has settled, in whole nodes, and `most` (entries) of them at most.

    What is younger than `least_age_ms` milliseconds stays, and so does everything while the group itself is not there.
    """
    arguments = (source.group, least_age_ms, most, MARK_MS)
    removed, left, held = checked(
        (await run(commands, scripts.load("trim"), [((source.stream, source.trimming), arguments)]))[0]
    )
    return Trim(removed, left, None if held is None else _unsettled(*held))


def _unsettled(group: bytes, entry_id: bytes, age_ms: bytes, consumer: bytes) -> Unsettled:
    holder = consumer.decode(errors="replace") if consumer else None
    return Unsettled(group.decode(errors="replace"), entry_id.decode(), int(age_ms) / 1000, holder)
