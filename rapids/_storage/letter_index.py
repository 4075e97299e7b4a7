"""The index of a dead-letter stream: letters by fingerprint, found without reading the others."""

from collections.abc import Iterable, Sequence
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
"""The name under which letters are whose fingerprints were too many."""

CATCH_UP_LETTERS = 1_000
CATCH_UP_BYTES = 4_000_000
"""What one look at the index catches up with at most, of letters that others wrote: some 15 ms of the server's time."""

ENOUGH_BYTES = 4_000_000
"""Bytes of letters after which one script returns what it has."""


@dataclass(frozen=True, slots=True)
class IndexedFingerprint:
    """What letters of one cause have in common, how many there are, and the ids of the oldest and the newest."""

    name: str
    description: bytes
    """As the letter's wire format writes it; empty for `OTHERS`."""
    count: int
    first: str
    last: str


@dataclass(frozen=True, slots=True)
class IndexState:
    """What the index knows."""

    length: int
    """Letters in the stream."""
    last: str
    """The stream's last id."""
    to: str
    """The id up to which letters are indexed."""
    entries: int
    epoch: int
    """Another one each time the index is rebuilt."""
    cut: int
    """Letters that were trimmed away unattended, ever."""
    cut_at_ms: int | None
    fingerprints: tuple[IndexedFingerprint, ...]


@dataclass(frozen=True, slots=True)
class Selected:
    """What the index has of some fingerprints, in order."""

    rows: Sequence[Reply]
    """Ids, or letters, each with its id and fields."""
    looked_at: int
    last: str
    """The id looked at last."""
    done: bool


@dataclass(frozen=True, slots=True)
class Room:
    """How many letters there are, and how many were ever trimmed away unattended."""

    length: int
    cut: int


async def room(commands: Commands, dlq: str) -> Room:
    """How many letters there are, and were cut, in one round trip."""
    length, cut = await commands.send([("XLEN", dlq), ("HGET", letter_index(dlq), "cut")])
    return Room(checked(length), int(checked(cut) or 0))


async def state(
    commands: Commands, dlq: str, *, letters: int = CATCH_UP_LETTERS, most_bytes: int = CATCH_UP_BYTES
) -> IndexState:
    """What the index knows, after catching up with at most so many letters, and bytes of them."""
    call = ((dlq, letter_index(dlq)), (letters, most_bytes))
    found = checked((await run(commands, scripts.load("index_state"), [call]))[0])
    length, last, to, entries, epoch, cut, cut_at, rows = found
    return IndexState(
        *(length, last.decode(), to.decode(), entries, int(epoch), cut),
        None if cut_at is None else int(cut_at),
        tuple(
            IndexedFingerprint(name.decode(), description or b"", count, first.decode(), newest.decode())
            for name, description, count, first, newest in rows
        ),
    )


async def catch_up(commands: Commands, dlq: str) -> bool:
    """Index a thousand more of the letters that others wrote; whether all are by now, or it cannot be done now."""
    call = ((dlq, letter_index(dlq)), (CATCH_UP_LETTERS, CATCH_UP_BYTES))
    return checked((await run(commands, scripts.load("index_more"), [call]))[0]) == 1


async def select(
    commands: Commands,
    dlq: str,
    epoch: int,
    fingerprints: Iterable[str],
    *,
    behind: str,
    until: str,
    count: int,
    newest_first: bool = False,
    whole: bool = False,
) -> Selected | None:
    """Up to `count` ids of these fingerprints, merged, from the one `behind` an id to the one at `until`; with `whole`,
    their letters. None if the index was rebuilt since `epoch`."""
    names = list(fingerprints)
    if not names:
        return Selected((), 0, behind, True)
    arguments = (epoch, -1 if newest_first else 1, behind, until, count, int(whole), ENOUGH_BYTES, *names)
    call = ((dlq, letter_index(dlq)), arguments)
    found = checked((await run(commands, scripts.load("index_select"), [call]))[0])
    return None if found is None else Selected(found[0], found[1], found[2].decode(), found[3] == 1)


async def forget(commands: Commands, dlq: str, *, actor: str, reason: str) -> None:
    """Have the index rebuilt, and note in the audit log who wanted that."""
    call = ((letter_index(dlq), audit_log(dlq)), (actor, reason))
    checked((await run(commands, scripts.load("reindex"), [call]))[0])
