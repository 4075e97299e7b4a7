"""The group reader: how far groups are, and their dead letters, for metrics; any number of readers cost one read."""

import asyncio
import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from redis.asyncio import Redis, RedisCluster
from redis.exceptions import RedisError

from rapids._core.redis_errors import reason
from rapids._storage import streams
from rapids._storage.client.connections import SharedPool
from rapids.control import GroupControl
from rapids.counters import OTHER
from rapids.dead_letters.causes import QueueStats
from rapids.dead_letters.queue import DeadLetterQueue
from rapids.exceptions import GroupNotFoundError, StreamNotFoundError
from rapids.inspection.inspector import Inspector
from rapids.inspection.snapshots import GroupSnapshot
from rapids.router import EventRouter

__all__ = ["GroupReader", "GroupReading", "GroupReadings", "QueueReading", "WatchedGroup"]

_logger = logging.getLogger("rapids")

FRESH = 1.0
"""Seconds for which a result is reused, so that any number of readers cause at most one read a second."""

READ_TIMEOUT = 5.0
"""Seconds within which all of it must be read. Prometheus itself waits 10 s for a scrape."""

MAX_GROUPS = 100
"""Groups that are read of a stream of which all groups are watched."""

ANY_STREAM = "rapids"
"""The server of this stream is asked if no group is watched."""

PAGE = 500
"""Causes of dead letters that are read at a time. There are at most 1,001."""


@dataclass(frozen=True, slots=True)
class WatchedGroup:
    """A group to read, and its dead-letter queue."""

    stream: str
    group: str | None
    """None for all groups of the stream, at most 100."""
    dlq_stream: str | None = None
    dlq_maxlen: int | None = None

    @classmethod
    def of(cls, router: EventRouter) -> "WatchedGroup":
        """The group of a router."""
        return cls(router.stream, router.group, router.dlq_stream, router.dlq_maxlen)


@dataclass(frozen=True, slots=True)
class GroupReading:
    """How far a group is, and whether it is paused."""

    snapshot: GroupSnapshot
    paused: bool


@dataclass(frozen=True, slots=True)
class QueueReading:
    """The dead letters in a dead-letter stream."""

    dlq: str
    letters: Mapping[str, int]
    """How many letters each group has. Letters that no cause counts are those of `(other)`."""
    stats: QueueStats


@dataclass(frozen=True, slots=True)
class GroupReadings:
    """What was read. Groups and streams that do not exist yet are left out."""

    up: bool
    """Whether Redis answered. If not, nothing was read: old figures would look like present ones."""
    groups: tuple[GroupReading, ...] = ()
    queues: tuple[QueueReading, ...] = ()


@dataclass(slots=True)
class _Queue:
    maxlen: int | None
    groups: set[str] = field(default_factory=set[str])


class GroupReader:
    """Reads the figures of groups through `redis`, at most once a second, and changes nothing but the index of dead
    letters, which may catch up.

    A read takes two round trips for each group, and one for each dead-letter stream (up to three, if its letters have
    hundreds of causes). Readers at the same time share one. No read raises an error of Redis: when Redis stops
    answering, and when it answers again, that is logged once.

    Raises `ValueError` for names that no stream or group can have.
    """

    def __init__(self, redis: Redis | RedisCluster, groups: Iterable[WatchedGroup]) -> None:
        self._redis = redis
        self._watched = tuple(groups)
        self._inspector = Inspector(redis)
        self._turn = asyncio.Lock()
        self._read_at: float | None = None
        self._last = GroupReadings(up=False)

    @property
    def last(self) -> GroupReadings:
        """What was read last."""
        return self._last

    async def read(self) -> GroupReadings:
        """The figures; they may be one second old."""
        async with self._turn:
            if self._read_at is None or time.monotonic() - self._read_at >= FRESH:
                was_up, is_first = self._last.up, self._read_at is None
                try:
                    async with asyncio.timeout(READ_TIMEOUT):
                        self._last = await self._look()
                except (RedisError, OSError) as error:  # a TimeoutError is an OSError
                    self._last = GroupReadings(up=False)
                    if was_up or is_first:
                        why = reason(error) if str(error) else f"no answer in {READ_TIMEOUT:g} s"
                        _logger.warning("metrics: the figures of groups cannot be read: %s", why)
                else:
                    if not (was_up or is_first):
                        _logger.warning("metrics: the figures of groups can be read again")
                self._read_at = time.monotonic()
            return self._last

    async def _look(self) -> GroupReadings:
        groups: list[GroupReading] = []
        queues: dict[str, _Queue] = {}
        if not self._watched:
            await streams.ping(SharedPool(self._redis, ANY_STREAM))
        for watched in self._watched:  # one after another, so that a read needs only one connection
            names: list[str] = [] if watched.group is None else [watched.group]
            try:
                for snapshot in await self._snapshots(watched):
                    groups.append(GroupReading(snapshot, await self._is_paused(snapshot)))
                    names.append(snapshot.group)
            except (StreamNotFoundError, GroupNotFoundError):  # nothing was emitted, and no router has started yet
                pass
            if (dlq := watched.dlq_stream) is not None:
                queue = queues.setdefault(dlq, _Queue(watched.dlq_maxlen))
                limits = queue.maxlen, watched.dlq_maxlen
                queue.maxlen = None if None in limits else max(one for one in limits if one is not None)
                queue.groups.update(names)
        return GroupReadings(True, tuple(groups), tuple([await self._queue(dlq, one) for dlq, one in queues.items()]))

    async def _snapshots(self, watched: WatchedGroup) -> Sequence[GroupSnapshot]:
        if watched.group is not None:
            return (await self._inspector.group(watched.stream, watched.group),)
        return (await self._inspector.groups(watched.stream, limit=MAX_GROUPS)).items

    async def _is_paused(self, snapshot: GroupSnapshot) -> bool:
        try:
            control = GroupControl(self._redis, snapshot.stream, snapshot.group)
        except ValueError:  # Rapids does not accept this name: none of its routers is in the group
            return False
        return await control.paused() is not None

    async def _queue(self, dlq: str, of: _Queue) -> QueueReading:
        queue = DeadLetterQueue(self._redis, dlq, dlq_maxlen=of.maxlen)
        letters = dict.fromkeys(sorted(of.groups), 0)
        page, counted = await queue.causes(limit=PAGE), 0
        while True:
            for cause in page.items:
                if cause.fingerprint:
                    letters[cause.group] = letters.get(cause.group, 0) + cause.count
                    counted += cause.count
            if page.cursor is None:
                break
            page = await queue.causes(limit=PAGE, cursor=page.cursor)
        if (others := page.stats.length - counted) > 0:
            letters[OTHER] = others
        return QueueReading(dlq, letters, page.stats)
