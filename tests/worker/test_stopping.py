"""Stopping: running handlers may finish, other entries are released, and nothing waits longer than needed."""

from __future__ import annotations

import asyncio
import logging
import time

import pytest
from redis.asyncio import Redis

from rapids import EventRouter, current_delivery
from rapids.backoff import constant
from tests.support import SOON, eventually
from tests.worker.helpers import (
    DLQ,
    DvOrder,
    check_keys,
    consumers,
    emit_orders,
    letters,
    make_emitter,
    make_router,
    pending,
    running,
    start,
    until_settled,
)


async def test_entries_never_begun_are_released_and_cost_no_delivery(redis: Redis) -> None:
    begun, go_on, seen = asyncio.Event(), asyncio.Event(), []

    async def handle(event: DvOrder) -> None:
        delivery = current_delivery()
        assert delivery is not None
        seen.append((event.number, delivery.deliveries))
        begun.set()
        await go_on.wait()

    first, second = make_router(redis), make_router(redis)
    for router in (first, second):
        router.on(DvOrder)(handle)
    task = await start(first)
    await make_emitter(redis).emit([DvOrder(number=number) for number in range(20)])
    await begun.wait()
    await eventually(lambda: _holds(redis, 10))
    stopping = asyncio.create_task(first.stop())
    await eventually(lambda: _is_stopping(first))
    go_on.set()
    await stopping
    await task

    assert seen == [(0, 1)]
    # The rest is ready at once for any consumer: none has to wait until this one counts as dead.
    assert (await consumers(redis)).get("rapids:waiting", 0) >= 9
    started = time.monotonic()
    async with running(second):
        await until_settled(redis)
    assert time.monotonic() - started < SOON
    assert sorted(seen) == [(number, 1) for number in range(20)]
    await check_keys(redis)


async def test_released_entries_go_to_a_router_that_is_running(redis: Redis) -> None:
    begun, seen = asyncio.Event(), []

    async def handle(event: DvOrder) -> None:
        begun.set()
        seen.append(event.number)
        await asyncio.sleep(0.02)

    first, second = make_router(redis, batch_size=20), make_router(redis, batch_size=1)
    for router in (first, second):
        router.on(DvOrder)(handle)
    first_task = await start(first)
    await make_emitter(redis).emit([DvOrder(number=number) for number in range(20)])
    await begun.wait()
    async with running(second):
        await first.stop()
        stopped = time.monotonic()
        await until_settled(redis)
        assert time.monotonic() - stopped < SOON
    await first_task
    assert sorted(seen) == list(range(20))


async def test_a_running_handler_may_finish(redis: Redis) -> None:
    begun, go_on, seen = asyncio.Event(), asyncio.Event(), []
    router = make_router(redis, shutdown_timeout=300)

    @router.on(DvOrder, name="first")
    async def first(event: DvOrder) -> None:
        begun.set()
        await go_on.wait()
        seen.append("first")

    @router.on(DvOrder, name="second")
    async def second(event: DvOrder) -> None:
        seen.append("second")

    async with running(router):
        await make_emitter(redis).emit(DvOrder())
        await begun.wait()
        stopping = asyncio.create_task(router.stop())
        await eventually(lambda: _is_stopping(router))
        go_on.set()
        await stopping
    assert seen == ["first", "second"]
    assert await pending(redis) == []


async def test_after_shutdown_timeout_the_handler_is_interrupted_and_its_entry_released(redis: Redis) -> None:
    begun, seen = asyncio.Event(), []
    router = make_router(redis, shutdown_timeout=0.1, max_deliveries=1)

    @router.on(DvOrder, name="done")
    async def done(event: DvOrder) -> None:
        seen.append("done")

    @router.on(DvOrder, name="slow")
    async def slow(event: DvOrder) -> None:
        delivery = current_delivery()
        assert delivery is not None
        seen.append(f"slow {delivery.deliveries}")
        if not begun.is_set():
            begun.set()
            await asyncio.sleep(300)

    @router.on(DvOrder, name="never begun")
    async def never_begun(event: DvOrder) -> None:
        seen.append("never begun")

    async with running(router):
        await make_emitter(redis).emit(DvOrder())
        await begun.wait()
        started = time.monotonic()
    assert time.monotonic() - started < SOON

    # What had finished is not repeated, what was interrupted is no failure: max_deliveries=1 would have killed it.
    async with running(router):
        await until_settled(redis)
    assert seen == ["done", "slow 1", "slow 1", "never begun"]
    assert await letters(redis) == []
    await check_keys(redis)


