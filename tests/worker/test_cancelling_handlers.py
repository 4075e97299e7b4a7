"""Handlers that leave their task cancelled: the task is the executor's, and must continue."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from redis.asyncio import Redis

from tests.support import eventually
from tests.worker.helpers import (
    DvOrder,
    letters,
    make_emitter,
    make_idle_router,
    make_router,
    running,
    start,
    until_settled,
)

Misbehaviour = Callable[[], Awaitable[object]]


async def boom() -> None:
    raise ValueError("boom")


async def failing_group() -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(boom())


async def failing_group_caught() -> None:
    try:
        await failing_group()
    except* ValueError:
        pass


async def cancels_itself() -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(0)


async def cancels_itself_and_returns() -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()


async def swallows_its_own_cancellation() -> None:
    try:
        await cancels_itself()
    except asyncio.CancelledError:
        raise TimeoutError("a timer of its own") from None


async def cancelled_later() -> None:
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().call_later(0.05, task.cancel)


@pytest.mark.parametrize(
    "misbehave",
    [
        failing_group,
        failing_group_caught,
        cancels_itself,
        cancels_itself_and_returns,
        swallows_its_own_cancellation,
        cancelled_later,
    ],
)
async def test_events_after_a_cancelled_handler_are_handled(redis: Redis, misbehave: Misbehaviour) -> None:
    seen: list[int] = []
    router = make_router(redis, max_deliveries=2)

    @router.on(DvOrder)
    async def handle(event: DvOrder) -> None:
        if event.number == 1:
            await misbehave()
        seen.append(event.number)

    async with running(router):
        await make_emitter(redis).emit([DvOrder(number=number) for number in range(4)])
        await eventually(lambda: {0, 2, 3} <= set(seen))
        await until_settled(redis)
        await make_emitter(redis).emit(DvOrder(number=5))
        await eventually(lambda: 5 in seen)
        await until_settled(redis)


async def test_a_task_group_that_failed_is_described_by_its_errors(redis: Redis) -> None:
    router = make_router(redis, max_deliveries=1)

    @router.on(DvOrder)
    async def handle(event: DvOrder) -> None:
        await failing_group()

    async with running(router):
        await make_emitter(redis).emit(DvOrder(number=1))
        await until_settled(redis)

    [letter] = await letters(redis)
    assert letter[b"error_type"] == b"ExceptionGroup"
    assert b"ValueError: boom" in letter[b"traceback"]


async def test_a_handler_after_one_that_leaves_a_cancellation_can_use_a_group(redis: Redis) -> None:
    router = make_router(redis)
    seen: list[int] = []

    @router.on(DvOrder)
    async def first(event: DvOrder) -> None:
        await failing_group_caught()

    @router.on(DvOrder)
    async def second(event: DvOrder) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.sleep(0))
        seen.append(event.number)

    async with running(router):
        await make_emitter(redis).emit([DvOrder(number=1), DvOrder(number=2)])
        await eventually(lambda: seen == [1, 2])
        await until_settled(redis)


@pytest.mark.parametrize("steps", range(0, 60, 3))
async def test_a_start_that_is_cancelled_while_it_opens_ends(redis: Redis, steps: int) -> None:
    router = make_idle_router(redis)
    task = asyncio.create_task(router.start())
    for _ in range(steps):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(asyncio.shield(task), 30)
    assert not router.running


async def test_the_end_of_the_event_loop_is_no_failure_of_a_handler(redis: Redis) -> None:
    router = make_router(redis, claim_min_idle_ms=60_000)
    begun = asyncio.Event()

    @router.on(DvOrder)
    async def handle(event: DvOrder) -> None:
        begun.set()
        await asyncio.sleep(60)

    others = asyncio.all_tasks()
    task = await start(router)
    await make_emitter(redis).emit(DvOrder(number=1))
    await begun.wait()
    for mine in asyncio.all_tasks() - others:  # what asyncio.run does to whatever is left when it ends
        mine.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert await letters(redis) == []
    seen: list[int] = []
    again = make_router(redis, consumer="another")

    @again.on(DvOrder)
    async def finish(event: DvOrder) -> None:
        seen.append(event.number)

    async with running(again):
        await eventually(lambda: seen == [1])
