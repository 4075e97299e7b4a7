"""The dead-letter queue: list, look at, replay, discard and restore letters."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, get_args

from redis.asyncio import Redis, RedisCluster

from rapids._core.checks import at_least, instance, note, positive_seconds, text
from rapids._core.entry_id import parsed_id
from rapids._core.settings import stream_name
from rapids._storage import archive, letter_index, letter_moves, letters
from rapids._storage.client.connections import SharedPool, share_a_slot
from rapids._storage.keys import default_dlq, replay_stream
from rapids._storage.letter_moves import Append, Move
from rapids._wire.entry_format import Fields
from rapids._wire.letter_format import LetterRead, completed, is_complete, original_fields, replay_fields
from rapids.dead_letters.causes import Causes, QueueStats, causes_of, stats_of
from rapids.dead_letters.edit import edited
from rapids.dead_letters.letter import (
    DeadLetter,
    LetterFilter,
    LetterPage,
    Replay,
    ReplayOutcome,
    Scope,
    read_history,
    read_letters,
)
from rapids.dead_letters.listing import page_of
from rapids.dead_letters.moves import Bounds, QueueLetters, Step
from rapids.dead_letters.operations import LONGEST_ACTOR, LONGEST_REASON, Operations
from rapids.exceptions import DeserializationError, LetterNotFoundError, LetterStateError

__all__ = ["DeadLetterQueue", "with_replays"]

LARGEST_PAGE = 500
LOOKS = 10
"""How often a letter is looked for while others move it."""

MOST_VALUES = 7_000
"""Names and values of an entry that can be replayed; Lua's `unpack` gives up before 8,000."""
MOST_MOVED_VALUES = 7_900
"""Those of a letter that can be put away; the script has the same number."""

DAY = 86_400.0


