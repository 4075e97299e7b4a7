"""The selection of dead letters: filters, and the search for matching letters in the stream or in the archive."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from rapids._core.checks import instance
from rapids._core.entry_id import FIRST_ID, LAST_ID, is_before, milliseconds, order, previous_id
from rapids._core.handlers import matches_pattern
from rapids._storage import archive, letter_index, letters
from rapids._storage.archive import Archived
from rapids._storage.client.connections import Commands
from rapids._storage.letter_index import OTHERS, IndexState
from rapids._wire.entry_format import Fields
from rapids._wire.fingerprints import Fingerprint
from rapids.dead_letters.letter import DeadLetter, read_archived, read_history, read_letters

__all__ = ["ArchiveSearch", "Batch", "Choice", "Count", "Found", "LetterFilter", "Search", "Span", "choose"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LetterFilter:
    """Which letters. A field that is None does not restrict; all others must match. Raises `TypeError` for a value of
    another type, and `ValueError` for a fingerprint that no letter can have."""

    event_type: str | None = None
    """A pattern, as handlers have them: `order.*`."""
    handler: str | None = None
    group: str | None = None
    reason: str | None = None
    error_type: str | None = None
    fingerprint: str | None = None
    """16 hexadecimal digits, as causes have them."""
    q: str | None = None
    """Text that must occur, in any case, in the payload, the error or one of the ids."""
    since: datetime | None = None
    """Written at this time or later. Without a time zone it is taken as UTC, and so is `until`."""
    until: datetime | None = None
    """Written before this time."""

    def __post_init__(self) -> None:
        for name in ("event_type", "handler", "group", "reason", "error_type", "fingerprint", "q"):
            instance(name, getattr(self, name), str, "a string or None")
        for name in ("since", "until"):
            instance(name, getattr(self, name), datetime, "a datetime or None")
        if self.fingerprint is not None and re.fullmatch(r"[0-9a-f]{16}", self.fingerprint) is None:
            raise ValueError(
                f"fingerprint must be 16 hexadecimal digits, as causes have it, not {self.fingerprint[:50]!r}"
            )

    def matches(self, letter: DeadLetter) -> bool:
        """Whether the letter matches, apart from its time: only ids of that time are searched."""
        exact = (
            (self.handler, letter.handler),
            (self.group, letter.group),
            (self.reason, letter.reason),
            (self.error_type, letter.error_type),
        )
        if any(wanted is not None and wanted != actual for wanted, actual in exact):
            return False
        if self.event_type is not None and not matches_pattern(self.event_type, letter.event_type):
            return False
        if self.fingerprint is not None and self.fingerprint != letter.fingerprint:
            return False
        if self.q is None:
            return True
        wanted = self.q.casefold()
        texts = (
            letter.data.decode(errors="replace"),
            letter.error,
            letter.error_type,
            letter.event_type,
            letter.handler,
        )
        ids = (letter.id, letter.entry_id, letter.event_id, letter.correlation_id)
        return any(wanted in text.casefold() for text in (*texts, *ids))

    def may_match(self, fingerprint: Fingerprint, name: str) -> bool:
        """Whether letters with this fingerprint can match. Parts of it may have been cut."""
        exact = (
            ("handler", self.handler, fingerprint.handler),
            ("group", self.group, fingerprint.group),
            ("reason", self.reason, fingerprint.reason),
            ("error_type", self.error_type, fingerprint.error_type),
            ("fingerprint", self.fingerprint, name),
        )
        if any(wanted not in (None, actual) and part not in fingerprint.cut for part, wanted, actual in exact):
            return False
        if self.event_type is None or "event_type" in fingerprint.cut:
            return True
        return matches_pattern(self.event_type, fingerprint.event_type)

    def is_exact(self, fingerprint: Fingerprint) -> bool:
        """Whether all letters with a fingerprint that may match do match, apart from their times."""
        asked = {"handler": self.handler, "group": self.group, "reason": self.reason, "error_type": self.error_type}
        return self.q is None and not any(
            wanted is not None and part in fingerprint.cut
            for part, wanted in (*asked.items(), ("event_type", self.event_type))
        )


@dataclass(frozen=True, slots=True)
class Choice:
    """Fingerprints of which letters may match a filter."""

    names: tuple[str, ...]
    count: int
    """How many letters they have."""
    is_exact: bool
    """Whether all of these match, apart from their times, so that none needs to be read."""


def choose(state: IndexState, wanted: LetterFilter) -> Choice:
    """The fingerprints in the index that may match a filter."""
    if wanted == LetterFilter():  # no description needs to be read
        return Choice(tuple(row.name for row in state.fingerprints), sum(row.count for row in state.fingerprints), True)
    names, count, is_exact = list[str](), 0, wanted.q is None
    for row in state.fingerprints:
        is_named = row.name != OTHERS
        fingerprint = Fingerprint.read(row.description)
        if is_named and not wanted.may_match(fingerprint, row.name):
            continue
        names.append(row.name)
        count += row.count
        is_exact = is_exact and is_named and wanted.is_exact(fingerprint)
    return Choice(tuple(names), count, is_exact)


@dataclass(frozen=True, slots=True)
class Span:
    """Entry ids: those after `after`, until `until`."""

    after: str = FIRST_ID
    until: str = LAST_ID

    @classmethod
    def of(cls, wanted: LetterFilter) -> "Span":
        """The ids that may match by their time: an entry id begins with the time at which the entry was written."""
        since = milliseconds(wanted.since) if wanted.since is not None else 0
        after = previous_id(f"{since}-0") if since > 0 else FIRST_ID
        return cls(after, LAST_ID if wanted.until is None else previous_id(f"{milliseconds(wanted.until)}-0"))

    def __bool__(self) -> bool:
        return is_before(self.after, self.until)

    def __contains__(self, entry_id: str) -> bool:
        return is_before(self.after, entry_id) and not is_before(self.until, entry_id)

    def __and__(self, other: "Span") -> "Span":
        return Span(max(self.after, other.after, key=order), min(self.until, other.until, key=order))


@dataclass(frozen=True, slots=True)
class Count:
    """How many letters."""

    total: int
    exact: bool


class Found(NamedTuple):
    """A letter that was looked at."""

    place: str
    """Its entry in the dead-letter stream, or in the archive. A restored letter's differs from its own id."""
    letter: DeadLetter | None = None
    """Only a search for the newest first has it."""
    size: int = 0
    """Bytes that were read of it."""
    matches: bool = True


