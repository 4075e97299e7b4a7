"""Looking at streams, their groups and what is pending. Nothing here writes.

Each function is one script in the stream's own slot, so one round trip, and two where the server did not know the
script yet. A stream or group that is not there is an error answer: see `_core.redis_errors`.
"""

from dataclasses import dataclass

from rapids._storage import scripts
from rapids._storage.client.connections import Command, Commands, Reply, checked, run
from rapids._storage.keys import Source, consumers_by_group, replay_stream

__all__ = [
    "ConsumerRow",
    "ConsumerRows",
    "GroupRow",
    "GroupRows",
    "PendingRow",
    "PendingRows",
    "StreamRow",
    "WaitingRow",
    "WaitingRows",
    "consumers",
    "groups",
    "pending",
    "stream",
    "waiting",
]

COUNTED = 101
"""Undelivered entries counted where the server does not know a group's lag, as many as a large read brings."""


@dataclass(frozen=True, slots=True)
class StreamRow:
    """A stream. `now_ms` is the server's clock (milliseconds), here and below."""

    now_ms: int
    length: int
    first_id: bytes | None
    last_id: bytes | None
    last_generated_id: bytes
    entries_added: int | None
    groups: int
    memory: int | None


@dataclass(frozen=True, slots=True)
class GroupRow:
    """A group. `next_id` is the first entry that was not delivered to it."""

    name: bytes
    last_delivered_id: bytes
    entries_read: int | None
    lag: int | None
    counted: int
    """Undelivered entries, up to `COUNTED`; up to 1 where `lag` is known."""
    next_id: bytes | None
    pending: int
    held_by_waiting: int
    parked: int
    oldest_id: bytes | None
    due: int
    replays: int
    consumers: int
    living: int


@dataclass(frozen=True, slots=True)
class GroupRows:
    """Groups, and what their stream has. `more` follow behind them."""

    now_ms: int
    length: int
    first_id: bytes | None
    last_id: bytes | None
    rows: list[GroupRow]
    more: bool


@dataclass(frozen=True, slots=True)
class ConsumerRow:
    """A consumer. `token` is of the process that goes by its name, if one lives."""

    name: bytes
    pending: int
    idle_ms: int
    inactive_ms: int | None
    token: bytes | None


@dataclass(frozen=True, slots=True)
class ConsumerRows:
    """Consumers. `more` follow behind them."""

    now_ms: int
    rows: list[ConsumerRow]
    more: bool


@dataclass(frozen=True, slots=True)
class PendingRow:
    """A pending entry. `due` is a score: milliseconds, by the server's clock."""

    entry_id: bytes
    consumer: bytes
    idle_ms: int
    deliveries: int
    ledger: bytes | None
    due: bytes | None
    why: bytes | None
    is_living: int


@dataclass(frozen=True, slots=True)
class PendingRows:
    """Pending entries up to the id `until`. Where they are as many as were asked for, more may follow."""

    now_ms: int
    until: bytes
    rows: list[PendingRow]


@dataclass(frozen=True, slots=True)
class WaitingRow:
    """An entry with the time at which it is due (a score: milliseconds, by the server's clock).

    `consumer` is None where it is not pending: its group was lost and made again without it.
    """

    entry_id: bytes
    due: bytes
    consumer: bytes | None
    idle_ms: int
    deliveries: int
    ledger: bytes | None


@dataclass(frozen=True, slots=True)
class WaitingRows:
    """Waiting entries due up to `until`. `more` follow behind them."""

    now_ms: int
    until: bytes
    rows: list[WaitingRow]
    more: bool


async def stream(commands: Commands, name: str) -> StreamRow:
    """The stream."""
    return StreamRow(*await _run(commands, "inspect_stream", (name,), ()))


# `names_of`: the source by which consumers' names are held, for a replay stream too that of the stream itself.


async def groups(
    commands: Commands, source: Source, *, names_of: Source, start: bytes = b"", most: int = 1
) -> GroupRows:
    """The source's group or, where that is empty, `most` groups from the name `start` on."""
    due, replays = Source(source.stream, "").due, replay_stream(source.stream, "")
    names = consumers_by_group(names_of.stream)
    arguments = (source.group, start, most, COUNTED, due, replays, names)
    now, length, first, last, rows, more = await _run(commands, "inspect_groups", (source.stream,), arguments)
    return GroupRows(now, length, first, last, [GroupRow(*row) for row in rows], more == 1)


async def consumers(
    commands: Commands, source: Source, *, names_of: Source, start: bytes = b"", most: int
) -> ConsumerRows:
    """`most` consumers of a group from the name `start` on."""
    arguments = (source.group, start, most, names_of.consumer(""))
    now, rows, more = await _run(commands, "inspect_consumers", (source.stream,), arguments)
    return ConsumerRows(now, [ConsumerRow(*row) for row in rows], more == 1)


async def pending(
    commands: Commands,
    source: Source,
    *,
    names_of: Source,
    start: str = "-",
    until: str = "",
    most: int,
    consumer: bytes | str = "",
) -> PendingRows:
    """`most` pending entries from the id `start` to the id `until`, by default the last one the stream gave out."""
    keys = (source.stream, source.ledger, source.due, source.parked)
    arguments = (source.group, start, until, most, consumer, names_of.consumer(""))
    now, end, rows = await _run(commands, "inspect_pending", keys, arguments)
    return PendingRows(now, end, [PendingRow(*row) for row in rows])


async def waiting(
    commands: Commands, source: Source, *, after: tuple[str, str] = ("", ""), until: str = "", most: int
) -> WaitingRows:
    """`most` waiting entries as they are due, behind the one with that score and id, up to the score `until`."""
    keys = (source.stream, source.ledger, source.due)
    now, end, rows, more = await _run(commands, "inspect_waiting", keys, (source.group, *after, until, most))
    return WaitingRows(now, end, [WaitingRow(*row) for row in rows], more == 1)


async def _run(commands: Commands, script: str, keys: tuple[str, ...], arguments: Command) -> list[Reply]:
    return checked((await run(commands, scripts.load(script), [(keys, arguments)]))[0])
