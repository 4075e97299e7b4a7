"""The plug-in runs operations on dead letters while the application runs."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest
from redis.asyncio import Redis
from redis.exceptions import NoPermissionError

from rapids import DeadLetterQueue, LetterFilter, background
from rapids.dead_letters import Selector
from rapids_fastapi import Rapids
from rapids_fastapi.state import Running
from tests.dead_letters.helpers import write
from tests.support import eventually, idle_router
from tests.worker.helpers import DLQ, STREAM

ALL = Selector(filter=LetterFilter())


def an_app(url: str) -> Rapids:
    return Rapids(routers=[idle_router(stream=STREAM, group="fa-group", dlq_stream=DLQ)], url=url)


def runners() -> list[str]:
    return [task.get_name() for task in asyncio.all_tasks() if task.get_name().startswith("rapids-operation")]


async def has_ended(queue: DeadLetterQueue, operation_id: str) -> bool:
    return (await queue.operations.get(operation_id)).state == "completed"


async def test_an_operation_that_another_process_left_is_continued(redis: Redis, redis_url: str) -> None:
    queue = DeadLetterQueue(redis, DLQ)
    await write(redis)
    left = await queue.operations.start("discard", ALL)
    async with an_app(redis_url).lifespan():
        await eventually(lambda: has_ended(queue, left.id))
    assert runners() == []


async def test_an_operation_started_in_the_application_runs(redis: Redis, redis_url: str) -> None:
    await write(redis)
    async with an_app(redis_url).lifespan() as state:
        running: Running = state["rapids"]
        queue = running.queues[DLQ]
        begun = await queue.operations.start("replay", ALL)
        await eventually(lambda: has_ended(queue, begun.id))
        assert f"rapids-operations:{DLQ}" in runners()


async def test_a_shutdown_releases_the_running_operation(redis: Redis, redis_url: str) -> None:
    queue = DeadLetterQueue(redis, DLQ)
    for _ in range(3):
        await write(redis)
    begun = await queue.operations.start("discard", ALL, rate=0.01)

    async def is_under_way() -> bool:
        return (await queue.operations.get(begun.id)).done == 1

    async with an_app(redis_url).lifespan():
        await eventually(is_under_way)
    left = await queue.operations.get(begun.id)
    assert (left.state, left.owner, left.done) == ("running", "", 1)
    assert runners() == []


async def test_a_runner_that_fails_is_logged_and_restarted(
    redis: Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(background, "RESTART_DELAY", lambda failures: 0.01 * failures)
    queue = DeadLetterQueue(redis, DLQ)
    ran: list[asyncio.Event] = []

    async def run(stop: asyncio.Event) -> None:
        ran.append(stop)
        if len(ran) < 3:
            raise NoPermissionError("no right to HINCRBY")
        await stop.wait()

    monkeypatch.setattr(queue.operations, "run", run)
    async with background.operations_running([queue]):
        await eventually(lambda: len(ran) == 3)
    assert caplog.text.count(f"the runner of operations on '{DLQ}' failed, and will be restarted in") == 2
    assert caplog.text.count(" s: no right to HINCRBY") == 2
    assert "Traceback" not in caplog.text, "a permission is missing, not a place in the code"


async def test_the_runners_of_many_queues_do_not_look_at_the_same_moment(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background, "STAGGER", 0.05)
    queues = [DeadLetterQueue(redis, f"{{fa:{number}}}:dlq") for number in range(4)]
    began: list[float] = []

    async def run(stop: asyncio.Event) -> None:
        began.append(asyncio.get_running_loop().time())
        await stop.wait()

    for queue in queues:
        monkeypatch.setattr(queue.operations, "run", run)
    async with background.operations_running(queues):
        await eventually(lambda: len(began) == 4)
    assert all(after - before > 0.02 for before, after in pairwise(began))


async def test_a_runner_that_does_not_stop_is_cancelled(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "STOP_TIMEOUT", 0.01)
    queue = DeadLetterQueue(redis, DLQ)

    async def run(stop: asyncio.Event) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(queue.operations, "run", run)
    async with background.operations_running([queue]):
        await asyncio.sleep(0)
    assert runners() == []
