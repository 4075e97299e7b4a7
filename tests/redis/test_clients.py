"""Whatever client the user made: decoded or not, RESP2 or RESP3, one connection or many."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff

from tests.every_feature import use_every_feature
from tests.servers.client import connected
from tests.worker.helpers import (
    DvOrder,
    check_keys,
    make_emitter,
    make_router,
    running,
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
FOR_ONE = ("single connection client",)
ONE_MACHINE = pytest.mark.standalone("a client with one connection of its own knows one server")


@pytest.mark.parametrize(
    "options",
    [pytest.param(options, id=name, marks=ONE_MACHINE if name in FOR_ONE else ()) for name, options in CLIENTS.items()],
)
async def test_every_feature_works_over_a_client(redis: Redis, redis_address: str, options: dict[str, Any]) -> None:
    client_options = {name: value for name, value in options.items() if name != "block_ms"}
    async with connected(redis_address, **client_options) as client:
        await use_every_feature(client, redis, block_ms=options.get("block_ms", 500))
    await check_keys(redis)


async def test_every_feature_works_over_a_blocking_pool(redis: Redis, redis_url: str) -> None:
    pool = BlockingConnectionPool.from_url(redis_url, max_connections=1, timeout=5)
    async with Redis.from_pool(pool) as client:
        await use_every_feature(client, redis)
    await check_keys(redis)


async def test_a_busy_connection_pool_is_waited_for(redis: Redis, redis_url: str) -> None:
    async with Redis.from_url(redis_url, max_connections=1) as client:
        connection = await client.connection_pool.get_connection()
        emitting = asyncio.create_task(make_emitter(client).emit(DvOrder()))
        await asyncio.sleep(0.1)
        assert not emitting.done()
        await client.connection_pool.release(connection)
        await asyncio.wait_for(emitting, 30)
    assert await redis.xlen("dv:events") == 1


async def test_the_client_stays_open(redis: Redis, redis_url: str) -> None:
    async with Redis.from_url(redis_url) as client:
        async with running(make_router(client)):
            pass
        assert await client.ping()
