"""The index of a dead-letter stream, which finds the letters of a fingerprint without reading the others."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from rapids._storage import scripts
from rapids._storage.client.connections import Commands, Reply, checked, run
from rapids._storage.keys import audit_log, letter_index

__all__ = [
    "OTHERS",
    "IndexState",
    "IndexedFingerprint",
    "Room",
    "Selected",
    "catch_up",
    "forget",
    "room",
    "select",
    "state",
]

OTHERS = "others"
"""The name of all fingerprints above the limit: their letters are indexed together."""

CATCH_UP_LETTERS = 1_000
CATCH_UP_BYTES = 4_000_000
"""How many letters that others wrote one query of the index adds at most: about 15 ms of the server's time."""

MAX_BYTES = 4_000_000
"""The number of bytes of letters after which one script returns its results."""


@dataclass(frozen=True, slots=True)
class IndexedFingerprint:
    """The fingerprint of one cause, its number of letters, and the ids of the oldest and the newest letter."""

    name: str
    description: bytes
    """The description in the wire format; empty for `OTHERS`."""
    count: int
    first: str
    last: str


@dataclass(frozen=True, slots=True)
class IndexState:
    """The state of the index."""

    length: int
    """Letters in the stream."""
    last: str
    """The stream's last id."""
    to: str
    """The id up to which letters are indexed."""
    entries: int
    epoch: int
    """A different value after each rebuild of the index."""
    cut: int
    """Letters that were ever trimmed before anybody replayed or discarded them."""
    cut_at_ms: int | None
    fingerprints: tuple[IndexedFingerprint, ...]


@dataclass(frozen=True, slots=True)
class Selected:
    """Letters of some fingerprints, in order."""

    rows: Sequence[Reply]
    """Ids, or letters, each with its id and fields."""
    looked_at: int
    last: str
    """The last id that was read."""
    done: bool


@dataclass(frozen=True, slots=True)
class Room:
    """How many letters there are, and how many were ever trimmed before anybody replayed or discarded them."""

    length: int
    cut: int


async def room(commands: Commands, dlq: str) -> Room:
    """How many letters there are, and how many were trimmed, in one round trip."""
    length, cut = await commands.send([("XLEN", dlq), ("HGET", letter_index(dlq), "cut")])
    return Room(checked(length), int(checked(cut) or 0))


async def state(
    commands: Commands, dlq: str, *, letters: int = CATCH_UP_LETTERS, max_bytes: int = CATCH_UP_BYTES
) -> IndexState:
    """The state of the index, after adding missing letters, up to a limit of letters and bytes."""
    call = ((dlq, letter_index(dlq)), (letters, max_bytes))
    found = checked((await run(commands, scripts.load("index_state"), [call]))[0])
    length, last, to, entries, epoch, cut, cut_at, rows = found
    return IndexState(
        length=length,
        last=last.decode(),
        to=to.decode(),
        entries=entries,
        epoch=int(epoch),
        cut=cut,
        cut_at_ms=None if cut_at is None else int(cut_at),
        fingerprints=tuple(
            IndexedFingerprint(name.decode(), description or b"", count, first.decode(), newest.decode())
            for name, description, count, first, newest in rows
        ),
    )


async def catch_up(commands: Commands, dlq: str) -> bool:
    """Index up to a thousand letters that others wrote. True if all are indexed now, or if it is impossible now."""
    call = ((dlq, letter_index(dlq)), (CATCH_UP_LETTERS, CATCH_UP_BYTES))
    return checked((await run(commands, scripts.load("index_more"), [call]))[0]) == 1


async def select(
    commands: Commands,
    dlq: str,
    fingerprints: Sequence[str],
    *,
    epoch: int,
    after: str,
    until: str,
    newest_first: bool,
    count: int,
    whole: bool,
) -> Selected | None:
    """Up to `count` ids of these fingerprints, merged, after the id `after` until the id `until`; with `whole`, their
    letters. None if the index was rebuilt since `epoch`."""
    if not fingerprints:
        return Selected((), 0, after, True)
    options = {
        "epoch": str(epoch),
        "after": after,
        "until": until,
        "newest_first": newest_first,
        "count": count,
        "whole": whole,
        "max_bytes": MAX_BYTES,
    }
    call = ((dlq, letter_index(dlq)), (json.dumps(options), *fingerprints))
    found = checked((await run(commands, scripts.load("index_select"), [call]))[0])
    return None if found is None else Selected(found[0], found[1], found[2].decode(), found[3] == 1)


async def forget(commands: Commands, dlq: str, *, actor: str, reason: str) -> None:
    """Delete the index, so that it is rebuilt, and record in the audit log who requested it."""
    call = ((letter_index(dlq), audit_log(dlq)), (actor, reason))
    checked((await run(commands, scripts.load("reindex"), [call]))[0])
