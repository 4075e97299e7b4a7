"""The group reader: how far groups are, and their dead letters, for metrics; any number of readers cost one read."""

import asyncio
import logging
import math
import random
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from redis.asyncio import Redis, RedisCluster
from redis.exceptions import RedisError

from rapids._core.redis_errors import reason
from rapids._storage import groups, streams
from rapids._storage.client.connections import SharedPool
from rapids._storage.keys import Source, gauges_reader
from rapids.counters import OTHER
from rapids.dead_letters.causes import QueueStats
from rapids.dead_letters.queue import DeadLetterQueue
from rapids.exceptions import GroupNotFoundError, StreamNotFoundError
from rapids.hooks import DlqGauges, Gauges, GroupGauges
from rapids.inspection.inspector import Inspector
from rapids.inspection.snapshots import GroupSnapshot
from rapids.router import EventRouter

__all__ = ["GroupReader", "GroupReadings", "QueueReading", "WatchedGroup"]

_logger = logging.getLogger("rapids")

FRESH = 1.0
"""Seconds for which a result is reused, so that any number of readers cause at most one read a second."""

READ_TIMEOUT = 5.0
"""Seconds within which all of it must be read. Prometheus itself waits 10 s for a scrape."""

PAUSE = 10.0
"""Seconds between two reports of gauges, on average."""

LEASE = 25.0
"""Seconds for which a process that has read gauges is the one that reads them. If it ends without releasing that,
another process reads after this time."""

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
    groups: tuple[GroupSnapshot, ...] = ()
    queues: tuple[QueueReading, ...] = ()


@dataclass(slots=True)
class _Queue:
    maxlen: int | None
    groups: set[str] = field(default_factory=set[str])


class GroupReader:
    """Reads the figures of groups through `redis`, at most once a second, and changes nothing but the index of dead
    letters, which may catch up.

    A read takes one round trip for each group, and one for each dead-letter stream (up to three, if its letters have
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

    @asynccontextmanager
    async def reported_to(
        self, report: Callable[[Gauges], None], wanted: Callable[[], bool] | None = None
    ) -> AsyncGenerator[None]:
        """Call `report` with the gauges of each group and dead-letter stream every ten seconds during the block.

        Of several processes with the same groups only one reads and reports a group, so that the sum over processes is
        right. A process that no longer does, for example at the end of the block, reports zeros once. While Redis is
        unavailable, nothing is read; that is no error here. A stream of which all groups are watched is left out.
        While `wanted` returns False, this process reads nothing, so that one that needs the gauges can read them.
        """
        groups = [GroupGauges(one.stream, one.group) for one in self._watched if one.group is not None]
        dlqs = [DlqGauges(one.dlq_stream) for one in self._watched if one.dlq_stream is not None]
        turns = [_Turn(self._redis, zero, report) for zero in dict.fromkeys((*groups, *dlqs))]
        reporting = asyncio.create_task(self._report_often(turns, wanted), name="rapids-gauges")
        try:
            yield
        finally:
            reporting.cancel()
            await asyncio.wait({reporting})
            await asyncio.gather(*(one.end() for one in turns))

    async def _report_often(self, turns: Sequence["_Turn"], wanted: Callable[[], bool] | None) -> None:
        while True:
            for one in turns if wanted is None or wanted() else ():
                try:
                    async with asyncio.timeout(READ_TIMEOUT):
                        if await one.is_ours():
                            one.report(await self._gauges(one.zero))
                except (RedisError, OSError) as error:  # a TimeoutError is an OSError
                    _logger.debug("could not read the gauges of %s: %s", one.zero, error)
                    one.expire()
                except Exception:  # of one `report`, or a fault of ours: the other gauges are still read
                    _logger.exception("could not read the gauges of %s", one.zero)
            await asyncio.sleep(PAUSE * random.uniform(0.8, 1.2))  # noqa: S311 - not a secret

    async def _gauges(self, zero: Gauges) -> Gauges:
        match zero:
            case DlqGauges(dlq_stream=dlq):
                return DlqGauges(dlq, (await DeadLetterQueue(self._redis, dlq).stats()).length)
            case GroupGauges(stream=stream, group=group):
                for found in await self._snapshots(WatchedGroup(stream, group)):
                    return GroupGauges(
                        stream=stream,
                        group=group,
                        lag=found.lag,
                        oldest_unsettled=(found.oldest_unsettled_ms or 0) / 1000,
                        pending=found.pending,
                        waiting=found.waiting,
                        parked=found.parked,
                    )
                return zero

    async def _look(self) -> GroupReadings:
        groups: list[GroupSnapshot] = []
        queues: dict[str, _Queue] = {}
        if not self._watched:
            await streams.ping(SharedPool(self._redis, ANY_STREAM))
        for watched in self._watched:  # one after another, so that a read needs only one connection
            found = await self._snapshots(watched)
            groups += found
            if (dlq := watched.dlq_stream) is not None:
                queue = queues.setdefault(dlq, _Queue(watched.dlq_maxlen))
                limits = queue.maxlen, watched.dlq_maxlen
                queue.maxlen = None if None in limits else max(one for one in limits if one is not None)
                queue.groups.update([one.group for one in found] if watched.group is None else [watched.group])
        return GroupReadings(True, tuple(groups), tuple([await self._queue(dlq, one) for dlq, one in queues.items()]))

    async def _snapshots(self, watched: WatchedGroup) -> Sequence[GroupSnapshot]:
        try:
            if watched.group is not None:
                return (await self._inspector.group(watched.stream, watched.group),)
            return (await self._inspector.groups(watched.stream, limit=MAX_GROUPS)).items
        except (StreamNotFoundError, GroupNotFoundError):  # nothing was emitted, and no router has started yet
            return ()

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


class _Turn:
    """Whether this process is the one that reads the gauges of a group or dead-letter stream, and reports them."""

    def __init__(self, redis: Redis | RedisCluster, zero: Gauges, report: Callable[[Gauges], None]) -> None:
        self.zero = zero
        """The gauges, all 0."""
        self.report = report
        match zero:
            case GroupGauges(stream=stream, group=group):
                self._key = Source(stream, group).gauges_reader
            case DlqGauges(dlq_stream=stream):
                self._key = gauges_reader(stream)
        self._commands = SharedPool(redis, stream)
        self._token = groups.new_token()
        self._until = -math.inf
        """Until when this process is the one that reads, by the monotonic clock; infinite in the past if it is not."""
        self._may_hold = False
        """Whether this process may hold the key, also since an answer was not waited for."""

    async def is_ours(self) -> bool:
        """Whether this process reads for the next seconds: no other process does. Raises `RedisError`."""
        began, self._may_hold = time.monotonic(), True
        hold = await groups.hold(self._commands, self._key, self._token, ttl_ms=round(LEASE * 1000))
        self._may_hold = hold.is_ours
        if hold.is_ours:
            self._until = began + LEASE
        else:
            self._stop()
        return hold.is_ours

    def expire(self) -> None:
        """Redis could not be asked: after a while, another process may have become the one that reads."""
        if time.monotonic() >= self._until:
            self._stop()

    async def end(self) -> None:
        """Let another process read at once."""
        self._stop()
        if not self._may_hold:
            return
        with suppress(RedisError, OSError):
            async with asyncio.timeout(1.0):
                await groups.release(self._commands, self._key, self._token)

    def _stop(self) -> None:
        if self._until != -math.inf:
            self._until = -math.inf
            self.report(self.zero)
