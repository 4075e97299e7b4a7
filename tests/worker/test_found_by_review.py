"""What a review found: settlements whose answers are lost, stops in the middle of them, standstills, and order."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeAlias

import pytest
from redis.asyncio import Redis

from rapids import BaseEvent, EventEmitter, current_delivery
from rapids._storage import scripts
from rapids._worker import identity
from rapids._worker import worker as worker_module
from rapids.backoff import constant
from rapids.exceptions import NonRetryableError, RetryAfter
from tests.redis.proxy import Proxy, proxy_to
from tests.support import eventually
from tests.worker.helpers import (
    DLQ,
    GROUP,
    STREAM,
    add,
    blocked,
    check_keys,
    consumers,
    everywhere,
    letters,
    make_router,
    pending,
    running,
    start,
    until_settled,
)

Stop: TypeAlias = Callable[[], Awaitable[None]]

SETTLE = scripts.load("settle").sha.encode()


class RvEvent(BaseEvent):
    number: int = 0


async def emit(redis: Redis, *numbers: int) -> list[str]:
    return await EventEmitter(redis, STREAM).emit([RvEvent(number=number) for number in numbers])


async def test_stop_waits_for_a_settlement_under_way(redis: Redis, redis_url: str) -> None:
    async with proxy_to(redis_url) as proxy, Redis.from_url(proxy.url) as through:
        router = make_router(through, redelivery_backoff=constant(60), claim_min_idle_ms=60_000)

        @router.on(RvEvent)
        async def handle(event: RvEvent) -> None:
            raise ValueError

        task = await start(router)
        proxy.hold_up(SETTLE)
        await emit(redis, 0)
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

    @router.on(RvEvent)
    async def handle(event: RvEvent) -> None:
        await redis.client_pause(1_000)
        failing.set()
        raise NonRetryableError("no")

    task = await start(router)
    await emit(redis, 0)
    await failing.wait()
    await router.stop()
    await task
    assert len(await letters(redis)) == 1


async def test_a_kept_entry_due_before_the_lost_answer_was_noticed_runs_once_more_only(
    redis: Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "ANSWER_TIMEOUT", 1.5)
    async with proxy_to(redis_url) as proxy, Redis.from_url(proxy.url) as through:
        router, seen, go_on = make_router(through, redelivery_backoff=constant(0.05)), [], asyncio.Event()

        def swallow(reply: bytes) -> bytes:
            """From the answer to the settlement on: sooner, and the settlement might not get through either."""
            proxy.swallows = True
            return b""

        @router.on(RvEvent)
        async def handle(event: RvEvent) -> None:
            delivery = current_delivery()
            assert delivery is not None
            seen.append(delivery.deliveries)
            if delivery.deliveries == 1:
                proxy.rewrite_reply_to(SETTLE, swallow)
                raise ValueError
            await go_on.wait()

        other = make_router(redis, redelivery_backoff=constant(0.05), consumer="other", block_ms=200)

        @other.on(RvEvent)
        async def handle_too(event: RvEvent) -> None:
            seen.append(-1)

        await redis.script_load(scripts.load("settle").source)
        async with running(router):
            await asyncio.sleep(0.3)  # the first look for due entries is over: nothing else is to wait for its answer
            await emit(redis, 0)
            await eventually(lambda: redis.exists(f"{{{STREAM}}}:rapids:due:{GROUP}"))
            await asyncio.sleep(1.2)
            proxy.swallows = False
            await eventually(lambda: len(seen) == 2)
            async with running(other):
                await looked(redis, 4)
                go_on.set()
                await until_settled(redis)
        assert seen == [1, 2]


async def looked(redis: Redis, times: int) -> None:
    """Wait until routers have looked so many times for what is abandoned or due."""
    before = await _looks(redis)
    await eventually(lambda: _has_looked(redis, before + times))


async def _looks(redis: Redis) -> int:
    stats = await redis.info("commandstats")
    return sum(stat["calls"] for name, stat in stats.items() if name.startswith("cmdstat_xinfo"))


async def _has_looked(redis: Redis, times: int) -> bool:
    return await _looks(redis) >= times


@pytest.mark.parametrize("parks", [True, False])
async def test_a_lost_answer_does_not_cost_the_line(
    redis: Redis, redis_url: str, caplog: pytest.LogCaptureFixture, parks: bool
) -> None:
    async with proxy_to(redis_url) as proxy, Redis.from_url(proxy.url) as through:
        router = make_router(through, dlq_stream=None if parks else DLQ)

        @router.on(RvEvent)
        async def handle(event: RvEvent) -> None:
            proxy.lose_reply_to(SETTLE)
            raise NonRetryableError("no")

        async with running(router):
            await redis.script_load(scripts.load("settle").source)
            await emit(redis, 0)
            await eventually(lambda: "Redis is back" in caplog.text)
    wanted = "parked" if parks else "dead letter of handler"
    lines = [r.getMessage() for r in caplog.records]
    assert any(wanted in line for line in lines), "\n".join(lines)


async def test_a_log_filter_that_raises_costs_no_settlement(redis: Redis) -> None:
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

    @router.on(RvEvent)
    async def handle(event: RvEvent) -> None:
        seen.append(event.number)
        if seen.count(event.number) == 1:
            raise ValueError

    try:
        # several in one batch: held in one flush by a pause
        async with running(router):
            await redis.client_pause(500, all=False)
            await redis.client_unpause()
            await emit(redis, *range(10))
            await until_settled(redis)
    finally:
        log.removeFilter(broken)


@pytest.mark.parametrize("fields", [10_000, 60_000])
async def test_an_entry_of_many_fields_ends_as_a_letter(redis: Redis, fields: int) -> None:
    router = make_router(redis)

    @router.on(RvEvent)
    async def handle(event: RvEvent) -> None: ...

    junk = [f"f{number}".encode() for number in range(2 * fields - 4)]
    async with running(router):
        await add(redis, [b"event_type", RvEvent.event_type.encode(), b"data", b"{", *junk])
        await until_settled(redis)
    assert len(await letters(redis)) == 1


async def test_a_ledger_of_who_lost_the_lease_goes_with_the_entry(redis: Redis) -> None:
    begun, go_on, b_begun, b_go_on = (asyncio.Event() for _ in range(4))
    a = make_router(redis, consumer="a", claim_min_idle_ms=60_000)
    b = make_router(redis, consumer="b", claim_min_idle_ms=200, block_ms=50)
    for router, first, then, fails in ((a, begun, go_on, True), (b, b_begun, b_go_on, False)):

        @router.on(RvEvent, name="first")
        async def one(event: RvEvent) -> None: ...

        @router.on(RvEvent, name="second")
        async def two(event: RvEvent, first=first, then=then, fails=fails) -> None:
            first.set()
            await then.wait()
            if fails:
                raise ValueError

    async with running(a):
        await emit(redis, 0)
        await begun.wait()
        async with running(b):
            await b_begun.wait()
            go_on.set()
            await eventually(lambda: redis.exists(f"{{{STREAM}}}:rapids:ledger:{GROUP}"))
            b_go_on.set()
            await until_settled(redis)
    await check_keys(redis)


WORKER = """
import asyncio, sys
from rapids import BaseEvent
from tests.servers.connecting import connect
from tests.worker.helpers import make_router

