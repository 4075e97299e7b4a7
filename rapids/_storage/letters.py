"""Reading dead letters from their stream."""

from collections.abc import Sequence

from redis.exceptions import ResponseError

from rapids._storage.client.connections import Commands, call, checked
from rapids._storage.keys import letters_restored
from rapids._wire.letter_format import claimed_id

__all__ = ["find_restored", "first", "last", "length", "origin", "read_letter", "restored_at", "several"]

RESTORED_PAGE = 100


async def length(commands: Commands, dlq: str) -> int:
    """The number of letters in the stream."""
    return await call(commands, "XLEN", dlq)


async def first(
    commands: Commands, dlq: str, *, after: str, until: str, count: int
) -> list[tuple[bytes, Sequence[bytes]]]:
    """Up to `count` letters, oldest first: after the id `after`, until the id `until`."""
    return [(row[0], row[1]) for row in await call(commands, "XRANGE", dlq, f"({after}", until, "COUNT", count)]


async def last(
    commands: Commands, dlq: str, *, after: str, until: str, count: int
) -> list[tuple[bytes, Sequence[bytes]]]:
    """Up to `count` letters, newest first: from the id `until` back to the one after `after`."""
    return [(row[0], row[1]) for row in await call(commands, "XREVRANGE", dlq, until, f"({after}", "COUNT", count)]


async def read_letter(commands: Commands, dlq: str, entry_id: str) -> Sequence[bytes] | None:
    """A letter's fields, or None if no entry has this id."""
    rows = await call(commands, "XRANGE", dlq, entry_id, entry_id)
    return rows[0][1] if rows else None


async def several(commands: Commands, stream: str, entry_ids: Sequence[str]) -> list[tuple[bytes, Sequence[bytes]]]:
    """Entries with these ids, in order. Missing ones are left out."""
    replies = await commands.send([("XRANGE", stream, entry_id, entry_id) for entry_id in entry_ids])
    return [(row[0], row[1]) for rows in replies for row in checked(rows)]


async def origin(commands: Commands, stream: str, entry_id: str) -> Sequence[bytes] | None:
    """The fields of the entry that a letter names as its origin, or None if the entry or its stream is missing."""
    try:
        return await read_letter(commands, stream, entry_id)
    except ResponseError as error:
        if not str(error).startswith("WRONGTYPE"):
            raise
        return None  # a letter is untrusted and may name any key


async def find_restored(commands: Commands, dlq: str, letter_id: str) -> tuple[str, Sequence[bytes]] | None:
    """The entry id and fields of a restored letter, or None."""
    score = await call(commands, "ZSCORE", letters_restored(dlq), letter_id)
    if score is None:
        return None
    at = f"{float(score):.0f}"
    first = at
    while True:
        rows = await call(commands, "XRANGE", dlq, first, at, "COUNT", RESTORED_PAGE)
        for entry_id, fields in rows:
            if claimed_id(fields) == letter_id.encode():
                return entry_id.decode(), fields
        if len(rows) < RESTORED_PAGE:
            return None
        first = f"({rows[-1][0].decode()}"


async def restored_at(commands: Commands, dlq: str, letter_ids: Sequence[bytes]) -> list[int | None]:
    """For each letter that was restored, the milliseconds in its new entry id; None for the others."""
    scores = await call(commands, "ZMSCORE", letters_restored(dlq), *letter_ids)
    return [None if score is None else round(float(score)) for score in scores]
