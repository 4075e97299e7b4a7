"""A running router on a server that fails it: whatever Redis kept is handled, and the log says so in two lines."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError

from rapids import EventRouter
from rapids._core.outages import Outages
from rapids._storage.keys import Source
from rapids.backoff import constant
from tests.redis.own_server import OwnServer, own_server
from tests.redis.proxy import proxy_to
from tests.server_faults import flush_scripts, kill_all, pause, refuse_writes
from tests.servers.builds import Build
from tests.support import PATIENCE, SOON, eventually
from tests.worker.helpers import (
    GROUP,
    STREAM,
    DvOrder,
    calls,
    check_keys,
    everywhere,
    letters,
    make_emitter,
    make_idle_router,
    make_router,
    running,
    until_settled,
)


def collecting(redis: Redis, seen: list[int], **options: object) -> EventRouter:
    router = make_router(redis, **({"block_ms": 200, "claim_min_idle_ms": 500} | options))

    @router.on(DvOrder)
    async def handle(event: DvOrder) -> None:
        seen.append(event.number)
        await asyncio.sleep(0.001)

    return router


async def be_a_replica(redis: Redis) -> None:
    await redis.replicaof("127.0.0.1", "1")
    await asyncio.sleep(0.2)
    await redis.replicaof("NO", "ONE")


async def test_an_outage_is_over_once_redis_is_back_and_not_when_the_next_entry_comes(
    build: Build, caplog: pytest.LogCaptureFixture
) -> None:
    async with own_server(build) as server, Redis.from_url(server.url) as redis:
        router = make_router(redis, block_ms=60_000)
        async with running(router):
            await server.kill()
            await eventually(lambda: router.counters.total("outages") == 1)
            await server.start()
            await eventually(lambda: "Redis is back after" in caplog.text)
            assert (await router.health()).ready


ALONE = pytest.mark.standalone("who is the master is not for one server to say")


@pytest.mark.parametrize(
    "trouble", [kill_all, flush_scripts, pause, refuse_writes, pytest.param(be_a_replica, marks=ALONE)]
)
async def test_a_router_continues_after_an_outage_and_loses_nothing(
    redis: Redis, trouble: Callable[[Redis], Awaitable[None]]
) -> None:
    seen: list[int] = []
    emitter = make_emitter(redis, max_retries=100, retry_delay=0.02, timeout=PATIENCE)
    async with running(collecting(redis, seen)):
        for round_ in range(4):
            await emitter.emit([DvOrder(number=100 * round_ + number) for number in range(100)])
            await trouble(redis)
        await eventually(lambda: set(seen) == set(range(400)))
        await until_settled(redis)
    # A delivery whose answer was lost with its connection, or an acknowledgement, may come again; no more than that.
    assert len(seen) - 400 <= 4 * 30
    assert await letters(redis) == []
    await check_keys(redis)


async def test_failing_handlers_are_settled_despite_outages(redis: Redis) -> None:
    """Scripts, letters and waiting times while every connection is cut again and again."""
    router = make_router(redis, max_deliveries=2, claim_min_idle_ms=500)

    @router.on(DvOrder)
    async def handle(event: DvOrder) -> None:
        if event.number % 2:
            raise ValueError

    async with running(router):
        await make_emitter(redis).emit([DvOrder(number=number) for number in range(200)])
        for _ in range(20):
            await kill_all(redis)
            await redis.script_flush()
            await asyncio.sleep(0.02)
        await until_settled(redis)
    events = sorted(letter[b"data"] for letter in await letters(redis))
    assert len(events) == len(set(events)) == 100
    await check_keys(redis)


async def test_an_outage_is_logged_when_it_starts_and_when_it_ends(
    redis: Redis, redis_url: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    failures = Counter[str]()
    really_failed = Outages.failed

    def failed(self: Outages, operation: str, error: Exception) -> None:
        failures[operation] += 1
        really_failed(self, operation, error)

    monkeypatch.setattr(Outages, "failed", failed)
    async with proxy_to(redis_url) as proxy, Redis.from_url(proxy.url) as through:
        with caplog.at_level(logging.WARNING, "rapids"):
            async with running(collecting(through, seen, claim_min_idle_ms=60_000)):
                await proxy.refuse()
                await eventually(lambda: min(failures["reading"], failures["reclaiming"]) >= 2)
                await make_emitter(redis).emit(DvOrder(number=1))
                assert seen == []
                await proxy.accept()
                await eventually(lambda: seen == [1])
                await eventually(lambda: "Redis is back" in caplog.text)
    logged = [record.getMessage() for record in caplog.records]
    assert len([line for line in logged if "unavailable, retrying" in line]) == 1, logged
    assert len([line for line in logged if "Redis is back" in line]) == 1, logged


async def test_a_router_stops_during_an_outage(redis_url: str) -> None:
    async with proxy_to(redis_url) as proxy, Redis.from_url(proxy.url) as through:
        router = collecting(through, [], shutdown_timeout=300)
        async with running(router):
            await proxy.refuse()
            await eventually(lambda: router.counters.total("outages") == 1)
            started = time.monotonic()
        assert time.monotonic() - started < SOON


async def test_an_answer_that_never_comes_is_a_time_out(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rapids._worker.worker.ANSWER_TIMEOUT", 0.1)
    seen: list[int] = []
    async with running(collecting(redis, seen, block_ms=100)):
        await make_emitter(redis).emit([DvOrder(number=number) for number in range(50)])
        await redis.execute_command("CLIENT", "PAUSE", 800, "ALL", **everywhere(redis))
        await eventually(lambda: set(seen) == set(range(50)))
        await until_settled(redis)


# --- the group is gone ----------------------------------------------------------------------------------------------


async def test_a_destroyed_group_is_recreated_at_its_old_position(
    redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[int] = []
    async with running(collecting(redis, seen)):
        await make_emitter(redis).emit([DvOrder(number=1), DvOrder(number=2)])
        await until_settled(redis)
        await redis.xgroup_destroy(STREAM, GROUP)
        await make_emitter(redis).emit(DvOrder(number=3))
        await eventually(lambda: 3 in seen)
        await until_settled(redis)
    assert seen == [1, 2, 3]
    assert "the group was lost" in caplog.text


async def test_a_flushed_stream_starts_from_its_beginning_again(redis: Redis) -> None:
    seen: list[int] = []
    async with running(collecting(redis, seen)):
        for number in range(3):
            await make_emitter(redis).emit(DvOrder(number=number))
            await eventually(lambda number=number: number in seen)
            await redis.flushall()
    assert seen == [0, 1, 2]


async def test_a_group_is_destroyed_while_a_handler_runs(redis: Redis) -> None:
    """The handler does not run a second time at the same time, and its settlement does no harm."""
    seen: list[int] = []
    router, go_on = make_router(redis, block_ms=100, claim_min_idle_ms=600), asyncio.Event()

    @router.on(DvOrder)
    async def handle(event: DvOrder) -> None:
        seen.append(event.number)
        if event.number == 1:
            await go_on.wait()

    async with running(router):
        await make_emitter(redis).emit([DvOrder(number=1), DvOrder(number=2)])
        await eventually(lambda: seen == [1])
        await redis.xgroup_destroy(STREAM, GROUP)
        await eventually(lambda: _has_group(redis))
        await make_emitter(redis).emit(DvOrder(number=3))
        before = (await calls(redis))["xclaim"]
        await eventually(lambda: _has_claimed(redis, before + 3))  # its lease is renewed
        go_on.set()
        await eventually(lambda: {2, 3} <= set(seen))
        await until_settled(redis)
    assert seen == [1, 2, 3]
    await check_keys(redis)


async def _has_claimed(redis: Redis, times: int) -> bool:
    return (await calls(redis))["xclaim"] >= times


async def _has_group(redis: Redis) -> bool:
    return await redis.exists(STREAM) == 1 and len(await redis.xinfo_groups(STREAM)) == 1


# --- the server is gone ---------------------------------------------------------------------------------------------


@pytest.fixture
async def server(build: Build) -> AsyncIterator[OwnServer]:
    async with own_server(build) as server:
        yield server


async def test_a_router_continues_on_a_restarted_server_with_its_data(server: OwnServer) -> None:
    seen: list[int] = []
    async with Redis.from_url(server.url) as redis:
        emitter = make_emitter(redis, max_retries=200, retry_delay=0.02, timeout=PATIENCE)
        async with running(collecting(redis, seen)):
            emitting = asyncio.create_task(_emit_all(emitter, 600))
            for done in (100, 300):
                await eventually(lambda done=done: len(seen) > done)
                await server.kill()
                await asyncio.sleep(0.1)
                await server.start()
            await emitting
            await eventually(lambda: set(seen) == set(range(600)))
            await until_settled(redis)
        await check_keys(redis)


async def _emit_all(emitter: object, count: int) -> None:
    for number in range(count):
        await emitter.emit(DvOrder(number=number))  # type: ignore[attr-defined]


async def test_a_router_continues_on_a_restarted_server_without_its_data(server: OwnServer) -> None:
    seen: list[int] = []
    async with Redis.from_url(server.url) as redis, running(collecting(redis, seen)):
        await make_emitter(redis).emit(DvOrder(number=1))
        await eventually(lambda: seen == [1])
        await server.kill()
        server.lose_data()
        await server.start()
        await make_emitter(redis, max_retries=50, retry_delay=0.02, timeout=PATIENCE).emit(DvOrder(number=2))
        await eventually(lambda: 2 in seen)
    assert seen == [1, 2]


async def test_start_fails_with_an_error_while_the_server_is_unavailable(server: OwnServer) -> None:
    async with Redis.from_url(server.url) as redis:
        await server.kill()
        with pytest.raises(ConnectionError):
            await make_idle_router(redis).start()
        with pytest.raises(RedisError):
            await redis.ping()
        await server.start()
        seen: list[int] = []
        async with running(collecting(redis, seen)):
            await make_emitter(redis).emit(DvOrder(number=1))
            await eventually(lambda: seen == [1])


async def test_a_key_waits_through_an_outage_for_its_entry_that_became_due(
    redis: Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody could take it in that time, so that it is not another consumer's now."""
    monkeypatch.setattr("rapids._worker.intake.OVERDUE_GRACE", 0.2)
    seen = list[int]()
    async with proxy_to(redis_url) as proxy, Redis.from_url(proxy.url) as through:
        options = {"concurrency": 4, "order_by": lambda event: "one key", "redelivery_backoff": constant(0.3)}
        router = make_router(through, claim_min_idle_ms=60_000, **options)

        @router.on(DvOrder)
        async def handle(event: DvOrder) -> None:
            seen.append(event.number)
            if seen == [1]:
                raise ValueError

        async with running(router):
            await make_emitter(redis).emit([DvOrder(number=1), DvOrder(number=2)])
            await eventually(lambda: redis.zcard(Source(STREAM, GROUP).due))
            await proxy.refuse()
            overdue = time.monotonic() + 1.5
            await eventually(lambda: time.monotonic() > overdue)
            await proxy.accept()
            await until_settled(redis)
    assert seen == [1, 1, 2]