@dataclass(frozen=True, slots=True)
class Batch:
    """What one step of a search found, in order."""

    found: tuple[Found, ...]
    rest: Span | None
    """Where the search continues; None at its end."""
    looked_at: int = 0
    """Letters that were looked at."""
    size: int = 0
    """Bytes of letters that were read."""

    @property
    def places(self) -> tuple[str, ...]:
        """The places of what was found."""
        return tuple(one.place for one in self.found)


FIRST_STEP, FIRST_STEP_ARCHIVE, MAX_STEP = 20, 5, 400
"""Letters that are read at once: four times as many each time, as long as they are small."""
STEP_BYTES = 2_000_000
"""Bytes of letters that are read at once if they are as large as those before."""

COUNT_STEP = 5_000
MAX_COUNTED, MAX_COUNTED_BYTES = 100_000, 80_000_000
"""Letters, and bytes of them, that are looked at to count letters. Those after them are not counted."""


class Search:
    """Finds the letters of a dead-letter stream that match a filter, or that have one of some ids, step by step.

    The oldest come first, and a letter is read only if the index does not say enough of it; or the newest come first,
    and each is read. A step does a limited amount of work. A letter that is moved at the same time may still be found.
    Each method raises `RedisError` if Redis is unavailable.
    """

    def __init__(
        self,
        commands: Commands,
        dlq: str,
        wanted: LetterFilter,
        *,
        ids: Sequence[str] | None = None,
        newest_first: bool = False,
    ) -> None:
        self._commands = commands
        self._dlq = dlq
        self._wanted = wanted
        self._ids = ids
        self._newest_first = newest_first
        self._span = Span.of(wanted)
        self._wants_all = ids is None and wanted == LetterFilter()
        self._uses_index = not (newest_first and self._wants_all)
        self._known: tuple[IndexState, Choice] | None = None
        """What is known of the index. It stays right: what is indexed later has later ids, and is looked at."""
        self._step = FIRST_STEP
        """How many letters to read next."""

    async def newest(self) -> str:
        """The last place now. Letters written later are not part of a search until there."""
        return (await letter_index.state(self._commands, self._dlq, letters=1)).last

    async def index(self) -> tuple[IndexState, Choice]:
        """The state of the index now, and the fingerprints to search."""
        state = await letter_index.state(self._commands, self._dlq)
        self._known = state, choose(state, self._wanted)
        return self._known

    async def estimate(self) -> Count:
        """How many letters match by the index; if not exact, so many may match at most."""
        if self._wants_all:
            return Count(await letters.length(self._commands, self._dlq), True)
        state, choice = await self.index()
        unindexed = max(state.length - state.entries, 0)
        return Count(choice.count + unindexed, choice.is_exact and not unindexed and self._span == Span())

    async def count(self, until: str) -> Count:
        """How many letters there are until a place; at least so many if it is not exact."""
        if self._uses_index and self._ids is None and self._span == Span():
            state, choice = await self.index()
            if choice.is_exact and state.to == state.last and not is_before(until, state.last):
                return Count(choice.count, True)
        total = looked_at = size = 0
        rest: Span | None = Span(until=until)
        while rest and looked_at < MAX_COUNTED and size < MAX_COUNTED_BYTES:
            batch = await self.step(rest, COUNT_STEP)
            total, looked_at, size = total + len(batch.found), looked_at + batch.looked_at, size + batch.size
            rest = batch.rest
        return Count(total, not rest)

    async def step(self, span: Span, count: int, *, looks: int = MAX_STEP) -> Batch:
        """Up to `count` letters of a span, perhaps none; at most `looks` letters are read for them."""
        if self._ids is not None:
            return await self._step_of_ids(self._ids, span, count)
        if not (span := span & self._span):
            return Batch((), None)
        part, index = span, None
        if self._uses_index:
            index = self._known or await self.index()
            indexed, others = span & Span(until=index[0].to), span & Span(after=index[0].to)
            is_indexed = bool(indexed) and not (self._newest_first and others)
            part, index = (indexed, index) if is_indexed else (others, None)
        if index is not None:
            return await self._select(*index, part, span, count, min(looks, MAX_STEP))
        return await self._read(part, span, count, min(looks, self._step))

    async def read(self, places: Sequence[str]) -> list[DeadLetter]:
        """The letters at these places, in order. Letters that are gone are left out."""
        rows = await letters.several(self._commands, self._dlq, places)
        return [letter for _, letter in await read_letters(self._commands, self._dlq, rows)]

    async def _select(self, state: IndexState, choice: Choice, part: Span, span: Span, count: int, looks: int) -> Batch:
        """Letters of a part of a span that is indexed."""
        whole = self._newest_first or not choice.is_exact
        selected = await letter_index.select(
            self._commands,
            self._dlq,
            choice.names,
            epoch=state.epoch,
            after=part.after,
            until=part.until,
            newest_first=self._newest_first,
            count=count if choice.is_exact else looks,
            whole=whole,
        )
        if selected is None:  # the index was rebuilt
            self._known = None
            return Batch((), span)
        if whole:
            seen = await self._looked_at([(row[0], row[1]) for row in selected.rows])
        else:
            seen = [Found(entry_id.decode()) for entry_id in selected.rows]
        rest = self._after_part(span, part) if selected.done else self._after(span, selected.last)
        return self._matching(seen, count, span, rest, gone=selected.looked_at - len(seen))

    async def _read(self, part: Span, span: Span, count: int, looks: int) -> Batch:
        """Letters of a part of a span that is not indexed: each is read."""
        step = min(looks, count + 1) if self._wants_all else looks
        seen = await self._next(part, step)
        rest = self._after_part(span, part) if len(seen) < step else self._after(span, seen[-1].place)
        if not self._newest_first:
            self._known = None  # those after them may be indexed by the next time
        return self._matching(seen, count, span, rest)

    async def _next(self, part: Span, count: int) -> list[Found]:
        read = letters.last if self._newest_first else letters.first
        rows = await read(self._commands, self._dlq, after=part.after, until=part.until, count=count)
        return await self._looked_at(rows)

    async def _looked_at(self, rows: Sequence[tuple[bytes, Fields]]) -> list[Found]:
        return [
            Found(
                place,
                letter if self._newest_first else None,
                sum(map(len, letter.stored)),
                self._wants_all or self._wanted.matches(letter),
            )
            for place, letter in await read_letters(self._commands, self._dlq, rows)
        ]

    async def _step_of_ids(self, ids: Sequence[str], span: Span, count: int) -> Batch:
        """Where these letters are now; those that are gone by their own ids."""
        names = [one.encode() for one in dict.fromkeys(ids)]
        places = set[str]()  # a restored letter may be named twice: by its own id, and by its entry's
        for name, at in zip(names, await letters.restored_at(self._commands, self._dlq, names), strict=True):
            restored = None if at is None else await letters.find_restored(self._commands, self._dlq, name.decode())
            places.add(name.decode() if restored is None else restored[0])
        seen = [Found(place) for place in sorted(places, key=order) if place in span]
        return self._matching(seen, count, span, None)

    def _matching(self, seen: Sequence[Found], count: int, span: Span, rest: Span | None, *, gone: int = 0) -> Batch:
        """Those that match. If they are more than `count`, the search continues after the last of so many."""
        found, size = list[Found](), 0
        for at, one in enumerate(seen, 1):
            size += one.size
            if one.matches:
                found.append(one)
            if len(found) == count and at < len(seen):
                return Batch(tuple(found), self._after(span, one.place), at, size)
        if size:
            self._step = max(1, min(4 * len(seen), MAX_STEP, STEP_BYTES * len(seen) // size))
        return Batch(tuple(found), rest, len(seen) + gone, size)

    def _after(self, span: Span, place: str) -> Span | None:
        """What is left of a span after a place, in the order of the search."""
        return (Span(span.after, previous_id(place)) if self._newest_first else Span(place, span.until)) or None

    def _after_part(self, span: Span, part: Span) -> Span | None:
        return (Span(span.after, part.after) if self._newest_first else Span(part.until, span.until)) or None


class ArchiveSearch(Search):
    """Finds letters of the archive whose last change was a discard. Places are ids of entries of the archive."""

    def __init__(self, commands: Commands, dlq: str, wanted: LetterFilter, *, ids: Sequence[str] | None = None) -> None:
        super().__init__(commands, dlq, wanted, ids=ids)
        self._uses_index = False
        self._step = FIRST_STEP_ARCHIVE
        self._written, self._span = self._span, Span()  # an entry of the archive has the time of the discard

    async def newest(self) -> str:
        """The last place in the archive now. Letters archived later are not part of a search until there."""
        return await archive.last(self._commands, self._dlq)

    async def read(self, places: Sequence[str]) -> list[DeadLetter]:
        """The letters at these places, in order. Letters that are gone are left out."""
        return [read_archived(one) for one in await archive.several(self._commands, self._dlq, places)]

    async def _next(self, part: Span, count: int) -> list[Found]:
        rows = await archive.first(self._commands, self._dlq, after=part.after, until=part.until, count=count)
        return list(map(self._seen, rows))

    async def _step_of_ids(self, ids: Sequence[str], span: Span, count: int) -> Batch:
        places = [place for place in await archive.places(self._commands, self._dlq, ids) if place in span]
        rows = await archive.several(self._commands, self._dlq, places[: self._step])
        rest = self._after(span, places[self._step - 1]) if len(places) > self._step else None
        return self._matching(list(map(self._seen, rows)), count, span, rest)

    def _seen(self, one: Archived) -> Found:
        history = read_history(one.history)
        matches = bool(history) and history[-1].action == "discarded"
        if matches and self._ids is None and not self._wants_all:
            letter = DeadLetter.read(one.letter_id, one.fields)
            matches = one.letter_id in self._written and self._wanted.matches(letter)
        return Found(one.place, None, sum(map(len, one.fields)), matches)
