"""A service whose dead letters are replayed while processes and servers die."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from redis.asyncio import Redis

from rapids import DeadLetterQueue, EventEmitter, EventRouter, NonRetryableError, current_delivery
from rapids._storage.keys import Source
from tests.support import eventually
from tests.worker.helpers import GROUP, STREAM, DvOrder, make_router, running, until_settled

REPLAYS = Source(STREAM, GROUP).replays().stream


class ReplayService:
    """A service whose one handler refuses every order, and takes it when it is replayed."""

    def __init__(self, redis: Redis, dlq: str) -> None:
        self._redis, self._dlq = redis, dlq
        self.handled = Counter[int]()
        """How often each order was, as a replay, by its number."""

    @property
    def queue(self) -> DeadLetterQueue:
        return DeadLetterQueue(self._redis, self._dlq)

    async def letters(self, count: int) -> list[str]:
        """The ids of so many new letters."""
        async with self._running():
            await EventEmitter(self._redis, STREAM).emit([DvOrder(number=number) for number in range(count)])
            await until_settled(self._redis)
        return [letter.id for letter in (await self.queue.list(limit=500)).items]

    async def handle_replays(self) -> None:
        """Handle what was replayed, to the end."""
        async with self._running():
            await eventually(lambda: self._nothing_left())

    async def times_replayed(self) -> Counter[str]:
        """How often each letter was, by its id."""
        return Counter(fields[b"replay_of"].decode() for _, fields in await self._redis.xrange(REPLAYS))

    async def listed(self) -> set[str]:
        return {letter.id for letter in (await self.queue.list(limit=500)).items}

    @asynccontextmanager
    async def _running(self) -> AsyncIterator[EventRouter]:
        router = make_router(self._redis, dlq_stream=self._dlq, batch_size=100, dlq_maxlen=None)

        @router.on(DvOrder)
        async def charge(event: DvOrder) -> None:
            delivery = current_delivery()
            if delivery is None or delivery.replay_of is None:
                raise NonRetryableError("the bank is closed")
            self.handled[event.number] += 1

        async with running(router):
            yield router

    async def _nothing_left(self) -> bool:
        return await self._redis.xlen(REPLAYS) == 0
