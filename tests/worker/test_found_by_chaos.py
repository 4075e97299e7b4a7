"""What `tests/chaos` found, each as small as it could be made."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
import redis as redis_sync
from redis.asyncio import Redis

from rapids._storage import groups, streams
from rapids._worker import reclaimer
from rapids.exceptions import RedisUnavailableError
from tests.redis.proxy import proxy_to
from tests.support import eventually
from tests.worker.helpers import (
    DLQ,
    GROUP,
    STREAM,
    DvOrder,
    make_emitter,
    make_router,
    running,
    until_settled,
)


@pytest.fixture
def at_once(redis_url: str) -> Any:
    """A client that blocks the event loop, so that nothing else of the router happens meanwhile."""
    with redis_sync.Redis.from_url(redis_url) as client:
        yield client


async def leave(redis: Redis, count: int) -> list[str]:
    ids = await make_emitter(redis).emit([DvOrder(number=number) for number in range(count)])
    await redis.xgroup_create(STREAM, GROUP, "0")
    await redis.xreadgroup(GROUP, "gone", {STREAM: ">"}, count=count)
    return ids


async def test_what_ran_before_an_abandoned_entry_is_settled_before_it_begins(redis: Redis, at_once: Any) -> None:
    """It may be what kills processes. A neighbour that was done but not yet settled was delivered again with each of
    them, in the same order, until both were dead letters."""
    await leave(redis, 5)
    router, still_pending = make_router(redis, claim_min_idle_ms=300), []

    @router.on(DvOrder)
    async def handle(event: DvOrder) -> None:
        still_pending.append(at_once.xpending(STREAM, GROUP)["pending"])

    async with running(router):
        await until_settled(redis)
    assert still_pending == [5, 4, 3, 2, 1]


async def test_a_settlement_that_is_refused_does_not_keep_abandoned_entries_waiting(redis: Redis) -> None:
    await redis.set(DLQ, "no stream")
    await leave(redis, 3)
    router, seen = make_router(redis, claim_min_idle_ms=300, max_deliveries=2), []

    @router.on(DvOrder)
    async def handle(event: DvOrder) -> None:
        seen.append(event.number)
        if event.number == 0:
            raise RuntimeError("its dead letter cannot be written now")

    async with running(router):
        await eventually(lambda: seen == [0, 1, 2])
        await redis.delete(DLQ)
        await until_settled(redis)


@pytest.mark.parametrize("due", [False, True])
async def test_an_entry_taken_just_before_standing_still_is_asked_for_again(
    redis: Redis, at_once: Any, monkeypatch: pytest.MonkeyPatch, due: bool
) -> None:
    """The answer to a claim is read when the process goes on; by then another may have the entry."""
    (entry_id,) = await leave(redis, 1)
    if due:
        at_once.xclaim(STREAM, GROUP, "rapids:waiting", 0, [entry_id])
        at_once.zadd(f"{{{STREAM}}}:rapids:due:{GROUP}", {entry_id: 1})
    real = groups.claim

    async def claim(*args: Any, **options: Any) -> groups.Claimed:
        claimed = await real(*args, **options)
        if claimed.entries:
            time.sleep(0.4)
            at_once.xclaim(STREAM, GROUP, "other", 0, [entry_id])
        return claimed

    monkeypatch.setattr(reclaimer.groups, "claim", claim)
    router, seen = make_router(redis, claim_min_idle_ms=300), []

    @router.on(DvOrder)
    async def handle(event: DvOrder) -> None:
        seen.append(event.number)

    async with running(router):
        await eventually(lambda: "other" in str(at_once.xpending(STREAM, GROUP)))
        await make_emitter(redis).emit(DvOrder(number=1))
        await eventually(lambda: 1 in seen)
        assert seen == [1]


@pytest.mark.parametrize("command", [b"PING", b"CREATE", b"EVALSHA", b"XLEN", b"XPENDING"])
async def test_a_start_that_redis_cuts_short_at_any_step_says_so(redis_url: str, command: bytes) -> None:
    async with proxy_to(redis_url) as proxy, Redis.from_url(proxy.url) as client:
        proxy.lose_reply_to(command)
        with pytest.raises(RedisUnavailableError):
            await asyncio.wait_for(make_router(client).start(), 30)


async def test_an_entry_that_a_master_of_before_does_not_know_is_not_taken_for_trimmed(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a failover a lane's entry was looked up over a connection that still led to the old master, which had never
    had it; what was not there was acknowledged as lost, over a new connection, at the master that had it."""
    handled, let_go = list[int](), asyncio.Event()
    router = make_router(redis, concurrency=2, order_by=lambda event: "one key", batch_size=5)

    @router.on(DvOrder)
    async def handle(event: DvOrder) -> None:
        handled.append(event.number)
        await let_go.wait()

    entry, asked = streams.entry, []

    async def of_before(commands: Any, stream: str, entry_id: bytes) -> Any:
        asked.append(entry_id)
        return None if len(asked) <= 3 else await entry(commands, stream, entry_id)

    monkeypatch.setattr(streams, "entry", of_before)
    async with running(router):
        await make_emitter(redis).emit([DvOrder(number=number) for number in range(20)])
        await eventually(lambda: router.counters.total("delivered") == 20)
        let_go.set()
        await until_settled(redis)
    assert asked, "no entry was looked up"
    assert handled == list(range(20))
    assert router.counters.total("lost") == 0
