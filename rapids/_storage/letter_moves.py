"""Moves of dead letters: from their stream to the archive, with or without a replay, and back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rapids._storage import scripts
from rapids._storage.client.connections import Commands, Reply, checked, run
from rapids._storage.keys import (
    audit_log,
    letter_index,
    letters_archive,
    letters_archived,
    letters_failed_again,
    letters_restored,
)

__all__ = [
    "Append",
    "Move",
    "MoveMany",
    "Moved",
    "NoRoomError",
    "WorkStoppedError",
    "Working",
    "move",
    "move_many",
    "restore",
    "restore_many",
]

MOST_AT_ONCE = 5_000
"""The most letters of one step: Lua can pass at most 8,000 values to a command."""

ENOUGH_BYTES = 4_000_000
"""The number of bytes of letters after which a step ends: the server does nothing else during a step."""


@dataclass(frozen=True, slots=True)
class Append:
    """An entry to append in the step that moves a letter. `maxlen` is in entries; None does not trim the stream."""

    stream: str
    fields: Sequence[bytes]
    maxlen: int | None = None


@dataclass(frozen=True, slots=True)
class Working:
    """The operation for which letters are moved: its key, and its owner's token."""

    key: str
    owner: str


@dataclass(frozen=True, slots=True)
class Move:
    """The move of one letter out of its stream: its entry there, and the change."""

    entry_id: str
    change: Mapping[str, str]
    retention_ms: int
    archive_maxlen: int
    working: Working | None = None


@dataclass(frozen=True, slots=True)
class MoveMany:
    """The change of many letters, for an operation."""

    working: Working
    change: Mapping[str, str]
    retention_ms: int
    archive_maxlen: int
    scope: str = ""
    """The scope of a replay; empty to discard."""
    tag: str = ""
    """On a Cluster, the hash tag that the stream for a replay must have; empty for any."""
    maxlen: int | None = None
    """The maximum length of event streams to which replays are appended."""


@dataclass(frozen=True, slots=True)
class Moved:
    """The result of moving many letters. The same step updated the operation."""

    done: int
    skipped: int
    """Letters that were gone."""
    last: str | None
    """The last letter that was processed, None if there is none. Letters after it are not moved yet."""
    blocked: tuple[str, str] | None
    """A letter that must be moved on its own, and the reason."""


class NoRoomError(Exception):
    """The dead-letter stream is full: another restore would trim letters that nobody has replayed or discarded."""

    def __init__(self, dlq: str, dlq_maxlen: int | None) -> None:
        super().__init__(dlq, dlq_maxlen)
        self.dlq = dlq
        self.dlq_maxlen = dlq_maxlen

    def __str__(self) -> str:
        return (
            f"{self.dlq!r} is full with dlq_maxlen={self.dlq_maxlen}; restoring more would cut its oldest letters away"
        )


class WorkStoppedError(Exception):
    """The operation no longer runs, or another process has it."""


async def move(commands: Commands, dlq: str, one: Move, append: Append | None) -> str | None:
    """Move a letter to the archive and append an entry in the same step. Returns that entry's id, or "" without one.

    None if the letter was no longer in the stream; then nothing was changed. Raises `WorkStoppedError`.
    """
    owner, key = (one.working.owner, one.working.key) if one.working else ("", dlq)
    keys = (*_letter_keys(dlq), letters_failed_again(dlq), audit_log(dlq), key, append.stream if append else dlq)
    fields, maxlen = (append.fields, append.maxlen) if append else ((), None)
    change = _flat(one.change)
    arguments = (
        *(owner, 1, one.retention_ms, one.archive_maxlen, ENOUGH_BYTES, "", maxlen or 0, ""),
        *(len(change), *change, len(fields), *fields, one.entry_id),
    )
    found = checked((await run(commands, scripts.load("move_letters"), [(keys, arguments)]))[0])
    return found[5].decode() if _many(found).done else None


async def move_many(commands: Commands, dlq: str, many: MoveMany, entry_ids: Sequence[str]) -> Moved:
    """Move letters in order, until one must be moved on its own, or up to 5,000 letters or about 4 MB.

    Raises `WorkStoppedError`.
    """
    change = _flat(many.change)
    keys = (*_letter_keys(dlq), letters_failed_again(dlq), audit_log(dlq), many.working.key, dlq)
    maxlen = many.maxlen if many.scope == "everyone" else None
    arguments = (
        *(many.working.owner, 0, many.retention_ms, many.archive_maxlen, ENOUGH_BYTES, many.tag, maxlen or 0),
        *(many.scope, len(change), *change, 0, *entry_ids[:MOST_AT_ONCE]),
    )
    return _many(checked((await run(commands, scripts.load("move_letters"), [(keys, arguments)]))[0]))


async def restore(
    commands: Commands, dlq: str, letter_id: str, change: Mapping[str, str], *, dlq_maxlen: int | None
) -> bool:
    """Restore a discarded letter. False if the archive does not have it as discarded."""
    flat = _flat(change)
    keys = (*_letter_keys(dlq), audit_log(dlq), dlq)
    arguments = ("", dlq_maxlen or 0, ENOUGH_BYTES, len(flat), *flat, letter_id)
    found = checked((await run(commands, scripts.load("restore_letters"), [(keys, arguments)]))[0])
    return _many(found).done == 1


async def restore_many(
    commands: Commands,
    dlq: str,
    working: Working,
    change: Mapping[str, str],
    places: Sequence[str],
    *,
    dlq_maxlen: int | None,
) -> Moved:
    """Restore discarded letters by their places in the archive, up to about 4 MB.

    Raises `WorkStoppedError`; `NoRoomError` if there is no room for any of them.
    """
    flat = _flat(change)
    keys = (*_letter_keys(dlq), audit_log(dlq), working.key)
    arguments = (working.owner, dlq_maxlen or 0, ENOUGH_BYTES, len(flat), *flat, *places[:MOST_AT_ONCE])
    restored = _many(checked((await run(commands, scripts.load("restore_letters"), [(keys, arguments)]))[0]))
    if restored.blocked and restored.last is None:
        raise NoRoomError(dlq, dlq_maxlen)
    return restored


def _letter_keys(dlq: str) -> tuple[str, ...]:
    return (dlq, letter_index(dlq), letters_archive(dlq), letters_archived(dlq), letters_restored(dlq))


def _many(found: Reply) -> Moved:
    if found == b"stopped":
        raise WorkStoppedError
    done, skipped, last, blocked, why = found[:5]
    at = (blocked.decode(), why.decode(errors="replace")) if blocked else None
    return Moved(done, skipped, last.decode() or None, at)


def _flat(change: Mapping[str, str]) -> list[str]:
    return [text for pair in change.items() for text in pair]
