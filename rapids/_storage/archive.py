"""The archive of replayed and discarded dead letters, and the states of replays."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from rapids._storage import scripts
from rapids._storage.client.connections import Commands, Reply, call, checked, run
from rapids._storage.keys import letters_archive, letters_archived, letters_failed_again
from rapids._wire.entry_format import pairs
from rapids._wire.letter_format import HISTORY, LETTER_ID

__all__ = [
    "Archived",
    "ReplayState",
    "failed_again",
    "first",
    "last",
    "newest",
    "places",
    "read",
    "replay_state",
    "several",
]

ReplayState: TypeAlias = Literal["undelivered", "pending", "gone", "unknown"]


@dataclass(frozen=True, slots=True)
class Archived:
    """An archived letter: its place (an entry id of the archive), its own fields, and what was done to it, as JSON."""

    place: str
    letter_id: str
    fields: Sequence[bytes]
    history: bytes

    @classmethod
    def of(cls, row: Reply) -> "Archived":
        added = dict(pairs(row[1]))  # the last ones, which Rapids wrote
        own = [part for pair in pairs(row[1]) if pair[0] not in (HISTORY, LETTER_ID) for part in pair]
        return cls(row[0].decode(), added.get(LETTER_ID, b"").decode(errors="replace"), own, added.get(HISTORY, b"[]"))


async def read(commands: Commands, dlq: str, letter_id: str) -> Archived | None:
    """What the archive has of a letter, or None."""
    place = await call(commands, "ZSCORE", letters_archived(dlq), letter_id)
    if place is None:
        return None
    entry_id = f"{float(place):.0f}-0"
    rows = await call(commands, "XRANGE", letters_archive(dlq), entry_id, entry_id)
    return Archived.of(rows[0]) if rows else None


async def first(commands: Commands, dlq: str, *, after: str, until: str, count: int) -> list[Archived]:
    """Up to `count` archived letters in the order of their places: after the place `after`, until the place `until`."""
    rows = await call(commands, "XRANGE", letters_archive(dlq), f"({after}", until, "COUNT", count)
    return [Archived.of(row) for row in rows]


async def newest(commands: Commands, dlq: str, *, before: str | None, oldest: str | None, count: int) -> list[Archived]:
    """Up to `count` archived letters, the newest first: before the place `before`, not before the place `oldest`."""
    end = "+" if before is None else f"({before}"
    rows = await call(commands, "XREVRANGE", letters_archive(dlq), end, oldest or "-", "COUNT", count)
    return [Archived.of(row) for row in rows]


async def places(commands: Commands, dlq: str, letter_ids: Sequence[str]) -> list[str]:
    """The places of these letters in the archive, in order. Letters that are not in the archive are left out."""
    found = await call(commands, "ZMSCORE", letters_archived(dlq), *letter_ids)
    return [f"{place}-0" for place in sorted({round(float(score)) for score in found if score is not None})]


async def several(commands: Commands, dlq: str, places: Sequence[str]) -> list[Archived]:
    """The letters at these places, in order. Letters that are gone are left out."""
    replies = await commands.send([("XRANGE", letters_archive(dlq), place, place) for place in places])
    return [Archived.of(row) for reply in replies for row in checked(reply)]


async def last(commands: Commands, dlq: str) -> str:
    """The last place in the archive; "0-0" if it is empty."""
    found = await call(commands, "ZRANGE", letters_archived(dlq), -1, -1, "WITHSCORES")
    # With RESP3 a member and its score are a pair. With RESP2 they are two items of a flat list.
    flat = found[0] if found and isinstance(found[0], list) else found
    return f"{float(flat[1]):.0f}-0" if flat else "0-0"


async def failed_again(commands: Commands, dlq: str, letter_id: str) -> tuple[str, ...]:
    """The ids of the new letters that a letter's replay left when it failed again."""
    ids = await call(commands, "HGET", letters_failed_again(dlq), letter_id)
    return tuple((ids or b"").decode().split())


async def replay_state(commands: Commands, stream: str, group: str, entry_id: str) -> ReplayState:
    """Whether an entry of a group's replay stream is undelivered, pending, or gone since it was settled.

    `unknown` if the stream is no longer the one that had the entry.
    """
    call_ = ((stream,), (group, entry_id))
    return checked((await run(commands, scripts.load("replay_state"), [call_]))[0]).decode()
