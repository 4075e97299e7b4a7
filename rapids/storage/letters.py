"""Dead letters at rest: the dead-letter stream, and the archive of those replayed or discarded."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import uuid4

from redis.exceptions import ResponseError

from rapids.storage import scripts
from rapids.storage.connection import Commands, Reply, call, checked, run
from rapids.storage.keys import letter_appended, letter_archive, letter_mover, letters_archived, letters_restored

__all__ = [
    "Append",
    "Archive",
    "BeingMovedError",
    "Move",
    "find_restored",
    "first",
    "length",
    "move",
    "move_after_append",
    "origin",
    "page",
    "read_archive",
    "read_letter",
    "restore",
    "restored_at",
]

RESTORED_PAGE = 100

MOVING_MS = 5_000
"""How long a process has to replay a letter into another slot before another one may try."""

APPENDED_MS = 7 * 24 * 3_600_000
"""For how long it is known that a letter was replayed into another slot, if it could not be moved then."""


async def length(commands: Commands, dlq: str) -> int:
    """Letters in the stream."""
    return await call(commands, "XLEN", dlq)


async def page(
    commands: Commands, dlq: str, *, newest: str, oldest: str, count: int
) -> list[tuple[bytes, Sequence[bytes]]]:
    """Up to `count` letters from `newest` down to `oldest`."""
    return [(row[0], row[1]) for row in await call(commands, "XREVRANGE", dlq, newest, oldest, "COUNT", count)]


async def first(
    commands: Commands, dlq: str, *, behind: str, upto: str, count: int
) -> list[tuple[bytes, Sequence[bytes]]]:
    """Up to `count` letters, oldest first, from the one behind an id to the one at `upto`."""
    return [(row[0], row[1]) for row in await call(commands, "XRANGE", dlq, f"({behind}", upto, "COUNT", count)]


async def read_letter(commands: Commands, dlq: str, entry_id: str) -> Sequence[bytes] | None:
    """A letter's fields, or None if no entry has this id."""
    rows = await call(commands, "XRANGE", dlq, entry_id, entry_id)
    return rows[0][1] if rows else None


async def origin(commands: Commands, stream: str, entry_id: str) -> Sequence[bytes] | None:
    """The fields of the entry a letter says it is of, or None if there is none, or no such stream."""
    try:
        return await read_letter(commands, stream, entry_id)
    except ResponseError as error:
        if not str(error).startswith("WRONGTYPE"):
            raise
        return None  # a letter says what it likes


async def find_restored(commands: Commands, dlq: str, letter_id: str) -> tuple[str, Sequence[bytes]] | None:
    """The entry id and fields of a letter that was restored, or None."""
    score = await call(commands, "ZSCORE", letters_restored(dlq), letter_id)
    if score is None:
        return None
    at = f"{float(score):.0f}"
    first = at
    while True:
        rows = await call(commands, "XRANGE", dlq, first, at, "COUNT", RESTORED_PAGE)
        for entry_id, fields in rows:
            if dict(zip(fields[::2], fields[1::2], strict=True)).get(b"letter_id") == letter_id.encode():
                return entry_id.decode(), fields
        if len(rows) < RESTORED_PAGE:
            return None
        first = f"({rows[-1][0].decode()}"


async def restored_at(commands: Commands, dlq: str, letter_ids: Sequence[bytes]) -> list[int | None]:
    """For each letter that was restored, the milliseconds in its new entry id; None for the others."""
    scores = await call(commands, "ZMSCORE", letters_restored(dlq), *letter_ids)
    return [None if score is None else round(float(score)) for score in scores]


@dataclass(frozen=True, slots=True)
class Archive:
    """An archived letter's fields, and the changes made to it, oldest first, each with its id and fields."""

    fields: Sequence[bytes]
    changes: Sequence[tuple[bytes, Sequence[bytes]]]


