"""Operations carried out for real, by processes that die and servers that fail: each letter is moved exactly once."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoPermissionError, ResponseError

from rapids import DeadLetterQueue, LetterFilter
from rapids._storage import keys
from rapids._storage import operation_records as stored
from rapids._storage.client.connections import SharedPool, share_a_slot
from rapids.dead_letters import Operation, OperationKind, Selector
from rapids.dead_letters.operation import write_error
from tests.dead_letters.helpers import REFERENCE_FIELDS, write
from tests.dead_letters.moved import make_operations, moved
from tests.dead_letters.test_operations import ended, run
from tests.redis.own_server import own_server
from tests.server_faults import flush_scripts, kill_all, pause, refuse_writes
from tests.servers.builds import Build
from tests.support import eventually
from tests.worker.helpers import (
    DLQ,
    STREAM,
    DvOrder,
    all_keys,
    as_text,
    check_keys,
    everywhere,
    letters,
    make_router,
    replay_stream,
    running,
    until_settled,
)

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
        await pipe.execute()
    return ids


async def replayed(redis: Redis) -> list[str]:
    """The letters in the group's replay stream, in order."""
    return [as_text(fields[b"replay_of"]) for _, fields in await redis.xrange(replay_stream())]


async def outcome(redis: Redis, operation: Operation, ids: list[str]) -> None:
    """Every letter was replayed once, and counted once."""
    assert (operation.state, operation.failed, operation.errors) == ("completed", 0, ())
    assert Counter(await replayed(redis)) == Counter(ids)
    assert (operation.done, operation.skipped) == (len(ids), 0)
    assert await redis.xlen(DLQ) == 0


async def has_done(queue: DeadLetterQueue, operation: Operation, least: int) -> bool:
    return (await queue.operations.get(operation.id)).done >= least


@asynccontextmanager
async def process(url: str) -> AsyncIterator[asyncio.subprocess.Process]:
    one = await asyncio.create_subprocess_exec(sys.executable, str(RUNNER), url, cwd=RUNNER.parents[2])
    try:
        yield one
    finally:
        if one.returncode is None:
            one.kill()
        await one.wait()


# --- what is moved --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scope", ["handler", "group", "everyone"])
async def test_a_replay_reaches_whom_it_is_for(redis: Redis, scope: str) -> None:
    ran: list[tuple[str, int]] = []
    router, other = make_router(redis), make_router(redis, group="dv-group-2")

    @router.on(DvOrder, name="pay")
    async def pay(event: DvOrder) -> None:
        ran.append(("pay", event.number))

    @router.on(DvOrder, name="ship")
    async def ship(event: DvOrder) -> None:
        ran.append(("ship", event.number))

    @other.on(DvOrder, name="count")
    async def count(event: DvOrder) -> None:
        ran.append(("count", event.number))

    queue = DeadLetterQueue(redis, DLQ)
    async with running(router, other):
        await write_many(redis, 3)
        begun = await queue.operations.start("replay", ALL, scope=scope)  # type: ignore[arg-type]
        assert (await queue.operations.run_until_ended(begun.id)).done == 3
        names = {"handler": ["pay"], "group": ["pay", "ship"], "everyone": ["pay", "ship", "count"]}[scope]
        await eventually(lambda: len(ran) >= 3 * len(names))
        await until_settled(redis)
    assert sorted(ran) == sorted((name, number) for name in names for number in range(3))


