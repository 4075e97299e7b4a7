"""Entries that another process takes, or could take, while this one holds them."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from redis.asyncio import Redis

from tests.support import eventually
from tests.worker.helpers import (
    GROUP,
    STREAM,
    DvOrder,
    blocked,
    calls,
    consumers,
    emit_orders,
    make_router,
    pending,
    running,
    until_settled,
)


async def test_more_leases_than_one_chunk_are_renewed(redis: Redis) -> None:
    holding, seen, go_on = make_router(redis, claim_min_idle_ms=1_000, batch_size=1_000), [], asyncio.Event()
    other = make_router(redis, claim_min_idle_ms=1_000)

    @holding.on(DvOrder)
    async def handle(event: DvOrder) -> None:
        seen.append(event.number)
        await go_on.wait()

    @other.on(DvOrder)
    async def handle_too(event: DvOrder) -> None:
        seen.append(-event.number)

    await emit_orders(redis, *range(700))
    async with running(holding):
        await eventually(lambda: _count_pending(redis, 700))
        async with running(other):
            before = (await calls(redis))["xclaim"]
            await eventually(lambda: _has_claimed(redis, before + 12))  # six renewals of two chunks: two seconds
            go_on.set()
            await until_settled(redis)
    assert min(seen) == 0, "another took what this one held"


async def _count_pending(redis: Redis, count: int) -> bool:
    return len(await pending(redis)) == count


async def _has_claimed(redis: Redis, times: int) -> bool:
    return (await calls(redis))["xclaim"] >= times


async def test_an_entry_that_another_consumer_settled_is_logged(redis: Redis, caplog: pytest.LogCaptureFixture) -> None:
    router, begun, go_on = make_router(redis, claim_min_idle_ms=1_000), asyncio.Event(), asyncio.Event()

    @router.on(DvOrder)
    async def handle(event: DvOrder) -> None:
        begun.set()
        await go_on.wait()
        raise ValueError

    async with running(router):
        [entry_id] = await emit_orders(redis, 0)
        await begun.wait()
        await redis.xclaim(STREAM, GROUP, "another", 0, [entry_id])
        await eventually(lambda: "lease lost" in caplog.text)
        await redis.xack(STREAM, GROUP, entry_id)
        go_on.set()
        await eventually(lambda: "settled by another" in caplog.text)
    [record] = [record for record in caplog.records if "settled by another" in record.getMessage()]
    assert {"stream", "group", "consumer", "entry_id", "event_id"} <= vars(record).keys()


WORKER = """
import asyncio, sys
from tests.servers.client import connect
from tests.worker.helpers import DvOrder, make_router

async def main():
    redis = connect(sys.argv[1])
    router = make_router(redis, consumer="stopped", claim_min_idle_ms=400, block_ms=60_000)
    @router.on(DvOrder)
    async def handle(event):
        await redis.rpush("ran", event.number)
    await router.start()
asyncio.run(main())
"""


@pytest.mark.slow
async def test_a_process_stopped_while_its_read_blocks_runs_no_entry_that_others_claimed(
    redis: Redis, redis_address: str
) -> None:
    worker = subprocess.Popen([sys.executable, "-c", WORKER, redis_address], cwd=Path(__file__).parents[2])
    try:
        await emit_orders(redis, 100)
        await eventually(lambda: redis.lrange("ran", 0, -1))
        await eventually(lambda: _nothing_pending(redis))
        await eventually(lambda: _blocks(redis))
        os.kill(worker.pid, signal.SIGSTOP)
        await emit_orders(redis, 1)
        assert (await consumers(redis))["stopped"] == 1
        router, seen, go_on = make_router(redis, claim_min_idle_ms=400, consumer="other"), [], asyncio.Event()

        @router.on(DvOrder)
        async def handle(event: DvOrder) -> None:
            seen.append(event.number)
            await go_on.wait()

        async with running(router):
            await eventually(lambda: 1 in seen)
            os.kill(worker.pid, signal.SIGCONT)
            await eventually(lambda: _took_another(redis))
            go_on.set()
            await until_settled(redis)
        assert b"1" not in await redis.lrange("ran", 0, -1), "it ran what another had claimed"
    finally:
        worker.kill()
        worker.wait()


async def _blocks(redis: Redis) -> bool:
    return await blocked(redis) == 1


async def _nothing_pending(redis: Redis) -> bool:
    return not await pending(redis)


async def _took_another(redis: Redis) -> bool:
    await emit_orders(redis, 100)
    return len(await redis.lrange("ran", 0, -1)) > 1
