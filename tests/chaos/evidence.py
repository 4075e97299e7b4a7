"""Everything known of a run when it is over, as plain values: what the checks judge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from redis.asyncio import Redis, RedisCluster
from redis.exceptions import ResponseError

from tests.chaos import settings
from tests.chaos.faults import Interruption
from tests.chaos.processes import Exit
from tests.chaos.records import Emit, Execution, Note


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter as it stands in the stream."""

    id: str
    entry_id: str
    handler: str
    reason: str


@dataclass(frozen=True, slots=True)
class Stored:
    """What the server holds at the end."""

    entries: Mapping[str, int]
    """Entry id to event number."""
    letters: Sequence[Letter] = ()
    pending: Sequence[str] = ()
    """Entry ids the group has not settled; none of them is parked, since there is a dead-letter queue."""
    undelivered: bool = False
    keys: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Evidence:
    stored: Stored
    emits: Mapping[int, Emit]
    executions: Sequence[Execution]
    interruptions: Sequence[Interruption] = ()
    exits: Sequence[Exit] = ()
    hanging: Sequence[str] = ()
    """Processes that did not end when they were asked to."""
    notes: Sequence[Note] = ()
    seconds: float = 0.0
    drain_seconds: float = 0.0
    faults: Mapping[str, int] = field(default_factory=dict[str, int])
    """How often each kind of fault struck."""


async def read_stored(client: Redis | RedisCluster, dlq: str) -> Stored:
    entries = {
        entry_id.decode(): int(fields[b"id"].removeprefix(b"event-"))
        for entry_id, fields in await client.xrange(settings.STREAM)
    }
    letters = [
        Letter(
            letter_id.decode(),
            fields[b"original_msg_id"].decode(),
            fields[b"handler"].decode(),
            fields[b"reason"].decode(),
        )
        for letter_id, fields in await client.xrange(dlq)
    ]
    pending, undelivered = await read_unsettled(client)
    keys = sorted([key.decode() async for key in client.scan_iter(count=1000)])
    return Stored(entries, letters, pending, undelivered, keys)


async def read_unsettled(client: Redis | RedisCluster) -> tuple[list[str], bool]:
    """The entries that are pending, 100,000 at most, and whether some are not delivered yet."""
    try:
        groups = {row["name"]: row for row in await client.xinfo_groups(settings.STREAM)}
        last = (await client.xinfo_stream(settings.STREAM))["last-generated-id"]
        rows = await client.xpending_range(settings.STREAM, settings.GROUP, "-", "+", 100_000)
    except ResponseError:  # no stream, no group
        return [], True
    pending = [row["message_id"].decode() for row in rows]
    return pending, groups[settings.GROUP.encode()]["last-delivered-id"] != last
