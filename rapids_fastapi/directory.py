"""The directory: which streams and dead-letter queues the admin shows, also of routers that run in other processes."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager

from redis.exceptions import NoPermissionError, RedisError, ResponseError

from rapids import DeadLetterQueue
from rapids.background import OperationRunners
from rapids.clients import RedisClient
from rapids.dead_letters import default_dlq
from rapids.exceptions import StreamNotFoundError, reason
from rapids.inspection import AnnouncedRouter, Inspector, WatchedGroup

__all__ = ["Directory"]

LOOK_PAUSE = 10.0
"""Seconds between two looks at the announcements of routers."""

MAX_FOUND = 100
"""How many streams are shown that nobody named: those whose routers announced themselves last. This process looks for
operations in each of their dead-letter queues."""

_logger = logging.getLogger("rapids")


class Directory:
    """The streams and dead-letter queues of the application, those that it watches, and those that it finds.

    `streams`, `queues`: the application's own. `watch`: further streams; `dead_letters`: whether with their default
    dead-letter queues. `finds`: whether streams are found that are neither.
    """

    def __init__(
        self,
        redis: RedisClient,
        *,
        streams: Iterable[str],
        queues: Mapping[str, DeadLetterQueue],
        watch: Sequence[str],
        dead_letters: bool,
        finds: bool,
    ) -> None:
        self._redis = redis
        self._own_queues = queues
        self._watched_queues = [default_dlq(stream) for stream in watch if dead_letters]
        self._looks = finds or bool(watch)
        self._finds = finds
        self.named_streams: Sequence[str] = sorted({*streams, *watch})
        """The application's own and the watched ones, by name."""
        self.named_queues: Sequence[str] = sorted({*queues, *self._watched_queues})
        self.streams: Sequence[str] = self.named_streams
        """All of them, by name."""
        self.queues: Mapping[str, DeadLetterQueue] = {}
        """All of them, by the names of their dead-letter streams."""
        self._limits: Mapping[str, int | None] = {}
        """The limits of the length of queues that are not the application's own."""
        self._routers: Sequence[AnnouncedRouter] = ()
        """The announced routers whose streams and dead-letter streams are shown."""
        self._usable: dict[str, bool] = {}
        """Of announced names that nobody named: whether this process may read the stream."""
        self._set_queues()

    def groups(self, dlq: str) -> set[str]:
        """The groups whose routers announced that they write to this dead-letter stream."""
        return {router.group for router in self._routers if router.dlq_stream == dlq}

    @property
    def watched(self) -> list[WatchedGroup]:
        """What the overview shows: all groups of every stream, and their dead-letter streams, as far as announced."""
        defaults = {stream: default_dlq(stream) for stream in self.streams}
        return [
            *(WatchedGroup(one.stream, one.group, one.dlq_stream, one.dlq_maxlen) for one in self._routers),
            *(WatchedGroup(stream, None, dlq if dlq in self.queues else None) for stream, dlq in defaults.items()),
        ]

    @asynccontextmanager
    async def followed(self, runners: OperationRunners) -> AsyncGenerator[None]:
        """Look at the announcements from time to time during the block, and let the runners follow the queues."""
        task = asyncio.create_task(self._follow(runners), name="rapids-directory")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait({task})

    async def _follow(self, runners: OperationRunners) -> None:
        while self._looks:
            try:
                await self.look()
                await runners.follow(self.queues.values())
            except (RedisError, OSError) as error:  # everything stays as it is until the next look
                _logger.debug("the announcements of routers could not be read: %s", reason(error))
            except Exception:  # the admin continues with what it knows
                _logger.exception("the announcements of routers could not be read")
            await asyncio.sleep(LOOK_PAUSE)

    async def look(self) -> None:
        """Look at the announcements. Raises `RedisError`."""
        found: dict[str, None] = {}
        routers: list[AnnouncedRouter] = []
        announced = await Inspector(self._redis).routers()
        for router in announced:
            if router.stream not in self.named_streams and router.stream not in found:
                if not self._finds or len(found) == MAX_FOUND or not await self._is_usable(router.stream):
                    continue
                found[router.stream] = None
            dlq = router.dlq_stream
            if dlq is not None and (dlq in self.named_queues or await self._is_usable(dlq)):
                routers.append(router)
        names = {name for router in announced for name in (router.stream, router.dlq_stream)}
        self._usable = {name: usable for name, usable in self._usable.items() if name in names}
        self.streams = sorted({*self.named_streams, *found})
        self._routers = routers
        self._set_queues()

    async def _is_usable(self, name: str) -> bool:
        """Whether this process may read a stream: another user may have announced it, and any text as its name."""
        if name not in self._usable:
            try:
                await Inspector(self._redis).stream(name)
                self._usable[name] = True
            except StreamNotFoundError:
                self._usable[name] = True
            except (NoPermissionError, ValueError):
                self._usable[name] = False
            except ResponseError as error:
                if "WRONGTYPE" not in str(error):
                    raise
                return False
        return self._usable[name]

    def _set_queues(self) -> None:
        """A queue whose limit has not changed stays the same object, with its operations."""
        announced: dict[str, list[int | None]] = {}
        for router in self._routers:
            if router.dlq_stream is not None:
                announced.setdefault(router.dlq_stream, []).append(router.dlq_maxlen)
        names = dict.fromkeys([*self._watched_queues, *announced])
        limits = {name: _limit(announced.get(name, ())) for name in names if name not in self._own_queues}
        queues = dict(self._own_queues)
        for name, limit in limits.items():
            is_same = name in self._limits and self._limits[name] == limit
            queues[name] = self.queues[name] if is_same else DeadLetterQueue(self._redis, name, dlq_maxlen=limit)
        self._limits, self.queues = limits, queues


def _limit(announced: Sequence[int | None]) -> int | None:
    """Of several limits, the largest: a restored letter must not trim letters that a router keeps. None is no limit."""
    return None if None in announced else max((one for one in announced if one is not None), default=None)
