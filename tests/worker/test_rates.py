"""Workers keep rates beside the stream: what the group did in each ten seconds, in one bounded key."""

from __future__ import annotations

import struct

from redis.asyncio import Redis

from rapids import NonRetryableError
from rapids._storage import rates
from rapids._storage.client.connections import SharedPool
from rapids._storage.keys import Source
from rapids._storage.rates import COUNTED, GroupRates
from tests.support import eventually
from tests.worker.helpers import GROUP, STREAM, DvOrder, DvPayment, make_emitter, make_router, running

KEY = Source(STREAM, GROUP).rates
SIZE = 12 + 4 * (len(COUNTED) + rates.RANGES)


async def group_rates(redis: Redis) -> GroupRates:
    return (await rates.read(SharedPool(redis, STREAM), STREAM, [GROUP]))[0]


async def test_two_workers_add_to_the_same_rates(redis: Redis) -> None:
    """Each reports when it stops, so that the counts of a short run are there, too."""
    routers = [make_router(redis, consumer=name, max_deliveries=2) for name in ("one", "two")]
    for router in routers:
        router.use_histograms()

        @router.on("dv.order")
        async def work(event: DvOrder) -> None:
            if event.number % 10 == 0:
                raise RuntimeError("no")

        @router.on("dv.payment")
        async def pay(event: DvPayment) -> None:
            raise NonRetryableError("no")

    async with running(routers[0]), running(routers[1]):
        await make_emitter(redis).emit([*(DvOrder(number=number) for number in range(20)), DvPayment()])
        for router, other in (routers, routers[::-1]):
            await eventually(
                lambda router=router, other=other: (
                    router.counters.total("dead") + other.counters.total("dead") == 3
                    and router.counters.total("handled") + other.counters.total("handled") == 18
                )
            )
    found = await group_rates(redis)
    assert {name: sum(counts) for name, counts in found.counts.items()} == {
        "delivered": 23, "handled": 18, "failed": 5, "retried": 2, "dead": 3,
    }  # fmt: skip
    assert sum(map(sum, found.handling)) == 23
    assert max((one for one in found.added if one is not None), default=21) in (0, 21)
    assert 0 < await redis.pttl(KEY) <= rates.TTL_MS
    assert await redis.strlen(KEY) <= rates.RECORDS * SIZE


async def test_an_old_record_is_overwritten_and_a_count_does_not_overflow(redis: Redis) -> None:
    router = make_router(redis)
    router.on("dv.order")(_pass)
    old = b"".join(
        struct.pack(f">Id{len(COUNTED) + rates.RANGES}I", at + 1, 5.0, *[7] * (len(COUNTED) + rates.RANGES))
        for at in range(rates.RECORDS)
    )
    await redis.set(KEY, old)
    async with running(router):
        await make_emitter(redis).emit(DvOrder())
        await eventually(lambda: router.counters.total("handled") == 1)
    seconds, _ = await redis.time()
    found = await group_rates(redis)
    handled = {
        at: count for at, count in zip(found.periods, found.counts["handled"], strict=True) if at > rates.RECORDS
    }
    assert all(abs(at - seconds // rates.PERIOD) <= 3 for at in handled)
    assert sum(handled.values()) == 1


async def test_rates_are_no_reason_to_fail(redis: Redis) -> None:
    """The key has a wrong type here; a user without the permission, or a full server, is the same for the script."""
    await redis.lpush(KEY, "mine")
    router = make_router(redis)
    router.on("dv.order")(_pass)
    async with running(router):
        await make_emitter(redis).emit(DvOrder())
        await eventually(lambda: router.counters.total("handled") == 1)
    assert await redis.lrange(KEY, 0, -1) == [b"mine"]


async def _pass(event: DvOrder) -> None:
    pass
