"""Settlements that are in progress when the router stops or the group is lost."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeAlias

import pytest
from redis.asyncio import Redis

from rapids._storage import scripts
from rapids._storage.keys import Source
from rapids.backoff import constant
from rapids.exceptions import NonRetryableError, RetryAfter
from tests.redis.proxy import Proxy, proxy_to
from tests.support import eventually
from tests.worker.helpers import (
    GROUP,
    STREAM,
    DvOrder,
    consumers,
    emit_orders,
    letters,
    make_router,
    pending,
    running,
    start,
    until_settled,
)

Stop: TypeAlias = Callable[[], Awaitable[None]]


SETTLE = scripts.load("settle").sha.encode()


async def test_stop_waits_for_a_settlement_in_progress(redis: Redis, redis_url: str) -> None:
    async with proxy_to(redis_url) as proxy, Redis.from_url(proxy.url) as through:
        router = make_router(through, redelivery_backoff=constant(60), claim_min_idle_ms=60_000)

        @router.on(DvOrder)
        async def handle(event: DvOrder) -> None:
            raise ValueError

        task = await start(router)
        proxy.hold_up(SETTLE)
        await emit_orders(redis, 0)
        await eventually(lambda: proxy.holds)
        stopping = asyncio.create_task(router.stop())
        await asyncio.wait([stopping], timeout=1.7)  # a blocked read has 1 s, the flush 2 s more
        early = stopping.done()
        owners = set(await consumers(redis)) if early else set()
        proxy.let_through()
        await stopping
        await task
        assert not early, f"stopped with the settlement under way: {owners}"
        assert (await consumers(redis)).get("rapids:waiting") == 1


async def test_stop_during_a_pause_writes_the_letter(redis: Redis) -> None:
    router, failing = make_router(redis), asyncio.Event()

    @router.on(DvOrder)
    async def handle(event: DvOrder) -> None:
        await redis.client_pause(1_000)
        failing.set()
        raise NonRetryableError("no")

    task = await start(router)
    await emit_orders(redis, 0)
    await failing.wait()
    await router.stop()
    await task
    assert len(await letters(redis)) == 1


@asynccontextmanager
async def settlement_held_up_while_the_group_is_lost(redis: Redis, redis_url: str) -> AsyncIterator[tuple[Proxy, Stop]]:
    """One consumer's letter is on its way when another makes the group again, in which the entry is not pending."""
    async with proxy_to(redis_url) as proxy, Redis.from_url(proxy.url) as through:
        router, failing, go_on = make_router(through, claim_min_idle_ms=60_000), asyncio.Event(), asyncio.Event()

        @router.on(DvOrder)
        async def handle(event: DvOrder) -> None:
            failing.set()
            await go_on.wait()
            raise NonRetryableError("no")

        other = make_router(redis, consumer="other")

        @other.on(DvOrder)
        async def handle_too(event: DvOrder) -> None: ...

        async with running(router):
            await emit_orders(redis, 0)
            await failing.wait()
            async with running(other):
                proxy.hold_up(SETTLE)
                go_on.set()
                await eventually(lambda: proxy.holds)
                await redis.xgroup_destroy(STREAM, GROUP)
                await eventually(lambda: redis.xinfo_groups(STREAM))
                yield proxy, router.stop


async def test_stop_loses_no_letter_of_a_recreated_group(redis: Redis, redis_url: str) -> None:
    """Its entry is pending nowhere: what the settler has under way is all there is of it."""
    async with settlement_held_up_while_the_group_is_lost(redis, redis_url) as (proxy, stop):
        stopping = asyncio.create_task(stop())
        await asyncio.wait([stopping], timeout=1.7)
        proxy.let_through()
        await stopping
        await until_settled(redis)
    assert len(await letters(redis)) == 1, (await pending(redis), await redis.xinfo_groups(STREAM))


async def test_a_settlement_that_never_arrived_is_written_to_the_recreated_group(
    redis: Redis, redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The answer was lost, and so was the group: that the entry is not pending does not say that it was settled."""
    async with settlement_held_up_while_the_group_is_lost(redis, redis_url) as (proxy, _):
        await redis.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        await eventually(lambda: "Redis unavailable, retrying" in caplog.text)
        proxy.let_through()
        await eventually(lambda: letters(redis))
    assert len(await letters(redis)) == 1, (await pending(redis), await redis.xinfo_groups(STREAM))


async def test_it_is_written_too_if_the_worker_never_noticed_that_the_group_was_lost(
    redis: Redis, redis_url: str
) -> None:
    """Another process was faster to recreate it: each read of this one found a group."""
    async with proxy_to(redis_url) as proxy, Redis.from_url(proxy.url) as through:
        router, go_on = make_router(through, claim_min_idle_ms=60_000), asyncio.Event()

        @router.on(DvOrder)
        async def handle(event: DvOrder) -> None:
            await go_on.wait()
            raise NonRetryableError("no")

        async with running(router):
            [entry_id] = await emit_orders(redis, 0)
            await eventually(lambda: pending(redis))
            proxy.hold_up(SETTLE)
            go_on.set()
            await eventually(lambda: proxy.holds)
            async with redis.pipeline(transaction=True) as lost_and_recreated:
                lost_and_recreated.xgroup_destroy(STREAM, GROUP)
                lost_and_recreated.xgroup_create(STREAM, GROUP, entry_id)
                await lost_and_recreated.execute()
            seconds, micros = await redis.time()
            recreated = Source(STREAM, GROUP).recreated
            await redis.set(recreated, seconds * 1000 + micros // 1000, px=60_000)
            cutting = asyncio.create_task(proxy.cut())
            proxy.let_through()  # to a connection that is cut
            await cutting
            await eventually(lambda: letters(redis))
    assert len(await letters(redis)) == 1


async def test_a_log_filter_that_raises_prevents_no_settlement(redis: Redis) -> None:
    raised = []

    class Broken(logging.Filter):
        def filter(self, record: logging.LogRecord) -> bool:
            if "failed; next one" in record.getMessage() and not raised:
                raised.append(1)
                raise ValueError("broken filter")
            return True

    router, seen = make_router(redis, claim_min_idle_ms=300), []
    log = logging.getLogger("rapids.worker")
    broken = Broken()
    log.addFilter(broken)

    @router.on(DvOrder)
    async def handle(event: DvOrder) -> None:
        seen.append(event.number)
        if seen.count(event.number) == 1:
            raise ValueError

    try:
        # several in one batch: held in one flush by a pause
        async with running(router):
            await redis.client_pause(500, all=False)
            await redis.client_unpause()
            await emit_orders(redis, *range(10))
            await until_settled(redis)
    finally:
        log.removeFilter(broken)


async def test_a_retry_after_of_any_length_is_accepted(redis: Redis) -> None:
    router, seen = make_router(redis), []

    @router.on(DvOrder)
    async def handle(event: DvOrder) -> None:
        seen.append(event.number)
        if event.number == 0:
            raise RetryAfter(1e17)
        if seen.count(event.number) == 1:
            raise ValueError

    async with running(router):
        await emit_orders(redis, *range(3))
        await eventually(lambda: sorted(seen) == [0, 1, 1, 2, 2])
        await eventually(lambda: _owners(redis))


async def _owners(redis: Redis) -> bool:
    return [row["consumer"] for row in await pending(redis)] == [b"rapids:waiting"]
