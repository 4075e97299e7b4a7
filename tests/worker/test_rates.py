"""Workers keep rates beside the stream: what the group did in each ten seconds, in one bounded key."""

from __future__ import annotations

import struct

from redis.asyncio import Redis

from rapids import NonRetryableError
from rapids._storage import rates
from rapids._storage.client.connections import SharedPool
from rapids._storage.keys import Source
from rapids._storage.rates import COUNTED, RateRecord
from tests.support import eventually
from tests.worker.helpers import GROUP, STREAM, DvOrder, DvPayment, make_emitter, make_router, running

KEY = Source(STREAM, GROUP).rates
SIZE = 12 + 4 * (len(COUNTED) + rates.RANGES)


async def records(redis: Redis) -> dict[int, RateRecord]:
    return (await rates.read(SharedPool(redis, STREAM), STREAM, [GROUP]))[0]


def total(found: dict[int, RateRecord], name: str) -> int:
    return sum(record.counts[COUNTED.index(name)] for record in found.values())


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
    found = await records(redis)
    assert {name: total(found, name) for name in COUNTED} == {
        "delivered": 23, "handled": 18, "failed": 5, "retried": 2, "dead": 3,
    }  # fmt: skip
    assert sum(sum(record.handling) for record in found.values()) == 23
    added = {record.added for record in found.values()}
    assert max((one for one in added if one is not None), default=21) in (0, 21)
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
    found = {at: record for at, record in (await records(redis)).items() if at > rates.RECORDS}
    assert all(abs(at - seconds // rates.PERIOD) <= 3 for at in found)
    assert total(found, "handled") == 1


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
