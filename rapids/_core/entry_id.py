"""Ids of stream entries, `milliseconds-sequence`: parsing, order, the next and previous id, and the time in an id."""

import re
from datetime import UTC, datetime

__all__ = [
    "FIRST_ID",
    "LAST_ID",
    "is_before",
    "milliseconds",
    "moment",
    "moment_or_last",
    "next_id",
    "numbers",
    "order",
    "parsed_id",
    "previous_id",
    "time_of",
]

MAX_PART = 2**64 - 1
"""The largest value of each of the two numbers of an id."""

FIRST_ID, LAST_ID = "0-0", f"{MAX_PART}-{MAX_PART}"
"""No entry has an id before or after these."""

LATEST_MS = 253_402_300_799_000
"""The last second that a `datetime` can hold."""

_ID = re.compile(r"([0-9]{1,20})-([0-9]{1,20})")


def numbers(text: str) -> tuple[int, int] | None:
    """The two 64-bit whole numbers of an id in untrusted text; None for any other text."""
    found = _ID.fullmatch(text)
    if found is None:
        return None
    ms, seq = int(found[1]), int(found[2])
    return (ms, seq) if max(ms, seq) <= MAX_PART else None


def parsed_id(text: str) -> str | None:
    """An id that an entry can have, written as Redis writes it: 01-1 is 1-1. None for any other text."""
    found = numbers(text)
    return f"{found[0]}-{found[1]}" if found is not None and any(found) else None


def order(entry_id: str | bytes) -> tuple[int, int]:
    """The sort key of an id. A missing sequence counts as 0."""
    text = entry_id.decode() if isinstance(entry_id, bytes) else entry_id
    ms, _, seq = text.partition("-")
    return int(ms), int(seq or 0)


def is_before(one: str, other: str) -> bool:
    """Whether an id comes before another."""
    return order(one) < order(other)


def next_id(entry_id: str) -> str:
    """The id after this one; for the highest possible id, that id."""
    ms, seq = order(entry_id)
    if seq < MAX_PART:
        return f"{ms}-{seq + 1}"
    return f"{ms + 1}-0" if ms < MAX_PART else entry_id


def previous_id(entry_id: str) -> str:
    """The id before this one; for the lowest possible id, that id."""
    ms, seq = order(entry_id)
    if seq > 0:
        return f"{ms}-{seq - 1}"
    return f"{ms - 1}-{MAX_PART}" if ms > 0 else entry_id


def time_of(entry_id: str | bytes) -> datetime | None:
    """The time in an id; None for text that is no id, and for a time that a `datetime` cannot hold."""
    text = entry_id.decode(errors="replace") if isinstance(entry_id, bytes) else entry_id
    ms = text.partition("-")[0]
    return moment(int(ms)) if ms.isascii() and ms.isdigit() and len(ms) <= 20 else None


def moment(ms: int) -> datetime | None:
    """The time `ms` milliseconds after 1970; None for a time that a `datetime` cannot hold."""
    try:
        return datetime.fromtimestamp(ms / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        return None


def moment_or_last(ms: int) -> datetime:
    """The time `ms` milliseconds after 1970, but at most the last time that a `datetime` can hold."""
    return datetime.fromtimestamp(min(ms, LATEST_MS) / 1000, UTC)


def milliseconds(time: datetime) -> int:
    """Milliseconds since 1970; 0 for an earlier time. A time without a zone is taken as UTC."""
    aware = time if time.tzinfo else time.replace(tzinfo=UTC)
    return max(round(aware.timestamp() * 1000), 0)
