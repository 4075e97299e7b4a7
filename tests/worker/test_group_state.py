"""Who a group's consumers are, and how far it is behind."""

from __future__ import annotations

from redis.asyncio import Redis

from rapids import ConsumerLag
from tests.support import eventually
from tests.worker.helpers import DLQ, GROUP, STREAM, DvOrder, consumers, make_emitter, make_router, running

# --- consumer names -------------------------------------------------------------------------------------------------


async def test_a_given_name_is_used_and_a_held_one_gets_a_number(redis: Redis) -> None:
    first, second = make_router(redis, consumer="worker"), make_router(redis, consumer="worker")
    async with running(first, second):
        await eventually(lambda: _has_consumers(redis, {"worker", "worker-2"}))
    async with running(make_router(redis, consumer="worker")):
        assert await redis.exists("{dv:events}:rapids:consumer:dv-group:worker")


async def test_routers_of_one_process_do_not_share_a_name(redis: Redis) -> None:
    async with running(*(make_router(redis) for _ in range(3))):
        await eventually(lambda: _has_so_many_consumers(redis, 3))


async def _has_consumers(redis: Redis, wanted: set[str]) -> bool:
    return set(await consumers(redis)) == wanted


async def _has_so_many_consumers(redis: Redis, wanted: int) -> bool:
    return len(await consumers(redis)) == wanted


# --- lag ------------------------------------------------------------------------------------------------------------


async def test_the_lag_of_a_stream_that_does_not_exist(redis: Redis) -> None:
    nothing = ConsumerLag(stream_length=0, pending_count=0, consumers_count=0, last_delivered_id="0-0", lag=None)
    assert await make_router(redis).get_consumer_lag() == nothing
    assert await redis.keys("*") == []


async def test_the_lag_of_a_group_that_does_not_exist(redis: Redis) -> None:
    await make_emitter(redis).emit([DvOrder(), DvOrder()])
    lag = await make_router(redis).get_consumer_lag()
    assert (lag.stream_length, lag.pending_count, lag.consumers_count, lag.lag) == (2, 0, 0, None)


async def test_the_lag_counts_what_is_pending_and_what_is_to_come(redis: Redis) -> None:
    ids = await make_emitter(redis).emit([DvOrder() for _ in range(5)])
    await redis.xgroup_create(STREAM, GROUP, "0")
    await redis.xreadgroup(GROUP, "somebody", {STREAM: ">"}, count=2)

    lag = await make_router(redis).get_consumer_lag()

    assert lag == ConsumerLag(stream_length=5, pending_count=2, consumers_count=1, last_delivered_id=ids[1], lag=3)


async def test_waiting_and_parked_entries_are_pending_but_no_consumers(redis: Redis) -> None:
    router = make_router(redis, dlq_stream=None, max_deliveries=1)

    @router.on(DvOrder)
    async def fail(event: DvOrder) -> None:
        raise ValueError

    async with running(router):
        await make_emitter(redis).emit(DvOrder())
        await eventually(lambda: _parked(redis))
        lag = await router.get_consumer_lag()
    assert (lag.pending_count, lag.consumers_count) == (1, 1)
    assert not await redis.exists(DLQ)


async def _parked(redis: Redis) -> bool:
    return await redis.hlen("{dv:events}:rapids:parked:dv-group") == 1
