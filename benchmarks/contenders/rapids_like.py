"""Ours and the peer: the same code for both, since both are used by `from rapids import ...`."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Annotated

from redis.asyncio import Redis

from benchmarks.contenders.contract import Unavailable
from benchmarks.contenders.tally import Tally, handler
from benchmarks.jobs import GROUP, STREAM, Job, order
from rapids import BaseEvent, EventEmitter, EventRouter


class OrderPlaced(BaseEvent):
    order_id: str
    customer: str
    amount: float
    number: int
    note: str = ""


class _Emitting:
    def __init__(self, redis: Redis, payload: int) -> None:
        self._emitter = EventEmitter(redis, stream=STREAM)
        self._note = "x" * payload

    async def emit(self, number: int) -> None:
        await self._emitter.emit(OrderPlaced(**order(number, self._note)))

    async def emit_list(self, numbers: range) -> None:
        await self._emitter.emit([OrderPlaced(**order(number, self._note)) for number in numbers])


class RapidsLike:
    @asynccontextmanager
    async def emitting(self, job: Job) -> AsyncIterator[_Emitting]:
        async with Redis.from_url(job.url) as redis:
            yield _Emitting(redis, job.payload)

    @asynccontextmanager
    async def consuming(self, job: Job, tally: Tally) -> AsyncIterator[asyncio.Task[None]]:
        async with Redis.from_url(job.url) as redis:
            router = _router(redis, job)
            _register(router, job, tally)
            task = asyncio.create_task(router.start())
            try:
                yield task
            finally:
                await router.stop()
                await task


def _router(redis: Redis, job: Job) -> EventRouter:
    options = {"batch_size": job.batch_size, "concurrency": job.concurrency, "order_by": job.order_by}
    given = {name: value for name, value in options.items() if value is not None}
    try:
        return EventRouter(redis, stream=STREAM, group=GROUP, **given)
    except TypeError as error:
        raise Unavailable(str(error)) from error


def _register(router: EventRouter, job: Job, tally: Tally) -> None:
    """The decoys are of both kinds, classes and patterns, half of them before the handlers that match."""
    for at in range(job.decoys // 2):
        router.on(_another_event(at))(_decoy)
    for _ in range(job.handlers):
        handle = handler(tally, job.pause, OrderPlaced)
        router.on(OrderPlaced)(_with_dependencies(handle) if job.dependencies else handle)
    for at in range(job.decoys - job.decoys // 2):
        router.on(f"another_pattern{at}.*")(_decoy)


def _with_dependencies(handle: Callable[[OrderPlaced], Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    try:
        from rapids import Depends
    except ImportError as error:
        raise Unavailable(str(error)) from error

    async def session() -> AsyncIterator[object]:
        yield handle

    async def with_session(
        event: OrderPlaced, one: Annotated[object, Depends(session)], other: Annotated[object, Depends(session)]
    ) -> None:
        await handle(event)

    return with_session


async def _decoy(event: BaseEvent) -> None:
    raise AssertionError(f"{event.event_type} reached a handler that does not match it")


def _another_event(at: int) -> type[BaseEvent]:
    return type(f"Another{at}Happened", (BaseEvent,), {"__module__": __name__})


CONTENDER = RapidsLike()
