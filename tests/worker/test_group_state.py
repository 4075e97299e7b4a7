"""The consumers of a group, their names, and its lag."""

from __future__ import annotations

import os
import socket
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from rapids import ConsumerLag
from tests.support import eventually
from tests.worker.helpers import (
    DLQ,
    GROUP,
    STREAM,
    DvOrder,
    all_keys,
    consumers,
    make_emitter,
    make_idle_router,
    make_router,
    running,
)

# --- consumer names -------------------------------------------------------------------------------------------------


async def test_a_given_name_is_used_and_a_held_one_gets_a_number(redis: Redis) -> None:
    first, second = make_router(redis, consumer="worker"), make_router(redis, consumer="worker")
    async with running(first, second):
        assert await names_held(redis) == {"worker", "worker-2"}
    assert await names_held(redis) == set()
    async with running(make_router(redis, consumer="worker")):
        assert await names_held(redis) == {"worker"}


async def test_a_name_is_the_host_s_and_the_process_s_by_default(redis: Redis) -> None:
    name = f"{socket.gethostname()}-{os.getpid()}"
    async with running(*(make_router(redis) for _ in range(3))):
        assert await names_held(redis) == {name, f"{name}-2", f"{name}-3"}


async def test_each_group_has_names_of_its_own(redis: Redis) -> None:
    async with running(*(make_router(redis, group=f"{GROUP}{number}", consumer="worker") for number in (1, 2))):
        assert len(await all_keys(redis, "*:consumer:*:worker")) == 2


async def test_the_entries_are_read_under_that_name(redis: Redis) -> None:
    router, seen = make_router(redis, consumer="worker"), []

    @router.on(DvOrder)
    async def handle(event: DvOrder) -> None:
        seen.append(await consumers(redis))

    async with running(router):
        await make_emitter(redis).emit(DvOrder())
        await eventually(lambda: seen == [{"worker": 1}])


@pytest.mark.standalone("counts the commands of one server")
async def test_a_consumer_is_registered_before_it_gets_an_entry(redis: Redis) -> None:
    """Servers before Redis 7.2 would not know one that waits for its first entry."""
    await redis.config_resetstat()
    async with running(make_router(redis)):
        stats: dict[str, Any] = await redis.info("commandstats")
    counts = {name: stat["calls"] for name, stat in stats.items()}
    assert counts.get("cmdstat_xgroup|createconsumer", counts.get("cmdstat_xgroup")) in (1, 3)  # 6.2 counts two CREATE


async def names_held(redis: Redis) -> set[str]:
    """The consumer names that living processes hold; each expires if its process dies."""
    prefix = "{dv:events}:rapids:consumer:dv-group:"
    keys = await all_keys(redis, "*:consumer:*")
    for key in keys:
        assert 0 < await redis.pttl(key) <= 6_000
    return {key.removeprefix(prefix) for key in keys}


# --- lag ------------------------------------------------------------------------------------------------------------


async def test_the_lag_of_a_stream_that_does_not_exist(redis: Redis) -> None:
    nothing = ConsumerLag(stream_length=0, pending_count=0, consumers_count=0, last_delivered_id="0-0", lag=None)
    assert await make_router(redis).get_consumer_lag() == nothing
    assert await all_keys(redis) == set()


async def test_the_lag_of_a_group_that_does_not_exist(redis: Redis) -> None:
    await make_emitter(redis).emit([DvOrder(), DvOrder()])
    lag = await make_router(redis).get_consumer_lag()
    assert (lag.stream_length, lag.pending_count, lag.consumers_count, lag.lag) == (2, 0, 0, None)


async def test_the_lag_counts_what_is_pending_and_what_is_to_come(redis: Redis) -> None:
    ids = await make_emitter(redis).emit([DvOrder() for _ in range(5)])
    await redis.xgroup_create(STREAM, GROUP, "0")
    await redis.xreadgroup(GROUP, "somebody", {STREAM: ">"}, count=2)

    lag = await make_router(redis).get_consumer_lag()

    known = "lag" in (await redis.xinfo_groups(STREAM))[0]  # since Redis 7.0
    assert lag == ConsumerLag(
        stream_length=5, pending_count=2, consumers_count=1, last_delivered_id=ids[1], lag=3 if known else None
    )


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


async def test_a_key_that_is_no_stream_is_named_at_the_start(redis: Redis) -> None:
    await redis.set(STREAM, "a string")
    with pytest.raises(ResponseError, match=f"WRONGTYPE '{STREAM}' is a key of another kind, not a stream"):
        await make_idle_router(redis).start()
