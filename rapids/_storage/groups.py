"""Consumer groups: creating a group, reading, claiming abandoned entries, leases and consumer names."""

import math
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple
from uuid import uuid4

from redis.exceptions import ResponseError

from rapids._storage import scripts
from rapids._storage.client.connections import Command, Commands, Reply, call, checked, run, whole_call
from rapids._storage.keys import NOBODY, PARKED, WAITING, Source
from rapids._storage.streams import as_text, mapping
from rapids._storage.terms import Term, keys_of, option_of

__all__ = [
    "MAX_DELIVERIES",
    "Claimed",
    "Hold",
    "PendingCounts",
    "PendingEntry",
    "RawEntry",
    "claim",
    "consumers",
    "create",
    "forget_handlers",
    "forget_settled",
    "handlers_of_others",
    "hold",
    "idle_entries",
    "new_token",
    "release",
    "released_entries",
    "renew",
    "token_made_at",
]

TIES = 200
"""More entries than can be released in one millisecond."""

PAGE = 100
"""The page size when looking for abandoned entries."""

RELEASED_PAGE = 10_000
"""How many pending entries are looked at in one step for those that nobody holds."""

CLAIMED_BYTES = 256 * 1024
"""How many bytes of fields a claim returns. Other commands wait for its answer, so larger entries are fetched apart."""

LEDGER_PAGE = 500
"""About how many ledgers are checked in one step: a small hash is returned as a whole."""

MOST_COMPARED = 200
"""With how many consumers one consumer compares its handlers."""

MAX_DELIVERIES = 1_000_000_000
"""The highest delivery count that is used, also by scripts (`lib/entry.lua`): `XNACK ... FATAL` sets 2^63 - 1."""

RECREATED_MS = 3_600_000
"""How long it is remembered that a group was lost and recreated: longer than a process is usually blocked."""


class RawEntry(NamedTuple):
    """An entry as the group got it: its id, names and values of its fields in turn, the delivery count, its ledger.

    A named tuple, since one is created for every entry, and a frozen dataclass takes four times as long.
    """

    source: Source
    entry_id: bytes
    fields: Sequence[bytes]
    deliveries: int = 1
    ledger: bytes | None = None
    taken_ms: int = 0
    """When it was claimed, by the server's clock (milliseconds); 0 for the first delivery, which has no ledger."""


async def create(commands: Commands, source: Source, start_id: str) -> bool:
    """Create the group, and the stream if it is missing. False if the group existed already; then nothing changes."""
    try:
        await call(commands, "XGROUP", "CREATE", source.stream, source.group, start_id, "MKSTREAM")
    except ResponseError as error:
        if "BUSYGROUP" in str(error):
            return False
        if "WRONGTYPE" in str(error):
            raise ResponseError(f"WRONGTYPE {source.stream!r} is a key of another kind, not a stream") from error
        raise
    return True


async def recreate(commands: Commands, source: Source, start_id: str, *, delivered: bool) -> bool:
    """Recreate a lost group, with the entries that waited in it or were parked. False if the group existed already.

    `delivered`: the lost group had delivered everything up to `start_id`, so the new one must not deliver it again.
    """
    held = (source.stream, source.ledger, source.due, source.parked)
    arguments = (source.group, start_id, int(delivered), RECREATED_MS)
    call_ = ((*held, source.recreated, source.restoring), arguments)
    was_lost = checked((await run(commands, scripts.load("recreate"), [call_]))[0]) == 1
    step = ((*held, source.restoring), (source.group,))
    while checked((await run(commands, scripts.load("restore_held"), [step]))[0]):
        pass  # each step is short, so that the server also serves others; claims continue if this process ends
    return was_lost


async def since_recreated(commands: Commands, source: Source) -> float:
    """Seconds since the group was lost and recreated; infinite if that did not happen recently."""
    made_ms, (seconds, micros) = map(checked, await commands.send([("GET", source.recreated), ("TIME",)]))
    return math.inf if made_ms is None else int(seconds) + int(micros) / 1e6 - int(made_ms) / 1000


async def join(commands: Commands, source: Source, consumer: str) -> None:
    """Create a consumer before it gets entries. Servers before Redis 7.2 create it only with the first entry."""
    await call(commands, "XGROUP", "CREATECONSUMER", source.stream, source.group, consumer)


async def misses_parked(commands: Commands, source: Source) -> bool:
    """Whether parked entries are recorded but the group has no consumer for them: it was not recreated by Rapids."""
    recorded, consumers = await commands.send(
        [("EXISTS", source.parked), ("XINFO", "CONSUMERS", source.stream, source.group)]
    )
    names = {mapping(row)[b"name"] for row in checked(consumers)}
    return bool(checked(recorded)) and PARKED not in names


async def client_id(commands: Commands) -> int:
    """The server's client id of this connection."""
    return await call(commands, "CLIENT", "ID")


async def unblock(commands: Commands, client: int) -> bool:
    """End the blocking read of another connection like a time-out. False if it was not blocked."""
    return bool(await call(commands, "CLIENT", "UNBLOCK", client))


