"""Events that take longer to arrive than an answer may take: time limits end what stands still, not what is slow."""

from __future__ import annotations

import asyncio

import pytest
from redis.asyncio import Redis

from rapids import EventRouter, current_delivery
from rapids._worker import worker
from tests.redis.proxy import proxy_to
from tests.support import SOON, eventually
from tests.worker.helpers import (
    GROUP,
    STREAM,
    DvOrder,
    letters,
    make_emitter,
    make_router,
    running,
    settled,
    until_settled,
)

pytestmark = pytest.mark.slow  # a slow network is the subject

RATE, LARGE = 400_000, "x" * 2_400_000
"""Bytes per second, and text that takes six seconds."""


@pytest.fixture(autouse=True)
def short_answer_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "ANSWER_TIMEOUT", 1.5)


@pytest.mark.parametrize("options", [{}, {"exclusive": True}])
async def test_an_event_that_takes_longer_to_arrive_than_its_lease_runs_once(
    redis: Redis, redis_url: str, caplog: pytest.LogCaptureFixture, options: dict[str, object]
) -> None:
    seen = list[tuple[str, int, int]]()

    def routes(client: Redis, name: str) -> EventRouter:
        router = make_router(client, consumer=name, claim_min_idle_ms=2_000, **options)

        @router.on(DvOrder)
        async def handle(event: DvOrder) -> None:
            delivery = current_delivery()
            assert delivery is not None
            seen.append((name, event.number, delivery.deliveries))

        return router

    await redis.xgroup_create(STREAM, GROUP, "0", mkstream=True)
    await make_emitter(redis).emit([DvOrder(number=1, text=LARGE), DvOrder(number=2), DvOrder(number=3)])
    async with proxy_to(redis_url) as proxy, Redis.from_url(proxy.url) as through:
        slow, other = routes(through, "slow"), routes(redis, "other")
        proxy.rate = RATE
        async with running(slow):
            await eventually(lambda: _given(redis))
            async with running(other):
                while not await settled(redis):
                    health = await slow.health()
                    assert health.ready, health
                    await asyncio.sleep(0.1)
    assert seen == [("slow", 1, 1), ("slow", 2, 1), ("slow", 3, 1)]
    assert "Redis unavailable" not in caplog.text


async def _given(redis: Redis) -> bool:
    return bool((await redis.xpending(STREAM, GROUP))["pending"])


async def test_a_large_abandoned_event_is_fetched_apart_and_others_run_meanwhile(
    redis: Redis, redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    await redis.xgroup_create(STREAM, GROUP, "0", mkstream=True)
    await make_emitter(redis).emit(DvOrder(number=1, text=LARGE))
    await redis.xreadgroup(GROUP, "dead", {STREAM: ">"})
    async with proxy_to(redis_url) as proxy, Redis.from_url(proxy.url) as through:
        router, seen = make_router(through, claim_min_idle_ms=2_000, concurrency=2), list[tuple[int, int]]()

        @router.on(DvOrder)
        async def handle(event: DvOrder) -> None:
            delivery = current_delivery()
            assert delivery is not None
            seen.append((event.number, delivery.deliveries))

        proxy.rate = RATE
        async with running(router):
            await eventually(lambda: _has_count(redis, 2))
            await make_emitter(redis).emit(DvOrder(number=2))
            await until_settled(redis)
        assert seen == [(2, 1), (1, 2)]
    assert "Redis unavailable" not in caplog.text


async def _has_count(redis: Redis, deliveries: int) -> bool:
    rows = await redis.xpending_range(STREAM, GROUP, "-", "+", 10)
    return [row["times_delivered"] for row in rows] == [deliveries]


async def test_the_longer_socket_timeout_of_the_client_is_honoured(
    redis: Redis, redis_url: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "ANSWER_TIMEOUT", 0.2)
    async with proxy_to(redis_url) as proxy, Redis.from_url(proxy.url, socket_timeout=SOON) as through:
        router, seen = make_router(through), list[int]()

        @router.on(DvOrder)
        async def handle(event: DvOrder) -> None:
            seen.append(event.number)

        async with running(router):
            proxy.delay = 0.8
            await make_emitter(redis).emit([DvOrder(number=1), DvOrder(number=2)])
            await until_settled(redis)
            proxy.delay = 0.0
        assert seen == [1, 2]
    assert "Redis unavailable" not in caplog.text


async def test_an_answer_that_stands_still_ends(redis: Redis, redis_url: str, caplog: pytest.LogCaptureFixture) -> None:
    """It began to arrive, and nothing more came: the event is fetched again on a new connection."""
    async with proxy_to(redis_url) as proxy, Redis.from_url(proxy.url) as through:
        router, seen = make_router(through, claim_min_idle_ms=3_600_000), list[int]()

        @router.on(DvOrder)
        async def handle(event: DvOrder) -> None:
            seen.append(event.number)

        def stand_still(reply: bytes) -> bytes:
            proxy.swallows = True
            return reply

        async with running(router):
            await asyncio.sleep(0)
            proxy.rewrite_reply_to(b"XREADGROUP", stand_still)
            await make_emitter(redis).emit(DvOrder(number=1, text=LARGE))
            await eventually(lambda: "Redis unavailable" in caplog.text)
            proxy.swallows = False
            await until_settled(redis)
        assert seen == [1]
    assert await letters(redis) == []