class DeadLetterQueue:
    """The dead letters of one stream of them.

    `redis` is the client to use, `stream` the dead-letter stream. `retention` (seconds) is how long a replayed or
    discarded letter stays readable, and a discarded one restorable; `archive_maxlen` (letters) caps how many of them
    are kept; `dlq_maxlen` and `maxlen` (entries) trim the dead-letter stream when a letter is restored into it, and
    the event stream when one is replayed to everyone. None, the default, leaves them to who else writes there: what
    they keep may be more than anybody here knows.

    Raises `ValueError` or `TypeError` for an option that makes no sense.
    """

    def __init__(
        self,
        redis: Redis | RedisCluster,
        stream: str,
        *,
        retention: float = 14 * DAY,
        archive_maxlen: int = 100_000,
        dlq_maxlen: int | None = None,
        maxlen: int | None = None,
    ) -> None:
        self.stream: str = stream_name("stream", stream)
        self._redis = redis
        self._commands = SharedPool(redis, self.stream)
        self._retention_ms = round(positive_seconds("retention", retention) * 1000)
        self._archive_maxlen = at_least("archive_maxlen", archive_maxlen, 1)
        self._dlq_maxlen = None if dlq_maxlen is None else at_least("dlq_maxlen", dlq_maxlen, 1, or_none=True)
        self._maxlen = None if maxlen is None else at_least("maxlen", maxlen, 1, or_none=True)

        bounds = Bounds(self._retention_ms, self._archive_maxlen, self._dlq_maxlen, self._maxlen)
        operated = QueueLetters(redis, self.stream, bounds, self._move_for)
        self.operations: Operations = Operations(self._commands, self.stream, operated)
        """Bulk replays, discards and restores."""

    async def list(
        self, filter: LetterFilter | None = None, *, cursor: str | None = None, limit: int = 50
    ) -> LetterPage:
        """A page of letters, newest first, and where the next one starts.

        Looks at 2,000 letters at the most, or some 16 MB of them, so a page may hold fewer than `limit` (1 to 500)
        although more follow.

        Raises `ValueError` for a cursor that no page gave out, or a `limit` out of range, `TypeError` for what is no
        filter.
        """
        return await page_of(self._commands, self.stream, _wanted(filter), cursor=cursor, limit=_page_size(limit))

    async def causes(self, filter: LetterFilter | None = None, *, cursor: str | None = None, limit: int = 50) -> Causes:
        """The causes of letters (`Cause`) from the index, those with the most letters first.

        At most 1,000 causes are counted separately; a page has `limit` of them (1 to 500).

        Raises `ValueError` for a cursor that no page gave out, a `limit` out of range, or a filter by `q`, `since` or
        `until`, `TypeError` for what is no filter.
        """
        return await causes_of(
            *(self._commands, self.stream, _wanted(filter)),
            cursor=cursor,
            limit=_page_size(limit),
            maxlen=self._dlq_maxlen,
        )

    async def stats(self) -> QueueStats:
        """How many letters there are, how many may be, and how many were ever cut away unattended.

        What others wrote past the index is caught up with, up to a thousand letters each time.
        """
        return await stats_of(self._commands, self.stream, maxlen=self._dlq_maxlen)

    async def reindex(self, *, actor: str = "", reason: str = "") -> QueueStats:
        """Forget the index, and begin to rebuild it: with the first thousand letters.

        The rest is caught up with by whoever runs operations (the FastAPI plug-in does), writes a letter or looks,
        `stats` included. Nothing needs it as a rule: it is for counts that are off after somebody deleted letters by
        hand. `actor` (200 characters) and `reason` (1,000) go into the audit log.
        """
        note("actor", actor, LONGEST_ACTOR)
        note("reason", reason, LONGEST_REASON)
        await letter_index.forget(self._commands, self.stream, actor=actor, reason=reason)
        return await self.stats()

    async def get(self, letter_id: str) -> DeadLetter:
        """One letter, also a replayed or discarded one until its retention ends.

        Raises `LetterNotFoundError`.
        """
        _, letter, _ = await self._find(letter_id)
        return await with_replays(self._redis, self.stream, letter)

    async def replay(
        self,
        letter_id: str,
        *,
        scope: Scope = "handler",
        data: Mapping[str, Any] | None = None,
        patch: Mapping[str, Any] | None = None,
        actor: str = "",
        reason: str = "",
    ) -> Replay:
        """Send a letter's event back, and move the letter to the archive in the same step.

        Scope `handler` runs only the handler that failed, `group` every handler of its group that matches; both go
        through the group's own replay stream, which no other group reads. `everyone` appends to the event stream,
        for all groups. The event keeps its id, correlation id and causation id. `actor` (200 characters) and `reason`
        (1,000) are kept with it.

        Either of two arguments changes the event's own fields, so that it can be fixed. `data` replaces all of them.
        `patch` is a JSON Merge Patch (RFC 7396): a field that it names gets the value given there, null removes it, and
        a field that it does not name keeps its stored value. The result is validated first, in a thread, by the class
        registered in this process, as of its present schema version: no migration runs on it. The letter keeps its own
        data, and its history has the changed data and where they differ.

        Raises `LetterNotFoundError`; `LetterStateError` unless it is dead; `ValueError` for another scope, or both
        `data` and `patch`; `EditRefusedError` for data that make no event of its class, or where there is none;
        `DeserializationError` if the letter was tampered with, is of a stream in another slot of a Cluster, or, with
        `data`, is none of an event in other ways.
        """
        if scope not in get_args(Scope):
            raise ValueError(f"scope must be one of {', '.join(get_args(Scope))}, not {scope!r}")
        if data is not None and patch is not None:
            raise ValueError("give either data or patch, not both")
        change = _change("replayed", actor, reason)
        entry_id, letter, fields = await self._find(letter_id)
        _check_is_dead(letter)
        fields = await self._completed(letter, fields)
        edit = None
        if data is not None or patch is not None:
            edit = await asyncio.to_thread(edited, fields, data=data, patch=patch)
        append = self._append(letter, edit.fields if edit else fields, scope)
        change |= {"scope": scope, "stream": append.stream} | (edit.change if edit else {})
        appended = await self._move(entry_id, letter, change, append)
        return Replay(letter.id, scope, append.stream, appended, edit.diff if edit else ())

    async def discard(self, letter_id: str, *, actor: str = "", reason: str = "") -> DeadLetter:
        """Move a letter to the archive; `restore` brings it back until retention ends.

        Raises `LetterNotFoundError`; `LetterStateError` unless it is dead; `DeserializationError` if it has more fields
        than can be moved, which only what no Rapids wrote has.
        """
        change = _change("discarded", actor, reason)
        entry_id, letter, fields = await self._find(letter_id)
        _check_is_dead(letter)
        _bounded(letter, list(fields), MOST_MOVED_VALUES)
        await self._move(entry_id, letter, change, None)
        return await self.get(letter.id)

    async def restore(self, letter_id: str, *, actor: str = "", reason: str = "") -> DeadLetter:
        """Bring a discarded letter back under the same id.

        Raises `LetterNotFoundError`; `LetterStateError` unless it is discarded.
        """
        change = _change("restored", actor, reason)
        wanted = _checked_id(letter_id)
        restored = await letter_moves.restore(self._commands, self.stream, wanted, change, dlq_maxlen=self._dlq_maxlen)
        letter = await self.get(letter_id)
        if not restored:
            raise LetterStateError(wanted, letter.state, "discarded")
        return letter

    async def _move_for(self, step: Step, entry_id: str) -> None:
        """Move one letter for an operation, by its entry. Raises as `replay` does, and `WorkStoppedError`."""
        fields = await letters.read_letter(self._commands, self.stream, entry_id)
        if fields is None:
            raise LetterNotFoundError(entry_id)
        [(_, letter)] = await read_letters(self._commands, self.stream, [(entry_id.encode(), fields)])
        append, change = None, step.change
        if step.kind == "replay":
            append = self._append(letter, await self._completed(letter, fields), step.scope)
            change |= {"stream": append.stream}
        move = Move(entry_id, change, self._retention_ms, self._archive_maxlen, step.working)
        if await letter_moves.move(self._commands, self.stream, move, append) is None:
            raise LetterNotFoundError(letter.id)

    async def _completed(self, letter: DeadLetter, fields: Fields) -> Fields:
        """The fields, and what letters of rapids-streams leave out, as long as the entry that failed is there."""
        entry_id = parsed_id(letter.entry_id)
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
        if not share_a_slot(self._redis, self.stream, letter.stream):
            raise DeserializationError(
                letter.event_type,
                f"its stream {letter.stream!r} is in another slot of the Cluster than the dead-letter stream "
                f"{self.stream!r}, so the letter cannot be replayed from here; name dead-letter streams as in "
                f"{default_dlq(letter.stream)!r}",
            )
        if scope == "everyone":
            return Append(letter.stream, _bounded(letter, original_fields(fields)), self._maxlen)
        handler = letter.handler if scope == "handler" else ""
        return Append(
            replay_stream(letter.stream, letter.group),
            _bounded(letter, replay_fields(fields, handler=handler, letter_id=letter.id)),
        )

    async def _move(self, entry_id: str, letter: DeadLetter, change: dict[str, str], append: Append | None) -> str:
        _check_is_dead(letter)
        move = Move(entry_id, change, self._retention_ms, self._archive_maxlen)
        appended = await letter_moves.move(self._commands, self.stream, move, append)
        if appended is None:  # somebody was faster, between our look and the move
            raise LetterStateError(letter.id, (await self.get(letter.id)).state, "dead")
        return appended

    async def _find(self, letter_id: str) -> tuple[str, DeadLetter, Fields]:
        """Where a letter is: its entry id in the stream (or "" in the archive), itself, its fields.

        Looked for again if it is nowhere: it may have been moved, from a place not looked at yet to one looked at.
        """
        wanted = _checked_id(letter_id)
        for _ in range(LOOKS):
            if (found := await self._look(wanted)) is not None:
                return found
        raise LetterNotFoundError(letter_id)

    async def _look(self, letter_id: str) -> tuple[str, DeadLetter, Fields] | None:
        fields = await letters.read_letter(self._commands, self.stream, letter_id)
        if fields is not None:
            [(_, letter)] = await read_letters(self._commands, self.stream, [(letter_id.encode(), fields)])
            return (letter_id, letter, fields) if letter.id == letter_id else None
        restored = await letters.find_restored(self._commands, self.stream, letter_id)
        if restored is not None:
            entry_id, fields = restored
            history = read_history(LetterRead.of(fields).values.get(archive.HISTORY, b""))
            return entry_id, DeadLetter.read(letter_id, fields, history), fields
        archived = await archive.read(self._commands, self.stream, letter_id)
        if archived is None:
            return None
        return "", DeadLetter.read(letter_id, archived.fields, read_history(archived.history)), archived.fields


