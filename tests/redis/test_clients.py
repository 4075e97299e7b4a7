"""Whatever client the user made: decoded or not, RESP2 or RESP3, one connection or many."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff

from rapids import DeadLetterQueue
from rapids.exceptions import NonRetryableError
from tests.support import eventually
from tests.worker.helpers import (
    DLQ,
    GROUP,
    DvOrder,
    add,
    check_keys,
    letters,
    make_emitter,
    make_router,
    replay_stream,
    running,
    until_settled,
)

CLIENTS: dict[str, dict[str, Any]] = {
    "as it comes": {},
    "decoded": {"decode_responses": True},
    "RESP2": {"protocol": 2},
    "RESP3": {"protocol": 3},
    "RESP3 decoded": {"protocol": 3, "decode_responses": True},
    "one connection": {"max_connections": 1},
    "one connection, RESP3, decoded": {"max_connections": 1, "protocol": 3, "decode_responses": True},
    "hasty": {"socket_timeout": 0.2, "block_ms": 1_000},
    "single connection client": {"single_connection_client": True},
    "health checks": {"health_check_interval": 1},
    "retries of its own": {"retry": Retry(ExponentialBackoff(), 3)},
}


async def whole_story(client: Redis, redis: Redis, block_ms: int = 500) -> None:
    """Emit, read, fail, wait, reclaim, dead-letter, list, replay, discard, restore, lag: all of it over one client."""
    seen: list[Any] = []
    router = make_router(client, claim_min_idle_ms=100, block_ms=block_ms)
    works = False

    @router.on(DvOrder)
    async def handle(event: DvOrder) -> None:
        seen.append((event.number, event.text))
        if event.number == 1 and not works:
            raise NonRetryableError("no")
        if event.number == 2 and seen.count((2, "é")) < 3:
            raise ValueError

    await make_emitter(redis).emit(DvOrder(number=0))
    await redis.xgroup_create(router.stream, GROUP, "0")
    [[_, [[entry_id, _]]]] = await redis.xreadgroup(GROUP, "dead", {router.stream: ">"})
    await redis.xclaim(router.stream, GROUP, "dead", 0, [entry_id], idle=60_000, justid=True)
    async with running(router):
        ids = await make_emitter(client).emit([DvOrder(number=number, text="é") for number in (1, 2, 3)])
        assert len(ids) == 3
        await add(redis, [b"event_type", b"dv.order", b"data", b"\xff"])
        await until_settled(redis)
        assert sorted(seen) == [(0, ""), (1, "é"), (2, "é"), (2, "é"), (2, "é"), (3, "é")]

        queue = DeadLetterQueue(client, DLQ)
        page = await queue.list()
        assert [letter.handler for letter in page.items] in (["", "handle"], ["handle", ""])
        assert {letter.data for letter in page.items} == {b"\xff", '{"number":1,"text":"é"}'.encode()}
        works = True
        [replayed] = [letter.id for letter in page.items if letter.handler]
        [unread] = [letter.id for letter in page.items if not letter.handler]
        await queue.replay(replayed)
        await eventually(lambda: seen.count((1, "é")) == 2)
        await queue.discard(unread)
        assert (await queue.restore(unread)).state == "dead"
        assert [change.action for change in (await queue.get(unread)).history] == ["discarded", "restored"]

        lag = await router.get_consumer_lag()
        assert (lag.stream_length, lag.pending_count) == (5, 0)
        assert lag.lag in (0, None)  # which Redis 6.2 does not know
        assert lag.last_delivered_id
        await eventually(lambda: _is_empty(redis, replay_stream()))
    assert len(await letters(redis)) == 1
    await check_keys(redis)


async def _is_empty(redis: Redis, stream: str) -> bool:
    return await redis.xlen(stream) == 0


@pytest.mark.parametrize("options", CLIENTS.values(), ids=CLIENTS.keys())
async def test_the_whole_story_over_a_client(redis: Redis, redis_url: str, options: dict[str, Any]) -> None:
    client_options = {name: value for name, value in options.items() if name != "block_ms"}
    async with Redis.from_url(redis_url, **client_options) as client:
        await whole_story(client, redis, options.get("block_ms", 500))


async def test_the_whole_story_over_a_blocking_pool(redis: Redis, redis_url: str) -> None:
    pool = BlockingConnectionPool.from_url(redis_url, max_connections=1, timeout=5)
    async with Redis.from_pool(pool) as client:
        await whole_story(client, redis)


async def test_a_pool_that_others_keep_busy_is_waited_for(redis: Redis, redis_url: str) -> None:
    async with Redis.from_url(redis_url, max_connections=1) as client:
        connection = await client.connection_pool.get_connection()
        emitting = asyncio.create_task(make_emitter(client).emit(DvOrder()))
        await asyncio.sleep(0.1)
        assert not emitting.done()
        await client.connection_pool.release(connection)
        await asyncio.wait_for(emitting, 2)
    assert await redis.xlen("dv:events") == 1


async def test_the_client_stays_open(redis: Redis, redis_url: str) -> None:
    async with Redis.from_url(redis_url) as client:
        async with running(make_router(client)):
            pass
        assert await client.ping()
