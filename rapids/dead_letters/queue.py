"""The dead-letter queue: list, look at, replay, discard and restore letters."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import get_args

from redis.asyncio import Redis, RedisCluster

from rapids.checks import at_least, positive_seconds, text
from rapids.dead_letters.letters import DeadLetter, LetterChange, LetterFilter, LetterPage, Replay, Scope
from rapids.exceptions import DeserializationError, LetterNotFoundError, LetterStateError
from rapids.settings import parsed_entry_id, stream_name
from rapids.storage import letters
from rapids.storage.connection import SharedPool, share_a_slot
from rapids.storage.keys import replay_stream
from rapids.storage.letters import Append, BeingMovedError, Move
from rapids.wire.events import Fields
from rapids.wire.letters import LetterRead, completed, is_complete, original_fields, replay_fields

__all__ = ["DeadLetterQueue"]

LARGEST_PAGE = 500
SCAN_LIMIT = 2_000
"""Letters looked at for one page, so that a filter that matches few never makes one request read everything."""
SCAN_STEP = 200
LOOKS = 10
"""How often a letter is looked for that others move about meanwhile."""
MOVER_PAUSE = 0.1
MOVER_LOOKS = 60
"""How often, after such pauses (seconds), to see whether another process is done with a letter: longer than it has."""

MOST_VALUES = 7_000
"""Names and values of an entry that can be replayed; Lua's `unpack` gives up before 8,000."""

DAY = 86_400.0


