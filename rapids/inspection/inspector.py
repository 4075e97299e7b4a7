"""The inspector: read-only queries about streams and groups, each in one round trip."""

import asyncio
import re
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

from redis.asyncio import Redis, RedisCluster
from redis.exceptions import ResponseError

from rapids._core.checks import at_least, flag, note, positive_seconds, stream_name, text
from rapids._core.entry_id import FIRST_ID, milliseconds, next_id, parsed_id
from rapids._core.handlers import matches_pattern
from rapids._core.paging import Listing
from rapids._core.redis_errors import is_no_group, is_no_stream
from rapids._core.threads import in_own_thread
from rapids._storage import announcements, inspection_queries
from rapids._storage.client.connections import Commands, SharedPool, check_client
from rapids._storage.keys import PARKED, Source, announced_routers, beside, is_default_dlq, letter_index
from rapids.exceptions import GroupNotFoundError, StreamNotFoundError
from rapids.inspection import feed, snapshots
from rapids.inspection.causation_tree import CausationTree, LettersFound
from rapids.inspection.feed import StreamEntry
from rapids.inspection.snapshots import (
    AnnouncedRouter,
    ConsumerSnapshot,
    FoundStreams,
    GroupSnapshot,
    Page,
    PendingEntry,
    StreamSnapshot,
)
from rapids.inspection.trace import MAX_WINDOW, WINDOW, Tracer

__all__ = [
    "EntryPlace",
    "Inspector",
    "TimePlace",
    "name_after",
]

WAITING_ENTRIES = Listing("waiting")


@dataclass(frozen=True, slots=True)
class EntryPlace:
    """A place in a list by entry id: the id to begin at and the id to end at."""

    start: str = "-"
    until: str = ""

    @classmethod
    def read(cls, listing: Listing, cursor: str | None) -> "EntryPlace":
        """Raises `ValueError` for a cursor that did not come from a page."""
        return cls() if cursor is None else cls(*listing.entry_ids(cursor, 2))

    @staticmethod
    def after(listing: Listing, entry_id: str, until: str) -> str | None:
        """The cursor for the place after an entry; None at the end."""
        return None if entry_id == until else listing.entry_cursor(next_id(entry_id), until)


@dataclass(frozen=True, slots=True)
class TimePlace:
    """A place in the list of waiting entries: the time and id of the entry to begin after, and the last time."""

    after: tuple[str, str] = ("", "")
    until: str = ""

    @classmethod
    def read(cls, cursor: str | None) -> "TimePlace":
        """Raises `ValueError` for a cursor that did not come from a page."""
        if cursor is None:
            return cls()
        parts = WAITING_ENTRIES.text(cursor).split("_")
        if len(parts) != 3 or not (_is_score(parts[0]) and _is_score(parts[2])) or parsed_id(parts[1]) is None:
            raise WAITING_ENTRIES.bad(cursor)
        return cls((parts[0], parts[1]), parts[2])

    @property
    def cursor(self) -> str:
        """The cursor for this place."""
        return WAITING_ENTRIES.cursor("_".join((*self.after, self.until)))


def _is_score(text: str) -> bool:
    """Whether Redis accepts this text as a score. Redis writes 1e+20 where other programs write all digits."""
    if re.fullmatch(r"-?(inf|[0-9.]{1,30}(e[+-]?[0-9]{1,3})?)", text) is None:
        return False
    try:
        float(text)
    except ValueError:
        return False
    return True


def name_after(listing: Listing, cursor: str | None) -> bytes:
    """The first possible name after a cursor's. Raises `ValueError` for a cursor that did not come from a page."""
    return b"" if cursor is None else listing.place(cursor) + b"\0"


GROUPS, CONSUMERS = Listing("groups"), Listing("consumers")
PENDING, PARKED_ENTRIES = Listing("pending"), Listing("parked")

MAX_PAGE = 500
MAX_ID = 1_000
MAX_STREAMS = 10_000