async def test_a_handler_that_swallows_its_interruption_starts_no_other(redis: Redis) -> None:
    begun, seen = asyncio.Event(), []
    router = make_router(redis, shutdown_timeout=0.1)

    @router.on(DvOrder, name="stubborn")
    async def stubborn(event: DvOrder) -> None:
        begun.set()
        try:
            await asyncio.sleep(300)
        except asyncio.CancelledError:
            seen.append("interrupted")

    @router.on(DvOrder, name="slow")
    async def slow(event: DvOrder) -> None:
        seen.append("slow")
        await asyncio.sleep(300)

    async with running(router):
        await make_emitter(redis).emit([DvOrder(), DvOrder()])
        await begun.wait()
        started = time.monotonic()
    assert time.monotonic() - started < SOON
    assert seen == ["interrupted"]


async def test_a_handler_that_cannot_be_interrupted_is_abandoned_and_nothing_is_lost(
    redis: Redis, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("rapids._worker.worker.CANCEL_GRACE", 0.1)
    begun, let_go = asyncio.Event(), asyncio.Event()
    router = make_router(redis, shutdown_timeout=0.1, claim_min_idle_ms=50)

    @router.on(DvOrder)
    async def immortal(event: DvOrder) -> None:
        begun.set()
        while not let_go.is_set():
            try:
                await asyncio.sleep(0.02)
            except asyncio.CancelledError:
                continue

    with caplog.at_level(logging.ERROR, "rapids"):
        async with running(router):
            await make_emitter(redis).emit(DvOrder())
            await begun.wait()
    assert "the stop continues without them" in caplog.text
    assert len(await pending(redis)) == 1
    let_go.set()
    async with running(router):
        await until_settled(redis)


async def test_stopping_does_not_wait_out_the_pause_before_a_quick_retry(redis: Redis) -> None:
    begun, seen = asyncio.Event(), []
    router = make_router(redis, shutdown_timeout=300)

    @router.on(DvOrder, retries=3, backoff=constant(60))
    async def fail(event: DvOrder) -> None:
        seen.append(event.number)
        begun.set()
        if len(seen) == 1:
            raise ValueError

    async with running(router):
        await make_emitter(redis).emit(DvOrder())
        await begun.wait()
        started = time.monotonic()
    assert time.monotonic() - started < SOON
    async with running(router):
        await until_settled(redis)
    assert len(seen) == 2


async def test_settlements_made_before_a_stop_are_written(redis: Redis) -> None:
    router, seen = make_router(redis), []

    @router.on(DvOrder)
    async def handle(event: DvOrder) -> None:
        seen.append(event.number)
        if event.number == 30:
            await router.stop()

    task = await start(router)
    await make_emitter(redis).emit([DvOrder(number=number) for number in range(100)])
    await task
    left = {entry["message_id"] for entry in await pending(redis)}
    done = [entry_id for entry_id, _ in (await redis.xrange("dv:events"))[: len(seen)]]
    assert seen[-1] == 30
    assert not left & set(done)


async def test_waiting_entries_stay_waiting(redis: Redis) -> None:
    router, seen = make_router(redis, redelivery_backoff=constant(0.5)), []

    @router.on(DvOrder)
    async def fail_once(event: DvOrder) -> None:
        seen.append(time.monotonic())
        if len(seen) == 1:
            raise ValueError

    async with running(router):
        await make_emitter(redis).emit(DvOrder())
        await eventually(lambda: _waits(redis))
    assert await _waits(redis)
    async with running(router):
        await until_settled(redis)
    assert 0.45 < seen[1] - seen[0] < 1.5
    assert not await redis.exists(DLQ)
    await check_keys(redis)


async def _is_stopping(router: EventRouter) -> bool:
    return (await router.health()).reason == "stopping"


async def _holds(redis: Redis, count: int) -> bool:
    return sum((await consumers(redis)).values()) >= count


async def _waits(redis: Redis) -> bool:
    return (await consumers(redis)).get("rapids:waiting") == 1


@pytest.mark.parametrize("exclusive", [True, False])
async def test_released_entries_are_delivered_in_the_order_of_the_stream(redis: Redis, exclusive: bool) -> None:
    router, seen, begun = (
        make_router(redis, exclusive=exclusive, batch_size=30, shutdown_timeout=0),
        [],
        asyncio.Event(),
    )
    go_on = asyncio.Event()

    @router.on(DvOrder)
    async def handle(event: DvOrder) -> None:
        begun.set()
        await go_on.wait()
        seen.append(event.number)

    async with running(router):
        await emit_orders(redis, *range(25))
        await begun.wait()
    assert seen == []
    go_on.set()
    async with running(router):
        await until_settled(redis)
    assert seen == list(range(25))
