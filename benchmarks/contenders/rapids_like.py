"""Ours and the peer: the same code for both, since both are used by `from rapids import ...`."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Annotated, TypeVar

from redis.asyncio import Redis

from benchmarks.contenders.contract import Unavailable
from benchmarks.contenders.tally import Tally, handler
from benchmarks.jobs import GROUP, STREAM, Job, order
from rapids import BaseEvent, EventEmitter, EventRouter

Part = TypeVar("Part", EventEmitter, EventRouter)


class OrderPlaced(BaseEvent):
    order_id: str
    customer: str
    amount: float
    number: int
    note: str = ""


class _Emitting:
    def __init__(self, redis: Redis, job: Job) -> None:
        self._emitter = _traced(EventEmitter(redis, stream=STREAM), job)
        self._note = "x" * job.payload

    async def emit(self, number: int) -> None:
        await self._emitter.emit(OrderPlaced(**order(number, self._note)))

    async def emit_list(self, numbers: range) -> None:
        await self._emitter.emit([OrderPlaced(**order(number, self._note)) for number in numbers])


class RapidsLike:
    @asynccontextmanager
    async def emitting(self, job: Job) -> AsyncIterator[_Emitting]:
        async with Redis.from_url(job.url) as redis:
            yield _Emitting(redis, job)

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
        router = _traced(EventRouter(redis, stream=STREAM, group=GROUP, **given), job)
        if job.histograms:
            router.use_histograms()
    except (TypeError, AttributeError) as error:
        raise Unavailable(str(error)) from error
    return router


def _traced(part: Part, job: Job) -> Part:
    """The emitter or router, with a telemetry whose SDK records as the job says, and exports to nowhere."""
    if job.telemetry is None:
        return part
    try:
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import InMemoryMetricReader
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
        from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

        from rapids.telemetry import OpenTelemetry
    except ImportError as error:
        raise Unavailable(str(error)) from error

    class Nowhere(SpanExporter):
        def export(self, spans: object) -> SpanExportResult:
            return SpanExportResult.SUCCESS

    provider = TracerProvider(sampler=ParentBased(TraceIdRatioBased(job.telemetry)))
    provider.add_span_processor(BatchSpanProcessor(Nowhere()))
    meters = MeterProvider([InMemoryMetricReader()])
    part.use_telemetry(OpenTelemetry(tracer_provider=provider, meter_provider=meters))
    return part


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
