"""Reads of new entries, by any consumer or only by the active one, and the acknowledgements sent with them."""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence

from redis.exceptions import AskError

from rapids._storage import scripts
from rapids._storage.client.commands import pack
from rapids._storage.client.connections import Command, OwnConnection, Reply, checked, whole_call
from rapids._storage.groups import RawEntry
from rapids._storage.keys import Source
from rapids._storage.terms import Term, keys_of

__all__ = ["ReadCommand", "TermRead", "acknowledgement"]

MOVING_PAUSE = 0.1
"""Seconds between reads of a stream that moves from one node of a Cluster to another: such reads do not block."""

OnAhead = Callable[[Sequence[Reply]], None]


class ReadCommand:
    """The read command of one consumer: new entries of all sources, at most `count` of each (entries).

    It waits up to `block_ms` milliseconds for the first entry. It is packed once, since it is always the same.
    """

    def __init__(self, sources: Sequence[Source], consumer: str, *, count: int, block_ms: int) -> None:
        streams = [source.stream for source in sources]
        self._by_name = _by_name(sources)
        reading = ("XREADGROUP", "GROUP", sources[0].group, consumer, "COUNT", count)
        what = ("STREAMS", *streams, *(">" for _ in streams))
        self._command = pack([(*reading, "BLOCK", block_ms, *what)])
        self._at_once = pack([(*reading, *what)])

    async def read(
        self,
        connection: OwnConnection,
        acks: Mapping[Source, Sequence[bytes]],
        on_ahead: OnAhead,
        more: Sequence[Command] = (),
    ) -> dict[Source, list[RawEntry]]:
        """New entries. Acknowledgements are sent in the same round trip, followed by the `more` commands.

        `on_ahead` is called with the answers to all of these before the read waits.
        """
        ahead = _ahead(acks, more)
        return _entries(self._by_name, await _blocking(connection, ahead, self._command, self._at_once, on_ahead))


class TermRead:
    """Reads new entries as long as a term lasts: it waits by a read that takes nothing, and a script takes them.

    What a blocked `XREADGROUP` is given belongs to its consumer, even if that stands still and another one has become
    active in the meantime. Then later entries would run first.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        consumer: str,
        term: Term,
        *,
        count: int,
        block_ms: int,
        may_take: Callable[[], bool],
    ) -> None:
        """`may_take`: whether new entries may still be taken after it waited."""
        self._sources = sources
        self._count = count
        self._may_take = may_take
        self._streams = tuple(source.stream for source in sources)
        self._by_name = _by_name(sources)
        self._block_ms = block_ms
        keys = (*self._streams, *keys_of(term))
        self._take = whole_call(scripts.load("take"), keys, sources[0].group, consumer, term.token, count)
        self._delivered: dict[Source, str] = {}
        """The ids last delivered to the group, as far as they are known."""
        self._waits = False
        """Whether nothing was left after these ids."""

    async def read(
        self,
        connection: OwnConnection,
        acks: Mapping[Source, Sequence[bytes]],
        on_ahead: OnAhead,
        more: Sequence[Command] = (),
    ) -> dict[Source, list[RawEntry]] | None:
        """New entries; None if the term has ended. Parameters as for `ReadCommand.read`."""
        ahead = _ahead(acks, more)
        if self._waits:
            after = [self._delivered[source] for source in self._sources]
            what = ("STREAMS", *self._streams, *after)
            waiting = pack([("XREAD", "COUNT", 1, "BLOCK", self._block_ms, *what)])
            found = await _blocking(connection, ahead, waiting, pack([("XREAD", "COUNT", 1, *what)]), on_ahead)
            ahead = []
            if (self._waits and not found) or not self._may_take():
                return {}
        *before, reply = await connection.send([*ahead, self._take])
        if ahead:
            on_ahead(before)
        if checked(reply) is None:
            return None
        taken, *delivered = reply
        read = _entries(self._by_name, taken)
        self._delivered |= zip(self._sources, map(bytes.decode, delivered), strict=False)
        self._delivered |= {source: entries[-1].entry_id.decode() for source, entries in read.items()}
        is_full = any(len(entries) >= self._count for entries in read.values())
        self._waits = not is_full and len(self._delivered) == len(self._sources)
        return read

    def check(self, source: Source, delivered: str | None) -> None:
        """Take instead of waiting if another id than expected was last delivered: the group was moved, or is lost."""
        self._waits = self._waits and self._delivered[source] == delivered


def _by_name(sources: Sequence[Source]) -> dict[bytes, Source]:
    return {source.stream.encode(): source for source in sources}


def acknowledgement(source: Source, ids: Sequence[bytes]) -> list[Command]:
    """The commands that only acknowledge entries. An entry of a replay stream is also deleted."""
    wanted: list[Command] = [("XACK", source.stream, source.group, *ids)]
    if source.is_replay:
        wanted.append(("XDEL", source.stream, *ids))
    return wanted


def _ahead(acks: Mapping[Source, Sequence[bytes]], more: Sequence[Command]) -> list[Command]:
    return [*(command for source, ids in acks.items() for command in acknowledgement(source, ids)), *more]


async def _blocking(
    connection: OwnConnection, ahead: Sequence[Command], command: bytes, at_once: bytes, on_ahead: OnAhead
) -> Reply:
    reply = await connection.send_ahead(ahead, command, on_ahead)
    if isinstance(reply, AskError):  # from a Cluster node: the streams are moving to another node, or have moved
        reply = await connection.read_elsewhere(reply, at_once)
        if not reply:
            await asyncio.sleep(MOVING_PAUSE)
    return checked(reply)


def _entries(by_name: Mapping[bytes, Source], reply: Reply) -> dict[Source, list[RawEntry]]:
    return {
        source: [RawEntry(source, entry_id, fields or ()) for entry_id, fields in entries]
        for name, entries in _answered(reply)
        for source in (by_name[name],)
        if entries  # before Redis 7.2, if the last entry was deleted, the end of any group ends a read with none
    }


def _answered(reply: Reply) -> Iterable[tuple[bytes, Reply]]:
    """Streams and their entries: a map in RESP3, pairs in RESP2, nothing after a time-out."""
    return reply.items() if isinstance(reply, dict) else (reply or ())  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType] - untyped wire data