def consumers(source: Source) -> Command:
    """The command that lists a group's consumers."""
    return ("XINFO", "CONSUMERS", source.stream, source.group)


@dataclass(frozen=True, slots=True)
class PendingCounts:
    """How many entries of a group are pending, at one moment."""

    held: Mapping[bytes, int]
    """By the consumer that holds them, waiting and parked ones left out."""
    nobodys: int
    """Released by XNACK: they belong to no consumer."""

    @classmethod
    def of(cls, reply: Reply) -> "PendingCounts":
        """From the reply to `XPENDING` without a range."""
        total, _, _, rows = reply
        counts = {name: int(count) for name, count in rows or () if name != NOBODY}
        held = {name: count for name, count in counts.items() if name not in (WAITING, PARKED)}
        return cls(held, total - sum(counts.values()))


class PendingEntry(NamedTuple):
    """A row of the group's pending list."""

    entry_id: bytes
    consumer: bytes
    idle_ms: int
    """Milliseconds since it was given to the consumer, or its lease was renewed."""
    deliveries: int


async def idle_entries(
    commands: Commands, source: Source, counts: PendingCounts, *, min_idle_ms: int, most: int = 1_000
) -> list[PendingEntry]:
    """Up to `most` pending entries whose lease was not renewed for `min_idle_ms` milliseconds.

    It reads the list of each consumer in pages. It leaves out waiting and parked entries, whose lists may be long.
    """
    if not (names := list(counts.held)):
        return []
    first = [_idle_page(source, name, b"-", min_idle_ms) for name in names]
    found: list[PendingEntry] = []
    for name, reply in zip(names, await commands.send(first), strict=True):
        page: list[Reply] = checked(reply)
        found += [PendingEntry(*row) for row in page]
        while len(page) == PAGE and len(found) < most:
            page = await call(commands, *_idle_page(source, name, b"(" + page[-1][0], min_idle_ms))
            found += [PendingEntry(*row) for row in page]
    return found


async def released_entries(commands: Commands, source: Source, after: bytes) -> tuple[list[PendingEntry], bytes]:
    """The entries that nobody holds, among the next `RELEASED_PAGE` pending ones. Only a list of all others has them.

    `after`: where to begin, `-` or what the last call returned. Returns also where the next call begins.
    """
    call_ = ((source.stream,), (source.group, after, RELEASED_PAGE))
    then, rows = checked((await run(commands, scripts.load("find_released"), [call_]))[0])
    return [PendingEntry(*row) for row in rows], then


async def entries_of(commands: Commands, source: Source, consumer: bytes) -> list[PendingEntry]:
    """All entries pending for a consumer."""
    name, found, after = consumer, list[PendingEntry](), b"-"
    while True:
        page = await call(commands, *_idle_page(source, name, after, 0))
        found += [PendingEntry(*row) for row in page]
        if len(page) < PAGE:
            return found
        after = b"(" + page[-1][0]


def _idle_page(source: Source, consumer: bytes, after: bytes, min_idle_ms: int) -> tuple[bytes | str | int, ...]:
    return ("XPENDING", source.stream, source.group, "IDLE", min_idle_ms, after, "+", PAGE, consumer)


@dataclass(frozen=True, slots=True)
class Claimed:
    """The result of a claim: entries taken, ids that were pending but trimmed, when the next entry is due, and the
    server's time (milliseconds)."""

    entries: list[RawEntry]
    ghosts: list[str]
    next_due_ms: int | None
    now_ms: int


async def claim(
    commands: Commands,
    source: Source,
    consumer: str,
    *,
    ids: Sequence[bytes],
    min_idle_ms: int,
    due: int,
    names_of: Source | None = None,
    again: bool = False,
    latest_ms: int = 2**53,
    term: Term | None = None,
) -> Claimed | None:
    """Take the named entries if they are still abandoned for `min_idle_ms`, and up to `due` waiting ones that are due.

    With a `min_idle_ms` of 0, only this consumer's own entries are taken, the oldest of them. Named entries of others
    are taken only until `latest_ms` by the server's clock: if it is later, the clock stepped.

    `names_of`: the source whose keys hold the consumers' names. If it is given, a trimmed entry that a living process
    holds is left to that process. `again`: named entries that are this consumer's already, since an earlier answer was
    lost, are taken as they are: not as another delivery, and without their fields. Large entries, too, are taken
    without their fields, which are to be fetched on another connection. `term`: take them only in this term; None if it
    has ended.
    """
    keys = (source.stream, source.ledger, source.due, source.parked, source.restoring, *keys_of(term))
    options = scripts.options(
        min_idle=min_idle_ms,
        due=due,
        look=due + TIES,
        latest=latest_ms,
        names="" if names_of is None else names_of.consumer(""),
        again=again,
        most=CLAIMED_BYTES,
        **option_of(term),
    )
    arguments = (source.group, consumer, options, *ids)
    reply = checked((await run(commands, scripts.load("claim"), [(keys, arguments)]))[0])
    if reply is None:
        return None
    taken, ghosts, wait, now = reply
    entries = [RawEntry(source, entry_id, fields, count, ledger, now) for entry_id, fields, count, ledger in taken]
    return Claimed(entries, [ghost.decode() for ghost in ghosts], None if wait < 0 else int(wait), now)