class Inspector:
    """Reads the state of streams and their groups through `redis`, and changes nothing.

    Each method takes one round trip (two if the server did not know its script yet) and returns an answer of limited
    size: a page has at most `limit` items (1 to 500). To continue a list, pass the `cursor` of the page before. A list
    shows the state at its start, and ends even if entries are added and settled quickly. Entries that are settled
    between two pages are left out, and entries that move in this time may be shown twice or not at all.

    `replays=True` reads the group's replay stream, which has the replays of its dead letters, instead of the stream.

    Every method raises `StreamNotFoundError` or `GroupNotFoundError` if the stream or group does not exist,
    `ValueError` for a cursor that did not come from a page or a `limit` out of range, and
    `redis.exceptions.RedisError` if Redis does not answer.
    """

    def __init__(self, redis: Redis | RedisCluster) -> None:
        check_client(redis)
        self._redis = redis

    async def find_streams(self, *, seconds: float = 5.0) -> FoundStreams:
        """The streams on the server, up to ten thousand; on a Cluster, those of all its masters.

        It looks at all keys, a thousand in a round trip, for at most `seconds`. Streams of other programs whose names
        Rapids does not accept, such as one with a line break, are left out.

        Raises `ValueError` or `TypeError` for a time that is not positive.
        """
        limit = positive_seconds("seconds", seconds)
        found = await inspection_queries.search(self._redis, "streams", most=MAX_STREAMS, seconds=limit)
        kept = [beside(name) for name in found.names]
        indexed = {stream for stream, part in kept if part and letter_index(stream).endswith(part.partition(":")[0])}
        names = [name for name, (stream, _) in zip(found.names, kept, strict=True) if not stream and _is_accepted(name)]
        dlqs = tuple(name for name in names if name in indexed or is_default_dlq(name))
        return FoundStreams(tuple(name for name in names if name not in dlqs), dlqs, found.complete)

    async def stream(self, stream: str) -> StreamSnapshot:
        """A stream: its length, its first and last entry, its memory."""
        name = stream_name("stream", stream)
        with _named(name):
            return snapshots.stream(name, await inspection_queries.stream(self._commands(name), name))

    async def routers(self) -> tuple[AnnouncedRouter, ...]:
        """The routers that run in any process of this Redis, or ran in the last three days, the latest first.

        Each announces itself when it starts and then once a minute. The last 1,000 are known: of several processes with
        the same router, one.
        """
        rows = await announcements.announced(self._commands(announced_routers()))
        return tuple(map(snapshots.announced, rows))

    async def follow(
        self,
        stream: str,
        *,
        event_type: str | None = None,
        after: str | None = None,
        newest: int = 0,
        interval: float | None = 0.25,
    ) -> AsyncGenerator[StreamEntry]:
        """The entries of a stream as they are appended, without taking part in any group.

        `event_type` is a pattern, as handlers have them: other entries are left out. It begins after the entry id
        `after` (`0-0`: with the first entry), or with the last `newest` entries (0 to 10,000). The stream is read every
        `interval` seconds; with None, only until its present end. A missing stream is an empty one.

        Raises `ValueError` for an `after` that is no entry id, or a number out of range.
        """
        name = stream_name("stream", stream)
        if after is not None and after != FIRST_ID and parsed_id(after) is None:
            raise ValueError(f"after must be an entry id, such as 1763932000000-0, or None, not {after!r}")
        if at_least("newest", newest, 0) > MAX_STREAMS:
            raise ValueError(f"newest must be a whole number from 0 to {MAX_STREAMS}, not {newest!r}")
        pause = None if interval is None else positive_seconds("interval", interval)
        async for entry in feed.follow(self._commands(name), name, after=after, newest=newest, pause=pause):
            if event_type is None or matches_pattern(event_type, entry.event_type):
                yield entry

    async def backwards(self, stream: str) -> AsyncGenerator[StreamEntry]:
        """All entries of a stream, the newest first, in reads of 50. A missing stream is an empty one."""
        name = stream_name("stream", stream)
        async for entry in feed.backwards(self._commands(name), name):
            yield entry

    async def entries(
        self, stream: str, entry_ids: Sequence[str], *, replays_of: str | None = None
    ) -> AsyncGenerator[StreamEntry]:
        """The entries of a stream, or of the replay stream of the group `replays_of`, with these ids, in reads of 50.

        Those that are gone are left out.
        """
        name = stream_name("stream", stream)
        source = _sources(name, replays_of, replays=True)[1].stream if replays_of is not None else name
        async for entry in feed.entries(self._commands(name), source, entry_ids):
            yield entry

    async def groups(self, stream: str, *, cursor: str | None = None, limit: int = 50) -> Page[GroupSnapshot]:
        """A page of a stream's groups, by name. It is shorter if the groups have thousands of consumers."""
        source, most, start = Source(stream_name("stream", stream), ""), _limit(limit), name_after(GROUPS, cursor)
        with _named(stream):
            found = await inspection_queries.groups(
                self._commands(stream), source, names_of=source, start=start, most=most
            )
        groups = tuple(snapshots.group(stream, found, row) for row in found.rows)
        following = GROUPS.cursor(found.rows[-1].name) if found.more else None
        return Page(snapshots.server_time(found.now_ms), groups, following)

    async def group(self, stream: str, group: str, *, replays: bool = False) -> GroupSnapshot:
        """A group: how far it is, what is pending, whether consumers are alive.

        The server reads all consumers of the group for it, also dead ones until they are removed.
        """
        main, source = _sources(stream, group, replays=replays)
        with _named(source.stream, group):
            found = await inspection_queries.groups(self._commands(stream), source, names_of=main)
        if not found.rows:
            raise GroupNotFoundError(source.stream, group)
        return snapshots.group(source.stream, found, found.rows[0])

    async def consumers(
        self, stream: str, group: str, *, replays: bool = False, cursor: str | None = None, limit: int = 50
    ) -> Page[ConsumerSnapshot]:
        """A page of a group's consumers, by name."""
        main, source = _sources(stream, group, replays=replays)
        start, most = name_after(CONSUMERS, cursor), _limit(limit)
        with _named(source.stream, group):
            found = await inspection_queries.consumers(
                self._commands(stream), source, names_of=main, start=start, most=most
            )
        consumers = tuple(snapshots.consumer(found.now_ms, row) for row in found.rows)
        following = CONSUMERS.cursor(found.rows[-1].name) if found.more else None
        return Page(snapshots.server_time(found.now_ms), consumers, following)

    async def pending(
        self,
        stream: str,
        group: str,
        *,
        consumer: str | None = None,
        replays: bool = False,
        cursor: str | None = None,
        limit: int = 50,
    ) -> Page[PendingEntry]:
        """A page of a group's pending entries in any state, oldest first; only those of `consumer`, if it is given."""
        wanted = b"" if consumer is None else text("consumer", consumer).encode()
        return await self._pending(PENDING, stream, group, wanted, replays=replays, cursor=cursor, limit=limit)

    async def parked(
        self, stream: str, group: str, *, replays: bool = False, cursor: str | None = None, limit: int = 50
    ) -> Page[PendingEntry]:
        """A page of a group's parked entries, oldest first, and why they are parked."""
        return await self._pending(PARKED_ENTRIES, stream, group, PARKED, replays=replays, cursor=cursor, limit=limit)

    async def waiting(
        self, stream: str, group: str, *, replays: bool = False, cursor: str | None = None, limit: int = 50
    ) -> Page[PendingEntry]:
        """A page of a group's waiting entries, the one that is due next first."""
        _, source = _sources(stream, group, replays=replays)
        place, most = TimePlace.read(cursor), _limit(limit)
        with _named(source.stream, group):
            found = await inspection_queries.waiting(
                self._commands(stream), source, after=place.after, until=place.until, most=most
            )
        # Each may have hundreds of attempts, which take milliseconds.
        entries = await asyncio.wrap_future(in_own_thread(lambda: [*map(snapshots.waiting, found.rows)]))
        following = None
        if found.more:
            last = found.rows[-1]
            following = TimePlace((last.due.decode(), last.entry_id.decode()), found.until.decode()).cursor
        return Page(snapshots.server_time(found.now_ms), tuple(filter(None, entries)), following)

    async def trace(
        self,
        correlation_id: str,
        *,
        streams: Sequence[str],
        dlqs: Sequence[str] = (),
        window: int = WINDOW,
        since: datetime | None = None,
        until: datetime | None = None,
        cursor: str | None = None,
    ) -> CausationTree:
        """Everything with a correlation id: its events as a tree of causes, and the state of each.

        Reads, newest entries first, `streams`, the replay streams of their groups, the dead-letter streams `dlqs` and
        their archives: `window` entries in total (1 to 100,000), for 2 seconds, until 1,000 events or 200 letters are
        found. The tree says what was read, and `cursor` continues from there. `since` and `until` limit when events
        were appended. A missing stream counts as empty, and so does a key that is no stream. Takes several round trips,
        each of limited work.

        Raises `ValueError` for an option out of range or a cursor that did not come from a tree.
        """
        names = [stream_name("streams", name) for name in dict.fromkeys(streams)]
        queues = [stream_name("dlqs", name) for name in dict.fromkeys(dlqs)]
        return await Tracer(self._redis, _wanted(correlation_id), _window(window)).tree(
            names,
            queues,
            since=None if since is None else milliseconds(since),
            until=None if until is None else milliseconds(until),
            cursor=cursor,
        )

    async def letters_of(self, correlation_id: str, *, dlqs: Sequence[str], window: int = 2_000) -> LettersFound:
        """The newest dead letters with a correlation id, also archived ones. Reads `window` letters (1 to 100,000).

        Raises `ValueError` for an option out of range.
        """
        names = [stream_name("dlqs", name) for name in dict.fromkeys(dlqs)]
        return await Tracer(self._redis, _wanted(correlation_id), _window(window)).letters(names)

    async def _pending(
        self,
        listing: Listing,
        stream: str,
        group: str,
        consumer: bytes,
        *,
        replays: bool,
        cursor: str | None,
        limit: int,
    ) -> Page[PendingEntry]:
        main, source = _sources(stream, group, replays=replays)
        place, most = EntryPlace.read(listing, cursor), _limit(limit)
        with _named(source.stream, group):
            found = await inspection_queries.pending(
                self._commands(stream),
                source,
                names_of=main,
                start=place.start,
                until=place.until,
                most=most,
                consumer=consumer,
            )
        following = None
        if len(found.rows) == most:
            following = EntryPlace.after(listing, found.rows[-1].entry_id.decode(), found.until.decode())
        entries = await asyncio.wrap_future(in_own_thread(lambda: tuple(map(snapshots.pending, found.rows))))
        return Page(snapshots.server_time(found.now_ms), entries, following)

    def _commands(self, stream: str) -> Commands:
        """The connections to the server that has a stream and its keys."""
        return SharedPool(self._redis, stream)


