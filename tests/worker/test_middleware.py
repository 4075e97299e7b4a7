"""Middleware: around each attempt of each handler."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from redis.asyncio import Redis

from rapids import CallNext, Delivery, Event, EventRouter
from rapids.exceptions import HandlerTimeoutError, NonRetryableError
from tests.worker.helpers import DvOrder, check_keys, letters, make_emitter, make_router, running, until_settled


async def run(router: EventRouter, redis: Redis, *events: Event) -> list[str]:
    """Emit events to a running router, and wait until the group is done with them."""
    async with running(router):
        ids = await make_emitter(redis).emit(list(events))
        await until_settled(redis)
    await check_keys(redis)
    return ids


async def test_middleware_wraps_each_attempt_the_first_one_outermost(redis: Redis) -> None:
    seen: list[str] = []

    def layer(name: str) -> Any:
        async def middleware(delivery: Delivery, call_next: CallNext) -> None:
            seen.append(f"{name} in {delivery.attempt}")
            try:
                await call_next(delivery)
            finally:
                seen.append(f"{name} out {delivery.attempt}")

        return middleware

    router = make_router(redis, middleware=[layer("outer"), layer("inner")])

    @router.on(DvOrder, retries=1)
    async def handle(event: DvOrder) -> None:
        seen.append("handler")
        if seen.count("handler") == 1:
            raise ValueError

    await run(router, redis, DvOrder())

    once = ["outer in {}", "inner in {}", "handler", "inner out {}", "outer out {}"]
    assert seen == [line.format(1) for line in once] + [line.format(2) for line in once]


async def test_middleware_may_raise_swallow_and_skip(redis: Redis) -> None:
    seen: list[Any] = []

    async def middleware(delivery: Delivery, call_next: CallNext) -> None:
        match delivery.handler:
            case "swallowed":
                with pytest.raises(ValueError, match="from the handler"):
                    await call_next(delivery)
            case "skipped":
                return
            case _:
                await call_next(delivery)
                raise NonRetryableError("from the middleware")

    router = make_router(redis, middleware=[middleware])

    @router.on(DvOrder, name="swallowed")
    async def swallowed(event: DvOrder) -> None:
        raise ValueError("from the handler")

    router.on(DvOrder, name="skipped")(_collect(seen))
    router.on(DvOrder, name="refused")(_collect([]))
    await run(router, redis, DvOrder())

    assert seen == []
    [letter] = await letters(redis)
    assert (letter[b"handler"], letter[b"error"]) == (b"refused", b"from the middleware")


async def test_the_time_out_counts_middleware_in_and_passes_through_it(redis: Redis) -> None:
    seen: list[str] = []

    async def middleware(delivery: Delivery, call_next: CallNext) -> None:
        try:
            await call_next(delivery)
        except BaseException as error:
            seen.append(type(error).__name__)
            raise

    router = make_router(redis, middleware=[middleware], max_deliveries=1)

    @router.on(DvOrder, timeout=0.05)
    async def handle(event: DvOrder) -> None:
        await asyncio.sleep(30)

    await run(router, redis, DvOrder())
    assert seen == ["CancelledError"]
    [letter] = await letters(redis)
    assert letter[b"error_type"].decode().endswith(HandlerTimeoutError.__name__)


def _collect(into: list[Any]) -> Any:
    async def collect(event: Event) -> None:
        into.append(event)

    return collect
