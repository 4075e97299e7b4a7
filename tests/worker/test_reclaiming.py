"""Abandoned entries: of another consumer, a killed process or an earlier process of this name; and trimmed ones."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from redis.asyncio import Redis

from rapids import current_delivery
from tests.support import SOON, eventually
from tests.worker.helpers import (
    GROUP,
    STREAM,
    DvOrder,
    as_text,
    calls,
    check_keys,
    consumers,
    letters,
    looks,
    make_emitter,
    make_router,
    pending,
    running,
    until_settled,
)


async def left_by(redis: Redis, consumer: str, count: int) -> list[str]:
    """Emit events and let a consumer take them and say nothing more."""
    ids = await make_emitter(redis).emit([DvOrder(number=number) for number in range(count)])
    await redis.xgroup_create(STREAM, GROUP, "0")
    await redis.xreadgroup(GROUP, consumer, {STREAM: ">"}, count=count)
    return ids


async def test_entries_of_an_earlier_process_of_the_same_name_are_recalled_at_once(redis: Redis) -> None:
    await left_by(redis, "worker", 50)
    router, seen = make_router(redis, consumer="worker", claim_min_idle_ms=60_000), []

    @router.on(DvOrder)
    async def handle(event: DvOrder) -> None:
        delivery = current_delivery()
        assert delivery is not None
        seen.append((event.number, delivery.deliveries))

    async with running(router):
        await until_settled(redis)
    assert sorted(seen) == [(number, 2) for number in range(50)]
    await check_keys(redis)


async def test_entries_that_another_consumer_has_are_not_recalled(redis: Redis) -> None:
    """Both look at the list of what "worker" left; only one may have each."""
    await left_by(redis, "worker", 40)
    seen: list[int] = []

    async def handle(event: DvOrder) -> None:
        seen.append(event.number)
        await asyncio.sleep(0.05)

    routers = [make_router(redis, consumer=name, claim_min_idle_ms=1_000, batch_size=2) for name in ("worker", "other")]
    for router in routers:
        router.on(DvOrder)(handle)
    async with running(*routers):
        await until_settled(redis)
    assert sorted(seen) == list(range(40))


async def test_entries_of_a_dead_consumer_are_reclaimed_in_time(redis: Redis) -> None:
    router, seen = make_router(redis, claim_min_idle_ms=300), []

    @router.on(DvOrder)
    async def handle(event: DvOrder) -> None:
        seen.append((event.number, time.monotonic()))

    async with running(router):
        await redis.xgroup_create(STREAM, "another", "0")  # only so that the group is not alone
        await router.stop()
    await make_emitter(redis).emit([DvOrder(number=number) for number in range(30)])
    await redis.xreadgroup(GROUP, "dead", {STREAM: ">"})
    left_at = time.monotonic()

    async with running(router):
        await until_settled(redis)

    assert sorted(number for number, _ in seen) == list(range(30))
    assert min(at for _, at in seen) - left_at >= 0.29
    assert max(at for _, at in seen) - left_at < SOON


async def test_entries_are_reclaimed_between_reads_under_any_load(redis: Redis) -> None:
    await left_by(redis, "dead", 1)
    router, seen = make_router(redis, claim_min_idle_ms=200, claim_interval=1_000_000), []
    emitter, stop = make_emitter(redis), asyncio.Event()

    @router.on(DvOrder)
    async def handle(event: DvOrder) -> None:
        seen.append(event.text)
        await asyncio.sleep(0.005)

    async def load() -> None:
        while not stop.is_set():
            await emitter.emit([DvOrder(text="new") for _ in range(50)])
            await asyncio.sleep(0.02)

    async with running(router):
        loading = asyncio.create_task(load())
        try:
            await eventually(lambda: "" in seen)
        finally:
            stop.set()
            await loading
    assert "new" in seen


async def _looked(redis: Redis, times: int) -> None:
    """Wait until routers have looked so many times more."""
    before = await looks(redis)

    async def enough() -> bool:
        return await looks(redis) >= before + times

    await eventually(enough)


async def test_claim_interval_looks_after_so_many_reads(redis: Redis) -> None:
    async def looks_with(claim_interval: int) -> int:
        router = make_router(redis, claim_interval=claim_interval, block_ms=20)
        async with running(router):
            before = await calls(redis)

            async def since() -> Counter[str]:
                done = await calls(redis) - before
                return done if done["xreadgroup"] >= 30 else Counter()

            done = await eventually(since)
            return done["hmget"]

    assert await looks_with(claim_interval=1) > 3 + await looks_with(claim_interval=1_000)


WORKER = Path(__file__).with_name("killed_worker.py")


@pytest.mark.smoke
@pytest.mark.slow
async def test_a_worker_killed_in_the_middle_loses_nothing(redis: Redis, redis_address: str) -> None:
    count = 60
    await make_emitter(redis).emit([DvOrder(number=number) for number in range(count)])
    worker = await asyncio.create_subprocess_exec(sys.executable, str(WORKER), redis_address, cwd=WORKER.parents[2])
    try:
        await eventually(lambda: _has_done(redis, 10))
        os.kill(worker.pid, signal.SIGKILL)
    finally:
        await worker.wait()
    done_before = await redis.llen("done")
    assert 10 <= done_before < count

    router = make_router(redis, claim_min_idle_ms=300)

    @router.on(DvOrder)
    async def handle(event: DvOrder) -> None:
        await redis.rpush("done", event.number)

    async with running(router):
        await until_settled(redis)

    done = [int(number) for number in await redis.lrange("done", 0, -1)]
    assert set(done) == set(range(count))
    # Twice only what was in flight: the entry under way and settlements not yet confirmed.
    assert len(done) - count <= 3
    await redis.delete("done")
    await check_keys(redis)
    assert await letters(redis) == []


async def _has_done(redis: Redis, count: int) -> bool:
    return await redis.llen("done") >= count


# --- lost: pending, but trimmed -------------------------------------------------------------------------------------


async def test_trimmed_entries_are_acknowledged_and_logged_with_their_ids(
    redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    ids = await left_by(redis, "dead", 5)
    await redis.xtrim(STREAM, minid=ids[3], approximate=False)
    router, seen = make_router(redis, claim_min_idle_ms=50), []

    @router.on(DvOrder)
    async def handle(event: DvOrder) -> None:
        seen.append(event.number)

    with caplog.at_level(logging.ERROR, "rapids"):
        async with running(router):
            await until_settled(redis)

    assert sorted(seen) == [3, 4]
    lost = [entry_id for record in caplog.records for entry_id in getattr(record, "lost", ())]
    assert sorted(lost) == ids[:3]
    await check_keys(redis)


async def test_trimmed_entries_of_an_earlier_process_of_the_same_name_are_acknowledged(redis: Redis) -> None:
    await left_by(redis, "worker", 5)
    await redis.xtrim(STREAM, maxlen=0, approximate=False)
    async with running(make_router(redis, consumer="worker")):
        await eventually(lambda: _nothing_pending(redis))


async def test_an_entry_trimmed_while_it_waits_is_lost(redis: Redis, caplog: pytest.LogCaptureFixture) -> None:
    router, seen = make_router(redis, redelivery_backoff=lambda failures: 0.3), []

    @router.on(DvOrder)
    async def fail(event: DvOrder) -> None:
        seen.append(event.number)
        raise ValueError

    with caplog.at_level(logging.ERROR, "rapids"):
        async with running(router):
            [entry_id] = await make_emitter(redis).emit([DvOrder()])
            await eventually(lambda: _waits(redis))
            await redis.xtrim(STREAM, maxlen=0, approximate=False)
            await eventually(lambda: _nothing_pending(redis))
    assert seen == [0]
    assert [record.lost for record in caplog.records if hasattr(record, "lost")] == [[entry_id]]
    await check_keys(redis)


@pytest.mark.parametrize("fails", [False, True])
async def test_an_entry_trimmed_while_it_is_handled(
    redis: Redis, caplog: pytest.LogCaptureFixture, fails: bool
) -> None:
    router, seen = make_router(redis), []

    @router.on(DvOrder)
    async def handle(event: DvOrder) -> None:
        await redis.xtrim(STREAM, maxlen=0, approximate=False)
        seen.append(event.number)
        if fails:
            raise ValueError

    with caplog.at_level(logging.ERROR, "rapids"):
        async with running(router):
            await make_emitter(redis).emit(DvOrder(number=1))
            await eventually(lambda: bool(seen))
            await eventually(lambda: _nothing_pending(redis))
    assert seen == [1]
    assert "lost" not in caplog.text
    assert len(await letters(redis)) == fails  # this process holds what is to be in it
    await check_keys(redis)


async def _waits(redis: Redis) -> bool:
    return (await consumers(redis)).get("rapids:waiting") == 1


async def _nothing_pending(redis: Redis) -> bool:
    return await pending(redis) == []


# --- parked ---------------------------------------------------------------------------------------------------------


async def test_without_a_dead_letter_stream_an_exhausted_entry_is_parked(
    redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    router, seen = make_router(redis, dlq_stream=None, max_deliveries=2, claim_min_idle_ms=50), []

    @router.on(DvOrder)
    async def fail(event: DvOrder) -> None:
        seen.append(event.number)
        if event.number == 1:
            raise ValueError("broken")

    with caplog.at_level(logging.ERROR, "rapids"):
        async with running(router):
            ids = await make_emitter(redis).emit([DvOrder(number=number) for number in (1, 2)])
            await eventually(lambda: _has_parked(redis, 1))
            await _looked(redis, 1)

    assert seen == [1, 2, 1]
    [entry] = await pending(redis)
    assert (as_text(entry["message_id"]), as_text(entry["consumer"])) == (ids[0], "rapids:parked")
    [record] = [record for record in caplog.records if "parked" in record.getMessage()]
    assert vars(record)["entry_id"] == ids[0]
    assert await redis.hkeys("{dv:events}:rapids:parked:dv-group") == [ids[0].encode()]
    await check_keys(redis, settled=False)


async def test_a_parked_entry_is_not_run_after_a_restart(redis: Redis) -> None:
    router, seen = make_router(redis, dlq_stream=None, max_deliveries=1, claim_min_idle_ms=50, consumer="worker"), []

    @router.on(DvOrder)
    async def fail(event: DvOrder) -> None:
        seen.append(event.number)
        if event.number == 1:
            raise ValueError

    async with running(router):
        await make_emitter(redis).emit(DvOrder(number=1))
        await eventually(lambda: _has_parked(redis, 1))
    async with running(router):
        await make_emitter(redis).emit(DvOrder(number=2))
        await eventually(lambda: seen[-1] == 2)
        await _looked(redis, 1)
    assert seen == [1, 2]


async def test_the_other_handlers_of_a_parked_entry_run_to_their_end(redis: Redis) -> None:
    router, seen = make_router(redis, dlq_stream=None, max_deliveries=3), []

    @router.on(DvOrder, retryable_exceptions=(KeyError,))
    async def never(event: DvOrder) -> None:
        seen.append("never")
        raise ValueError

    @router.on(DvOrder)
    async def at_last(event: DvOrder) -> None:
        seen.append("at last")
        if seen.count("at last") < 3:
            raise ValueError

    async with running(router):
        await make_emitter(redis).emit(DvOrder())
        await eventually(lambda: _has_parked(redis, 1))
    assert seen == ["never", "at last", "at last", "at last"]


async def _has_parked(redis: Redis, count: int) -> bool:
    return await redis.hlen("{dv:events}:rapids:parked:dv-group") == count
