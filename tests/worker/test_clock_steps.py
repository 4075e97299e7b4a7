"""Steps of the server's clock: what living consumers hold stays theirs, and nothing waits for a time that is wrong."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from rapids import EventRouter
from rapids._storage.keys import Source
from rapids.backoff import constant
from tests.redis.own_server import OwnServer, own_server
from tests.servers.builds import Build
from tests.support import eventually
from tests.worker.helpers import GROUP, STREAM, DvOrder, emit_orders, make_router, pending, running, until_settled

LEASE_MS = 5_000
SOURCE = Source(STREAM, GROUP)


@pytest.fixture
async def server(build: Build) -> AsyncIterator[OwnServer]:
    async with own_server(build, has_clock=True) as server:
        yield server


@pytest.fixture
async def here(server: OwnServer) -> AsyncIterator[Redis]:
    """A client of the server whose clock can be set."""
    async with Redis.from_url(server.url) as client:
        yield client


def slow_routers(redis: Redis, runs: Counter[int], go_on: asyncio.Event) -> tuple[EventRouter, EventRouter]:
    """Two routers of one group, whose handlers of the events below 90 wait."""

    async def handle(event: DvOrder) -> None:
        runs[event.number] += 1
        if event.number < 90:
            await go_on.wait()

    options = {"claim_min_idle_ms": LEASE_MS, "concurrency": 8}
    routers = [make_router(redis, consumer=name, **options) for name in ("one", "two")]
    for router in routers:
        router.on(DvOrder)(handle)
    return routers[0], routers[1]


async def abandon(redis: Redis, number: int) -> None:
    """An entry of a consumer that is gone: who takes it over would also take what it believes to be abandoned."""
    await redis.xgroup_create(STREAM, GROUP, "0", mkstream=True)
    await emit_orders(redis, number)
    await redis.xreadgroup(GROUP, "gone", {STREAM: ">"})


async def test_after_a_step_forward_the_work_of_living_consumers_does_not_run_twice(
    server: OwnServer, here: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    runs, go_on = Counter[int](), asyncio.Event()
    await abandon(here, 99)
    async with running(*slow_routers(here, runs, go_on), redis=here):
        await emit_orders(here, *range(6))
        await eventually(lambda: len([number for number in runs if number < 90]) == 6)
        server.set_clock(120)
        await eventually(lambda: runs[99])
        go_on.set()
        await until_settled(here)
    assert set(runs.values()) == {1}
    assert len(steps(caplog)) == 2
    assert all("the server's clock stepped forward by 120.0 s, to " in step for step in steps(caplog))


def steps(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was logged of steps, once by each process."""
    return [record.getMessage() for record in caplog.records if hasattr(record, "step_seconds")]


async def test_a_process_that_starts_after_a_step_leaves_living_consumers_the_time_to_renew_their_leases(
    server: OwnServer, here: Redis
) -> None:
    runs, go_on = Counter[int](), asyncio.Event()
    await abandon(here, 99)
    living, late = slow_routers(here, runs, go_on)
    async with running(living, redis=here):
        await emit_orders(here, *range(3))
        await eventually(lambda: len([number for number in runs if number < 90]) == 3)
        server.set_clock(120)
        async with running(late, redis=here):
            await eventually(lambda: runs[99])
            go_on.set()
            await until_settled(here)
    assert set(runs.values()) == {1}


async def test_an_entry_that_was_taken_over_after_a_step_does_not_begin(server: OwnServer, here: Redis) -> None:
    """By a consumer of an earlier version, or one that had just started: this process asks before it begins."""
    runs, go_on = Counter[int](), asyncio.Event()
    router = make_router(here, claim_min_idle_ms=600_000)  # otherwise its leases are soon renewed anyway

    @router.on(DvOrder)
    async def handle(event: DvOrder) -> None:
        runs[event.number] += 1
        if event.number == 0:
            await go_on.wait()

    async with running(router, redis=here):
        ids = await emit_orders(here, 0, 1)
        await eventually(lambda: runs[0])
        await eventually(lambda: _pending(here, 2))
        server.set_clock(120)
        await here.xclaim(STREAM, GROUP, "other", 0, [ids[1]])
        await eventually(lambda: router.counters.total("lease_lost") == 1)
        go_on.set()
        await eventually(lambda: _pending(here, 1))
    assert runs == {0: 1}


async def _pending(redis: Redis, count: int) -> bool:
    return len(await pending(redis)) == count


