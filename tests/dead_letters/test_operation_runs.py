"""What operations do to letters: each one is moved exactly once, and the ones that cannot be are reported."""

from __future__ import annotations

import pytest
from redis.asyncio import Redis

from rapids import DeadLetterQueue, LetterFilter
from rapids._storage import keys
from rapids.dead_letters import Selector
from tests.dead_letters.helpers import REFERENCE_FIELDS, write
from tests.dead_letters.operation_runs import ALL, replayed, write_many
from tests.support import eventually
from tests.worker.helpers import (
    DLQ,
    DvOrder,
    all_keys,
    as_text,
    check_keys,
    letters,
    make_router,
    replay_stream,
    running,
    until_settled,
)


@pytest.mark.parametrize("scope", ["handler", "group", "everyone"])
async def test_a_replay_reaches_the_handlers_of_its_scope(redis: Redis, scope: str) -> None:
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


async def test_letters_of_one_step_do_not_mix_their_fields(redis: Redis) -> None:
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


async def test_a_letter_that_fails_again_is_not_replayed_again_by_the_same_operation(redis: Redis) -> None:
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
async def test_discarded_letters_are_restored(redis: Redis, by: str) -> None:
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


async def test_operations_leave_only_expected_keys(redis: Redis) -> None:
    queue = DeadLetterQueue(redis, DLQ)
    await write_many(redis, 5)
    await redis.xadd(DLQ, {**REFERENCE_FIELDS, "original_stream": ""})
    for kind in ("replay", "discard", "restore"):
        await queue.operations.run_until_ended((await queue.operations.start(kind, ALL)).id)  # type: ignore[arg-type]
    await check_keys(redis)
    assert await all_keys(redis, "*:errors")