async def read_archive(commands: Commands, dlq: str, letter_id: str) -> Archive | None:
    """What the archive has of a letter, or None."""
    rows: list[Reply] = await call(commands, "XRANGE", letter_archive(dlq, letter_id), "-", "+")
    return Archive(rows[0][1], [(row[0], row[1]) for row in rows[1:]]) if rows else None


@dataclass(frozen=True, slots=True)
class Append:
    """An entry to append in the step that moves a letter. `maxlen` in entries, None to leave the stream untrimmed."""

    stream: str
    fields: Sequence[bytes]
    maxlen: int | None = None


@dataclass(frozen=True, slots=True)
class Move:
    """A letter on its way out of its stream: its id, its entry there, and what is done to it."""

    letter_id: str
    entry_id: str
    change: Mapping[str, str]
    retention_ms: int
    archive_maxlen: int


class BeingMovedError(Exception):
    """Another process moves the letter just now."""


async def move(commands: Commands, dlq: str, one: Move, append: Append | None) -> str | None:
    """Move a letter to its archive, appending an entry in the same step: that entry's id, or "" without one.

    None if the letter was not in the stream any more; then nothing was done. Raises `BeingMovedError`.
    """
    return await _moved(commands, dlq, one, append)


async def move_after_append(commands: Commands, dlq: str, one: Move, append: Append, elsewhere: Commands) -> str | None:
    """The same where the entry is to be appended in another slot of a Cluster: that comes first, and only once.

    Whoever dies in between leaves a letter that is still there, and replayed again it is only moved.
    """
    token, mover = uuid4().hex, letter_mover(dlq, one.letter_id)
    hold, hold_call = scripts.load("hold"), ((mover,), (token, MOVING_MS))
    if checked((await run(commands, hold, [hold_call]))[0]) != 1:
        raise BeingMovedError
    try:
        if await read_letter(commands, dlq, one.entry_id) is None:
            return None
        keys = (append.stream, letter_appended(append.stream, dlq, one.letter_id))
        once = (keys, (APPENDED_MS, append.maxlen or 0, *append.fields))
        appended = checked((await run(elsewhere, scripts.load("append_once"), [once]))[0])
        return await _moved(commands, dlq, one, None, token=token, appended=appended)
    finally:
        checked((await run(commands, scripts.load("release"), [((mover,), (token,))]))[0])


async def _moved(
    commands: Commands, dlq: str, one: Move, append: Append | None, *, token: str = "", appended: bytes = b""
) -> str | None:
    archive = letter_archive(dlq, one.letter_id)
    keys = (
        *(dlq, archive, letters_archived(dlq), letters_restored(dlq), append.stream if append else archive),
        letter_mover(dlq, one.letter_id),
    )
    fields = append.fields if append else ()
    arguments = [
        *(one.letter_id, one.entry_id, one.retention_ms, one.archive_maxlen, letter_archive(dlq, ""), token, appended),
        *((append.maxlen if append else None) or 0, len(fields), *fields, *_flat(one.change)),
    ]
    found = checked((await run(commands, scripts.load("move_letter"), [(keys, arguments)]))[0])
    if found == b"busy":
        raise BeingMovedError
    return None if found is None else found.decode()


async def restore(
    commands: Commands, dlq: str, letter_id: str, change: Mapping[str, str], *, dlq_maxlen: int | None
) -> str | None:
    """Bring a discarded letter back: its new entry id, or None if it is not in the archive as discarded."""
    keys = (dlq, letter_archive(dlq, letter_id), letters_archived(dlq), letters_restored(dlq))
    arguments = (letter_id, dlq_maxlen or 0, *_flat(change))
    entry_id = checked((await run(commands, scripts.load("restore_letter"), [(keys, arguments)]))[0])
    return None if entry_id is None else entry_id.decode()


def _flat(change: Mapping[str, str]) -> list[str]:
    return [text for pair in change.items() for text in pair]
