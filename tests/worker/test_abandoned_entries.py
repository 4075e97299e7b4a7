"""Entries whose consumer is gone: which are claimed, and what else runs at that time."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
import redis as redis_sync
from redis.asyncio import Redis

from rapids._storage import groups
from rapids._storage.client.connections import SharedPool, call
from rapids._worker import reclaimer
from tests.redis.test_settlement import SOURCE, given_to, settle
from tests.support import eventually
from tests.worker.helpers import (
    DLQ,
    GROUP,
    STREAM,
    DvOrder,
    emit_orders,
    make_emitter,
    make_router,
    pending,
    running,
    until_settled,
)


@pytest.fixture
def at_once(redis_url: str) -> Any:
    """A client that blocks the event loop, so that the router does nothing else during that time."""
    with redis_sync.Redis.from_url(redis_url) as client:
        yield client


async def leave(redis: Redis, count: int) -> list[str]:
    ids = await make_emitter(redis).emit([DvOrder(number=number) for number in range(count)])
    await redis.xgroup_create(STREAM, GROUP, "0")
    await redis.xreadgroup(GROUP, "gone", {STREAM: ">"}, count=count)
    return ids


async def test_entries_that_are_done_are_settled_before_an_abandoned_entry_begins(redis: Redis, at_once: Any) -> None:
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


async def test_the_search_for_abandoned_entries_reads_every_page(redis: Redis) -> None:
    ids = await emit_orders(redis, *range(250))
    await redis.xgroup_create(STREAM, GROUP, "0")
    await redis.xreadgroup(GROUP, "dead", {STREAM: ">"}, count=250)
    commands = SharedPool(redis, STREAM)
    counts = groups.PendingCounts.of(await call(commands, "XPENDING", SOURCE.stream, SOURCE.group))
    found = await groups.idle_entries(commands, SOURCE, counts, min_idle_ms=0)
    assert [one.entry_id.decode() for one in found] == ids


async def test_a_parked_entry_is_never_claimed_however_long_it_is_parked(redis: Redis) -> None:
    entry_id = await given_to(redis, "me")
    assert await settle(redis, entry_id, "park", why=b"because") == "parked"
    await eventually(lambda: _is_idle(redis, 5))
    claimed = await groups.claim(SharedPool(redis, STREAM), SOURCE, "other", ids=[entry_id], min_idle_ms=5, due=10)
    assert claimed.entries == []


async def _is_idle(redis: Redis, ms: int) -> bool:
    return (await pending(redis))[0]["time_since_delivered"] >= ms


async def test_an_entry_that_may_have_killed_two_processes_runs_alone(redis: Redis) -> None:
    ids = await emit_orders(redis, 0)
    await redis.xgroup_create(STREAM, GROUP, "0")
    await redis.xreadgroup(GROUP, "dead", {STREAM: ">"})
    await redis.xclaim(STREAM, GROUP, "dead", 0, ids, retrycount=3)
    router, inside, alongside = make_router(redis, concurrency=4, claim_min_idle_ms=300), set[int](), set[int]()

    @router.on(DvOrder)
    async def handle(event: DvOrder) -> None:
        inside.add(event.number)
        if 0 in inside:
            alongside.update(inside)
        await asyncio.sleep(0.1 if event.number == 0 else 0.005)
        inside.remove(event.number)

    async with running(router):
        await emit_orders(redis, *range(1, 400))
        await until_settled(redis)
    assert alongside == {0}


async def test_the_backlog_of_one_lane_does_not_delay_all_other_lanes(redis: Redis) -> None:
    """While an abandoned entry waits to be alone, only entries that are queued in a lane already continue."""
    ids = await emit_orders(redis, -1)
    await redis.xgroup_create(STREAM, GROUP, "0")
    await redis.xreadgroup(GROUP, "dead", {STREAM: ">"})
    await redis.xclaim(STREAM, GROUP, "dead", 0, ids, retrycount=3)
    router, seen = (
        make_router(redis, concurrency=4, order_by=lambda event: event.number, claim_min_idle_ms=1_500, batch_size=100),
        [],
    )

    @router.on(DvOrder)
    async def handle(event: DvOrder) -> None:
        await asyncio.sleep(0.03)
        seen.append(event.number)

    async with running(router):
        await emit_orders(redis, *([1] * 150), *range(2, 400))
        await until_settled(redis)
    run = max(len(part) for part in "".join("1" if n == 1 else "." for n in seen).split("."))
    assert run < 75, "half of the backlog was worked off in one go"


@pytest.mark.parametrize("due", [False, True])
async def test_a_claim_whose_answer_was_read_too_late_is_checked_again(
    redis: Redis, at_once: Any, monkeypatch: pytest.MonkeyPatch, due: bool
) -> None:
    """The answer to a claim is read when the process continues; by then another may have the entry."""
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
