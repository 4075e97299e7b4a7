"""Streams: reading single entries, trimming, and the state of their groups."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rapids._core.redis_errors import is_no_group, is_no_stream
from rapids._storage import scripts
from rapids._storage.client.connections import Commands, Reply, call, checked, run
from rapids._storage.keys import PARKED, WAITING, Source

__all__ = [
    "GroupState",
    "Trim",
    "Unsettled",
    "as_text",
    "entries_after",
    "entries_before",
    "entries_between",
    "entries_of",
    "entry",
    "group_state",
    "last_id",
    "newest_entries",
    "ping",
    "trim",
]

MARK_MS = 60_000
"""How long it is remembered that a stream was trimmed (milliseconds)."""


async def entry(commands: Commands, stream: str, entry_id: bytes) -> Sequence[bytes] | None:
    """The fields of an entry, or None if it is no longer in the stream."""
    found = await call(commands, "XRANGE", stream, entry_id, entry_id)
    return found[0][1] if found else None


async def entries_after(
    commands: Commands, stream: str, after: str, count: int
) -> Sequence[tuple[bytes, Sequence[bytes]]]:
    """Up to `count` entries after an id, in the order of the stream. A missing stream is an empty one."""
    return await call(commands, "XRANGE", stream, f"({after}", "+", "COUNT", count)


async def entries_before(
    commands: Commands, stream: str, before: str | None, count: int
) -> Sequence[tuple[bytes, Sequence[bytes]]]:
    """Up to `count` entries before an id, or the last ones of the stream, the newest first."""
    return await call(commands, "XREVRANGE", stream, "+" if before is None else f"({before}", "-", "COUNT", count)


async def entries_between(
    commands: Commands, stream: str, first: str, last: str, count: int, *, newest_first: bool
) -> Sequence[tuple[bytes, Sequence[bytes]]]:
    """Up to `count` entries from `first` to `last`, as XRANGE takes them. A missing stream is an empty one."""
    if newest_first:
        return await call(commands, "XREVRANGE", stream, last, first, "COUNT", count)
    return await call(commands, "XRANGE", stream, first, last, "COUNT", count)


async def entries_of(
    commands: Commands, stream: str, entry_ids: Sequence[str]
) -> Sequence[Sequence[tuple[bytes, Sequence[bytes]]]]:
    """For each id, its entry, or nothing if it is no longer in the stream, in one round trip."""
    return [checked(one) for one in await commands.send([("XRANGE", stream, one, one) for one in entry_ids])]


async def newest_entries(commands: Commands, stream: str, count: int) -> Sequence[tuple[bytes, Sequence[bytes]]]:
    """The last `count` entries, in the order of the stream."""
    return list(reversed(await call(commands, "XREVRANGE", stream, "+", "-", "COUNT", count)))


async def last_id(commands: Commands, stream: str) -> str | None:
    """The last id that the stream ever assigned, or None if there is no such stream."""
    found = checked((await run(commands, scripts.load("last_id"), [((stream,), ())]))[0])
    return None if found is None else found.decode()


async def ping(commands: Commands) -> None:
    """Raises `RedisError` if the server does not answer."""
    await call(commands, "PING")


@dataclass(frozen=True, slots=True)
class GroupState:
    """How far a group is. Counts are in entries; `lag` is None if the server does not know it."""

    stream_length: int
    pending: int
    consumers: int
    last_delivered_id: str
    lag: int | None


async def group_state(commands: Commands, source: Source) -> GroupState:
    """The group's state in one round trip. All counts are 0 if the stream or group does not exist yet."""
    length, groups, consumers = await commands.send(
        [
            ("XLEN", source.stream),
            ("XINFO", "GROUPS", source.stream),
            ("XINFO", "CONSUMERS", source.stream, source.group),
        ]
    )
    if isinstance(groups, Exception) and is_no_stream(groups):
        return GroupState(0, 0, 0, "0-0", None)
    mine = [group for group in map(mapping, checked(groups)) if group[b"name"] == source.group.encode()]
    if not mine:
        return GroupState(checked(length), 0, 0, "0-0", None)
    names = [] if is_no_group(consumers) else [mapping(consumer)[b"name"] for consumer in checked(consumers)]
    return GroupState(
        stream_length=checked(length),
        pending=mine[0][b"pending"],
        consumers=len([name for name in names if name not in (WAITING, PARKED)]),
        last_delivered_id=mine[0][b"last-delivered-id"].decode(),
        lag=mine[0].get(b"lag"),
    )


def mapping(reply: Reply) -> dict[bytes, Reply]:
    """A reply of names and values, which is a flat list in RESP2 and a map in RESP3.

    fakeredis, which users use for fast tests, returns some of these names as text.
    """
    pairs = reply.items() if isinstance(reply, Mapping) else zip(reply[::2], reply[1::2], strict=True)  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType] - untyped wire data
    return {name.encode() if isinstance(name, str) else name: value for name, value in pairs}  # pyright: ignore[reportUnknownVariableType]


@dataclass(frozen=True, slots=True)
class Unsettled:
    """The oldest entry of a stream that some group has not settled."""

    group: str
    entry_id: str
    age: float
    """Seconds since it was appended, by its id and the server's clock."""
    consumer: str | None
    """The consumer that has it, empty for nobody; None if the group has not read it yet."""


@dataclass(frozen=True, slots=True)
class Trim:
    """The result of a trim. Counts are in entries."""

    removed: int
    left: int
    unsettled: Unsettled | None
    now_ms: int = field(default=0, compare=False)
    """When it was done, by the server's clock (milliseconds)."""
    last_id: str = field(default="", compare=False)
    """The last id that the stream had assigned by then."""
    settled_until: str = field(default="", compare=False)
    """The last id up to which every group has settled all entries."""


async def trim(
    commands: Commands,
    source: Source,
    *,
    least_age_ms: int,
    most: int,
    old_id: str = "",
    before: Trim | None = None,
) -> Trim:
    """Remove entries that every group of the stream has settled, in whole nodes, at most `most` entries.

    Entries younger than `least_age_ms` milliseconds stay. All entries stay while the group itself does not exist.

    `old_id`, an id that was the last one so long ago, and the trim `before` this one spare the server reading entries
    only for their ids.
    """
    unread = before.unsettled if before is not None and before.unsettled and before.unsettled.consumer is None else None
    known = ("", "") if before is None or unread is None else (before.settled_until, unread.entry_id)
    arguments = (source.group, least_age_ms, most, MARK_MS, old_id, *known)
    removed, left, held, now, last, until = checked(
        (await run(commands, scripts.load("trim"), [((source.stream, source.trimming), arguments)]))[0]
    )
    if held is None:
        return Trim(removed, left, None, now, last.decode(), until.decode())
    group, entry_id, age_ms, consumer = held
    unsettled = Unsettled(
        group=group.decode(errors="replace"),
        entry_id=entry_id.decode(),
        age=int(age_ms) / 1000,
        consumer=None if consumer is None else consumer.decode(errors="replace"),
    )
    return Trim(removed, left, unsettled, now, last.decode(), until.decode())


def as_text(raw: bytes | str) -> str:
    """A reply as text. fakeredis, which users use for fast tests, returns text already."""
    return raw.decode(errors="replace") if isinstance(raw, bytes) else raw
