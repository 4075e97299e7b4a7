"""Appending to streams and asking how they are."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rapids.storage.connection import Commands, Reply, call, checked, is_no_group
from rapids.storage.keys import PARKED, WAITING, Source

__all__ = ["GroupState", "append", "group_state", "ping"]


async def append(
    commands: Commands, stream: str, entries: Sequence[Sequence[bytes]], *, maxlen: int | None
) -> list[Reply]:
    """Append entries in order, in one round trip: an entry id, or the error, for each.

    `maxlen` (entries) trims the stream in whole nodes, so some more stay. Raises `RedisError` if no answer came.
    """
    trim = () if maxlen is None else ("MAXLEN", "~", maxlen)
    return await commands.send([("XADD", stream, *trim, "*", *fields) for fields in entries])


async def ping(commands: Commands) -> None:
    """Raises `RedisError` if the server does not answer."""
    await call(commands, "PING")


@dataclass(frozen=True, slots=True)
class GroupState:
    """How far a group is. Counts are entries; `lag` is None where the server does not know it."""

    stream_length: int
    pending: int
    consumers: int
    last_delivered_id: str
    lag: int | None


async def group_state(commands: Commands, source: Source) -> GroupState:
    """The group's state in one round trip. A stream or group that does not exist yet has all zeros."""
    length, groups, consumers = await commands.send(
        [
            ("XLEN", source.stream),
            ("XINFO", "GROUPS", source.stream),
            ("XINFO", "CONSUMERS", source.stream, source.group),
        ]
    )
    if isinstance(groups, Exception) and "no such key" in str(groups).lower():
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
    """A reply of names and values, which is flat in RESP2 and a map in RESP3.

    fakeredis, with which users run their fast tests, gives some of these names as text.
    """
    pairs = reply.items() if isinstance(reply, Mapping) else zip(reply[::2], reply[1::2], strict=True)  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType] - untyped wire data
    return {name.encode() if isinstance(name, str) else name: value for name, value in pairs}  # pyright: ignore[reportUnknownVariableType]