class RvEvent(BaseEvent):
    number: int = 0

async def main():
    redis = connect(sys.argv[1])
    router = make_router(redis, consumer="stopped", claim_min_idle_ms=400, block_ms=60_000)
    @router.on(RvEvent)
    async def handle(event):
        await redis.rpush("ran", event.number)
    await router.start()
asyncio.run(main())
"""


@pytest.mark.slow
async def test_a_process_stopped_while_its_read_blocks_runs_nothing_that_others_took(
    redis: Redis, redis_address: str
) -> None:
    worker = subprocess.Popen([sys.executable, "-c", WORKER, redis_address], cwd=Path(__file__).parents[2])
    try:
        await emit(redis, 100)
        await eventually(lambda: redis.lrange("ran", 0, -1))
        await eventually(lambda: _nothing_pending(redis))
        await eventually(lambda: _blocks(redis))
        os.kill(worker.pid, signal.SIGSTOP)
        await emit(redis, 1)
        assert (await consumers(redis))["stopped"] == 1
        router, seen, go_on = make_router(redis, claim_min_idle_ms=400, consumer="other"), [], asyncio.Event()

        @router.on(RvEvent)
        async def handle(event: RvEvent) -> None:
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
    await emit(redis, 100)
    return len(await redis.lrange("ran", 0, -1)) > 1


async def test_a_read_whose_answer_was_lost_is_no_death_at_max_deliveries_1(redis: Redis, redis_url: str) -> None:
    async with proxy_to(redis_url) as proxy, Redis.from_url(proxy.url) as through:
        router, seen = make_router(through, max_deliveries=1, claim_min_idle_ms=300), []

        @router.on(RvEvent)
        async def handle(event: RvEvent) -> None:
            seen.append(event.number)

        async with running(router):
            proxy.lose_reply_to(b"XREADGROUP")
            await eventually(lambda: not proxy.loses_next_reply)
            await emit(redis, 0)
            await until_settled(redis)
        assert seen == [0], [letter[b"error"] for letter in await letters(redis)]


async def test_no_memory_for_longer_than_a_name_lasts_does_not_stop_handling(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(identity, "TTL_MS", 600)
    router, seen = make_router(redis), []

    @router.on(RvEvent)
    async def handle(event: RvEvent) -> None:
        seen.append(event.number)
        await asyncio.sleep(0.02)

    async with running(router):
        await emit(redis, *range(1_000))
        await redis.config_set("maxmemory", "1", **everywhere(redis))
        try:
            before = len(seen)
            await eventually(lambda: len(seen) >= before + 100)  # two seconds, by what the handler takes
        finally:
            await redis.config_set("maxmemory", "0", **everywhere(redis))


async def test_the_only_active_consumer_takes_what_several_left_in_the_order_of_the_stream(redis: Redis) -> None:
    await emit(redis, *range(5))
    await redis.xgroup_create(STREAM, GROUP, "0")
    await redis.xreadgroup(GROUP, "b", {STREAM: ">"}, count=2)
    await redis.xreadgroup(GROUP, "a", {STREAM: ">"}, count=3)
    router, seen = make_router(redis, exclusive=True, consumer="c"), []

    @router.on(RvEvent)
    async def handle(event: RvEvent) -> None:
        seen.append(event.number)

    async with running(router):
        await until_settled(redis)
    assert seen == list(range(5))


@pytest.mark.parametrize("exclusive", [True, False])
async def test_what_was_handed_back_comes_in_the_order_of_the_stream(redis: Redis, exclusive: bool) -> None:
    router, seen, begun = (
        make_router(redis, exclusive=exclusive, batch_size=30, shutdown_timeout=0),
        [],
        asyncio.Event(),
    )
    go_on = asyncio.Event()

    @router.on(RvEvent)
    async def handle(event: RvEvent) -> None:
        begun.set()
        await go_on.wait()
        seen.append(event.number)

    async with running(router):
        await emit(redis, *range(25))
        await begun.wait()
    assert seen == []
    go_on.set()
    async with running(router):
        await until_settled(redis)
    assert seen == list(range(25))


async def test_retry_after_ages(redis: Redis) -> None:
    router, seen = make_router(redis), []

    @router.on(RvEvent)
    async def handle(event: RvEvent) -> None:
        seen.append(event.number)
        if event.number == 0:
            raise RetryAfter(1e17)
        if seen.count(event.number) == 1:
            raise ValueError

    async with running(router):
        await emit(redis, *range(3))
        await eventually(lambda: sorted(seen) == [0, 1, 1, 2, 2])
        await eventually(lambda: _owners(redis))


async def _owners(redis: Redis) -> bool:
    return [row["consumer"] for row in await pending(redis)] == [b"rapids:waiting"]


@asynccontextmanager
async def settlement_held_up_while_the_group_is_lost(redis: Redis, redis_url: str) -> AsyncIterator[tuple[Proxy, Stop]]:
    """One consumer's letter is on its way when another makes the group again, in which the entry is not pending."""
    async with proxy_to(redis_url) as proxy, Redis.from_url(proxy.url) as through:
        router, failing, go_on = make_router(through, claim_min_idle_ms=60_000), asyncio.Event(), asyncio.Event()

        @router.on(RvEvent)
        async def handle(event: RvEvent) -> None:
            failing.set()
            await go_on.wait()
            raise NonRetryableError("no")

        other = make_router(redis, consumer="other")

        @other.on(RvEvent)
        async def handle_too(event: RvEvent) -> None: ...

        async with running(router):
            await emit(redis, 0)
            await failing.wait()
            async with running(other):
                proxy.hold_up(SETTLE)
                go_on.set()
                await eventually(lambda: proxy.holds)
                await redis.xgroup_destroy(STREAM, GROUP)
                await eventually(lambda: redis.xinfo_groups(STREAM))
                yield proxy, router.stop


