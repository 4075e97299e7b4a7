"""Read-only queries about streams, their groups and pending entries.

Each function, but for `search`, is one script in the stream's own slot. It takes one round trip, or two if the server
did not know the script yet. A missing stream or group is an error answer: see `_core.redis_errors`.
"""

import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from rapids._storage import scripts
from rapids._storage.client.connections import Client, Command, Commands, Reply, SharedPool, call, checked, run
from rapids._storage.group_control import Paused, pause_in
from rapids._storage.keys import BESIDE, Source, consumers_by_group, replay_stream
from rapids._wire.trace_fields import READ, Found, TraceKind

__all__ = [
    "ConsumerRow",
    "ConsumerRows",
    "GroupRow",
    "GroupRows",
    "GroupTrace",
    "Looked",
    "PendingRow",
    "PendingRows",
    "Searched",
    "StreamRow",
    "WaitingRow",
    "WaitingRows",
    "consumers",
    "group_traces",
    "groups",
    "look",
    "pending",
    "search",
    "stream",
    "waiting",
    "without_ttl",
]

COUNTED = 101
"""How many undelivered entries are counted if the server does not know a group's lag: as many as in a large read."""


@dataclass(frozen=True, slots=True)
class StreamRow:
    """A stream. `now_ms` is the time by the server's clock (milliseconds), here and below."""

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
    """A group. `next_id` is the first entry that was not yet delivered to it."""

    name: bytes
    last_delivered_id: bytes
    entries_read: int | None
    lag: int | None
    counted: int
    """Undelivered entries, up to `COUNTED`; up to 1 if `lag` is known."""
    next_id: bytes | None
    pending: int
    held_by_waiting: int
    parked: int
    oldest_id: bytes | None
    due: int
    replays: int
    consumers: int
    living: int
    paused: Paused | None


@dataclass(frozen=True, slots=True)
class GroupRows:
    """Groups, and figures of their stream. `more`: whether further groups follow."""

    now_ms: int
    length: int
    first_id: bytes | None
    last_id: bytes | None
    rows: list[GroupRow]
    more: bool


@dataclass(frozen=True, slots=True)
class ConsumerRow:
    """A consumer. `token` is the token of the living process that has its name, if there is one."""

    name: bytes
    pending: int
    idle_ms: int
    inactive_ms: int | None
    token: bytes | None


@dataclass(frozen=True, slots=True)
class ConsumerRows:
    """Consumers. `more`: whether further consumers follow."""

    now_ms: int
    rows: list[ConsumerRow]
    more: bool


@dataclass(frozen=True, slots=True)
class PendingRow:
    """A pending entry. `due` is a score: milliseconds by the server's clock."""

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
    """Pending entries up to the id `until`. If they are as many as requested, more may follow."""

    now_ms: int
    until: bytes
    rows: list[PendingRow]


@dataclass(frozen=True, slots=True)
class WaitingRow:
    """An entry with the time at which it is due (a score: milliseconds by the server's clock).

    `consumer` is None if it is not pending: its group was lost and recreated without it.
    """

    entry_id: bytes
    due: bytes
    consumer: bytes | None
    idle_ms: int
    deliveries: int
    ledger: bytes | None


@dataclass(frozen=True, slots=True)
class WaitingRows:
    """Waiting entries due up to `until`. `more`: whether further entries follow."""

    now_ms: int
    until: bytes
    rows: list[WaitingRow]
    more: bool


async def stream(commands: Commands, name: str) -> StreamRow:
    """The stream."""
    return StreamRow(*await _run(commands, "inspect_stream", (name,), ()))


# `names_of`: the source whose keys hold the consumers' names. For a replay stream, it is the stream's own source.


async def groups(
    commands: Commands, source: Source, *, names_of: Source, start: bytes = b"", most: int = 1
) -> GroupRows:
    """The source's group or, if that is empty, at most `most` groups from the name `start` on."""
    options = scripts.options(
        most=most,
        counted=COUNTED,
        due=Source(source.stream, "").due,
        replays=replay_stream(source.stream, ""),
        paused=Source(names_of.stream, "").paused,
        names=consumers_by_group(names_of.stream),
    )
    arguments = (source.group, start, options)
    now, length, first, last, rows, more = await _run(commands, "inspect_groups", (source.stream,), arguments)
    return GroupRows(
        now, length, first, last, [GroupRow(*row, paused=pause_in(held)) for *row, held in rows], more == 1
    )


async def consumers(
    commands: Commands, source: Source, *, names_of: Source, start: bytes = b"", most: int
) -> ConsumerRows:
    """At most `most` consumers of a group from the name `start` on."""
    arguments = (source.group, start, scripts.options(most=most, names=names_of.consumer("")))
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
    """At most `most` pending entries from the id `start` to the id `until`, by default the last pending one."""
    keys = (source.stream, source.ledger, source.due, source.parked)
    options = scripts.options(start=start, end_=until, most=most, names=names_of.consumer(""))
    now, end, rows = await _run(commands, "inspect_pending", keys, (source.group, consumer, options))
    return PendingRows(now, end, [PendingRow(*row) for row in rows])