def _checked_id(letter_id: str) -> str:
    """The id as the letter has it: 01-1 is 1-1. Raises `LetterNotFoundError` for what cannot be one."""
    if (wanted := parsed_id(letter_id)) is None:
        raise LetterNotFoundError(letter_id)
    return wanted


def _change(action: str, actor: str, reason: str) -> dict[str, str]:
    """What the letter's history keeps. Raises `ValueError` or `TypeError` for texts that are too long, or none."""
    note("actor", actor, LONGEST_ACTOR)
    note("reason", reason, LONGEST_REASON)
    return {"action": action, "actor": actor, "reason": reason}


def _check_is_dead(letter: DeadLetter) -> None:
    if letter.state != "dead":
        raise LetterStateError(letter.id, letter.state, "dead")


def _bounded(letter: DeadLetter, fields: list[bytes], most: int = MOST_VALUES) -> list[bytes]:
    """The fields, unless they are more than a Lua script can hand to a command. Raises `DeserializationError`."""
    if len(fields) > most:
        count = len(fields) // 2
        raise DeserializationError(letter.event_type, f"{count} fields are more than can be moved")
    return fields


def _page_size(limit: int) -> int:
    if at_least("limit", limit, 1) > LARGEST_PAGE:
        raise ValueError(f"limit must be a whole number from 1 to {LARGEST_PAGE}, not {limit!r}")
    return limit


