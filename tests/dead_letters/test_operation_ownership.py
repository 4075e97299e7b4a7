"""Which process carries an operation out: one at a time, and another one when it dies, freezes or stops."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest
from redis.asyncio import Redis

from rapids import DeadLetterQueue
from rapids._storage import keys
from rapids._storage import operation_records as stored
from rapids._storage.client.connections import SharedPool, share_a_slot
from rapids.dead_letters.operation import write_error
from tests.dead_letters.operation_runs import (
    ALL,
    check_replayed_once,
    ended,
    has_done,
    replayed,
    run,
    runner_process,
    write_many,
)
from tests.dead_letters.recorded_moves import make_operations, moved
from tests.support import eventually
from tests.worker.helpers import DLQ, STREAM


@pytest.mark.slow
async def test_after_a_process_was_killed_another_one_continues(redis: Redis, redis_address: str) -> None:
    queue = DeadLetterQueue(redis, DLQ)
    ids = await write_many(redis, 3_000)
    begun = await queue.operations.start("replay", ALL, rate=3_000)
    async with runner_process(redis_address) as one:
        await eventually(lambda: has_done(queue, begun, 400))
        os.kill(one.pid, signal.SIGKILL)
        await one.wait()
    before = await queue.operations.get(begun.id)
    assert (before.state, 0 < before.done < len(ids)) == ("running", True)
    # In another slot of a Cluster one letter may have been replayed, and not moved and counted yet.
    in_between = len(await replayed(redis)) - before.done
    assert in_between == 0 or (in_between == 1 and not share_a_slot(redis, STREAM, DLQ))
    async with runner_process(redis_address):
        result = await ended(queue.operations, begun.id)
    assert result.owner != before.owner
    await check_replayed_once(redis, result, ids)
    assert await replayed(redis) == ids


@pytest.mark.slow
async def test_a_suspended_process_moves_nothing_after_another_one_took_the_operation(
    redis: Redis, redis_address: str
) -> None:
    queue = DeadLetterQueue(redis, DLQ)
    ids = await write_many(redis, 2_000)
    begun = await queue.operations.start("replay", ALL, rate=2_000)
    async with runner_process(redis_address) as one:
        await eventually(lambda: has_done(queue, begun, 400))
        os.kill(one.pid, signal.SIGSTOP)
        result = await queue.operations.run_until_ended(begun.id)
        os.kill(one.pid, signal.SIGCONT)
        await check_replayed_once(redis, result, ids)
        second = await queue.operations.start("replay", ALL)  # which the process that was suspended takes
        assert (await ended(queue.operations, second.id)).done == 0
        await check_replayed_once(redis, await queue.operations.get(begun.id), ids)


async def test_only_one_of_two_runners_carries_out_an_operation(redis: Redis) -> None:
    queues = [DeadLetterQueue(redis, DLQ) for _ in range(3)]
    ids = await write_many(redis, 3_000)
    async with run(queues[0].operations), run(queues[1].operations):
        begun = await queues[2].operations.start("replay", ALL)
        await check_replayed_once(redis, await ended(queues[2].operations, begun.id), ids)
    assert await replayed(redis) == ids


async def test_after_a_process_stops_another_one_continues_at_once(redis: Redis) -> None:
    queue, other = DeadLetterQueue(redis, DLQ), DeadLetterQueue(redis, DLQ)
    ids = await write_many(redis, 1_000)
    begun = await queue.operations.start("replay", ALL, rate=800)
    async with run(queue.operations):
        await eventually(lambda: has_done(queue, begun, 400))
    left = await queue.operations.get(begun.id)
    assert (left.state, left.owner) == ("running", "")
    assert await redis.hget(keys.operation(DLQ, begun.id), "lease_ms") == b"0"
    await check_replayed_once(redis, await other.operations.run_until_ended(begun.id), ids)


async def test_an_operation_that_another_process_took_is_released(redis: Redis) -> None:
    operations, given = make_operations(redis)
    ids = await write_many(redis, 6)
    given.blocked = {ids[2]}

    async def take_away(number: int) -> None:
        if number == 1:
            seconds, _ = await redis.time()
            lease = {"owner": "other:x", "lease_ms": (seconds + 5) * 1000}
            await redis.hset(keys.operation(DLQ, begun.id), mapping=lease)

    given.before_step = take_away
    begun = await operations.start("replay", ALL)
    async with run(operations):
        await eventually(lambda: given.steps == 2)
    held = await operations.get(begun.id)
    assert (held.owner, held.done, held.state) == ("other", 3, "running")
    assert await moved(redis) == ids[:3]
    await redis.hset(keys.operation(DLQ, begun.id), "lease_ms", 1)
    assert (await operations.run_until_ended(begun.id)).done == 6


async def test_no_process_claims_an_operation_that_another_one_holds(redis: Redis) -> None:
    operations, _ = make_operations(redis)
    commands = SharedPool(redis, DLQ)
    begun = await operations.start("replay", ALL)
    assert await stored.claim(commands, DLQ, ["replay"], "one:1", only="another") is None
    held = await stored.claim(commands, DLQ, ["discard", "replay"], "one:1", only=begun.id)
    assert held is not None
    assert (held.operation_id, held.kind) == (begun.id, "replay")
    assert await stored.claim(commands, DLQ, ["replay"], "two:2") is None
    await redis.hset(held.key, "lease_ms", 1)
    assert await stored.renew(commands, held)
    assert await stored.claim(commands, DLQ, ["replay"], "two:2") is None
    await redis.hset(held.key, "lease_ms", 1)
    taken = await stored.claim(commands, DLQ, ["replay"], "two:2")
    assert taken is not None

    assert not await stored.renew(commands, held)
    assert not await stored.count_unmoved(commands, held, "failed", "1-1", "why")
    assert not await stored.leave(commands, held)
    assert not await stored.leave(commands, held, "completed")
    now = await operations.get(begun.id)
    assert (now.state, now.owner, now.failed, now.errors) == ("running", "two", 0, ())

    await operations.pause(begun.id)
    await redis.hset(held.key, "lease_ms", 1)
    assert not await stored.renew(commands, taken)
    assert not await stored.leave(commands, taken, "completed")
    assert await stored.claim(commands, DLQ, ["replay"], "three:3") is None
    assert (await operations.get(begun.id)).state == "paused"
    await redis.hset(held.key, "lease_ms", 2**42)
    await operations.resume(begun.id)
    assert await stored.claim(commands, DLQ, ["replay"], "three:3"), "it waits for a lease that has no meaning now"


async def test_a_letter_is_skipped_once_however_often_that_is_requested(redis: Redis) -> None:
    operations, _ = make_operations(redis)
    commands = SharedPool(redis, DLQ)
    begun = await operations.start("replay", ALL)
    held = await stored.claim(commands, DLQ, ["replay"], "one:1")
    assert held is not None
    error = write_error("1-1", ValueError("no"))
    for place in ("1-1", "1-1", "1-2", "1-2"):
        assert await stored.count_unmoved(commands, held, "failed", place, error)
    now = await operations.get(begun.id)
    assert (now.failed, len(now.errors)) == (2, 2)


async def test_an_operation_ends_once_however_often_that_is_requested(redis: Redis) -> None:
    operations, _ = make_operations(redis)
    commands = SharedPool(redis, DLQ)
    begun = await operations.start("replay", ALL)
    held = await stored.claim(commands, DLQ, ["replay"], "one:1")
    assert held is not None
    assert await stored.leave(commands, held, "completed")
    result = await operations.get(begun.id)
    assert await stored.leave(commands, held, "completed")
    assert await operations.get(begun.id) == result
    actions = [fields[b"action"] for _, fields in await redis.xrange(keys.audit_log(DLQ))]
    assert actions == [b"operation_started", b"operation_completed"]


async def test_the_lease_is_renewed_while_nothing_is_moved(redis: Redis) -> None:
    queue = DeadLetterQueue(redis, DLQ)
    await write_many(redis, 2)
    begun = await queue.operations.start("replay", ALL, rate=0.01)
    key = keys.operation(DLQ, begun.id)
    async with run(queue.operations):
        await eventually(lambda: has_done(queue, begun, 1))
        lease = await redis.hget(key, "lease_ms")
        await eventually(lambda: _differs(redis, key, lease))
        await queue.operations.cancel(begun.id)
        await eventually(lambda: not any(t.get_name().endswith(begun.id) for t in asyncio.all_tasks()))


async def _differs(redis: Redis, key: str, lease: bytes) -> bool:
    return await redis.hget(key, "lease_ms") != lease
