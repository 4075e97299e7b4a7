"""Operations while the server fails: they continue afterwards, and each letter is moved exactly once."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable
from functools import partial

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoPermissionError, ResponseError

from rapids import DeadLetterQueue
from rapids._storage import keys
from rapids.dead_letters import OperationKind, Selector
from rapids.dead_letters.moves import QueueMoves
from tests.dead_letters.operation_runs import ALL, check_replayed_once, ended, has_done, replayed, run, write_many
from tests.dead_letters.recorded_moves import make_operations, moved
from tests.redis.own_server import own_server
from tests.server_faults import flush_scripts, kill_all, pause, refuse_writes, refused_commands
from tests.servers.builds import Build
from tests.support import eventually
from tests.worker.helpers import DLQ, everywhere


@pytest.mark.parametrize("kind", ["replay", "discard"])
@pytest.mark.parametrize(
    "trouble",
    [
        # Of a Cluster redis-py's own client does not close all sockets that were cut off while it asked for the nodes.
        pytest.param(kill_all, marks=pytest.mark.standalone("cuts off the connections of the test's own client, too")),
        flush_scripts,
        pause,
        refuse_writes,
    ],
)
async def test_a_run_waits_until_an_outage_is_over(
    redis: Redis, kind: OperationKind, trouble: Callable[[Redis], Awaitable[None]]
) -> None:
    queue = DeadLetterQueue(redis, DLQ)
    ids = await write_many(redis, 2_000)
    begun = await queue.operations.start(kind, ALL, rate=4_000)
    task = asyncio.create_task(queue.operations.run_until_ended(begun.id))
    for _ in range(4):
        await trouble(redis)
        done = (await queue.operations.get(begun.id)).done
        await eventually(partial(has_done, queue, begun, min(done + 1, len(ids))))
    result = await task
    assert (result.state, result.done, result.skipped, result.failed) == ("completed", 2_000, 0, 0)
    if kind == "replay":
        assert await replayed(redis) == ids


@pytest.mark.parametrize("alone", [False, True])
async def test_an_answer_that_was_lost_counts_nothing_twice(redis: Redis, alone: bool) -> None:
    operations, given = make_operations(redis)
    ids = await write_many(redis, 1_000)
    given.blocked = {ids[500]} if alone else set()
    original = given.move_one

    async def lose_answer(number: int) -> None:
        if number % 2 == 0:
            raise RedisConnectionError("lost")

    async def lose_single(*args: object) -> None:
        await original(*args)  # type: ignore[arg-type]
        raise RedisConnectionError("lost")

    given.after_step = lose_answer
    given.move_one = lose_single  # type: ignore[method-assign, assignment]
    begun = await operations.start("replay", Selector(ids=tuple(ids)))
    result = await operations.run_until_ended(begun.id)
    assert (result.state, result.done, result.skipped, result.failed) == ("completed", 1_000, 0, 0)
    assert await moved(redis) == ids


@pytest.mark.parametrize("kind", ["replay", "discard", "restore"])
async def test_a_step_that_a_failover_lost_is_done_again(
    redis: Redis, monkeypatch: pytest.MonkeyPatch, kind: OperationKind
) -> None:
    """Its answer arrived, but the replica that became the master had not received it."""
    queue = DeadLetterQueue(redis, DLQ)
    ids = await write_many(redis, 1_000)
    if kind == "restore":
        await queue.operations.run_until_ended((await queue.operations.start("discard", ALL)).id)
    name = "restore_many" if kind == "restore" else "move_many"
    original, steps = getattr(QueueMoves, name), itertools.count()

    async def lose_the_second(*args: object, **options: object) -> object:
        if next(steps) != 1:
            return await original(*args, **options)
        before = [(key, await redis.pttl(key), await redis.dump(key)) async for key in redis.scan_iter()]
        moved = await original(*args, **options)
        for key in [key async for key in redis.scan_iter()]:
            await redis.delete(key)
        for key, ttl, value in before:
            await redis.restore(key, max(ttl, 0), value)
        return moved

    monkeypatch.setattr(QueueMoves, name, lose_the_second)
    begun = await queue.operations.start(kind, ALL)
    result = await queue.operations.run_until_ended(begun.id)
    assert (result.state, result.done, result.skipped, result.failed) == ("completed", 1_000, 0, 0)
    assert await redis.xlen(DLQ) == (1_000 if kind == "restore" else 0)
    if kind == "replay":
        assert await replayed(redis) == ids


async def test_an_operation_continues_after_the_server_was_killed_and_started_again(
    build: Build, caplog: pytest.LogCaptureFixture
) -> None:
    async with own_server(build) as server, Redis.from_url(server.url) as redis:
        queue = DeadLetterQueue(redis, DLQ)
        ids = await write_many(redis, 3_000)
        begun = await queue.operations.start("replay", ALL, rate=3_000)
        async with run(queue.operations):
            await eventually(lambda: has_done(queue, begun, 800))
            with caplog.at_level(logging.WARNING, "rapids"):
                await server.kill()
                await eventually(lambda: "unavailable, retrying" in caplog.text)
                await server.start()
                result = await ended(queue.operations, begun.id)
                await eventually(lambda: "Redis is back" in caplog.text)
        await check_replayed_once(redis, result, ids)


async def test_a_runner_stops_without_waiting_for_an_unavailable_server(build: Build) -> None:
    async with own_server(build) as server, Redis.from_url(server.url) as redis:
        queue = DeadLetterQueue(redis, DLQ)
        await write_many(redis, 3_000)
        begun = await queue.operations.start("replay", ALL, rate=1_000)
        async with run(queue.operations):
            await eventually(lambda: has_done(queue, begun, 400))
            await server.kill()


async def test_an_outage_is_logged_when_it_begins_and_when_it_is_over(
    redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    queue = DeadLetterQueue(redis, DLQ)
    await write_many(redis, 1_000)
    begun = await queue.operations.start("discard", ALL, rate=2_000)
    with caplog.at_level(logging.WARNING, "rapids"):
        async with run(queue.operations):
            await eventually(lambda: has_done(queue, begun, 400))
            await redis.config_set("maxmemory", "1", **everywhere(redis))
            await eventually(lambda: "unavailable, retrying" in caplog.text)
            refused = await refused_commands(redis)
            await eventually(lambda: _are_refused(redis, refused + 4))
            await redis.config_set("maxmemory", "0", **everywhere(redis))
            await ended(queue.operations, begun.id)
    logged = [record.getMessage() for record in caplog.records]
    assert len([line for line in logged if "unavailable, retrying" in line]) == 1, logged
    assert len([line for line in logged if "Redis is back" in line]) == 1, logged


async def _are_refused(redis: Redis, at_least: int) -> bool:
    return await refused_commands(redis) >= at_least


@pytest.mark.parametrize("error", [RuntimeError("a mistake"), NoPermissionError("no right to XADD")])
async def test_an_error_that_no_letter_caused_ends_the_operation_and_is_reported(
    redis: Redis, error: Exception
) -> None:
    operations, given = make_operations(redis)
    await write_many(redis, 3)

    async def refuse(number: int) -> None:
        raise error

    given.before_step = refuse
    result = await operations.run_until_ended((await operations.start("replay", ALL)).id)
    assert (result.state, result.failed) == ("failed", 0)
    assert [(one.letter_id, one.error) for one in result.errors] == [("", f"{type(error).__name__}: {error}")]
    await operations.start("replay", ALL)


async def test_a_runner_does_not_retry_an_error_that_is_no_outage(redis: Redis) -> None:
    operations, _ = make_operations(redis)
    await redis.rpush(keys.operating(DLQ, "replay"), "not a string")
    with pytest.raises(ResponseError, match="WRONGTYPE"):
        await operations.run(asyncio.Event())
