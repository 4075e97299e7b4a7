"""Consumer groups: making them, reading as one, taking over what others left, holding leases and names."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from redis.exceptions import ResponseError

from rapids.storage import scripts
from rapids.storage.connection import Commands, Reply, call, checked, run
from rapids.storage.keys import PARKED, WAITING, Source
from rapids.storage.streams import mapping

__all__ = ["Claimed", "RawEntry", "claim", "create", "hold_name", "idle_entries", "read", "release_name", "renew"]

PAGE = 100
"""Entries asked for at once when looking for abandoned ones."""


@dataclass(frozen=True, slots=True)
class RawEntry:
    """An entry as the group got it: its id and its fields in turn, the delivery count, and its ledger if it has one."""

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
        raise
    return True


async def create_again(commands: Commands, source: Source, start_id: str, *, given_out: bool) -> bool:
    """Make a lost group again, with the entries that waited in it or were parked. False if it was there already.

    `given_out`: the lost group had given out everything up to `start_id`, so that the new one is not to do so again.
    """
    keys = (source.stream, source.ledger, source.due, source.parked)
    made = await run(commands, scripts.load("create_again"), [(keys, (source.group, start_id, int(given_out)))])
    return checked(made[0]) == 1


async def misses_parked(commands: Commands, source: Source) -> bool:
    """Whether fewer entries are pending as parked than are told to be: the group was made again by a stranger."""
    told, consumers = await commands.send(
        [("HLEN", source.parked), ("XINFO", "CONSUMERS", source.stream, source.group)]
    )
    rows = [mapping(row) for row in checked(consumers)]
    return checked(told) > sum(row[b"pending"] for row in rows if row[b"name"] == PARKED)


async def read(
    commands: Commands, sources: Sequence[Source], consumer: str, *, count: int, block_ms: int
) -> list[RawEntry]:
    """New entries of all sources, `count` of each at most, waiting up to `block_ms` milliseconds for the first."""
    streams = [source.stream for source in sources]
    reply = await call(
        commands,
        *("XREADGROUP", "GROUP", sources[0].group, consumer, "COUNT", count, "BLOCK", block_ms),
        *("STREAMS", *streams, *(">" for _ in streams)),
    )
    by_name = {source.stream.encode(): source for source in sources}
    return [
        RawEntry(by_name[name], entry_id, fields or ())
        for name, entries in _answered(reply)
        for entry_id, fields in entries
    ]


def _answered(reply: Reply) -> Iterable[tuple[bytes, Reply]]:
    """Streams and their entries: a map in RESP3, pairs in RESP2, nothing at all when the time was over."""
    return reply.items() if isinstance(reply, dict) else (reply or ())  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType] - untyped wire data


async def client_id(commands: Commands) -> int:
    """The server's number for this connection."""
    return await call(commands, "CLIENT", "ID")


async def unblock(commands: Commands, client: int) -> bool:
    """End the blocking read of another connection as if its time were over. False if it did not block."""
    return bool(await call(commands, "CLIENT", "UNBLOCK", client))


async def idle_entries(commands: Commands, source: Source, *, min_idle_ms: int, most: int = 1_000) -> list[bytes]:
    """The entries whose consumer has not renewed them for `min_idle_ms` milliseconds, `most` of them at the most.

    Goes through each consumer's list in pages, and leaves out those of waiting and parked entries, which may be long.
    """
    consumers = [mapping(row) for row in await call(commands, "XINFO", "CONSUMERS", source.stream, source.group)]
    names = [row[b"name"] for row in consumers if row[b"pending"] and row[b"name"] not in (WAITING, PARKED)]
    if not names:
        return []
    first = [_idle_page(source, name, b"-", min_idle_ms) for name in names]
    found: list[bytes] = []
    for name, reply in zip(names, await commands.send(first), strict=True):
        page: list[Reply] = checked(reply)
        found += [row[0] for row in page]
        while len(page) == PAGE and len(found) < most:
            page = await call(commands, *_idle_page(source, name, b"(" + page[-1][0], min_idle_ms))
            found += [row[0] for row in page]
    return found


async def entries_of(commands: Commands, source: Source, consumer: str) -> list[bytes]:
    """The ids of all entries pending for a consumer."""
    name, found, after = consumer.encode(), list[bytes](), b"-"
    while True:
        page = await call(commands, *_idle_page(source, name, after, 0))
        found += [row[0] for row in page]
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
    commands: Commands, source: Source, consumer: str, *, ids: Sequence[bytes], min_idle_ms: int, due: int
) -> Claimed:
    """Take the named entries if still abandoned for `min_idle_ms`, and up to `due` waiting ones whose time has come.

    With a `min_idle_ms` of 0, only what is still this consumer's own.
    """
    keys = (source.stream, source.ledger, source.due, source.parked)
    arguments = (source.group, consumer, min_idle_ms, due, *ids)
    taken, ghosts, wait, now = checked((await run(commands, scripts.load("claim"), [(keys, arguments)]))[0])
    entries = [RawEntry(source, entry_id, fields, count, ledger, now) for entry_id, fields, count, ledger in taken]
    return Claimed(entries, [ghost.decode() for ghost in ghosts], None if wait < 0 else int(wait))


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
    script = scripts.load("register")
    call_ = ("EVALSHA", script.sha, 1, source.stream, source.group, consumer, *ids)
    ours, others = checked((await commands.send([("SCRIPT", "LOAD", script.source), call_]))[1])
    return ours, others


async def hold_name(commands: Commands, source: Source, consumer: str, token: str, *, ttl_ms: int) -> bool:
    """Hold a consumer name for `ttl_ms` milliseconds from now. False if another process holds it."""
    held = await run(commands, scripts.load("hold_name"), [((source.consumer(consumer),), (token, ttl_ms))])
    return checked(held[0]) == 1


async def release_name(commands: Commands, source: Source, consumer: str, token: str) -> None:
    """Let go of a consumer name."""
    checked((await run(commands, scripts.load("release_name"), [((source.consumer(consumer),), (token,))]))[0])
