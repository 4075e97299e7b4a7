"""The search for everything with one correlation id, with limits for entries, bytes and time."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, cast

import orjson
from redis.asyncio import Redis, RedisCluster
from redis.exceptions import ResponseError

from rapids._core.entry_id import FIRST_ID, is_before, moment, numbers, order, parsed_id
from rapids._core.paging import Listing
from rapids._core.redis_errors import is_other_type
from rapids._storage import inspection_queries
from rapids._storage.client.connections import SharedPool
from rapids._storage.inspection_queries import GroupTrace, Looked
from rapids._storage.keys import letters_archive, replay_stream
from rapids._wire.trace_fields import READ, Found, TraceKind
from rapids.dead_letters.letter import DeadLetter, read_history, read_letters
from rapids.dead_letters.queue import with_replays
from rapids.inspection.causation_tree import (
    CausationTree,
    LettersFound,
    Limit,
    ScannedWindow,
    TracedEvent,
    TracedLetter,
    TracedReplay,
    delivery,
    event,
    letter,
    linked,
    replay_of,
)

__all__ = ["MAX_WINDOW", "WINDOW", "Search", "Tracer", "cursor_of", "places_in"]

EVENTS = Listing("events")


@dataclass(slots=True)
class Search:
    """A search of one stream, newest entries first."""

    key: str
    kind: TraceKind
    owner: str
    """For replays, the stream that they belong to; for the archive, the dead-letter stream."""
    start: str = "+"
    oldest: str = "-"
    group: str = ""
    entries: int = 0
    newest_id: str | None = None
    oldest_id: str | None = None
    first_id: str | None = None
    ended: bool = False
    found: list[Found] = field(default_factory=list[Found])

    def take(self, looked: Looked) -> None:
        """Note what was read, and where to continue."""
        self.entries += looked.entries
        self.newest_id = self.newest_id or looked.newest
        self.oldest_id = looked.oldest or self.oldest_id
        self.first_id, self.ended = looked.first, looked.ended
        self.found += looked.found
        if looked.oldest is not None:
            self.start = f"({looked.oldest}"

    def window(self) -> ScannedWindow:
        """The part of the stream that was read."""
        further = self.first_id is not None and (self.oldest_id is None or is_before(self.first_id, self.oldest_id))
        return ScannedWindow(
            stream=self.key,
            kind=self.kind,
            entries=self.entries,
            newest_id=self.newest_id,
            newest_at=self._at(self.newest_id),
            oldest_id=self.oldest_id,
            oldest_at=self._at(self.oldest_id),
            first_id=self.first_id,
            reaches_further=further,
            exhausted=self.ended,
        )

    def _at(self, entry_id: str | None) -> datetime | None:
        # The archive's ids are in microseconds.
        return None if entry_id is None else moment(order(entry_id)[0] // (1_000 if self.is_fine else 1))

    @property
    def is_fine(self) -> bool:
        return self.kind == "archive"


def cursor_of(searches: Iterable[Search], until: str) -> str | None:
    """Where to continue the searches that have not ended; None if all have ended."""
    places = {search.key: search.start for search in searches if not search.ended}
    return EVENTS.cursor(orjson.dumps([places, until])) if places else None


def places_in(cursor: str) -> tuple[Mapping[str, str], str]:
    """The places by stream, and where events end, as they were given to `cursor_of`. Raises `ValueError`."""
    try:
        stored: Any = orjson.loads(EVENTS.place(cursor))
        places, until = cast(tuple[dict[str, str], str], stored)
        fine = all(place == "+" or parsed_id(place.removeprefix("(")) is not None for place in places.values())
        if not fine or not (until == "+" or parsed_id(until.removeprefix("(")) is not None):
            raise EVENTS.bad(cursor)
    except (ValueError, TypeError, AttributeError) as error:
        raise EVENTS.bad(cursor) from error
    return places, until


WINDOW = 10_000
MAX_WINDOW = 100_000
SECONDS = 2.0
"""How long a search may take."""
MAX_EVENTS = 1_000
MAX_LETTERS = 200
STEP = 100
"""For how many entries one script reads the states in groups."""


@dataclass(slots=True)
class Tracer:
    """One search for a correlation id, newest first. `window` is how many entries are read in all streams together."""

    redis: Redis | RedisCluster
    correlation_id: str
    window: int
    seconds: float = SECONDS
    limits: set[Limit] = field(default_factory=set[Limit])

    async def tree(
        self,
        streams: Sequence[str],
        dlqs: Sequence[str],
        *,
        since: int | None,
        until: int | None,
        cursor: str | None,
    ) -> CausationTree:
        """The tree; `since` and `until` are in milliseconds. Raises `ValueError` for a cursor not from a tree."""
        now = datetime.now(UTC)
        # Nothing is before 0-0, and Redis returns an error for it.
        last = "+" if until is None else f"({until}-0" if until else FIRST_ID
        places, end = places_in(cursor) if cursor is not None else (None, last)
        searches = self._begun([*await self._sources(streams), *_of_letters(dlqs)], since, end, places)
        await self._look(searches)
        of = {kind: [search for search in searches if search.kind == kind] for kind in READ}
        letters = await self._letters([*of["letters"], *of["archive"]])
        traces = {search.key: await self._groups(search) for search in (*of["events"], *of["replays"])}
        found = [(search, one) for search in of["events"] for one in search.found]
        found.sort(key=lambda pair: order(pair[1].entry_id))
        made: list[TracedEvent] = []
        for search, one in found:
            made.append(event(search.key, one, traces[search.key], letters))
            await asyncio.sleep(0)  # with many groups, all of them would block the event loop
        events = linked(made)
        replays: list[TracedReplay] = []
        for search in of["replays"]:
            named = (one for one in traces[search.key] if one.name.decode(errors="replace") == search.group)
            group = next(named, None)
            replays += [
                replay_of(search.key, search.group, one, delivery(group, search.group, one.entry_id, ()))
                for one in search.found
            ]
        following = cursor_of(searches, end)
        return CausationTree(
            at=now,
            correlation_id=self.correlation_id,
            began_at=next((one.appended_at for one in events if one.appended_at is not None), None),
            roots=tuple(at for at, one in enumerate(events) if one.parent is None),
            events=events,
            replays=tuple(replays),
            letters=letters,
            windows=tuple(search.window() for search in searches),
            complete=following is None and not self.limits,
            limits=tuple(sorted(self.limits)),
            cursor=following,
        )

    async def letters(self, dlqs: Sequence[str]) -> LettersFound:
        """The letters, without the outcomes of their replays."""
        searches = self._begun(_of_letters(dlqs), None, "+", None)
        await self._look(searches)
        letters = await self._letters(searches, outcomes=False)
        complete = all(search.ended for search in searches) and not self.limits
        return LettersFound(letters, tuple(search.window() for search in searches), complete)

    async def _sources(self, streams: Sequence[str]) -> list[Search]:
        sources = [Search(stream, "events", stream) for stream in streams]
        for stream in streams:
            try:
                groups, more = await inspection_queries.group_traces(
                    SharedPool(self.redis, stream), stream, (), names_of=stream
                )
            except ResponseError as error:
                if not is_other_type(error):
                    raise
                continue  # it counts as empty, as below
            if more:
                self.limits.add("groups")
            for group in groups:
                name = group.name.decode(errors="replace")
                sources.append(Search(replay_stream(stream, name), "replays", stream, group=name))
        return sources

    def _begun(
        self, searches: Iterable[Search], since: int | None, end: str, places: Mapping[str, str] | None
    ) -> list[Search]:
        begun: list[Search] = []
        for search in searches:
            if places is not None and search.key not in places:
                continue  # it has ended before
            # Letters and replays of an event come after it: they may be newer than `until`.
            begins = end if search.kind == "events" else "+"
            search.start = begins if places is None else places[search.key]
            search.oldest = "-" if since is None else f"{since * (1_000 if search.is_fine else 1)}-0"
            begun.append(search)
        return begun

    async def _look(self, searches: Sequence[Search]) -> None:
        """Read all of them in turns, so that a long stream does not block the others."""
        deadline, left = asyncio.get_running_loop().time() + self.seconds, self.window
        while going := [search for search in searches if not search.ended]:
            for search in going:
                if (limit := self._limit(searches, left, deadline)) is not None:
                    self.limits.add(limit)
                    return
                left -= await self._step(search, max(left // len(going), 1), searches)

    def _limit(self, searches: Sequence[Search], left: int, deadline: float) -> Limit | None:
        """The limit that is reached, if any."""
        if left <= 0:
            return "entries"
        if asyncio.get_running_loop().time() > deadline:
            return "seconds"
        if _found(searches, "events", "replays") >= MAX_EVENTS:
            return "events"
        return "letters" if _found(searches, "letters", "archive") >= MAX_LETTERS else None

    async def _step(self, search: Search, most: int, searches: Sequence[Search]) -> int:
        """Do one more step. Returns how many entries were read."""
        known = {(other.key, one.entry_id) for other in searches if other.kind == "events" for one in other.found}
        of_letters = search.kind in ("letters", "archive")
        entry_ids = sorted({entry_id for _, entry_id in known}) if of_letters else ()
        try:
            looked = await inspection_queries.look(
                SharedPool(self.redis, search.owner),
                search.key,
                self.correlation_id,
                search.kind,
                start=search.start,
                oldest=search.oldest,
                most=most,
                entry_ids=entry_ids[:MAX_EVENTS],
            )
        except ResponseError as error:  # one name among many must not end the whole search
            if not is_other_type(error):
                raise
            search.ended = True
            return 0
        if of_letters:  # another stream may have entries with the same ids
            ours = self.correlation_id.encode()
            looked.found[:] = [one for one in looked.found if one.correlation_id == ours or one.origin in known]
        search.take(looked)
        return looked.entries

    async def _letters(self, searches: Sequence[Search], *, outcomes: bool = True) -> tuple[TracedLetter, ...]:
        read: dict[tuple[str, str], tuple[DeadLetter, Found]] = {}
        for search in searches:  # the archive is last, since it has what was moved during the search
            for letter_, one in await self._read(search):
                read[search.owner, letter_.id] = letter_, one
        traced: list[TracedLetter] = []
        for (dlq, _), (letter_, one) in sorted(read.items(), key=lambda item: numbers(item[0][1]) or (0, 0)):
            if outcomes and len(traced) < MAX_LETTERS:
                letter_ = await with_replays(self.redis, dlq, letter_)
            elif outcomes:
                self.limits.add("letters")
            traced.append(letter(dlq, letter_, one))
        return tuple(traced)

    async def _read(self, search: Search) -> list[tuple[DeadLetter, Found]]:
        if search.kind == "archive":
            letters = [DeadLetter.read(one.letter_id, one.fields, read_history(one.history)) for one in search.found]
        else:
            commands = SharedPool(self.redis, search.owner)
            rows = [(one.entry_id.encode(), one.fields) for one in search.found]
            letters = [
                # A history is trusted if the letter was restored, so that its id differs from its entry's.
                replace(read, history=read_history(one.history)) if read.id != entry_id else read
                for (entry_id, read), one in zip(
                    await read_letters(commands, search.owner, rows), search.found, strict=True
                )
            ]
        return list(zip(letters, search.found, strict=True))

    async def _groups(self, search: Search) -> list[GroupTrace]:
        """The states of the found entries in the groups."""
        commands, entry_ids = SharedPool(self.redis, search.owner), [one.entry_id for one in search.found]
        merged: dict[bytes, GroupTrace] = {}
        for at in range(0, len(entry_ids), STEP):
            step, more = await inspection_queries.group_traces(
                commands, search.key, entry_ids[at : at + STEP], names_of=search.owner
            )
            if more:
                self.limits.add("groups")
            for group in step:
                before = merged.get(group.name)
                entries = {**(before.entries if before else {}), **group.entries}
                merged[group.name] = GroupTrace(group.name, entries)
        return list(merged.values())


def _of_letters(dlqs: Iterable[str]) -> list[Search]:
    return [
        search for dlq in dlqs for search in (Search(dlq, "letters", dlq), Search(letters_archive(dlq), "archive", dlq))
    ]


def _found(searches: Iterable[Search], *kinds: str) -> int:
    return sum(len(search.found) for search in searches if search.kind in kinds)