async def drop_ghost(commands: Commands, source: Source, entry_id: bytes) -> Sequence[bytes] | None:
    """Acknowledge a trimmed entry and forget its ledger. If the entry exists after all, only return its fields."""
    keys = (source.stream, source.ledger, source.due, source.parked)
    call_ = (keys, (source.group, entry_id))
    return checked((await run(commands, scripts.load("drop_ghost"), [call_]))[0])


async def renew(commands: Commands, source: Source, consumer: str, ids: Sequence[bytes]) -> list[bytes]:
    """Renew the leases of these entries. Returns the ids that are no longer this consumer's."""
    call_ = ((source.stream,), (source.group, consumer, *ids))
    return checked((await run(commands, scripts.load("renew"), [call_]))[0])


async def prune_consumers(commands: Commands, source: Source, *, names_of: Source, ttl_ms: int) -> list[str]:
    """Remove consumers that own nothing, were idle for `ttl_ms` milliseconds, and whose name no process holds.

    `names_of`: the source whose keys hold the names. For a replay stream, it is the source of the stream itself.
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
    """Register this consumer's entries with a recreated group. Returns the ids that are now its own, and another's.

    It always takes one round trip, even if the server does not know the script, so that a later acknowledgement comes
    later.
    """
    call_ = whole_call(scripts.load("register"), (source.stream,), source.group, consumer, *ids)
    ours, others = checked((await commands.send([call_]))[0])
    return ours, others


class Hold(NamedTuple):
    """Whether a key is held by this process, and the server's time (milliseconds)."""

    is_ours: bool
    now_ms: int


async def hold(
    commands: Commands, key: str, token: str, *, ttl_ms: int, rates: tuple[Source, bytes] | None = None
) -> Hold:
    """Hold a key of the group for `ttl_ms` milliseconds from now, unless another process holds it.

    `rates`: the source whose group's rates get a report of this process in the same step, and that report.
    """
    keys, arguments = (key,), (token, ttl_ms)
    if rates is not None:
        source, report = rates
        keys, arguments = (key, source.rates, source.stream), (token, ttl_ms, report)
    held, now_ms = checked((await run(commands, scripts.load("hold"), [(keys, arguments)]))[0])
    return Hold(held == 1, now_ms)


async def release(commands: Commands, key: str, token: str) -> None:
    """Release a key, if it is still held with this token."""
    checked((await run(commands, scripts.load("release"), [((key,), (token,))]))[0])


async def handlers_of_others(
    commands: Commands, source: Source, consumer: str, document: bytes, *, ttl_ms: int
) -> dict[str, bytes]:
    """Store the handlers of this consumer, and return those of the other living consumers, by their names.

    A server without free memory does not store them. That is no failure: nobody compares them, then.
    """
    _, rows = await commands.send(
        [("SET", source.handlers(consumer), document, "PX", ttl_ms), consumers(source)],
    )
    names = [as_text(mapping(row)[b"name"]) for row in checked(rows)]
    names = [name for name in names if name not in (consumer, WAITING.decode(), PARKED.decode())][:MOST_COMPARED]
    if not names:
        return {}
    asked = [("GET", key) for name in names for key in (source.consumer(name), source.handlers(name))]
    found = await commands.send(asked)
    return {
        name: handlers if isinstance(handlers, bytes) else handlers.encode()
        for name, held, handlers in zip(names, found[::2], found[1::2], strict=True)
        if isinstance(held, bytes | str) and isinstance(handlers, bytes | str)
    }


async def forget_handlers(commands: Commands, source: Source, consumer: str) -> None:
    """Delete what `handlers_of_others` stored for this consumer."""
    await call(commands, "DEL", source.handlers(consumer))


def new_token() -> str:
    """A token that no other process has."""
    return f"{uuid4().hex}@{time.time_ns() // 1_000_000}"


def token_made_at(token: bytes) -> int | None:
    """When a token was created (milliseconds since 1970, by its process's clock); None if it does not say."""
    found = re.fullmatch(rb"[0-9a-f]{32}@([0-9]{1,16})", token)
    return int(found[1]) if found else None


async def forget_settled(commands: Commands, source: Source, cursor: int) -> tuple[int, list[str]]:
    """Check a page of the ledgers, and delete those of entries that are no longer pending. Parked entries have one too.

    Returns where the next page starts, 0 after the last one, and the ids of deleted ledgers.
    """
    after, ledgers = await call(commands, "HSCAN", source.ledger, cursor, "COUNT", LEDGER_PAGE)
    ids: list[bytes] = ledgers[::2]
    if not ids:
        return int(after), []
    keys = (source.stream, source.ledger, source.due, source.parked, source.restoring)
    forgotten = checked((await run(commands, scripts.load("forget_settled"), [(keys, (source.group, *ids))]))[0])
    return int(after), [entry_id.decode() for entry_id in forgotten]
