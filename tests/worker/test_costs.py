"""What an event costs, counted: round trips, commands and tasks. Timings are for `make bench`."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest
from redis.asyncio import Redis

from rapids import BaseEvent, EventEmitter
from tests.redis.proxy import Proxy
from tests.support import SOON, eventually
from tests.worker.helpers import STREAM, calls, fields_of, looks, make_router, running, settled, until_settled


class CtEvent(BaseEvent):
    number: int = 0


async def fill(redis: Redis, count: int) -> None:
    async with redis.pipeline(transaction=False) as filling:
        for number in range(count):
            filling.xadd(STREAM, fields_of(CtEvent(number=number)))  # type: ignore[arg-type]
        await filling.execute()


async def test_a_busy_router_needs_one_round_trip_for_a_batch(proxy: Proxy, redis: Redis) -> None:
    seen: list[int] = []
    await fill(redis, 2_000)
    async with Redis.from_url(proxy.url) as through:
        router = make_router(through, batch_size=100, block_ms=5_000)

        @router.on(CtEvent)
        async def handle(event: CtEvent) -> None:
            seen.append(event.number)

        before, proxy.words = await calls(redis), (b"XREADGROUP", b"XACK")
        async with running(router):
            await eventually(lambda: len(seen) == 2_000, interval=0.001)
            spent, packets = await calls(redis) - before, proxy.requests_with_words
    assert seen == list(range(2_000))
    assert spent["xreadgroup"] <= 22
    assert spent["xack"] <= 30, "acknowledgements do not ride with reads"
    assert packets <= 22 + 30, "more than the reads, and a few acknowledgements by themselves"


async def test_an_entry_now_and_then_costs_a_read_and_an_acknowledgement(proxy: Proxy, redis: Redis) -> None:
    emitter, seen = EventEmitter(redis, STREAM), asyncio.Event()
    async with Redis.from_url(proxy.url) as through:
        router = make_router(through, block_ms=5_000)

        @router.on(CtEvent)
        async def handle(event: CtEvent) -> None:
            seen.set()

        async with running(router):
            await emitter.emit(CtEvent())
            await until_settled(redis)
            before = await calls(redis)
            for number in range(20):
                seen.clear()
                await emitter.emit(CtEvent(number=number))
                await seen.wait()
                await eventually(lambda: settled(redis), interval=0.002)
            spent = await calls(redis) - before
    assert spent["xreadgroup"] <= 21
    assert spent["xack"] == 20
    assert spent["eval"] + spent["fcall"] == 0


async def test_acknowledgements_go_out_by_themselves_while_a_read_blocks(redis: Redis) -> None:
    router = make_router(redis, block_ms=60_000)

    @router.on(CtEvent)
    async def handle(event: CtEvent) -> None: ...

    async with running(router):
        await EventEmitter(redis, STREAM).emit(CtEvent())
        await until_settled(redis, timeout=SOON)  # and not after a minute


async def test_an_idle_router_asks_for_little(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(make_router(redis, block_ms=60_000)):
        before = sum((await calls(redis)).values())
        turns = len([None for _ in range(2)])
        await eventually(lambda: _later(redis, before, turns))
        spent = sum((await calls(redis)).values()) - before
    # Twice a look at both streams, each a count of pending entries and a claim with a few commands inside.
    assert spent <= 60


async def _later(redis: Redis, before: int, turns: int) -> bool:
    return await looks(redis) >= turns + 1


@pytest.mark.parametrize("concurrency", [1, 50])
async def test_no_task_and_no_timer_is_made_for_an_event(redis: Redis, concurrency: int) -> None:
    loop, made = asyncio.get_running_loop(), Counter[str]()
    await fill(redis, 1_000)
    left = 1_000
    done = asyncio.Event()
    router = make_router(redis, batch_size=100, concurrency=concurrency)

    @router.on(CtEvent)
    async def handle(event: CtEvent) -> None:
        nonlocal left
        left -= 1
        if not left:
            done.set()

    def factory(loop: Any, coro: Any, **options: Any) -> asyncio.Task[Any]:
        made["tasks"] += 1
        return asyncio.Task(coro, loop=loop, **options)

    call_at = loop.call_at

    def counted(*args: Any, **options: Any) -> Any:
        made["timers"] += 1
        return call_at(*args, **options)

    task = asyncio.create_task(router.start())
    await router.wait_started()
    loop.set_task_factory(factory)
    loop.call_at = counted  # type: ignore[method-assign]
    try:
        await asyncio.wait_for(done.wait(), 30)
    finally:
        loop.set_task_factory(None)
        loop.call_at = call_at  # type: ignore[method-assign]
    spent = Counter(made)
    await router.stop()
    await task
    # Before Python 3.12 redis-py makes a task and a timer for each packet it sends, of which there are a few a batch.
    assert spent["tasks"] < 100
    assert spent["timers"] < 150


async def test_emits_at_once_share_round_trips(proxy: Proxy) -> None:
    async with Redis.from_url(proxy.url) as through:
        emitter = EventEmitter(through, STREAM)
        await emitter.emit(CtEvent())
        before = proxy.requests
        await asyncio.gather(*(emitter.emit(CtEvent(number=number)) for number in range(500)))
        assert proxy.requests - before <= 6