@pytest.mark.parametrize("starts_later", [False, True], ids=["running", "started later"])
async def test_a_retry_and_an_abandoned_entry_do_not_wait_for_the_time_before_a_step_back(
    server: OwnServer, here: Redis, starts_later: bool
) -> None:
    seen, wait = list[int](), 600.0 if starts_later else 1.0

    def router() -> EventRouter:
        made = make_router(here, claim_min_idle_ms=1_000, redelivery_backoff=constant(wait))

        @made.on(DvOrder)
        async def handle(event: DvOrder) -> None:
            seen.append(event.number)
            if seen.count(event.number) == 1 and event.number == 1:
                raise RuntimeError("at first")

        return made

    await here.xgroup_create(STREAM, GROUP, "0", mkstream=True)
    async with running(router(), redis=here):
        await emit_orders(here, 1)
        await eventually(lambda: here.zcard(SOURCE.due))
        if not starts_later:
            await _leave_and_set_back(server, here)
            await eventually(lambda: seen.count(1) == 2 and seen.count(9))
    if starts_later:
        await _leave_and_set_back(server, here)
        async with running(router(), redis=here):
            await eventually(lambda: seen.count(1) == 2 and seen.count(9))
    assert seen.count(9) == 1


async def _leave_and_set_back(server: OwnServer, redis: Redis) -> None:
    """Deliver an entry to a consumer that is gone, and set the clock back before it counts as abandoned."""
    await emit_orders(redis, 9)
    await redis.xreadgroup(GROUP, "gone", {STREAM: ">"})
    server.set_clock(-3_600)


async def test_keys_that_would_last_too_long_after_a_step_back_are_shortened(server: OwnServer, here: Redis) -> None:
    """The name of a process that died would stay taken, and its group would have no active consumer."""
    await here.xgroup_create(STREAM, GROUP, "0", mkstream=True)
    await here.xgroup_createconsumer(STREAM, GROUP, "gone")
    keys = [SOURCE.consumer("gone"), SOURCE.handlers("gone"), SOURCE.exclusive]
    for key in keys:
        await here.set(key, "token", px=90_000)
    server.set_clock(-3_600)
    await eventually(lambda: _left(here, keys[0], more_than=3_000_000))
    async with running(make_router(here), redis=here):
        for key in keys:
            await eventually(lambda key=key: _left(here, key, less_than=90_001))  # type: ignore[misc]


async def _left(redis: Redis, key: str, *, more_than: int = -3, less_than: int = 2**53) -> bool:
    return more_than < await redis.pttl(key) < less_than


# --- one active consumer ----------------------------------------------------------------------------------------------


def exclusive_router(redis: Redis, name: str, seen: list[tuple[str, int]]) -> EventRouter:
    router = make_router(redis, consumer=name, exclusive=True)

    @router.on(DvOrder)
    async def handle(event: DvOrder) -> None:
        seen.append((name, event.number))

    return router


async def test_after_a_step_forward_the_active_consumer_stays_the_active_one(
    server: OwnServer, here: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[tuple[str, int]] = []
    caplog.set_level("INFO", logger="rapids.worker")
    async with running(exclusive_router(here, "first", seen), exclusive_router(here, "second", seen), redis=here):
        await emit_orders(here, 0)
        await eventually(lambda: len(seen) == 1)
        server.set_clock(10)
        await eventually(lambda: len(steps(caplog)) == 2)
        await eventually(lambda: here.exists(SOURCE.exclusive))
        await emit_orders(here, 1)
        await eventually(lambda: len(seen) == 2)
        assert seen == [(seen[0][0], 0), (seen[0][0], 1)]
        assert caplog.text.count("is now the active one") == 1


async def test_a_consumer_that_starts_after_a_step_forward_leaves_the_active_one_its_place(
    server: OwnServer, here: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[tuple[str, int]] = []
    caplog.set_level("INFO", logger="rapids.worker")
    async with running(exclusive_router(here, "first", seen), redis=here):
        await emit_orders(here, 0)
        await eventually(lambda: len(seen) == 1)
        server.set_clock(10)
        async with running(exclusive_router(here, "second", seen), redis=here):
            await eventually(lambda: len(steps(caplog)) == 1)
            await eventually(lambda: here.exists(SOURCE.exclusive))
            await emit_orders(here, 1)
            await eventually(lambda: len(seen) == 2)
            assert seen == [("first", 0), ("first", 1)]
            assert caplog.text.count("is now the active one") == 1


async def test_the_place_of_a_consumer_that_died_is_free_soon_after_a_step_back(server: OwnServer, here: Redis) -> None:
    seen: list[tuple[str, int]] = []
    await here.set(SOURCE.exclusive, "of a process that died", px=600_000)
    server.set_clock(-3_600)
    async with running(exclusive_router(here, "next", seen), redis=here):
        await emit_orders(here, 0)
        await eventually(lambda: seen == [("next", 0)])
