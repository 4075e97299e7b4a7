"""A group that is created again, or set back, while a consumer holds its entries."""

from __future__ import annotations

import asyncio

from redis.asyncio import Redis

from rapids._storage import groups
from rapids._storage.client.connections import SharedPool
from tests.redis.test_settlement import SOURCE, given_to
from tests.support import eventually
from tests.worker.helpers import (
    GROUP,
    STREAM,
    DvOrder,
    emit_orders,
    make_router,
    pending,
    running,
    until_settled,
)


async def test_an_entry_that_is_delivered_again_while_it_is_held_runs_once(redis: Redis) -> None:
    router, seen, begun, go_on = make_router(redis), [], asyncio.Event(), asyncio.Event()

    @router.on(DvOrder)
    async def handle(event: DvOrder) -> None:
        seen.append(event.number)
        begun.set()
        await go_on.wait()

    async with running(router):
        await emit_orders(redis, 0)
        await begun.wait()
        await redis.xgroup_setid(STREAM, GROUP, "0")
        await emit_orders(redis, 1)
        await eventually(lambda: _count_pending(redis, 2))
        go_on.set()
        await until_settled(redis)
    assert seen == [0, 1]


async def _count_pending(redis: Redis, count: int) -> bool:
    return len(await pending(redis)) == count


async def test_a_recreated_group_continues_after_the_last_delivered_entry(redis: Redis) -> None:
    _, second, third = await emit_orders(redis, 0, 1, 2)
    commands = SharedPool(redis, STREAM)
    assert await groups.recreate(commands, SOURCE, "0-0", delivered=False)
    assert not await groups.recreate(commands, SOURCE, third, delivered=False)
    assert await _last_delivered(redis) == "0-0"
    assert not await groups.recreate(commands, SOURCE, third, delivered=True)
    assert await _last_delivered(redis) == third
    assert not await groups.recreate(commands, SOURCE, second, delivered=True)
    assert await _last_delivered(redis) == third


async def _last_delivered(redis: Redis) -> str:
    return (await redis.xinfo_groups(STREAM))[0]["last-delivered-id"].decode()


async def test_registering_an_entry_does_not_take_it_from_its_owner(redis: Redis) -> None:
    entry_id = await given_to(redis, "another")
    assert await groups.register(SharedPool(redis, STREAM), SOURCE, "me", [entry_id]) == ([], [entry_id])
    assert [row["consumer"] for row in await pending(redis)] == [b"another"]
