"""Moves of dead letters: from their stream to the archive, with or without a replay, and back."""

import json
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
from rapids._storage.operation_records import Claim, ElsewhereError

__all__ = ["Append", "Bounds", "LetterMoves", "Moved", "NoRoomError", "WorkStoppedError"]

MAX_AT_ONCE = 5_000
"""The most letters of one step: Lua can pass at most 8,000 values to a command."""

MAX_STEP_BYTES = 4_000_000
"""The number of bytes of letters after which a step ends: the server does nothing else during a step."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """How long and how many archived letters are kept, and the maximum length of the streams that moves append to.

    None does not trim a stream.
    """

    retention_ms: int
    archive_maxlen: int
    dlq_maxlen: int | None = None
    """Of the dead-letter stream, when a letter is restored."""
    maxlen: int | None = None
    """Of event streams, when a letter is replayed to everyone."""


@dataclass(frozen=True, slots=True)
class Append:
    """An entry to append in the step that moves a letter. `maxlen` is in entries; None does not trim the stream."""

    stream: str
    fields: Sequence[bytes]
    maxlen: int | None = None


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


class LetterMoves:
    """Moves letters of one dead-letter stream to its archive and back. `change` is what the letter's history records.

    `tag` is the hash tag that streams for replays must have on a Cluster; empty for any.
    """

    def __init__(self, commands: Commands, dlq: str, bounds: Bounds, *, tag: str = "") -> None:
        self._commands = commands
        self._dlq = dlq
        self._bounds = bounds
        self._tag = tag

    async def move(
        self, entry_id: str, change: Mapping[str, str], append: Append | None, claim: Claim | None = None
    ) -> str | None:
        """Move a letter to the archive and append an entry in the same step. Returns that entry's id, if any, or "".

        None if the letter was no longer in the stream; then nothing was changed. Raises `WorkStoppedError`,
        `ElsewhereError`.
        """
        found = await self._moved(claim, change, [entry_id], append=append, alone=True)
        return found[5].decode() if _result(found).done else None

    async def move_many(
        self, entry_ids: Sequence[str], claim: Claim, change: Mapping[str, str], *, scope: str = ""
    ) -> Moved:
        """Move letters in order, until one must be moved on its own, or up to 5,000 letters or about 4 MB.

        `scope` is that of a replay; empty to discard. Raises `WorkStoppedError`, `ElsewhereError`.
        """
        return _result(await self._moved(claim, change, entry_ids[:MAX_AT_ONCE], scope=scope))

    async def restore(self, letter_id: str, change: Mapping[str, str]) -> bool:
        """Restore a discarded letter. False if the archive does not have it as discarded."""
        return (await self._restored(None, change, [letter_id])).done == 1

    async def restore_many(self, places: Sequence[str], claim: Claim, change: Mapping[str, str]) -> Moved:
        """Restore discarded letters by their places in the archive, up to about 4 MB.

        Raises `WorkStoppedError`, `ElsewhereError`; `NoRoomError` if there is no room for any of them.
        """
        restored = await self._restored(claim, change, places[:MAX_AT_ONCE])
        if restored.blocked and restored.last is None:
            raise NoRoomError(self._dlq, self._bounds.dlq_maxlen)
        return restored

    async def _moved(
        self,
        claim: Claim | None,
        change: Mapping[str, str],
        entry_ids: Sequence[str],
        *,
        append: Append | None = None,
        alone: bool = False,
        scope: str = "",
    ) -> Reply:
        maxlen = append.maxlen if append else self._bounds.maxlen if scope == "everyone" else None
        options = {
            "owner": claim.token if claim else "",
            "after": claim.after if claim else "",
            "alone": alone,
            "retention": self._bounds.retention_ms,
            "archive_maxlen": self._bounds.archive_maxlen,
            "max_bytes": MAX_STEP_BYTES,
            "tag": "" if append else self._tag,
            "maxlen": str(maxlen or 0),
            "scope": scope,
            "change": change,
        }
        keys = (
            *self._keys(),
            letters_failed_again(self._dlq),
            audit_log(self._dlq),
            claim.key if claim else self._dlq,
            append.stream if append else self._dlq,
            claim.replays if claim else self._dlq,
        )
        fields = append.fields if append else ()
        return await self._run("move_letters", keys, (json.dumps(options), len(fields), *fields, *entry_ids))

    async def _restored(self, claim: Claim | None, change: Mapping[str, str], names: Sequence[str]) -> Moved:
        options = {
            "owner": claim.token if claim else "",
            "after": claim.after if claim else "",
            "maxlen": str(self._bounds.dlq_maxlen or 0),
            "max_bytes": MAX_STEP_BYTES,
            "change": change,
        }
        keys = (*self._keys(), audit_log(self._dlq), claim.key if claim else self._dlq)
        return _result(await self._run("restore_letters", keys, (json.dumps(options), *names)))

    def _keys(self) -> tuple[str, ...]:
        dlq = self._dlq
        return (dlq, letter_index(dlq), letters_archive(dlq), letters_archived(dlq), letters_restored(dlq))

    async def _run(self, script: str, keys: Sequence[str], arguments: Sequence[str | bytes | int]) -> Reply:
        found = checked((await run(self._commands, scripts.load(script), [(keys, arguments)]))[0])
        if found == b"stopped":
            raise WorkStoppedError
        if found == b"elsewhere":
            raise ElsewhereError
        return found


def _result(found: Reply) -> Moved:
    done, skipped, last, blocked, why = found[:5]
    at = (blocked.decode(), why.decode(errors="replace")) if blocked else None
    return Moved(done, skipped, last.decode() or None, at)
