"""Consumer groups: making them, reading as one, taking over what others left, holding leases and names."""

import asyncio
import math
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple
from uuid import uuid4

from redis.exceptions import AskError, ResponseError

from rapids._storage import scripts
from rapids._storage.client.connections import Command, Commands, OwnConnection, Reply, call, checked, run, whole_call
from rapids._storage.client.protocol import pack
from rapids._storage.keys import PARKED, WAITING, Source
from rapids._storage.streams import mapping

__all__ = [
    "Claimed",
    "RawEntry",
    "Reading",
    "acknowledgement",
    "claim",
    "consumers",
    "create",
    "forget_settled",
    "hold",
    "idle_entries",
    "new_token",
    "release",
    "renew",
    "token_made_at",
]

TIES = 200
"""More entries than can be handed back in one millisecond."""

PAGE = 100
"""Entries asked for at once when looking for abandoned ones."""

LEDGER_PAGE = 500
"""Ledgers looked at in one step, about: of a small hash all are returned."""

MOVING_PAUSE = 0.1
"""Seconds between reads of a stream that moves from one node of a Cluster to another: those do not block."""


MADE_AGAIN_MS = 3_600_000
"""For how long it is known that a group was lost and made again: longer than a process stands still, mostly."""


class RawEntry(NamedTuple):
    """An entry as the group got it: its id and its fields in turn, the delivery count, and its ledger if it has one.

    One is made for every entry there is, which takes a frozen dataclass four times as long.
    """

    source: Source
    entry_id: bytes
    fields: Sequence[bytes]
    deliveries: int = 1
    ledger: bytes | None = None
    taken_ms: int = 0
    """When it was claimed, by the server's clock (milliseconds); 0 for a first delivery, which has no ledger."""


async def create(commands: Commands, source: Source, start_id: str) -> bool:
    """Make the group, and the stream if need be. False if it was there already: then nothing changes."""
    try:
        await call(commands, "XGROUP", "CREATE", source.stream, source.group, start_id, "MKSTREAM")
    except ResponseError as error:
        if "BUSYGROUP" in str(error):
            return False
        if "WRONGTYPE" in str(error):
            raise ResponseError(f"WRONGTYPE {source.stream!r} is a key of another kind, not a stream") from error
        raise
    return True


async def create_again(commands: Commands, source: Source, start_id: str, *, given_out: bool) -> bool:
    """Make a lost group again, with the entries that waited in it or were parked. False if it was there already.

    `given_out`: the lost group had given out everything up to `start_id`, so that the new one is not to do so again.
    """
    keys = (source.stream, source.ledger, source.due, source.parked, source.made_again)
    arguments = (source.group, start_id, int(given_out), MADE_AGAIN_MS)
    return checked((await run(commands, scripts.load("create_again"), [(keys, arguments)]))[0]) == 1


async def since_made_again(commands: Commands, source: Source) -> float:
    """Seconds since the group was lost and made again; infinite where that was not lately."""
    made_ms, (seconds, micros) = map(checked, await commands.send([("GET", source.made_again), ("TIME",)]))
    return math.inf if made_ms is None else int(seconds) + int(micros) / 1e6 - int(made_ms) / 1000


async def join(commands: Commands, source: Source, consumer: str) -> None:
    """Let the group know a consumer before it gets anything, which servers before Redis 7.2 do only then."""
    await call(commands, "XGROUP", "CREATECONSUMER", source.stream, source.group, consumer)


async def misses_parked(commands: Commands, source: Source) -> bool:
    """Whether entries are told to be parked, and the group has no consumer for them: a stranger made it again."""
    told, consumers = await commands.send(
        [("EXISTS", source.parked), ("XINFO", "CONSUMERS", source.stream, source.group)]
    )
    names = {mapping(row)[b"name"] for row in checked(consumers)}
    return bool(checked(told)) and PARKED not in names


