"""Everything works on uvloop as well, which is faster."""

from __future__ import annotations

import asyncio

import uvloop

from rapids import BaseEvent, EventEmitter
from rapids.backoff import constant
from rapids.exceptions import NonRetryableError
from tests.servers.client import connected
from tests.worker.helpers import DLQ, STREAM, letters, make_router, running, until_settled


class UvEvent(BaseEvent):
    number: int = 0


async def emit_and_handle(url: str, concurrency: int) -> tuple[list[int], list[bytes]]:
    assert isinstance(asyncio.get_running_loop(), uvloop.Loop)
    async with connected(url) as redis:
        done: list[int] = []
        failed: set[int] = set()
        router = make_router(redis, concurrency=concurrency, order_by="number", redelivery_backoff=constant(0.01))

        @router.on(UvEvent, timeout=0.2)
        async def handle(event: UvEvent) -> None:
            if event.number % 10 == 0 and event.number not in failed:
                failed.add(event.number)
                raise ValueError
            if event.number == 11:
                raise NonRetryableError("no")
            if event.number == 12 and 12 not in failed:
                failed.add(12)
                await asyncio.sleep(5)  # longer than it may
            done.append(event.number)

        async with running(router):
            emitter = EventEmitter(redis, STREAM)
            await asyncio.gather(*(emitter.emit(UvEvent(number=number)) for number in range(200)))
            await until_settled(redis)
        return done, [letter[b"reason"] for letter in await letters(redis, DLQ)]


def test_events_are_emitted_handled_repeated_and_given_up_on_uvloop(redis_address: str) -> None:
    for concurrency in (1, 8):
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            done, reasons = runner.run(emit_and_handle(redis_address, concurrency))
        assert sorted(done[-199:]) == [number for number in range(200) if number != 11]
        assert reasons == [b"non_retryable"] * (1 if concurrency == 1 else 2)
