"""What the model found, each as small as it could be made."""

from __future__ import annotations

import asyncio

from redis.asyncio import Redis

from rapids import BaseEvent, EventEmitter
from tests.worker.helpers import STREAM, make_router, start


class MoUnending(BaseEvent):
    pass


async def test_a_stop_that_is_itself_cancelled_leaves_no_task(redis: Redis) -> None:
    """As an event loop does that goes down in the middle of a stop: it would wait for what is left for ever."""
    router, began = make_router(redis, shutdown_timeout=30), asyncio.Event()

    @router.on(MoUnending)
    async def handle(event: MoUnending) -> None:
        began.set()
        await asyncio.Event().wait()

    before = asyncio.all_tasks()
    await start(router)
    await EventEmitter(redis, STREAM).emit(MoUnending())
    await began.wait()
    stopping = asyncio.create_task(router.stop())
    while not any(task.get_name().endswith(":closing") for task in asyncio.all_tasks()):
        await asyncio.sleep(0)

    tasks = asyncio.all_tasks() - before
    assert stopping in tasks
    for task in tasks:
        task.cancel()
    _, left = await asyncio.wait(tasks, timeout=5)
    assert left == set()