class Reading:
    """The read of one consumer: new entries of all sources, `count` of each at most (entries).

    It waits up to `block_ms` milliseconds for the first. Packed once, as it is the same every time.
    """

    def __init__(self, sources: Sequence[Source], consumer: str, *, count: int, block_ms: int) -> None:
        streams = [source.stream for source in sources]
        self.consumer = consumer
        self._by_name = {source.stream.encode(): source for source in sources}
        reading = ("XREADGROUP", "GROUP", sources[0].group, consumer, "COUNT", count)
        what = ("STREAMS", *streams, *(">" for _ in streams))
        self._command = pack([(*reading, "BLOCK", block_ms, *what)])
        self._at_once = pack([(*reading, *what)])

    async def read(
        self,
        connection: OwnConnection,
        acks: Mapping[Source, Sequence[bytes]],
        on_acked: Callable[[Sequence[Reply]], None],
        more: Sequence[Command] = (),
    ) -> dict[Source, list[RawEntry]]:
        """What is new. Acknowledgements ride along, and `more` commands behind them.

        `on_acked` is given the answers to all of these before the waiting begins.
        """
        ahead = [*(command for source, ids in acks.items() for command in acknowledgement(source, ids)), *more]
        reply = await connection.send_ahead(ahead, self._command, on_acked)
        if isinstance(reply, AskError):  # a Cluster's node: the streams are moving to another, or have moved
            reply = await connection.read_elsewhere(reply, self._at_once)
            if not reply:
                await asyncio.sleep(MOVING_PAUSE)
        if isinstance(reply, Exception):
            raise reply
        return {
            source: [RawEntry(source, entry_id, fields or ()) for entry_id, fields in entries]
            for name, entries in _answered(reply)
            for source in (self._by_name[name],)
        }


def acknowledgement(source: Source, ids: Sequence[bytes]) -> list[Command]:
    """The commands that settle entries which need nothing else. An entry of a replay stream is deleted as well."""
    wanted: list[Command] = [("XACK", source.stream, source.group, *ids)]
    if source.is_replay:
        wanted.append(("XDEL", source.stream, *ids))
    return wanted


def _answered(reply: Reply) -> Iterable[tuple[bytes, Reply]]:
    """Streams and their entries: a map in RESP3, pairs in RESP2, nothing at all when the time was over."""
    return reply.items() if isinstance(reply, dict) else (reply or ())  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType] - untyped wire data


async def client_id(commands: Commands) -> int:
    """The server's number for this connection."""
    return await call(commands, "CLIENT", "ID")


async def unblock(commands: Commands, client: int) -> bool:
    """End the blocking read of another connection as if its time were over. False if it did not block."""
    return bool(await call(commands, "CLIENT", "UNBLOCK", client))


def consumers(source: Source) -> Command:
    """The command whose reply lists a group's consumers, as `idle_entries` takes it."""
    return ("XINFO", "CONSUMERS", source.stream, source.group)


async def idle_entries(
    commands: Commands, source: Source, consumers: Reply, *, min_idle_ms: int, most: int = 1_000
) -> list[tuple[bytes, int]]:
    """The ids and delivery counts of the entries whose consumer was silent about them for `min_idle_ms` milliseconds.

    `most` (entries) of them at the most.

    Goes through each consumer's list in pages, and leaves out those of waiting and parked entries, which may be long.
    """
    rows = [mapping(row) for row in consumers]
    names = [row[b"name"] for row in rows if row[b"pending"] and row[b"name"] not in (WAITING, PARKED)]
    if not names:
        return []
    first = [_idle_page(source, name, b"-", min_idle_ms) for name in names]
    found: list[tuple[bytes, int]] = []
    for name, reply in zip(names, await commands.send(first), strict=True):
        page: list[Reply] = checked(reply)
        found += [(row[0], row[3]) for row in page]
        while len(page) == PAGE and len(found) < most:
            page = await call(commands, *_idle_page(source, name, b"(" + page[-1][0], min_idle_ms))
            found += [(row[0], row[3]) for row in page]
    return found


async def entries_of(commands: Commands, source: Source, consumer: bytes) -> list[tuple[bytes, int]]:
    """The ids and delivery counts of all entries pending for a consumer."""
    name, found, after = consumer, list[tuple[bytes, int]](), b"-"
    while True:
        page = await call(commands, *_idle_page(source, name, after, 0))
        found += [(row[0], row[3]) for row in page]
        if len(page) < PAGE:
            return found
        after = b"(" + page[-1][0]


def _idle_page(source: Source, consumer: bytes, after: bytes, min_idle_ms: int) -> tuple[bytes | str | int, ...]:
    return ("XPENDING", source.stream, source.group, "IDLE", min_idle_ms, after, "+", PAGE, consumer)


@dataclass(frozen=True, slots=True)
class Claimed:
    """What a claim brought: entries taken, ids that were pending but trimmed away, and when the next one is due."""

    entries: list[RawEntry]
    ghosts: list[str]
    next_due_ms: int | None


