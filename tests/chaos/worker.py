"""A worker process: one router whose handlers do as `events` says, and put on record what they did.

It runs as a program, or as what `rapids run` runs.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import time
from itertools import count
from pathlib import Path

from rapids import EventRouter
from rapids.backoff import exponential
from rapids.delivery import CallNext, Delivery, HandlerMiddleware, current_delivery
from rapids.exceptions import NonRetryableError, RedisUnavailableError
from tests.chaos import events, settings
from tests.chaos.clients import opened
from tests.chaos.events import ChaosJob, ChaosToxic
from tests.chaos.records import Recorder, worker_file

START_PAUSE = 0.1

LOG_LINE = logging.Formatter(
    "{asctime}.{msecs:03.0f} {levelname} {message} {entry_id}", style="{", defaults={"entry_id": ""}
)


def make_router(record: Recorder, dlq: str) -> EventRouter:
    router = EventRouter(
        stream=settings.STREAM,
        group=settings.GROUP,
        batch_size=settings.BATCH_SIZE,
        block_ms=settings.BLOCK_MS,
        claim_min_idle_ms=settings.CLAIM_MIN_IDLE_MS,
        max_deliveries=settings.MAX_DELIVERIES,
        redelivery_backoff=exponential(base=1.3, max_delay=2.0),
        dlq_stream=dlq,
        dlq_maxlen=None,
        shutdown_timeout=settings.SHUTDOWN_TIMEOUT,
        consumer_ttl=settings.CONSUMER_TTL,
        middleware=[recording(record)],
        # Every other process runs several at a time, in lanes.
        concurrency=settings.CONCURRENCY if os.getpid() % 2 else 1,
        order_by=lambda event: event.number % settings.KEYS,  # type: ignore[attr-defined]
    )
    register(router)
    return router


def register(router: EventRouter) -> None:
    @router.on(ChaosJob | ChaosToxic)
    async def always(event: ChaosJob | ChaosToxic) -> None: ...

    @router.on(ChaosToxic)
    async def toxic(event: ChaosToxic) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    @router.on(ChaosJob)
    async def flaky(event: ChaosJob) -> None:
        delivery = current_delivery()
        assert delivery is not None
        if delivery.deliveries <= events.flaky_failures(event.number):
            raise ConnectionError("not yet")

    @router.on(ChaosJob)
    async def picky(event: ChaosJob) -> None:
        if events.is_refused(event.number):
            raise NonRetryableError("not this one")

    @router.on("chaos.j*")
    async def slow(event: ChaosJob) -> None:
        await asyncio.sleep(events.slowness(event.number))

    @router.on(ChaosJob)
    async def hopeless(event: ChaosJob) -> None:
        if events.is_hopeless(event.number):
            raise RuntimeError("never")


def recording(record: Recorder) -> HandlerMiddleware:
    serials = count()

    async def middleware(delivery: Delivery, call_next: CallNext) -> None:
        serial = next(serials)
        number = delivery.event.number  # type: ignore[attr-defined]
        counts = (delivery.deliveries, delivery.spent)
        record("begin", serial, delivery.entry_id, number, delivery.handler, *counts, time.monotonic())
        try:
            await call_next(delivery)
        except BaseException:
            record("failed", serial, time.monotonic())
            raise
        record("done", serial, time.monotonic())

    return middleware


class Notes(logging.Handler):
    """Records what the router says about itself that the checks must know."""

    def __init__(self, record: Recorder) -> None:
        super().__init__()
        self._record = record

    def emit(self, record: logging.LogRecord) -> None:
        now = time.monotonic()
        if (late := getattr(record, "standstill_seconds", None)) is not None:
            self._record("standstill", now, late)
        elif str(record.msg).startswith("Redis unavailable, retrying"):
            self._record("outage", now)
        elif hasattr(record, "outage_seconds"):
            self._record("back", now)
        elif record.exc_info and not record.__dict__.keys() & {"handler", "handlers"}:  # those of handlers are meant
            self._record("bug", now, self.format(record))


def make() -> EventRouter:
    """The router for `rapids run`."""
    record = Recorder(worker_file(Path(os.environ["CHAOS_FOLDER"]), os.getpid()))
    logging.getLogger("rapids").addHandler(Notes(record))
    return make_router(record, os.environ["CHAOS_DLQ"])


async def run(url: str, record: Recorder, dlq: str) -> None:
    router = make_router(record, dlq)
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    async with opened(url) as client:
        while not stopping.is_set():
            running = asyncio.create_task(router.start(client))
            stop_requested = asyncio.create_task(stopping.wait())
            await asyncio.wait([running, stop_requested], return_when=asyncio.FIRST_COMPLETED)
            stop_requested.cancel()
            await router.stop()
            try:
                await running
            except RedisUnavailableError:  # down just now: a start says so, and the process manager tries again
                await asyncio.sleep(START_PAUSE)


def main(url: str, folder: str, dlq: str) -> None:
    pid = os.getpid()
    record = Recorder(worker_file(Path(folder), pid))
    logging.basicConfig(filename=Path(folder) / f"worker-{pid}.log", level=logging.INFO)
    logging.getLogger().handlers[0].setFormatter(LOG_LINE)
    logging.getLogger("rapids").addHandler(Notes(record))
    asyncio.run(run(url, record, dlq))


if __name__ == "__main__":
    main(*sys.argv[1:])
