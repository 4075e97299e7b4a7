"""Gauges of groups and dead-letter streams, each read by one process at a time, so that their sum over processes is
right."""

import asyncio
import logging
import math
import random
import time
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import asynccontextmanager, suppress

from redis.asyncio import Redis, RedisCluster
from redis.exceptions import RedisError

from rapids._storage import groups
from rapids._storage.client.connections import SharedPool
from rapids._storage.keys import Source, gauges_reader
from rapids.dead_letters import DeadLetterQueue
from rapids.exceptions import GroupNotFoundError, StreamNotFoundError
from rapids.hooks import DlqGauges, Gauges, GroupGauges
from rapids.inspection import Inspector
from rapids.router import EventRouter

__all__ = ["gauges_read"]

_logger = logging.getLogger("rapids")

PAUSE = 10.0
"""Seconds between two reads, on average."""

LEASE = 25.0
"""Seconds for which a process that has read is the one that reads. If it ends without releasing that, another process
reads after this time."""

READ_TIMEOUT = 5.0
"""Seconds within which one group must be read."""


@asynccontextmanager
async def gauges_read(
    redis: Redis | RedisCluster, routers: Iterable[EventRouter], report: Callable[[Gauges], None]
) -> AsyncGenerator[None]:
    """Call `report` with the gauges of the routers' groups and dead-letter streams every ten seconds in the block.

    Of several processes with the same groups only one reads a group. A process that no longer does, for example at the
    end of the block, reports zeros once. While Redis is unavailable, nothing is read; that is no error here.
    """
    given = tuple(routers)
    readings = [_Reading(redis, GroupGauges(router.stream, router.group)) for router in given]
    dlqs = dict.fromkeys(router.dlq_stream for router in given if router.dlq_stream is not None)
    readings += [_Reading(redis, DlqGauges(dlq)) for dlq in dlqs]
    reading = asyncio.create_task(_read_often(readings, report), name="rapids-gauges")
    try:
        yield
    finally:
        reading.cancel()
        await asyncio.wait({reading})
        await asyncio.gather(*(one.end(report) for one in readings))


async def _read_often(readings: Iterable["_Reading"], report: Callable[[Gauges], None]) -> None:
    while True:
        for one in readings:
            try:
                async with asyncio.timeout(READ_TIMEOUT):
                    await one.read(report)
            except (RedisError, OSError) as error:  # a TimeoutError is an OSError
                _logger.debug("could not read the gauges of %s: %s", one.about, error)
                one.expire(report)
            except Exception:  # of one `report`, or a fault of ours: the other gauges are still read
                _logger.exception("could not read the gauges of %s", one.about)
        await asyncio.sleep(PAUSE * random.uniform(0.8, 1.2))  # noqa: S311 - not a secret


class _Reading:
    """The gauges of one group or dead-letter stream, and whether this process is the one that reads them."""

    def __init__(self, redis: Redis | RedisCluster, zero: Gauges) -> None:
        self._redis = redis
        self.about = zero
        """The gauges, all 0."""
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

    async def read(self, report: Callable[[Gauges], None]) -> None:
        """Read and report, if no other process does that. Raises `RedisError`."""
        began, self._may_hold = time.monotonic(), True
        hold = await groups.hold(self._commands, self._key, self._token, ttl_ms=round(LEASE * 1000))
        self._may_hold = hold.is_ours
        if hold.is_ours:
            self._until = began + LEASE
            report(await self._values())
        else:
            self._stop(report)

    def expire(self, report: Callable[[Gauges], None]) -> None:
        """Redis could not be asked: after a while, another process may have become the one that reads."""
        if time.monotonic() >= self._until:
            self._stop(report)

    async def end(self, report: Callable[[Gauges], None]) -> None:
        """Let another process read at once."""
        self._stop(report)
        if not self._may_hold:
            return
        with suppress(RedisError, OSError):
            async with asyncio.timeout(1.0):
                await groups.release(self._commands, self._key, self._token)

    def _stop(self, report: Callable[[Gauges], None]) -> None:
        if self._until != -math.inf:
            self._until = -math.inf
            report(self.about)

    async def _values(self) -> Gauges:
        match self.about:
            case DlqGauges(dlq_stream=dlq):
                return DlqGauges(dlq, (await DeadLetterQueue(self._redis, dlq).stats()).length)
            case GroupGauges(stream=stream, group=group):
                try:
                    found = await Inspector(self._redis).group(stream, group)
                except (StreamNotFoundError, GroupNotFoundError):
                    return self.about
                return GroupGauges(
                    stream=stream,
                    group=group,
                    lag=found.lag,
                    oldest_unsettled=(found.oldest_unsettled_ms or 0) / 1000,
                    pending=found.pending,
                    waiting=found.waiting,
                    parked=found.parked,
                )