def _wanted(filter: LetterFilter | None) -> LetterFilter:
    instance("filter", filter, LetterFilter, "a LetterFilter or None")
    return filter or LetterFilter()


async def with_replays(redis: Redis | RedisCluster, dlq: str, letter: DeadLetter) -> DeadLetter:
    """The letter, with what became of its replay, if it was replayed last. Raises `RedisError`."""
    if not letter.history or (last := letter.history[-1]).action != "replayed":
        return letter
    outcome = ReplayOutcome(last.at, last.scope, last.stream, last.entry_id, "sent")
    if last.scope != "everyone":
        commands = SharedPool(redis, last.stream)
        state = await archive.replay_state(commands, last.stream, letter.group, last.entry_id)
        # In this order: the letters of an entry are there before it is gone.
        letters = await archive.failed_again(SharedPool(redis, dlq), dlq, letter.id)
        match state, letters:
            case (("undelivered" | "pending"), _):
                outcome = replace(outcome, outcome=state, letters=letters)
            case "unknown", ():
                outcome = replace(outcome, outcome="unknown")
            case _, ():
                outcome = replace(outcome, outcome="handled", is_inferred=True)
            case _:
                outcome = replace(outcome, outcome="failed_again", letters=letters)
    return replace(letter, replays=(outcome,))