class DeadLetterQueue:
    """The dead letters of one stream of them.

    `redis` is the client to use, `stream` the dead-letter stream. `retention` (seconds) is how long a replayed or
    discarded letter stays readable, and a discarded one restorable; `archive_maxlen` (letters) caps how many of them
    are kept; `dlq_maxlen` and `maxlen` (entries) trim the dead-letter stream when a letter is restored into it, and
    the event stream when one is replayed to everyone.

    Raises `ValueError` or `TypeError` for an option that makes no sense.
    """

    def __init__(
        self,
        redis: Redis | RedisCluster,
        stream: str,
        *,
        retention: float = 14 * DAY,
        archive_maxlen: int = 10_000,
        dlq_maxlen: int | None = 10_000,
        maxlen: int | None = 100_000,
    ) -> None:
        self.stream = stream_name("stream", stream)
        self._redis = redis
        self._commands = SharedPool(redis, self.stream)
        self._retention_ms = round(positive_seconds("retention", retention) * 1000)
        self._archive_maxlen = at_least("archive_maxlen", archive_maxlen, 1)
        self._dlq_maxlen = None if dlq_maxlen is None else at_least("dlq_maxlen", dlq_maxlen, 1, or_none=True)
        self._maxlen = None if maxlen is None else at_least("maxlen", maxlen, 1, or_none=True)

    async def list(
        self, filter: LetterFilter | None = None, *, cursor: str | None = None, limit: int = 50
    ) -> LetterPage:
        """A page of letters, newest first, and where the next one starts.

        Looks at 2,000 letters at the most, so a page may hold fewer than `limit` (1 to 500) although more follow.

        Raises `ValueError` for a cursor that no page gave out, or a `limit` out of range.
        """
        wanted = filter or LetterFilter()
        if at_least("limit", limit, 1) > LARGEST_PAGE:
            raise ValueError(f"limit must be a whole number from 1 to {LARGEST_PAGE}, not {limit!r}")
        bounds = _range(wanted, cursor)
        found: list[DeadLetter] = []
        scanned, more = 0, bounds is not None
        newest, oldest = bounds or ("", "")
        while more and len(found) < limit and scanned < SCAN_LIMIT:
            rows = await letters.page(self._commands, self.stream, newest=newest, oldest=oldest, count=SCAN_STEP)
            more = len(rows) == SCAN_STEP
            for at, (entry_id, letter) in enumerate(await self._read(rows), 1):
                scanned += 1
                newest = f"({entry_id}"
                if wanted.matches(letter):
                    found.append(letter)
                if len(found) == limit:
                    more = more or at < len(rows)
                    break
        total = await letters.length(self._commands, self.stream)
        return LetterPage(tuple(found), newest[1:] if more else None, total, wanted == LetterFilter(), scanned)

    async def get(self, letter_id: str) -> DeadLetter:
        """One letter, also a replayed or discarded one until its retention ends.

        Raises `LetterNotFoundError`.
        """
        _, letter, _ = await self._find(letter_id)
        return letter

    async def replay(self, letter_id: str, *, scope: Scope = "handler", actor: str = "", reason: str = "") -> Replay:
        """Send a letter's event back, and move the letter to the archive in the same step.

        Scope `handler` runs only the handler that failed, `group` every handler of its group that matches; both go
        through the group's own replay stream, which no other group reads. `everyone` appends to the event stream,
        for all groups. The event keeps its id, correlation id and causation id. `actor` and `reason` are kept with it.

        Raises `LetterNotFoundError`; `LetterStateError` unless it is dead; `ValueError` for another scope;
        `DeserializationError` if the letter was tampered with.
        """
        if scope not in get_args(Scope):
            raise ValueError(f"scope must be one of {', '.join(get_args(Scope))}, not {scope!r}")
        entry_id, letter, fields = await self._find(letter_id)
        append = self._append(letter, await self._completed(letter, fields), scope)
        change = {"action": "replayed", "scope": scope, "stream": append.stream, "actor": actor, "reason": reason}
        appended = await self._move(letter_id, entry_id, letter, change, append)
        return Replay(letter_id, scope, append.stream, appended)

    async def discard(self, letter_id: str, *, actor: str = "", reason: str = "") -> DeadLetter:
        """Move a letter to the archive; `restore` brings it back until retention ends.

        Raises `LetterNotFoundError`; `LetterStateError` unless it is dead.
        """
        entry_id, letter, _ = await self._find(letter_id)
        change = {"action": "discarded", "actor": actor, "reason": reason}
        await self._move(letter_id, entry_id, letter, change, None)
        return await self.get(letter_id)

    async def restore(self, letter_id: str, *, actor: str = "", reason: str = "") -> DeadLetter:
        """Bring a discarded letter back under the same id.

        Raises `LetterNotFoundError`; `LetterStateError` unless it is discarded.
        """
        change = {"action": "restored", "actor": actor, "reason": reason}
        restored = await letters.restore(self._commands, self.stream, letter_id, change, dlq_maxlen=self._dlq_maxlen)
        letter = await self.get(letter_id)
        if restored is None:
            raise LetterStateError(letter_id, letter.state, "discarded")
        return letter

    async def _completed(self, letter: DeadLetter, fields: Fields) -> Fields:
        """The fields, and what letters of rapids-streams leave out, as long as the entry that failed is there."""
        entry_id = parsed_entry_id(letter.entry_id)
        if entry_id is None or is_complete(fields):
            return fields
        entry = await letters.origin(SharedPool(self._redis, letter.stream), letter.stream, entry_id)
        return fields if entry is None else completed(fields, entry)

    def _append(self, letter: DeadLetter, fields: Fields, scope: Scope) -> Append:
        try:
            stream_name("original_stream", letter.stream)
            text("original_group", letter.group)
        except ValueError as error:
            raise DeserializationError(
                letter.event_type, f"the letter does not say where it is from: {error}"
            ) from error
        if scope == "everyone":
            return Append(letter.stream, _bounded(letter, original_fields(fields)), self._maxlen)
        handler = letter.handler if scope == "handler" else ""
        return Append(
            replay_stream(letter.stream, letter.group),
            _bounded(letter, replay_fields(fields, handler=handler, letter_id=letter.id)),
        )

    async def _move(
        self, letter_id: str, entry_id: str, letter: DeadLetter, change: dict[str, str], append: Append | None
    ) -> str:
        if letter.state != "dead":
            raise LetterStateError(letter_id, letter.state, "dead")
        move = Move(letter_id, entry_id, change, self._retention_ms, self._archive_maxlen)
        appended = await self._moved(move, append)
        if appended is None:  # somebody was faster, between our look and the move
            raise LetterStateError(letter_id, (await self.get(letter_id)).state, "dead")
        return appended

    async def _moved(self, move: Move, append: Append | None) -> str | None:
        """Move a letter, waiting if need be for another process that replays it into another slot, or died doing so."""
        for _ in range(MOVER_LOOKS):
            try:
                if append is None or share_a_slot(self._redis, self.stream, append.stream):
                    return await letters.move(self._commands, self.stream, move, append)
                elsewhere = SharedPool(self._redis, append.stream)
                return await letters.move_after_append(self._commands, self.stream, move, append, elsewhere)
            except BeingMovedError:
                await asyncio.sleep(MOVER_PAUSE)
        raise LetterStateError(move.letter_id, "being replayed", "dead")

    async def _read(self, rows: Sequence[tuple[bytes, Fields]]) -> Sequence[tuple[str, DeadLetter]]:
        """Letters with their entry ids. A letter's id is its entry's, unless it was restored under a new one."""
        claimed = [_claimed_id(fields) for _, fields in rows]
        strangers = {claim for (entry_id, _), claim in zip(rows, claimed, strict=True) if claim not in (b"", entry_id)}
        restored: dict[bytes, int | None] = {}
        if strangers:
            names = sorted(strangers)
            times = await letters.restored_at(self._commands, self.stream, names)
            restored = dict(zip(names, times, strict=True))
        read: list[tuple[str, DeadLetter]] = []
        for (raw_id, fields), claim in zip(rows, claimed, strict=True):
            entry_id = raw_id.decode()
            was_restored = restored.get(claim) == int(entry_id.partition("-")[0])
            read.append((entry_id, DeadLetter.read(claim.decode() if was_restored else entry_id, fields)))
        return read

    async def _find(self, letter_id: str) -> tuple[str, DeadLetter, Fields]:
        """Where a letter is: its entry id in the stream (or "" in the archive), itself, its fields.

        Looked for again if it is nowhere: it may have been moved, from a place not looked at yet to one looked at.
        """
        wanted = parsed_entry_id(letter_id)
        if wanted is None:
            raise LetterNotFoundError(letter_id)
        for _ in range(LOOKS):
            if (found := await self._look(wanted)) is not None:
                return found
        raise LetterNotFoundError(letter_id)

    async def _look(self, letter_id: str) -> tuple[str, DeadLetter, Fields] | None:
        archive = await letters.read_archive(self._commands, self.stream, letter_id)
        history: Sequence[LetterChange] = (
            [LetterChange.read(entry_id, fields) for entry_id, fields in archive.changes] if archive else ()
        )
        fields = await letters.read_letter(self._commands, self.stream, letter_id)
        if fields is not None:
            [(_, letter)] = await self._read([(letter_id.encode(), fields)])
            return (letter_id, letter, fields) if letter.id == letter_id else None
        restored = await letters.find_restored(self._commands, self.stream, letter_id)
        if restored is not None:
            return restored[0], DeadLetter.read(letter_id, restored[1], history), restored[1]
        if archive is not None and history and history[-1].action != "restored":
            return "", DeadLetter.read(letter_id, archive.fields, history), archive.fields
        return None


def _claimed_id(fields: Fields) -> bytes:
    return LetterRead.of(fields).values.get(b"letter_id", b"")


def _bounded(letter: DeadLetter, fields: list[bytes]) -> list[bytes]:
    """The fields, unless they are more than a Lua script can hand to a command. Raises `DeserializationError`."""
    if len(fields) > MOST_VALUES:
        count = len(fields) // 2
        raise DeserializationError(letter.event_type, f"{count} fields are more than can be replayed")
    return fields


def _range(wanted: LetterFilter, cursor: str | None) -> tuple[str, str] | None:
    """The newest and the oldest entry id that may match, None where none can.

    An entry id begins with the milliseconds it was written at.
    """
    newest = "+"
    if wanted.until is not None:
        if (until := _milliseconds(wanted.until)) == 0:
            return None
        newest = f"({until}-0"
    oldest = "-" if wanted.since is None else f"{_milliseconds(wanted.since)}-0"
    if cursor is not None:
        if parsed_entry_id(cursor) is None:
            raise ValueError(f"cursor must be one that a page gave out, not {cursor[:100]!r}")
        newest = f"({cursor}"
    return newest, oldest


def _milliseconds(moment: datetime) -> int:
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return max(round(aware.timestamp() * 1000), 0)