async def test_stop_loses_no_letter_of_a_group_made_again(redis: Redis, redis_url: str) -> None:
    """Its entry is pending nowhere: what the settler has under way is all there is of it."""
    async with settlement_held_up_while_the_group_is_lost(redis, redis_url) as (proxy, stop):
        stopping = asyncio.create_task(stop())
        await asyncio.wait([stopping], timeout=1.7)
        proxy.let_through()
        await stopping
        await until_settled(redis)
    assert len(await letters(redis)) == 1, (await pending(redis), await redis.xinfo_groups(STREAM))


async def test_a_settlement_that_never_arrived_is_written_to_the_group_made_again(
    redis: Redis, redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The answer was lost, and so was the group: that the entry is not pending does not say that it was settled."""
    async with settlement_held_up_while_the_group_is_lost(redis, redis_url) as (proxy, _):
        await redis.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        await eventually(lambda: "Redis unavailable, retrying" in caplog.text)
        proxy.let_through()
        await eventually(lambda: letters(redis))
    assert len(await letters(redis)) == 1, (await pending(redis), await redis.xinfo_groups(STREAM))


async def test_one_lane_s_backlog_does_not_hold_up_all_others(redis: Redis) -> None:
    """While an abandoned entry waits to be alone, whatever is queued in a lane already goes on, and nothing else."""
    ids = await emit(redis, -1)
    await redis.xgroup_create(STREAM, GROUP, "0")
    await redis.xreadgroup(GROUP, "dead", {STREAM: ">"})
    await redis.xclaim(STREAM, GROUP, "dead", 0, ids, retrycount=3)
    router, seen = (
        make_router(redis, concurrency=4, order_by=lambda event: event.number, claim_min_idle_ms=1_500, batch_size=100),
        [],
    )

    @router.on(RvEvent)
    async def handle(event: RvEvent) -> None:
        await asyncio.sleep(0.03)
        seen.append(event.number)

    async with running(router):
        await emit(redis, *([1] * 150), *range(2, 400))
        await until_settled(redis)
    run = max(len(part) for part in "".join("1" if n == 1 else "." for n in seen).split("."))
    assert run < 75, "half of the backlog was worked off in one go"
