"""The feed of a stream: its entries as they are appended, read without taking part in any group."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from rapids._core.entry_id import FIRST_ID, time_of
from rapids._storage import streams
from rapids._storage.client.connections import Commands
from rapids._wire.entry_format import first_values
from rapids._wire.trace_fields import Found
from rapids.dead_letters.parse_check import ParseCheck, check_event

__all__ = ["StreamEntry", "backwards", "entries", "follow"]

STEP = 50
"""Entries in one read, since each may be large."""


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
