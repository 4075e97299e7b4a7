"""The feed of a stream: its entries as they are appended, read without taking part in any group."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from redis.asyncio import Redis, RedisCluster

from rapids._core.checks import at_least, stream_name
from rapids._core.entry_id import FIRST_ID, milliseconds, next_id, order, parsed_id, previous_id, time_of
from rapids._core.paging import Listing
from rapids._storage import streams
from rapids._storage.client.connections import Commands, SharedPool
from rapids._wire.entry_format import first_values
from rapids._wire.trace_fields import Found
from rapids.dead_letters.parse_check import ParseCheck, check_event
from rapids.exceptions import StreamNotFoundError
from rapids.inspection.snapshots import Page

__all__ = ["StreamEntry", "backwards", "entries", "follow", "read_entries"]

STEP = 50
"""Entries in one read, since each may be large."""

ENTRIES = Listing("entries")
MAX_PAGE = 500
PAGE_STEP = 10
MAX_PAGE_BYTES = 4 * 1024 * 1024
"""Bytes of entries after which a page ends early. It is looked at after every ten entries."""


@dataclass(frozen=True, slots=True)
class StreamEntry:
    """An entry, with what it says about its event. Texts are untrusted input, and empty if the entry has none."""

    stream: str
    entry_id: str
    appended_at: datetime | None
    """When it was appended, by its id; None if an id written by hand has no valid time."""
    event_id: str
    event_type: str
    timestamp: str
    correlation_id: str
    causation_id: str
    schema_version: str
    data: bytes
    """The event's own fields: JSON, if it is well-formed."""
    metadata: bytes
    stored: Sequence[bytes] = field(default=(), repr=False)
    """Its fields as stored, names and values in turn."""

    def check_parsing(self) -> ParseCheck:
        """Whether the event would be parsed by the class registered now, as a worker parses it.

        It does no I/O, but runs the validators and migrations of that class. For a payload of megabytes this can take
        nearly a second: then call it in a thread.
        """
        return check_event(self.stored)


async def follow(
    commands: Commands, stream: str, *, after: str | None, newest: int, pause: float | None
) -> AsyncGenerator[StreamEntry]:
    """The entries after `after`, or the last `newest` ones and what follows. Ends at the end if there is no pause."""
    last = after
    if last is None:
        last = await streams.last_id(commands, stream) or FIRST_ID
        for raw_id, fields in await streams.newest_entries(commands, stream, newest) if newest else ():
            yield _entry(stream, raw_id, fields)
            last = raw_id.decode()
    while True:
        rows = await streams.entries_after(commands, stream, last, STEP)
        for raw_id, fields in rows:
            yield _entry(stream, raw_id, fields)
            last = raw_id.decode()
        if len(rows) < STEP:
            if pause is None:
                return
            await asyncio.sleep(pause)


async def read_entries(
    redis: Redis | RedisCluster,
    stream: str,
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    start: str | None = None,
    newest_first: bool = True,
    cursor: str | None = None,
    limit: int = 50,
) -> Page[StreamEntry]:
    """A page of a stream's entries: those appended `since` a time, and before `until`, by their ids.

    `start`: the id of the first entry to show, in the chosen order. `limit`: 1 to 500 entries. A page ends after about
    4 MiB of entries, too. Raises `StreamNotFoundError` if there is no such stream, and `ValueError` for a `start` that
    is no entry id, a cursor that did not come from a page, or a `limit` out of range.
    """
    name = stream_name("stream", stream)
    if at_least("limit", limit, 1) > MAX_PAGE:
        raise ValueError(f"limit must be a whole number from 1 to {MAX_PAGE}, not {limit!r}")
    begin = None if start is None else parsed_id(start)
    if start is not None and begin is None:
        raise ValueError(f"start must be an entry id, such as 1763932000000-0, not {start[:50]!r}")
    commands = SharedPool(redis, name)
    first = "-" if since is None else f"{milliseconds(since)}-0"
    last = "+" if until is None else f"({max(milliseconds(until), 1)}-0"  # no id is before 0-1
    if begin is not None and newest_first and (until is None or order(begin)[0] < milliseconds(until)):
        last = begin
    elif begin is not None and not newest_first and (since is None or order(begin)[0] >= milliseconds(since)):
        first = begin
    if cursor is not None:
        shown = ENTRIES.entry_ids(cursor, 1)[0]
        first, last = (first, previous_id(shown)) if newest_first else (next_id(shown), last)
    found: list[StreamEntry] = []
    size, is_full = 0, False
    while not is_full:
        count = min(PAGE_STEP, limit - len(found))
        rows = await streams.entries_between(commands, name, first, last, count, newest_first=newest_first)
        found += [_entry(name, raw_id, fields) for raw_id, fields in rows]
        size += sum(len(one) for _, fields in rows for one in fields)
        if len(rows) < count:
            break
        shown = found[-1].entry_id
        first, last = (first, previous_id(shown)) if newest_first else (next_id(shown), last)
        is_full = len(found) == limit or size >= MAX_PAGE_BYTES
    if not found and await streams.last_id(commands, name) is None:
        raise StreamNotFoundError(name)
    more = ENTRIES.entry_cursor(found[-1].entry_id) if is_full else None
    return Page(datetime.now(UTC), tuple(found), more)


async def backwards(commands: Commands, stream: str) -> AsyncGenerator[StreamEntry]:
    """The entries of a stream, the newest first."""
    before: str | None = None
    while rows := await streams.entries_before(commands, stream, before, STEP):
        for raw_id, fields in rows:
            yield _entry(stream, raw_id, fields)
        before = rows[-1][0].decode()


async def entries(commands: Commands, stream: str, entry_ids: Sequence[str]) -> AsyncGenerator[StreamEntry]:
    """The entries with these ids, as far as they are still in the stream."""
    for first in range(0, len(entry_ids), STEP):
        chunk = entry_ids[first : first + STEP]
        for found in await streams.entries_of(commands, stream, chunk):
            for raw_id, fields in found:
                yield _entry(stream, raw_id, fields)


def _entry(stream: str, raw_id: bytes, fields: Sequence[bytes]) -> StreamEntry:
    values = first_values(fields)
    found = Found(raw_id.decode(), values, {name: len(value) for name, value in values.items()})
    event = found.event
    return StreamEntry(
        stream=stream,
        entry_id=found.entry_id,
        appended_at=time_of(raw_id),
        event_id=event.event_id,
        event_type=event.event_type,
        timestamp=event.timestamp,
        correlation_id=found.correlation_id.decode(errors="replace"),
        causation_id=event.causation_id,
        schema_version=event.schema_version,
        data=event.data or b"",
        metadata=event.metadata or b"",
        stored=fields,
    )