async def test_nothing_of_one_letter_gets_into_the_next_one_of_the_same_step(redis: Redis) -> None:
    queue = DeadLetterQueue(redis, DLQ)
    await write(redis)
    await write(redis, fields={b"traceparent": b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"})
    await write(redis)
    begun = await queue.operations.start("replay", ALL)
    assert (await queue.operations.run_until_ended(begun.id)).done == 3
    for stream in (replay_stream(), keys.letters_archive(DLQ)):
        rows = await redis.eval("return redis.call('XRANGE', KEYS[1], '-', '+')", 1, stream)  # names may come twice
        first, traced, last = [parts[::2] for _, parts in rows]
        assert first == last
        assert sorted(traced) == sorted([*first, b"traceparent"])


async def test_each_letter_says_which_operation_moved_it(redis: Redis) -> None:
    queue = DeadLetterQueue(redis, DLQ)
    ids = await write_many(redis, 3)
    begun = await queue.operations.start("replay", ALL, actor="ann", reason="fixed")
    await queue.operations.run_until_ended(begun.id)
    for letter_id in ids:
        [change] = (await queue.get(letter_id)).history
        assert (change.action, change.actor, change.reason, change.scope) == ("replayed", "ann", "fixed", "handler")
        assert (change.operation, change.stream) == (begun.id, replay_stream())


async def test_letters_of_other_writers_are_moved_one_by_one_and_unusable_ones_are_reported(redis: Redis) -> None:
    queue = DeadLetterQueue(redis, DLQ)
    ids = await write_many(redis, 2)
    strange = as_text(await redis.xadd(DLQ, {**REFERENCE_FIELDS, "original_stream": ""}))
    reference = as_text(await redis.xadd(DLQ, REFERENCE_FIELDS))
    ids += [await write(redis)]
    begun = await queue.operations.start("replay", ALL)
    result = await queue.operations.run_until_ended(begun.id)
    assert (result.done, result.skipped, result.failed) == (4, 0, 1)
    assert [error.letter_id for error in result.errors] == [strange]
    assert "original_stream" in result.errors[0].error
    assert await replayed(redis) == [*ids[:2], reference, ids[2]]
    assert [as_text(one) for one, _ in await redis.xrange(DLQ)] == [strange]


async def test_a_letter_that_breaks_the_script_is_reported_and_the_rest_is_moved(redis: Redis) -> None:
    queue = DeadLetterQueue(redis, DLQ)
    ids = await write_many(redis, 2)
    broken = await write(redis, group="taken")
    await redis.set(replay_stream(group="taken"), "not a stream")
    ids += [await write(redis)]
    begun = await queue.operations.start("replay", ALL)
    result = await queue.operations.run_until_ended(begun.id)
    assert (result.state, result.done, result.failed) == ("completed", 3, 1)
    assert result.errors[0].letter_id == broken
    assert "WRONGTYPE" in result.errors[0].error
    assert await replayed(redis) == ids
    assert (await queue.get(broken)).state == "dead"


async def test_a_letter_that_was_restored_is_replayed_under_its_own_id(redis: Redis) -> None:
    queue = DeadLetterQueue(redis, DLQ)
    [letter_id, *_] = await write_many(redis, 2)
    await queue.discard(letter_id)
    await queue.restore(letter_id)
    begun = await queue.operations.start("replay", Selector(ids=(letter_id,)))
    assert (await queue.operations.run_until_ended(begun.id)).done == 1
    assert await replayed(redis) == [letter_id]
    assert [change.action for change in (await queue.get(letter_id)).history] == ["discarded", "restored", "replayed"]


async def test_what_fails_again_is_not_picked_up_again(redis: Redis) -> None:
    router = make_router(redis, max_deliveries=1)

    @router.on(DvOrder, name="pay")
    async def pay(event: DvOrder) -> None:
        raise ValueError("still")

    queue = DeadLetterQueue(redis, DLQ)
    async with running(router):
        ids = await write_many(redis, 30)
        begun = await queue.operations.start("replay", ALL, rate=20)
        result = await queue.operations.run_until_ended(begun.id)
        await eventually(lambda: _has_letters(redis, 30))
    assert (result.done, result.total) == (30, 30)
    assert {as_text(fields[b"replay_of"]) for fields in await letters(redis)} == set(ids)
    assert {as_text(fields[b"replay_count"]) for fields in await letters(redis)} == {"1"}
    await check_keys(redis)


async def _has_letters(redis: Redis, count: int) -> bool:
    return await redis.xlen(DLQ) == count


@pytest.mark.parametrize("by", ["all", "ids", "filter"])
async def test_what_was_discarded_is_restored(redis: Redis, by: str) -> None:
    queue = DeadLetterQueue(redis, DLQ)
    wanted = await write_many(redis, 10, handler="ship")
    if by != "all":
        await write_many(redis, 3)
    selector = {
        "all": ALL,
        "ids": Selector(ids=tuple(wanted)),
        "filter": Selector(filter=LetterFilter(handler="ship")),
    }[by]
    begun = await queue.operations.start("discard", ALL, reason="junk")
    assert (await queue.operations.run_until_ended(begun.id)).done in (10, 13)
    assert await redis.xlen(DLQ) == 0
    preview = await queue.operations.preview("restore", selector)
    assert (preview.total, preview.checked, [letter.id for letter in preview.sample]) == (10, 10, wanted)
    begun = await queue.operations.start("restore", selector, actor="ann")
    result = await queue.operations.run_until_ended(begun.id)
    assert (result.state, result.done, result.skipped, result.failed) == ("completed", 10, 0, 0)
    found = (await queue.list()).items
    assert [letter.id for letter in reversed(found)] == wanted
    assert {letter.state for letter in found} == {"dead"}


# --- who carries it out ---------------------------------------------------------------------------------------------


@pytest.mark.slow
async def test_when_a_process_is_killed_another_one_goes_on(redis: Redis, redis_address: str) -> None:
    queue = DeadLetterQueue(redis, DLQ)
    ids = await write_many(redis, 3_000)
    begun = await queue.operations.start("replay", ALL, rate=3_000)
    async with process(redis_address) as one:
        await eventually(lambda: has_done(queue, begun, 400))
        os.kill(one.pid, signal.SIGKILL)
        await one.wait()
    before = await queue.operations.get(begun.id)
    assert (before.state, 0 < before.done < len(ids)) == ("running", True)
    # In another slot of a Cluster one letter may have been replayed, and not moved and counted yet.
    in_between = len(await replayed(redis)) - before.done
    assert in_between == 0 or (in_between == 1 and not share_a_slot(redis, STREAM, DLQ))
    async with process(redis_address):
        result = await ended(queue.operations, begun.id, 40)
    assert result.owner != before.owner
    await outcome(redis, result, ids)
    assert await replayed(redis) == ids


async def test_a_process_that_stood_still_moves_nothing_once_another_has_the_operation(
    redis: Redis, redis_address: str
) -> None:
    queue = DeadLetterQueue(redis, DLQ)
    ids = await write_many(redis, 2_000)
    begun = await queue.operations.start("replay", ALL, rate=2_000)
    async with process(redis_address) as one:
        await eventually(lambda: has_done(queue, begun, 400))
        os.kill(one.pid, signal.SIGSTOP)
        result = await queue.operations.run_until_ended(begun.id)
        os.kill(one.pid, signal.SIGCONT)
        await outcome(redis, result, ids)
        second = await queue.operations.start("replay", ALL)  # which the process that stood still takes
        assert (await ended(queue.operations, second.id)).done == 0
        await outcome(redis, await queue.operations.get(begun.id), ids)


async def test_of_two_at_once_one_has_it(redis: Redis) -> None:
    queues = [DeadLetterQueue(redis, DLQ) for _ in range(3)]
    ids = await write_many(redis, 3_000)
    async with run(queues[0].operations), run(queues[1].operations):
        begun = await queues[2].operations.start("replay", ALL)
        await outcome(redis, await ended(queues[2].operations, begun.id), ids)
    assert await replayed(redis) == ids


async def test_a_process_that_stops_lets_another_go_on_at_once(redis: Redis) -> None:
    queue, other = DeadLetterQueue(redis, DLQ), DeadLetterQueue(redis, DLQ)
    ids = await write_many(redis, 1_000)
    begun = await queue.operations.start("replay", ALL, rate=800)
    async with run(queue.operations):
        await eventually(lambda: has_done(queue, begun, 400))
    left = await queue.operations.get(begun.id)
    assert (left.state, left.owner) == ("running", "")
    assert await redis.hget(keys.operation(DLQ, begun.id), "lease_ms") == b"0"
    await outcome(redis, await other.operations.run_until_ended(begun.id), ids)


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


async def test_nobody_takes_what_another_process_holds(redis: Redis) -> None:
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
    assert not await stored.pass_over(commands, held, "failed", "1-1", "why")
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
    assert await stored.claim(commands, DLQ, ["replay"], "three:3"), "it waits for a lease that means nothing any more"


async def test_a_letter_is_skipped_once_however_often_that_is_requested(redis: Redis) -> None:
    operations, _ = make_operations(redis)
    commands = SharedPool(redis, DLQ)
    begun = await operations.start("replay", ALL)
    held = await stored.claim(commands, DLQ, ["replay"], "one:1")
    assert held is not None
    error = write_error("1-1", ValueError("no"))
    for place in ("1-1", "1-1", "1-2", "1-2"):
        assert await stored.pass_over(commands, held, "failed", place, error)
    now = await operations.get(begun.id)
    assert (now.failed, len(now.errors)) == (2, 2)


async def test_it_ends_once_however_often_that_is_asked_for(redis: Redis) -> None:
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


# --- outages --------------------------------------------------------------------------------------------------------


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
        await asyncio.sleep(0.05)
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


async def test_it_goes_on_when_the_server_is_killed_and_started_again(
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
        await outcome(redis, result, ids)


async def test_stopping_does_not_wait_for_a_server_that_is_away(build: Build) -> None:
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
            await asyncio.sleep(0.5)
            await redis.config_set("maxmemory", "0", **everywhere(redis))
            await ended(queue.operations, begun.id)
    told = [record.getMessage() for record in caplog.records]
    assert len([line for line in told if "unavailable, retrying" in line]) == 1, told
    assert len([line for line in told if "Redis is back" in line]) == 1, told


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


async def test_a_runner_does_not_wait_for_what_is_no_outage(redis: Redis) -> None:
    operations, _ = make_operations(redis)
    await redis.rpush(keys.operating(DLQ, "replay"), "not a string")
    with pytest.raises(ResponseError, match="WRONGTYPE"):
        await operations.run(asyncio.Event())


async def test_keys_are_those_expected(redis: Redis) -> None:
    queue = DeadLetterQueue(redis, DLQ)
    await write_many(redis, 5)
    await redis.xadd(DLQ, {**REFERENCE_FIELDS, "original_stream": ""})
    for kind in ("replay", "discard", "restore"):
        await queue.operations.run_until_ended((await queue.operations.start(kind, ALL)).id)  # type: ignore[arg-type]
    await check_keys(redis)
    assert await all_keys(redis, "*:errors")