async def waiting(
    commands: Commands, source: Source, *, after: tuple[str, str] = ("", ""), until: str = "", most: int
) -> WaitingRows:
    """At most `most` waiting entries, by due time, after the one with this score and id, up to the score `until`."""
    keys = (source.stream, source.ledger, source.due)
    options = scripts.options(after=after, latest=until, most=most)
    now, end, rows, more = await _run(commands, "inspect_waiting", keys, (source.group, options))
    return WaitingRows(now, end, [WaitingRow(*row) for row in rows], more == 1)


async def _run(commands: Commands, script: str, keys: tuple[str, ...], arguments: Command) -> list[Reply]:
    return checked((await run(commands, scripts.load(script), [(keys, arguments)]))[0])


MAX_GROUPS = 50
MAX_ENTRIES = 1_000
"""How many entries one script reads."""
MAX_BYTES = 4_000_000
MAX_SENT_BACK = 1_000_000


@dataclass(frozen=True, slots=True)
class Looked:
    """The result of a search step, newest entries first. `now_ms` is the time by the server's clock (milliseconds)."""

    now_ms: int
    entries: int
    newest: str | None
    oldest: str | None
    ended: bool
    """Whether the whole range was read."""
    first: str | None
    """The stream's oldest entry."""
    found: list[Found]


@dataclass(frozen=True, slots=True)
class GroupTrace:
    """The states of entries in a group, by id: `undelivered`, `settled`, or the pending entry."""

    name: bytes
    entries: Mapping[str, str | PendingRow]


async def look(
    commands: Commands,
    stream: str,
    correlation_id: str,
    kind: TraceKind,
    *,
    start: str = "+",
    oldest: str = "-",
    most: int,
    entry_ids: Sequence[str] = (),
) -> Looked:
    """Read up to `most` entries, from the id `start` (after it, if it begins with `(`) back to `oldest`."""
    names = READ[kind]
    options = scripts.options(
        start=start,
        oldest=oldest,
        most=min(most, MAX_ENTRIES),
        most_bytes=MAX_BYTES,
        most_sent=MAX_SENT_BACK,
        names=[(name.decode(), longest) for name, longest in names.items()],
        entries=entry_ids,
    )
    reply = await _run(commands, "trace_entries", (stream,), (correlation_id, options))
    now, looked, newest, last, ended, first, rows = reply
    found: list[Found] = []
    for entry_id, values, sizes in rows:
        named = {name: value for name, value in zip(names, values, strict=True) if value is not None}
        found.append(Found(entry_id.decode(), named, dict(zip(names, sizes, strict=True))))
    return Looked(now, looked, _id_text(newest), _id_text(last), ended == 1, _id_text(first), found)


async def group_traces(
    commands: Commands, stream: str, entry_ids: Sequence[str], *, names_of: str
) -> tuple[list[GroupTrace], bool]:
    """The states of the entries in each group of a stream, and whether the stream has more groups than these.

    `names_of` is the stream whose keys hold the consumers' names: for a replay stream, the stream that it belongs to.
    """
    of_any = Source(stream, "")
    options = scripts.options(
        most=MAX_GROUPS,
        entries=entry_ids,
        ledger=of_any.ledger,
        due=of_any.due,
        parked=of_any.parked,
        names=consumers_by_group(names_of),
    )
    rows, more = await _run(commands, "trace_groups", (stream,), (options,))
    traced: list[GroupTrace] = []
    for name, entries in rows:
        states = {
            entry_id: state.decode() if pending is None else PendingRow(*pending)
            for entry_id, (state, pending) in zip(entry_ids, entries, strict=True)
        }
        traced.append(GroupTrace(name, states))
    return traced, more == 1


def _id_text(entry_id: bytes | None) -> str | None:
    return None if entry_id is None else entry_id.decode()


# --- keys of the whole server -----------------------------------------------------------------------------------------

STEP = 1_000
"""Keys that the server looks at in one step, which takes it less than a millisecond."""


@dataclass(frozen=True, slots=True)
class Searched:
    """The names of keys, as text; bytes that are not UTF-8 are written as escapes."""

    names: list[str] = field(default_factory=list[str])
    complete: bool = True
    """Whether all keys were looked at: no limit ended the search."""


async def search(client: Client, what: Literal["streams", "beside"], *, most: int, seconds: float) -> Searched:
    """Up to `most` names of streams (with what Rapids keeps as streams), or of everything that Rapids keeps beside
    streams. Looks at all keys of the server, on a Cluster of all its masters, for at most `seconds`. Leaves out names
    that are not text.

    Raises `RedisError`.
    """
    wanted = {"_type": "STREAM"} if what == "streams" else {"match": f"*{BESIDE}*"}
    found: set[str] = set()
    deadline = time.monotonic() + seconds
    keys = cast(AsyncIterator[Any], client.scan_iter(count=STEP, **wanted))  # pyright: ignore[reportUnknownMemberType, reportArgumentType] - typed loosely there
    async for key in keys:
        with suppress(UnicodeDecodeError):
            found.add(key if isinstance(key, str) else bytes(key).decode())
        if len(found) >= most or time.monotonic() > deadline:
            return Searched(sorted(found), False)
    return Searched(sorted(found))


async def without_ttl(client: Client, names: Sequence[str]) -> list[str]:
    """Those of the keys that never expire. Raises `RedisError`."""
    return [name for name in names if await call(SharedPool(client, name), "PTTL", name) == -1]
