"""The causes of dead letters, with how many letters each has, and figures of their stream."""

from dataclasses import dataclass
from datetime import datetime

from rapids._core.entry_id import moment_or_last, order
from rapids._core.json_schema import with_json_schema
from rapids._core.paging import Listing
from rapids._storage import letter_index
from rapids._storage.client.connections import Commands
from rapids._storage.letter_index import OTHERS, IndexedFingerprint, IndexState
from rapids._wire.fingerprints import Fingerprint
from rapids.dead_letters.selection import LetterFilter, choose

__all__ = ["Cause", "Causes", "QueueStats", "causes_of", "stats_of"]

LISTING = Listing("causes")


@with_json_schema
@dataclass(frozen=True, slots=True)
class Cause:
    """The dead letters that have one fingerprint. Texts are hostile input: show them as data only."""

    fingerprint: str
    """16 hexadecimal digits; empty, like the texts here, for all letters beyond the first 1,000 causes, which are
    counted together. Each of them has a fingerprint of its own."""
    group: str
    handler: str
    event_type: str
    reason: str
    error_type: str
    position: str
    """Where the error came from, in the user's code."""
    count: int
    first_at: datetime
    """When the oldest of them was written."""
    last_at: datetime


@with_json_schema
@dataclass(frozen=True, slots=True)
class QueueStats:
    """Figures of a dead-letter stream."""

    length: int
    """Letters in it."""
    maxlen: int | None
    """Letters it is trimmed to, as the queue was configured."""
    unindexed: int
    """Letters that no cause counts yet: others wrote them. Each of the next queries adds up to a thousand."""
    cut: int
    """How many letters were trimmed to make room for newer ones, before anybody replayed or discarded them."""
    cut_at: datetime | None
    """When a letter was last trimmed like that."""


@dataclass(frozen=True, slots=True)
class Causes:
    """Causes, those with the most letters first."""

    items: tuple[Cause, ...]
    cursor: str | None
    """Where the next page starts; None after the last one."""
    total: int
    """How many causes match, on all pages."""
    letters: int
    """How many letters those causes have."""
    stats: QueueStats


async def causes_of(
    commands: Commands, dlq: str, wanted: LetterFilter, *, cursor: str | None, limit: int, maxlen: int | None
) -> Causes:
    """A page of the causes that match.

    Raises `ValueError` for a cursor that did not come from a page, and for a filter by something in which letters of
    one cause differ.
    """
    if wanted.q is not None or wanted.since is not None or wanted.until is not None:
        raise ValueError("causes cannot be filtered by q, since or until: their letters differ in that")
    after: tuple[int, str] | None = None
    if cursor is not None:
        count, _, name = LISTING.text(cursor).partition(":")
        if not count.isdigit() or len(count) > 20:
            raise LISTING.bad(cursor)
        after = -int(count), name
    state = await letter_index.state(commands, dlq)
    choice = choose(state, wanted)
    chosen = set(choice.names)
    rows = sorted((row for row in state.fingerprints if row.name in chosen), key=_order)
    left = [row for row in rows if after is None or _order(row) > after]
    page = left[:limit]
    items = [
        Cause(
            fingerprint="" if row.name == OTHERS else row.name,
            group=described.group,
            handler=described.handler,
            event_type=described.event_type,
            reason=described.reason,
            error_type=described.error_type,
            position=described.position,
            count=row.count,
            first_at=moment_or_last(order(row.first)[0]),
            last_at=moment_or_last(order(row.last)[0]),
        )
        for row in page
        for described in (Fingerprint.read(row.description),)
    ]
    following = LISTING.cursor(f"{page[-1].count}:{page[-1].name}") if len(left) > limit else None
    return Causes(tuple(items), following, len(rows), choice.count, _stats(state, maxlen))


async def stats_of(commands: Commands, dlq: str, *, maxlen: int | None) -> QueueStats:
    """Figures of the stream, after the index has caught up with up to a thousand letters that others wrote."""
    return _stats(await letter_index.state(commands, dlq), maxlen)


def _stats(state: IndexState, maxlen: int | None) -> QueueStats:
    cut_at = None if state.cut_at_ms is None else moment_or_last(state.cut_at_ms)
    return QueueStats(state.length, maxlen, max(state.length - state.entries, 0), state.cut, cut_at)


def _order(row: IndexedFingerprint) -> tuple[int, str]:
    return -row.count, row.name
