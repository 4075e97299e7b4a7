"""Runs of operations for tests: many letters, a runner, and what became of both."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from redis.asyncio import Redis

from rapids import DeadLetterQueue, LetterFilter
from rapids.dead_letters import Operation, Selector
from rapids.dead_letters.operations import Operations
from tests.dead_letters.helpers import AT_ONCE, write
from tests.support import PATIENCE, SOON, eventually
from tests.worker.helpers import DLQ, as_text, replay_stream

ALL = Selector(filter=LetterFilter())
RUNNER = Path(__file__).with_name("killed_runner.py")


async def write_many(redis: Redis, count: int, **options: str) -> list[str]:
    """Letters that differ in their numbers; many at once."""
    first = await write(redis, number=0, **options)
    [(_, fields)] = await redis.xrange(DLQ, first, first)
    ms = int(first.partition("-")[0])
    ids = [first]
    async with redis.pipeline(transaction=False) as pipe:
        for number in range(1, count):
            ids.append(f"{ms + number}-0")
            new = {b"letter_id": ids[-1].encode(), b"data": b'{"number":%d,"text":""}' % number}
            pipe.xadd(DLQ, fields | new, id=ids[-1])
            if number % AT_ONCE == 0:
                await pipe.execute()
        await pipe.execute()
    return ids


async def replayed(redis: Redis) -> list[str]:
    """The letters in the group's replay stream, in order."""
    return [as_text(fields[b"replay_of"]) for _, fields in await redis.xrange(replay_stream())]


async def check_replayed_once(redis: Redis, operation: Operation, ids: list[str]) -> None:
    """Every letter was replayed once, and counted once."""
    assert (operation.state, operation.failed, operation.errors) == ("completed", 0, ())
    assert Counter(await replayed(redis)) == Counter(ids)
    assert (operation.done, operation.skipped) == (len(ids), 0)
    assert await redis.xlen(DLQ) == 0


async def has_done(queue: DeadLetterQueue, operation: Operation, at_least: int) -> bool:
    return (await queue.operations.get(operation.id)).done >= at_least


@asynccontextmanager
async def run(operations: Operations) -> AsyncIterator[None]:
    """Carry operations out inside the block."""
    stop = asyncio.Event()
    task = asyncio.create_task(operations.run(stop))
    try:
        yield
    finally:
        stop.set()
        await asyncio.wait_for(task, SOON)


async def ended(operations: Operations, operation_id: str, timeout: float = PATIENCE) -> Operation:
    async def look() -> Operation | None:
        operation = await operations.get(operation_id)
        return operation if operation.is_ended else None

    found = await eventually(look, timeout)
    assert found is not None
    return found


@asynccontextmanager
async def runner_process(url: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process that runs operations."""
    one = await asyncio.create_subprocess_exec(sys.executable, str(RUNNER), url, cwd=RUNNER.parents[2])
    try:
        yield one
    finally:
        if one.returncode is None:
            one.kill()
        await one.wait()