def _sources(stream: str, group: str, *, replays: bool) -> tuple[Source, Source]:
    """The stream as the group reads it, and the stream to read: the same, or the group's replay stream."""
    main = Source(stream_name("stream", stream), text("group", group))
    return main, main.replays() if flag("replays", replays) else main


def _is_accepted(name: str) -> bool:
    """Whether a stream of Rapids can have this name."""
    try:
        stream_name("stream", name)
    except ValueError:
        return False
    return True


def _limit(limit: int) -> int:
    if at_least("limit", limit, 1) > MAX_PAGE:
        raise ValueError(f"limit must be a whole number from 1 to {MAX_PAGE}, not {limit!r}")
    return limit


def _wanted(correlation_id: str) -> str:
    """A correlation id to search for. It may be any text, since events of other programs may have any."""
    if not note("correlation_id", correlation_id, MAX_ID):
        raise ValueError(f"correlation_id must be a string of 1 to {MAX_ID} characters, not {correlation_id!r}")
    return correlation_id


def _window(window: int) -> int:
    if at_least("window", window, 1) > MAX_WINDOW:
        raise ValueError(f"window must be a whole number from 1 to {MAX_WINDOW}, not {window!r}")
    return window


@contextmanager
def _named(stream: str, group: str = "") -> Generator[None]:
    """Raise the error that names the missing stream or group."""
    try:
        yield
    except ResponseError as error:
        if is_no_group(error):  # the stream exists then, since each script checks it first
            raise GroupNotFoundError(stream, group) from error
        if is_no_stream(error):
            raise StreamNotFoundError(stream) from error
        raise
