"""On a Cluster the dead-letter stream is in the stream's own slot: one script writes a letter and settles its entry."""

from __future__ import annotations

import re

import pytest
from redis.asyncio import Redis, RedisCluster

from rapids import NonRetryableError
from rapids_fastapi import Rapids
from tests.servers.cluster import Cluster
from tests.support import eventually
from tests.worker.helpers import (
    DLQ,
    GROUP,
    STREAM,
    DvOrder,
    all_keys,
    check_keys,
    letters,
    make_emitter,
    make_router,
    running,
    until_settled,
)

OTHER_SLOT = "dv:dlq"


async def refusing(event: DvOrder) -> None:
    raise NonRetryableError("never")


async def test_a_dead_letter_stream_in_another_slot_is_refused_with_the_name_to_use(
    client: RedisCluster,
) -> None:
    assert client.keyslot(STREAM) != client.keyslot(OTHER_SLOT)
    router = make_router(client, dlq_stream=OTHER_SLOT)
    router.on(DvOrder)(refusing)
    with pytest.raises(ValueError, match=re.escape(f"name it {DLQ!r}")) as refused:
        await router.start()
    assert f"dlq_stream {OTHER_SLOT!r} is in another slot of the Cluster than stream {STREAM!r}" in str(refused.value)
    assert await all_keys(client) == set()
    assert not router.running


async def test_an_application_does_not_start_with_such_a_router(cluster: Cluster) -> None:
    router = make_router(None, dlq_stream=OTHER_SLOT)
    router.on(DvOrder)(refusing)
    with pytest.raises(ValueError, match=re.escape(f"name it {DLQ!r}")):
        async with Rapids(url=cluster.url, routers=[router]).lifespan():
            pass


@pytest.mark.standalone("on a Cluster it is refused")
async def test_a_single_server_accepts_any_dead_letter_stream(redis: Redis) -> None:
    router = make_router(redis, dlq_stream=OTHER_SLOT)
    router.on(DvOrder)(refusing)
    async with running(router):
        await make_emitter(redis).emit(DvOrder())
        await until_settled(redis)
    assert [letter[b"error"] for letter in await letters(redis, OTHER_SLOT)] == [b"never"]


async def test_kept_and_released_entries_keep_the_letters_of_dead_handlers(client: RedisCluster) -> None:
    router = make_router(client, max_deliveries=3)
    ran: list[str] = []

    @router.on(DvOrder, name="gives up")
    async def gives_up(event: DvOrder) -> None:
        ran.append("gives up")
        raise NonRetryableError("never")

    @router.on(DvOrder, name="tries on")
    async def tries_on(event: DvOrder) -> None:
        ran.append("tries on")
        if ran.count("tries on") < 3:
            raise ValueError("not yet")

    async with running(router):
        await make_emitter(client).emit(DvOrder())
        await until_settled(client)
    assert ran == ["gives up", "tries on", "tries on", "tries on"]
    assert [letter[b"handler"] for letter in await letters(client)] == [b"gives up"]
    await check_keys(client)


async def test_an_entry_whose_letter_is_refused_is_kept_and_the_others_continue(client: RedisCluster) -> None:
    router = make_router(client, max_deliveries=1)
    ran: list[int] = []

    @router.on(DvOrder)
    async def handle(event: DvOrder) -> None:
        ran.append(event.number)
        if event.number == 0:
            raise ValueError("no")

    await client.set(DLQ, "not a stream")
    async with running(router):
        await make_emitter(client).emit([DvOrder(number=number) for number in range(3)])
        await eventually(lambda: ran == [0, 1, 2])
        await eventually(lambda: _pending_count(client, 1))
        await client.delete(DLQ)
        await until_settled(client)
    assert ran == [0, 1, 2]
    assert len(await letters(client)) == 1


async def _pending_count(client: RedisCluster, count: int) -> bool:
    return len(await client.xpending_range(STREAM, GROUP, "-", "+", 10)) == count
