"""Entries that a foreign consumer settles, which knows no due times, ledgers or parking: nothing runs twice, and
nothing is left over. What is lost when a foreign consumer recreates the group is found again."""

from __future__ import annotations

from typing import Any

import pytest
from redis.asyncio import Redis

from rapids._core.outcomes import Ledger
from rapids._storage import groups, settlement
from rapids._storage.client.connections import SharedPool
from rapids._storage.keys import Source
from rapids._storage.settlement import SettleCall
from rapids.backoff import constant
from tests.support import eventually
from tests.worker.helpers import (
    GROUP,
    STREAM,
    DvOrder,
    as_text,
    check_keys,
    consumers,
    make_emitter,
    make_router,
    pending,
    running,
    until_settled,
)

SOURCE = Source(STREAM, GROUP)
HOLDING = [("keep", "rapids:waiting"), ("park", "rapids:parked")]


async def given(redis: Redis, count: int) -> list[bytes]:
    """Entries that are pending for `me`."""
    ids = await make_emitter(redis).emit([DvOrder(number=number) for number in range(count)])
    await redis.xgroup_create(STREAM, GROUP, "0")
    await redis.xreadgroup(GROUP, "me", {STREAM: ">"}, count=count)
    return [entry_id.encode() for entry_id in ids]


async def settle(redis: Redis, entry_id: bytes, verb: Any, **options: Any) -> None:
    one = SettleCall(SOURCE, entry_id, verb, Ledger(done=frozenset({"pay"})).dump(), **options)
    [reply] = await settlement.settle(SharedPool(redis, STREAM), "me", [one], dlq=None, dlq_maxlen=None)
    assert not isinstance(reply, Exception), reply


async def steal(redis: Redis, entry_id: bytes, *, and_ack: bool = True) -> None:
    """As XAUTOCLAIM does."""
    await redis.xclaim(STREAM, GROUP, "foreign", 0, [entry_id])
    if and_ack:
        await redis.xack(STREAM, GROUP, entry_id)


async def due(redis: Redis) -> groups.Claimed:
    return await groups.claim(SharedPool(redis, STREAM), SOURCE, "other", ids=(), min_idle_ms=0, due=10)


async def holders(redis: Redis) -> dict[str, str]:
    return {as_text(row["message_id"]): as_text(row["consumer"]) for row in await pending(redis)}


async def test_an_entry_that_a_foreign_consumer_settled_while_it_waited_is_not_delivered_again(redis: Redis) -> None:
    [entry_id] = await given(redis, 1)
    await settle(redis, entry_id, "keep")
    await steal(redis, entry_id)

    claimed = await due(redis)

    assert (claimed.entries, claimed.ghosts) == ([], [])
    await check_keys(redis)


async def test_a_waiting_entry_that_was_trimmed_counts_as_lost_though_a_foreign_consumer_settled_it(
    redis: Redis,
) -> None:
    """It cannot be distinguished from one that was trimmed first and then acknowledged by XAUTOCLAIM."""
    [entry_id] = await given(redis, 1)
    await settle(redis, entry_id, "keep")
    await steal(redis, entry_id)
    await redis.xdel(STREAM, entry_id)

    assert (await due(redis)).ghosts == [entry_id.decode()]
    await check_keys(redis)


async def test_an_entry_that_a_foreign_consumer_still_handles_is_left_to_it_when_it_is_due(redis: Redis) -> None:
    [entry_id] = await given(redis, 1)
    await settle(redis, entry_id, "keep")
    await steal(redis, entry_id, and_ack=False)

    assert (await due(redis)).entries == []
    assert await holders(redis) == {entry_id.decode(): "foreign"}


@pytest.mark.parametrize(("verb", "consumer"), HOLDING)
async def test_held_entries_are_restored_when_another_one_is_held_in_a_group_that_was_recreated(
    redis: Redis, verb: str, consumer: str
) -> None:
    """Else the group would have the consumer that says: what is not pending was settled."""
    before, after = await given(redis, 2)
    await settle(redis, before, verb, delay_ms=60_000)
    await redis.xgroup_destroy(STREAM, GROUP)
    await redis.xgroup_create(STREAM, GROUP, before)
    await redis.xreadgroup(GROUP, "me", {STREAM: ">"})

    await settle(redis, after, verb, delay_ms=60_000)

    assert await holders(redis) == {before.decode(): consumer, after.decode(): consumer}


