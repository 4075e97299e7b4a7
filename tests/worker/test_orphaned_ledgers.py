"""A ledger is kept for as long as its entry, and no longer."""

from __future__ import annotations

import asyncio

import orjson
from redis.asyncio import Redis

from rapids._core.outcomes import Ledger
from rapids.backoff import constant
from tests.redis.test_settlement import SOURCE, given_to, settle
from tests.support import eventually
from tests.worker.helpers import (
    GROUP,
    STREAM,
    DvOrder,
    DvPayment,
    check_keys,
    emit_orders,
    make_router,
    running,
    until_settled,
)


async def test_a_kept_entry_keeps_what_a_consumer_that_lost_it_had_done(redis: Redis) -> None:
    entry_id = await given_to(redis, "me")
    assert await settle(redis, entry_id, "keep", "other", ledger=Ledger(frozenset({"first"}))) == "lost"
    assert await settle(redis, entry_id, "keep", ledger=Ledger(frozenset({"second"}), recorded=1)) == "kept"
    stored = orjson.loads((await redis.hgetall(SOURCE.ledger))[entry_id])
    assert sorted(stored["done"]) == ["first", "second"]


async def test_acknowledging_an_entry_without_handlers_deletes_its_ledger(redis: Redis) -> None:
    router, failed = make_router(redis, redelivery_backoff=constant(0.2)), asyncio.Event()

    @router.on(DvOrder)
    async def handle(event: DvOrder) -> None:
        failed.set()
        raise ValueError

    async with running(router):
        await emit_orders(redis, 0)
        await failed.wait()
    without = make_router(redis)

    @without.on(DvPayment)
    async def handle_other(event: DvPayment) -> None: ...

    async with running(without):
        await until_settled(redis)
    await check_keys(redis)


async def test_a_ledger_written_after_the_lease_was_lost_is_deleted_with_the_entry(redis: Redis) -> None:
    begun, go_on, b_begun, b_go_on = (asyncio.Event() for _ in range(4))
    a = make_router(redis, consumer="a", claim_min_idle_ms=60_000)
    b = make_router(redis, consumer="b", claim_min_idle_ms=200, block_ms=50)
    for router, first, then, fails in ((a, begun, go_on, True), (b, b_begun, b_go_on, False)):

        @router.on(DvOrder, name="first")
        async def one(event: DvOrder) -> None: ...

        @router.on(DvOrder, name="second")
        async def two(event: DvOrder, first=first, then=then, fails=fails) -> None:
            first.set()
            await then.wait()
            if fails:
                raise ValueError

    async with running(a):
        await emit_orders(redis, 0)
        await begun.wait()
        async with running(b):
            await b_begun.wait()
            go_on.set()
            await eventually(lambda: redis.exists(f"{{{STREAM}}}:rapids:ledger:{GROUP}"))
            b_go_on.set()
            await until_settled(redis)
    await check_keys(redis)
