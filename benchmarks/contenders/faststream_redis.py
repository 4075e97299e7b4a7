"""FastStream's Redis broker. It has a format of its own (one field), so it reads only what it wrote itself."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from faststream.redis import RedisBroker, StreamSub
from redis.asyncio import Redis

from benchmarks.contenders.contract import Unavailable
from benchmarks.contenders.floor_events import OrderPlaced
from benchmarks.contenders.tally import Tally, handler
from benchmarks.jobs import GROUP, STREAM, Job, order

MAXLEN = 100_000


class _Emitting:
    def __init__(self, broker: RedisBroker, redis: Redis, payload: int) -> None:
        self._broker = broker
        self._redis = redis
        self._note = "x" * payload

    async def emit(self, number: int) -> None:
        await self._broker.publish(OrderPlaced(**order(number, self._note)), stream=STREAM, maxlen=MAXLEN)

    async def emit_list(self, numbers: range) -> None:
        pipeline = self._redis.pipeline(transaction=False)
        for number in numbers:
            event = OrderPlaced(**order(number, self._note))
            await self._broker.publish(event, stream=STREAM, maxlen=MAXLEN, pipeline=pipeline)
        await pipeline.execute()


class FastStream:
    @asynccontextmanager
    async def emitting(self, job: Job) -> AsyncIterator[_Emitting]:
        async with _broker(job.url) as broker, Redis.from_url(job.url) as redis:
            yield _Emitting(broker, redis, job.payload)

    @asynccontextmanager
    async def consuming(self, job: Job, tally: Tally) -> AsyncIterator[asyncio.Task[object] | None]:
        if job.handlers > 1 or job.decoys:
            raise Unavailable("one subscriber of a group gets an entry: there is no second handler, and no matching")
        if job.order_by:
            raise Unavailable("no order by key")
        broker = _broker(job.url)
        source = StreamSub(STREAM, group=GROUP, consumer="bench", max_records=job.batch_size)
        workers = {} if job.concurrency is None else {"max_workers": job.concurrency}
        broker.subscriber(stream=source, **workers)(handler(tally, job.pause, OrderPlaced))
        async with broker:
            await broker.start()
            yield None  # it supervises its tasks itself


def _broker(url: str) -> RedisBroker:
    """Without a logger: with its default one it writes two lines for each event."""
    return RedisBroker(url, logger=None)


CONTENDER = FastStream()