@pytest.mark.parametrize(("verb", "consumer"), HOLDING)
async def test_recreating_an_existing_group_restores_no_settled_entry(redis: Redis, verb: str, consumer: str) -> None:
    entry_id, _ = await given(redis, 2)
    await settle(redis, entry_id, verb, delay_ms=60_000)
    await steal(redis, entry_id)

    assert await groups.misses_parked(SharedPool(redis, STREAM), SOURCE) is False
    await groups.recreate(SharedPool(redis, STREAM), SOURCE, "0-0", delivered=False)

    assert entry_id.decode() not in await holders(redis)


async def test_ledgers_of_entries_that_foreign_consumers_settled_are_deleted(redis: Redis) -> None:
    ids = await given(redis, 5)
    for entry_id, verb in zip(ids, ("park", "park", "keep", "keep", "keep"), strict=True):
        await settle(redis, entry_id, verb, delay_ms=60_000)
    for entry_id in (ids[0], ids[2], ids[3]):
        await steal(redis, entry_id)
    await redis.zrem(SOURCE.due, ids[2])  # it fell due while the foreign consumer had it

    after, forgotten = await groups.forget_settled(SharedPool(redis, STREAM), SOURCE, 0)

    assert (after, sorted(forgotten)) == (0, sorted(entry_id.decode() for entry_id in (ids[0], ids[2])))
    assert set(await redis.hkeys(SOURCE.ledger)) == {ids[1], ids[3], ids[4]}
    assert set(await redis.hkeys(SOURCE.parked)) == {ids[1]}


async def test_many_ledgers_are_read_in_pages(redis: Redis) -> None:
    ids = await given(redis, 3_000)
    await redis.hset(SOURCE.ledger, mapping=dict.fromkeys(ids, b"{}"))
    await redis.xack(STREAM, GROUP, *ids[::2])

    commands, cursor, pages, forgotten = SharedPool(redis, STREAM), 0, 0, list[str]()
    while pages == 0 or cursor:
        cursor, some = await groups.forget_settled(commands, SOURCE, cursor)
        pages, forgotten = pages + 1, forgotten + some

    assert pages > 2
    assert sorted(forgotten) == sorted(entry_id.decode() for entry_id in ids[::2])
    assert await redis.hlen(SOURCE.ledger) == 1_500


async def test_parked_entries_of_a_lost_group_are_kept_until_they_are_restored(redis: Redis) -> None:
    [entry_id] = await given(redis, 1)
    await settle(redis, entry_id, "park")
    await redis.xgroup_destroy(STREAM, GROUP)
    await redis.xgroup_create(STREAM, GROUP, "$")

    assert await groups.forget_settled(SharedPool(redis, STREAM), SOURCE, 0) == (0, [])
    assert await groups.misses_parked(SharedPool(redis, STREAM), SOURCE) is True


async def test_a_router_deletes_ledgers_of_entries_that_foreign_consumers_settled(redis: Redis) -> None:
    router = make_router(redis, dlq_stream=None, max_deliveries=1, consumer_ttl=0.2)

    @router.on(DvOrder)
    async def fail(event: DvOrder) -> None:
        raise ValueError

    async with running(router):
        entry_id = await make_emitter(redis).emit(DvOrder())
        await eventually(lambda: redis.exists(SOURCE.parked))
        await steal(redis, entry_id.encode())
        await eventually(lambda: _is_forgotten(redis))
    assert "rapids:parked" in await consumers(redis)


async def _is_forgotten(redis: Redis) -> bool:
    return not await redis.exists(SOURCE.parked, SOURCE.ledger)


async def test_a_router_does_not_repeat_an_entry_that_a_foreign_consumer_settled(redis: Redis) -> None:
    router, seen = make_router(redis, redelivery_backoff=constant(0.3)), list[int]()

    @router.on(DvOrder)
    async def fail(event: DvOrder) -> None:
        seen.append(event.number)
        if event.number == 1:
            raise ValueError

    async with running(router):
        entry_id = await make_emitter(redis).emit(DvOrder(number=1))
        await eventually(lambda: redis.exists(SOURCE.due))
        await steal(redis, entry_id.encode())
        await eventually(lambda: _is_forgotten(redis))
        await make_emitter(redis).emit(DvOrder(number=2))
        await until_settled(redis)
    assert seen == [1, 2]
    await check_keys(redis)
