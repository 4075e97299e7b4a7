"""exclusive=True: one consumer of the group is active at a time, and another takes over in order."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Redis

from rapids import BaseEvent, EventRouter
from rapids._storage.keys import Source
from tests.support import eventually
from tests.worker.helpers import (
    GROUP,
    STREAM,
    DvOrder,
    consumers,
    emit_orders,
    make_emitter,
    make_router,
    pending,
    running,
    start,
    until_settled,
)

SOURCE = Source(STREAM, GROUP)


class ExTask(BaseEvent):
    number: int = 0


class Seen:
    """Routers of one group, and which of them ran what, in order."""

    def __init__(self, redis: Redis, **options: Any) -> None:
        self.redis = redis
        self.runs: list[tuple[str, int]] = []
        self.gates: dict[int, asyncio.Event] = {}
        self.options = options

    def router(self, name: str) -> EventRouter:
        options: dict[str, Any] = {"exclusive": True, "consumer": name, "batch_size": 3, "block_ms": 100}
        router = make_router(self.redis, **(options | self.options))

        @router.on(ExTask)
        async def handle(event: ExTask) -> None:
            self.runs.append((name, event.number))
            if event.number in self.gates:
                await self.gates[event.number].wait()

        return router

    @property
    def numbers(self) -> list[int]:
        return [number for _, number in self.runs]


async def emit(redis: Redis, *numbers: int) -> list[str]:
    return await make_emitter(redis).emit([ExTask(number=number) for number in numbers])


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rapids._worker.exclusivity.TTL_MS", 600)
    monkeypatch.setattr("rapids._worker.exclusivity.STANDBY_PAUSE", 0.05)


async def test_only_one_works_and_another_takes_over_when_it_stops(redis: Redis) -> None:
    seen = Seen(redis)
    first, second = seen.router("first"), seen.router("second")
    first_run = await start(first)
    await eventually(lambda: redis.exists(SOURCE.exclusive))
    async with running(second):
        await emit(redis, *range(20))
        await until_settled(redis)
        assert seen.runs == [("first", number) for number in range(20)]
        assert second.last_progress is not None

        await first.stop()
        await first_run
        await emit(redis, *range(20, 40))
        await until_settled(redis)
    assert seen.runs[20:] == [("second", number) for number in range(20, 40)]
    assert not await redis.exists(SOURCE.exclusive), "the last one to stop lets go"


@pytest.mark.parametrize("concurrency", [1, 4])
async def test_released_entries_are_delivered_before_new_ones(redis: Redis, concurrency: int) -> None:
    seen = Seen(redis, shutdown_timeout=0.05, concurrency=concurrency, order_by=lambda _: "all")
    seen.gates[0] = asyncio.Event()
    first, second = seen.router("first"), seen.router("second")
    await emit(redis, *range(20))
    async with running(first):
        await eventually(lambda: seen.runs)
        await eventually(lambda: _held(redis, "first", 3))
    seen.gates.clear()
    await emit(redis, *range(20, 30))
    async with running(second):
        await until_settled(redis)
    assert seen.runs == [("first", 0), *(("second", number) for number in range(30))]


async def _held(redis: Redis, consumer: str, least: int) -> bool:
    return (await consumers(redis)).get(consumer, 0) >= least


async def test_a_suspended_exclusive_consumer_begins_nothing_more(
    redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "rapids")
    seen = Seen(redis)
    seen.gates[0] = asyncio.Event()
    async with running(seen.router("first")):
        await emit(redis, 0, 1, 2)
        await eventually(lambda: seen.runs)
        await redis.set(SOURCE.exclusive, "another process", px=60_000)
        await eventually(lambda: "another consumer became active" in caplog.text)
        seen.gates[0].set()
        await emit(redis, 3)
        await eventually(lambda: _held(redis, "first", 2))
        assert seen.numbers == [0]
        await redis.delete(SOURCE.exclusive)  # the other one is gone, and has done nothing
        await until_settled(redis)
    assert seen.numbers == [0, 1, 2, 3]
    assert caplog.text.count("another consumer became active") == 1
    assert await pending(redis) == []


# --- in processes of their own --------------------------------------------------------------------------------------

WORKER = """
import asyncio, os, sys
from rapids import BaseEvent
from tests.servers.client import connect
from tests.worker.helpers import make_router

class ExTask(BaseEvent):
    number: int = 0

async def main(url, name):
    redis = connect(url)
    router = make_router(redis, exclusive=True, consumer=name, claim_min_idle_ms=60_000, concurrency=4,
                         order_by=lambda event: event.number % 3)

    @router.on(ExTask)
    async def handle(event):
        await redis.rpush(f"ran:{event.number % 3}", event.number)
        await redis.rpush("by:" + name, event.number)
        await asyncio.sleep(0.01)

    await router.start()

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.fixture
def worker(redis_address: str, tmp_path: Path) -> Iterator[Any]:
    script, started = tmp_path / "worker.py", list[subprocess.Popen[bytes]]()
    script.write_text(WORKER)

    def begin(name: str) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "PYTHONPATH": os.getcwd()}
        started.append(subprocess.Popen([sys.executable, str(script), redis_address, name], env=environment))
        return started[-1]

    yield begin
    for process in started:
        process.kill()
        process.wait()


@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGSTOP])
@pytest.mark.slow
async def test_within_seconds_of_its_death_another_one_continues_in_order(
    redis: Redis, worker: Any, blow: signal.Signals
) -> None:
    """Though its leases last for a minute."""
    await emit(redis, *range(300))
    first = worker("first")
    await eventually(lambda: redis.llen("by:first"))
    worker("second")
    await eventually(lambda: _more_than(redis, "by:first", 20))
    os.kill(first.pid, blow)
    await eventually(lambda: redis.llen("by:second"))
    os.kill(first.pid, signal.SIGCONT)
    await until_settled(redis)
    for key in range(3):
        ran = [int(number) for number in await redis.lrange(f"ran:{key}", 0, -1)]
        once = list(dict.fromkeys(ran))
        assert once == list(range(key, 300, 3)), "out of order, or lost"
        assert len(ran) - len(once) <= 12, "more than what it was at, and what it had not acknowledged yet, ran twice"


async def _more_than(redis: Redis, key: str, count: int) -> bool:
    return await redis.llen(key) > count


async def test_an_exclusive_consumer_claims_abandoned_entries_in_the_order_of_the_stream(redis: Redis) -> None:
    await emit_orders(redis, *range(5))
    await redis.xgroup_create(STREAM, GROUP, "0")
    await redis.xreadgroup(GROUP, "b", {STREAM: ">"}, count=2)
    await redis.xreadgroup(GROUP, "a", {STREAM: ">"}, count=3)
    router, seen = make_router(redis, exclusive=True, consumer="c"), []

    @router.on(DvOrder)
    async def handle(event: DvOrder) -> None:
        seen.append(event.number)

    async with running(router):
        await until_settled(redis)
    assert seen == list(range(5))


async def test_a_stop_releases_the_exclusive_key_at_once(redis: Redis) -> None:
    router = make_router(redis, exclusive=True)

    @router.on(DvOrder)
    async def handle(event: DvOrder) -> None: ...

    async with running(router):
        await eventually(lambda: redis.exists(SOURCE.exclusive))
    assert not await redis.exists(SOURCE.exclusive)