async def claim(
    commands: Commands,
    source: Source,
    consumer: str,
    *,
    ids: Sequence[bytes],
    min_idle_ms: int,
    due: int,
    names_of: Source | None = None,
) -> Claimed:
    """Take the named entries if still abandoned for `min_idle_ms`, and up to `due` waiting ones whose time has come.

    With a `min_idle_ms` of 0, only what is still this consumer's own. Of those, the oldest.

    `names_of`: the source by which consumers' names are held; with it, what was trimmed away while a living process has
    it is left to that.
    """
    keys = (source.stream, source.ledger, source.due, source.parked)
    names = "" if names_of is None else names_of.consumer("")
    arguments = (source.group, consumer, min_idle_ms, due, due + TIES, names, *ids)
    taken, ghosts, wait, now = checked((await run(commands, scripts.load("claim"), [(keys, arguments)]))[0])
    entries = [RawEntry(source, entry_id, fields, count, ledger, now) for entry_id, fields, count, ledger in taken]
    return Claimed(entries, [ghost.decode() for ghost in ghosts], None if wait < 0 else int(wait))


async def drop_ghost(commands: Commands, source: Source, entry_id: bytes) -> Sequence[bytes] | None:
    """Acknowledge an entry that was trimmed away, forget what is kept of it; its fields, if it is there after all."""
    call_ = ((source.stream, source.ledger, source.due), (source.group, entry_id))
    return checked((await run(commands, scripts.load("drop_ghost"), [call_]))[0])


async def renew(commands: Commands, source: Source, consumer: str, ids: Sequence[bytes]) -> list[bytes]:
    """Renew the leases of these entries; the ids that are not this consumer's any more."""
    call_ = ((source.stream,), (source.group, consumer, *ids))
    return checked((await run(commands, scripts.load("renew"), [call_]))[0])


async def prune_consumers(commands: Commands, source: Source, *, names_of: Source, ttl_ms: int) -> list[str]:
    """Remove the consumers that own nothing, were silent for `ttl_ms` milliseconds, and whose name nobody holds.

    `names_of`: the source by which names are held, for a replay stream too that of the stream itself.
    """
    rows = [mapping(row) for row in await call(commands, "XINFO", "CONSUMERS", source.stream, source.group)]
    silent = [row[b"name"] for row in rows if row[b"pending"] == 0 and row[b"idle"] >= ttl_ms]
    names = [name for name in silent if name not in (WAITING, PARKED)]
    if not names:
        return []
    keys = (source.stream, *(names_of.consumer(name.decode(errors="replace")) for name in names))
    removed = await run(commands, scripts.load("prune_consumers"), [(keys, (source.group, ttl_ms, *names))])
    return [name.decode(errors="replace") for name in checked(removed[0])]


async def register(
    commands: Commands, source: Source, consumer: str, ids: Sequence[bytes]
) -> tuple[list[bytes], list[bytes]]:
    """Tell a group that was made anew which entries this consumer holds; those that are its own then, and another's.

    In one round trip whatever the server knows of scripts: an acknowledgement sent later must come later.
    """
    call_ = whole_call(scripts.load("register"), (source.stream,), source.group, consumer, *ids)
    ours, others = checked((await commands.send([call_]))[0])
    return ours, others


async def hold(commands: Commands, key: str, token: str, *, ttl_ms: int) -> bool:
    """Hold a key of the group's for `ttl_ms` milliseconds from now. False if another process holds it."""
    return checked((await run(commands, scripts.load("hold"), [((key,), (token, ttl_ms))]))[0]) == 1


async def release(commands: Commands, key: str, token: str) -> None:
    """Let go of a key, if it is still held with this token."""
    checked((await run(commands, scripts.load("release"), [((key,), (token,))]))[0])


def new_token() -> str:
    """A token no other process has."""
    return f"{uuid4().hex}@{time.time_ns() // 1_000_000}"


def token_made_at(token: bytes) -> int | None:
    """When a token was made (milliseconds since 1970, by its process's clock); None where it does not say."""
    told = re.fullmatch(rb"[0-9a-f]{32}@([0-9]{1,16})", token)
    return int(told[1]) if told else None


async def forget_settled(commands: Commands, source: Source, cursor: int) -> tuple[int, list[str]]:
    """Look at a page of the ledger, and forget what is not pending any more. Of a parked entry there is a ledger too.

    Returns where the next page starts, 0 after the last one, and the ids forgotten.
    """
    after, ledgers = await call(commands, "HSCAN", source.ledger, cursor, "COUNT", LEDGER_PAGE)
    ids: list[bytes] = ledgers[::2]
    if not ids:
        return int(after), []
    keys = (source.stream, source.ledger, source.due, source.parked)
    forgotten = checked((await run(commands, scripts.load("forget_settled"), [(keys, (source.group, *ids))]))[0])
    return int(after), [entry_id.decode() for entry_id in forgotten]
