"""The dead-letter queue: list, read, replay, discard and restore letters."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC
from typing import Any, Literal, get_args

from redis.asyncio import Redis, RedisCluster

from rapids._core.checks import actor_and_reason, at_least, instance, positive_seconds, stream_name
from rapids._core.entry_id import next_id, parsed_id, previous_id
from rapids._core.paging import Listing
from rapids._core.threads import in_own_thread
from rapids._storage import archive, letter_index, letters
from rapids._storage.client.connections import SharedPool
from rapids._storage.letter_moves import Append, Bounds
from rapids._wire.entry_format import Fields
from rapids._wire.letter_format import history_of
from rapids.dead_letters.canary import CanaryFailure
from rapids.dead_letters.causes import Causes, QueueStats, causes_of, stats_of
from rapids.dead_letters.edit import Difference, edited
from rapids.dead_letters.letter import (
    ArchivePage,
    DeadLetter,
    LetterPage,
    Replay,
    ReplayOutcome,
    Scope,
    read_archived,
    read_history,
    read_letters,
)
from rapids.dead_letters.moves import QueueMoves, check_values
from rapids.dead_letters.operation import Operation
from rapids.dead_letters.operations import Operations
from rapids.dead_letters.selection import LetterFilter, Search, Span
from rapids.exceptions import LetterNotFoundError, LetterStateError

__all__ = ["DeadLetterQueue", "FailedReplay", "with_replays"]

LISTING, ARCHIVE = Listing("letters"), Listing("archive")

ARCHIVE_STEP = 100
"""Letters of the archive that are read at a time: each may be large."""

MAX_PAGE = 500
MAX_SCANNED = 2_000
"""Letters that are read for one page, so that a filter that matches few letters does not read all in one request."""
MAX_PAGE_BYTES = 16_000_000
"""Bytes of letters after which a page ends, even with few letters: a letter can have any size."""

LOOKS = 10
"""How often a letter is searched for while others move it."""

DAY = 86_400.0


@dataclass(frozen=True, slots=True)
class FailedReplay:
    """A replay of an operation with a canary that failed again, with its letters: each has its own error."""

    failure: CanaryFailure
    letter: DeadLetter | None
    """The letter that was replayed; None if the archive no longer has it."""
    new_letter: DeadLetter | None
    """The letter that the replay left; None if it left none, or if that is gone."""


class DeadLetterQueue:
    """The letters of one dead-letter stream.

    `redis` is the client to use, `stream` the dead-letter stream. `retention` (seconds) is how long a replayed or
    discarded letter can be read, and a discarded one can be restored. `archive_maxlen` (letters) limits how many of
    them are kept. `dlq_maxlen` (entries) trims the dead-letter stream when a letter is restored to it, `maxlen` trims
    the event stream when a letter is replayed to everyone. None, the default, trims nothing, since other writers of
    the stream may want to keep more.

    Raises `ValueError` or `TypeError` for an invalid option.
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
        self._dlq_maxlen = None if dlq_maxlen is None else at_least("dlq_maxlen", dlq_maxlen, 1, or_none=True)
        self._moves = QueueMoves(
            redis,
            self.stream,
            Bounds(
                retention_ms=round(positive_seconds("retention", retention) * 1000),
                archive_maxlen=at_least("archive_maxlen", archive_maxlen, 1),
                dlq_maxlen=self._dlq_maxlen,
                maxlen=None if maxlen is None else at_least("maxlen", maxlen, 1, or_none=True),
            ),
        )
        self.operations: Operations = Operations(self._commands, self.stream, self._moves)
        """Bulk replays, discards and restores."""

    async def list(
        self, filter: LetterFilter | None = None, *, cursor: str | None = None, limit: int = 50
    ) -> LetterPage:
        """A page of letters, newest first, and where the next one starts.

        It reads at most 2,000 letters, or about 16 MB of them. So a page may have fewer letters than `limit` (1 to 500)
        although more follow.

        Raises `ValueError` for a cursor that did not come from a page, or a `limit` out of range; `TypeError` if
        `filter` is not a filter.
        """
        wanted, limit = _wanted(filter), _page_size(limit)
        rest: Span | None = Span()
        if cursor is not None:
            rest = Span(until=previous_id(LISTING.entry_ids(cursor, 1)[0]))
        search = Search(self._commands, self.stream, wanted, newest_first=True)
        estimate = await search.estimate()
        found, scanned, size = list[DeadLetter](), 0, 0
        while rest and len(found) < limit and scanned < MAX_SCANNED and size < MAX_PAGE_BYTES:
            batch = await search.step(rest, limit - len(found), looks=MAX_SCANNED - scanned)
            found += [one.letter for one in batch.found if one.letter]
            scanned, size, rest = scanned + batch.looked_at, size + batch.size, batch.rest
        following = LISTING.entry_cursor(next_id(rest.until)) if rest else None
        if cursor is None and following is None:  # the only page has all of them
            return LetterPage(tuple(found), None, len(found), True, scanned)
        return LetterPage(tuple(found), following, estimate.total, estimate.exact, scanned)

    async def causes(self, filter: LetterFilter | None = None, *, cursor: str | None = None, limit: int = 50) -> Causes:
        """The causes of letters (`Cause`) from the index, those with the most letters first.

        At most 1,000 causes are counted separately; a page has `limit` of them (1 to 500).

        Raises `ValueError` for a cursor that did not come from a page, a `limit` out of range, or a filter by `q`,
        `since` or `until`; `TypeError` if `filter` is not a filter.
        """
        wanted, limit = _wanted(filter), _page_size(limit)
        return await causes_of(self._commands, self.stream, wanted, cursor=cursor, limit=limit, maxlen=self._dlq_maxlen)

    async def stats(self) -> QueueStats:
        """How many letters there are, how many there may be, and how many were trimmed before anybody handled them.

        Letters that were written without the index are added to it, at most a thousand each time.
        """
        return await stats_of(self._commands, self.stream, maxlen=self._dlq_maxlen)

    async def reindex(self, *, actor: str = "", reason: str = "") -> QueueStats:
        """Drop the index, and begin to rebuild it with the first thousand letters.

        Each process that runs operations (the FastAPI plug-in does), writes a letter or reads them (`stats` too)
        indexes more of the rest. It is rarely needed: only if counts are wrong after letters were deleted without
        Rapids. `actor` (200 characters) and `reason` (1,000) go into the audit log.
        """
        actor_and_reason(actor, reason)
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
        (1,000) are recorded with it.

        Two arguments change the event's own fields; only one of them can be given. `data` replaces all of them.
        `patch` is a JSON Merge Patch (RFC 7396): a field that it names gets the value given there, null removes it, and
        a field that it does not name keeps its stored value. The result is validated first, in a thread, by the class
        registered in this process, in its current schema version: no migration runs on it. The letter keeps its own
        data, and its history records the changed data and where they differ.

        Raises `LetterNotFoundError`; `LetterStateError` unless it is dead; `ValueError` for another scope, or both
        `data` and `patch`; `EditRefusedError` for data that its class refuses, or if there is no class;
        `DeserializationError` if the letter was tampered with, if its stream is in another slot of a Cluster, or if it
        has changed data and is not the letter of an event.
        """
        if scope not in get_args(Scope):
            raise ValueError(f"scope must be one of {', '.join(get_args(Scope))}, not {scope!r}")
        if data is not None and patch is not None:
            raise ValueError("give either data or patch, not both")
        change = _change("replayed", actor, reason)
        entry_id, letter, fields = await self._find(letter_id)
        _check_is_dead(letter)
        fields = await self._moves.completed(letter, fields)
        edit = None
        if data is not None or patch is not None:
            edit = await asyncio.wrap_future(in_own_thread(lambda: edited(fields, data=data, patch=patch)))
        append = self._moves.append_of(letter, edit.fields if edit else fields, scope)
        change |= {"scope": scope, "stream": append.stream} | (edit.change if edit else {})
        appended = await self._move(entry_id, letter, change, append)
        return Replay(letter.id, scope, append.stream, appended, edit.diff if edit else ())

    async def check_edit(
        self, letter_id: str, *, data: Mapping[str, Any] | None = None, patch: Mapping[str, Any] | None = None
    ) -> tuple[Difference, ...]:
        """Where changed data would differ from the letter's: what `replay` with the same arguments would send, or the
        error that it would raise. Nothing is sent. The letter may be in any state.

        Raises what `replay` raises for changed data; `ValueError` unless exactly one of `data` and `patch` is given.
        """
        if (data is None) == (patch is None):
            raise ValueError("give either data or patch")
        _, letter, fields = await self._find(letter_id)
        fields = await self._moves.completed(letter, fields)
        return (await asyncio.wrap_future(in_own_thread(lambda: edited(fields, data=data, patch=patch)))).diff

    async def archived(
        self,
        filter: LetterFilter | None = None,
        *,
        state: Literal["replayed", "discarded"] | None = None,
        cursor: str | None = None,
        limit: int = 50,
    ) -> ArchivePage:
        """A page of replayed and discarded letters, the one that was moved last first, and where the next one starts.

        `since` and `until` of the filter are about when a letter was moved. It reads at most 2,000 letters, or about
        16 MB of them, so a page may have fewer letters than `limit` (1 to 500) although more follow. A letter that was
        restored is not among them.

        Raises `ValueError` for a cursor that did not come from a page, another state, or a `limit` out of range;
        `TypeError` if `filter` is not a filter.
        """
        if state not in (None, "replayed", "discarded"):
            raise ValueError(f"state must be replayed, discarded or None, not {state!r}")
        wanted, limit = _wanted(filter), _page_size(limit)
        states = ("replayed", "discarded") if state is None else (state,)
        # The place of a letter in the archive is when it was moved, in microseconds.
        utc = [at if at is None or at.tzinfo else at.replace(tzinfo=UTC) for at in (wanted.since, wanted.until)]
        oldest, end = (None if at is None else f"{max(round(at.timestamp() * 1e6), 1)}-0" for at in utc)
        before = end if cursor is None else next_id(previous_id(ARCHIVE.entry_ids(cursor, 1)[0]))  # never 0-0
        found, scanned, size = list[DeadLetter](), 0, 0
        while scanned < MAX_SCANNED and size < MAX_PAGE_BYTES:
            rows = await archive.newest(self._commands, self.stream, before=before, oldest=oldest, count=ARCHIVE_STEP)
            for row in rows:
                before, scanned, size = row.place, scanned + 1, size + sum(map(len, row.fields))
                letter = read_archived(row)
                if letter.state in states and wanted.matches(letter):
                    found.append(letter)
                if len(found) == limit or size >= MAX_PAGE_BYTES:
                    return ArchivePage(tuple(found), ARCHIVE.entry_cursor(row.place), scanned)
            if len(rows) < ARCHIVE_STEP:
                return ArchivePage(tuple(found), None, scanned)
        return ArchivePage(tuple(found), None if before is None else ARCHIVE.entry_cursor(before), scanned)

    async def discard(self, letter_id: str, *, actor: str = "", reason: str = "") -> DeadLetter:
        """Move a letter to the archive; it can be restored until its retention ends.

        Raises `LetterNotFoundError`; `LetterStateError` unless it is dead; `DeserializationError` if it has more fields
        than can be moved. Letters that Rapids wrote never have so many.
        """
        change = _change("discarded", actor, reason)
        entry_id, letter, fields = await self._find(letter_id)
        _check_is_dead(letter)
        check_values(letter, fields)
        await self._move(entry_id, letter, change, None)
        return await self.get(letter.id)

    async def restore(self, letter_id: str, *, actor: str = "", reason: str = "") -> DeadLetter:
        """Restore a discarded letter under the same id.

        Raises `LetterNotFoundError`; `LetterStateError` unless it is discarded.
        """
        change = _change("restored", actor, reason)
        wanted = _checked_id(letter_id)
        restored = await self._moves.restore(wanted, change)
        letter = await self.get(letter_id)
        if not restored:
            raise LetterStateError(wanted, letter.state, "discarded")
        return letter

    async def failed_again(self, operation: Operation) -> tuple[FailedReplay, ...]:
        """The failures in the current step of an operation's canary, with the letters before and after."""

        async def found(letter_id: str) -> DeadLetter | None:
            try:
                _, letter, _ = await self._find(letter_id)
            except LetterNotFoundError:
                return None
            return letter

        failures = operation.canary.failures if operation.canary else ()
        ids = [one for failure in failures for one in (failure.letter_id, failure.new_letter_id)]
        letters = await asyncio.gather(*map(found, ids))
        return tuple(map(FailedReplay, failures, letters[::2], letters[1::2]))

    async def _move(self, entry_id: str, letter: DeadLetter, change: dict[str, str], append: Append | None) -> str:
        appended = await self._moves.move(entry_id, change, append)
        if appended is None:  # somebody moved it after we had looked
            raise LetterStateError(letter.id, (await self.get(letter.id)).state, "dead")
        return appended

    async def _find(self, letter_id: str) -> tuple[str, DeadLetter, Fields]:
        """A letter's entry id in the stream ("" if it is in the archive), the letter, and its fields.

        The search is repeated if it is nowhere: it may have been moved to a place that was searched before.
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
            history = read_history(history_of(fields))
            return entry_id, DeadLetter.read(letter_id, fields, history), fields
        archived = await archive.read(self._commands, self.stream, letter_id)
        if archived is None:
            return None
        return "", read_archived(archived), archived.fields


def _checked_id(letter_id: str) -> str:
    """The id as the letter has it: 01-1 is 1-1. Raises `LetterNotFoundError` for text that is no id."""
    if (wanted := parsed_id(letter_id)) is None:
        raise LetterNotFoundError(letter_id)
    return wanted


def _change(action: str, actor: str, reason: str) -> dict[str, str]:
    """What the letter's history records. Raises `ValueError` for text that is too long, `TypeError` for no text."""
    actor_and_reason(actor, reason)
    return {"action": action, "actor": actor, "reason": reason}


def _check_is_dead(letter: DeadLetter) -> None:
    if letter.state != "dead":
        raise LetterStateError(letter.id, letter.state, "dead")


def _page_size(limit: int) -> int:
    if at_least("limit", limit, 1) > MAX_PAGE:
        raise ValueError(f"limit must be a whole number from 1 to {MAX_PAGE}, not {limit!r}")
    return limit


def _wanted(filter: LetterFilter | None) -> LetterFilter:
    instance("filter", filter, LetterFilter, "a LetterFilter or None")
    return filter or LetterFilter()


async def with_replays(redis: Redis | RedisCluster, dlq: str, letter: DeadLetter) -> DeadLetter:
    """The letter, with the outcome of its replay if it was replayed last. Raises `RedisError`."""
    if not letter.history or (last := letter.history[-1]).action != "replayed":
        return letter
    outcome = ReplayOutcome(last.at, last.scope, last.stream, last.entry_id, "sent")
    if last.scope != "everyone":
        commands = SharedPool(redis, last.stream)
        state = await archive.replay_state(commands, last.stream, letter.group, last.entry_id)
        # In this order: an entry's letters are written before it is deleted.
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
