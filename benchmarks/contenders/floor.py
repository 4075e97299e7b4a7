"""The floor: the least a competent person would write with redis-py, pydantic and orjson for the same work.

No retries, no time-outs, no recovery, no dead letters: what it costs is what those libraries cost.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

from redis.asyncio import Redis

from benchmarks.contenders.contract import Unavailable
from benchmarks.contenders.floor_events import OrderPlaced, decode, encode
from benchmarks.contenders.tally import Tally, handler
from benchmarks.jobs import GROUP, STREAM, Job, order

MAXLEN = 100_000
BATCH = 10
BLOCK_MS = 1_000

Handlers = Sequence[Callable[[Any], Awaitable[None]]]


class _Emitting:
    def __init__(self, redis: Redis, payload: int) -> None:
        self._redis = redis
        self._note = "x" * payload

    async def emit(self, number: int) -> None:
        event = OrderPlaced(**order(number, self._note))
        await self._redis.xadd(STREAM, encode(event), maxlen=MAXLEN, approximate=True)

    async def emit_list(self, numbers: range) -> None:
        pipeline = self._redis.pipeline(transaction=False)
        for number in numbers:
            event = OrderPlaced(**order(number, self._note))
            pipeline.xadd(STREAM, encode(event), maxlen=MAXLEN, approximate=True)
        await pipeline.execute()


class Floor:
    @asynccontextmanager
    async def emitting(self, job: Job) -> AsyncIterator[_Emitting]:
        async with Redis.from_url(job.url) as redis:
            yield _Emitting(redis, job.payload)

    @asynccontextmanager
    async def consuming(self, job: Job, tally: Tally) -> AsyncIterator[asyncio.Task[None]]:
        if job.order_by or job.decoys:
            raise Unavailable("a loop without lanes and without matching")
        handlers = [handler(tally, job.pause, OrderPlaced) for _ in range(job.handlers)]
        run = _together if job.concurrency else _in_turn
        async with Redis.from_url(job.url) as redis:
            task = asyncio.create_task(_consume(redis, job.batch_size or BATCH, handlers, run))
            try:
                yield task
            finally:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task


async def _consume(
    redis: Redis, batch_size: int, handlers: Handlers, run: Callable[[Sequence[OrderPlaced], Handlers], Awaitable[None]]
) -> None:
    """The acks of one read ride with the next."""
    done: list[bytes] = []
    while True:
        pipeline = redis.pipeline(transaction=False)
        if done:
            pipeline.xack(STREAM, GROUP, *done)
        pipeline.xreadgroup(GROUP, "floor", {STREAM: ">"}, count=batch_size, block=BLOCK_MS)
        replies = await pipeline.execute()
        entries = _entries(replies[-1])
        await run([decode(fields) for _, fields in entries], handlers)
        done = [entry_id for entry_id, _ in entries]


def _entries(reply: Any) -> Sequence[tuple[bytes, dict[bytes, bytes]]]:
    return reply[0][1] if reply else ()


async def _in_turn(events: Sequence[OrderPlaced], handlers: Handlers) -> None:
    for event in events:
        for handle in handlers:
            await handle(event)


async def _together(events: Sequence[OrderPlaced], handlers: Handlers) -> None:
    """A read's worth at a time: the simplest concurrency there is."""
    await asyncio.gather(*(_in_turn([event], handlers) for event in events))


CONTENDER = Floor()
