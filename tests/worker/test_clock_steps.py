"""Steps of the server's clock: what living consumers hold stays theirs, and nothing waits for a time that is wrong."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from rapids import EventRouter
from rapids._storage import future_times, groups
from rapids._storage.client.connections import SharedPool
from rapids._storage.keys import Source
from rapids._worker.identity import TTL_MS
from rapids._worker.server_clock import ServerClock
from rapids.backoff import constant
from tests.redis.own_server import OwnServer, own_server
from tests.servers.builds import Build
from tests.support import eventually
from tests.worker.helpers import GROUP, STREAM, DvOrder, emit_orders, make_router, pending, running, until_settled

pytestmark = pytest.mark.slow  # a server is started with a library that `make servers` unpacks from Debian

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
    steps = [record for record in caplog.records if hasattr(record, "step_seconds")]
    assert len(steps) == 2
    assert all("the server's clock stepped forward by 120.0 s, to " in record.getMessage() for record in steps)


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


async def test_only_what_lies_in_the_future_is_corrected(redis: Redis) -> None:
    await redis.xgroup_create(STREAM, GROUP, "0", mkstream=True)
    await emit_orders(redis, *range(3))
    await redis.xreadgroup(GROUP, "living", {STREAM: ">"})
    commands = SharedPool(redis, STREAM)
    assert await future_times.correct_entries(commands, SOURCE, b"living") == 0
    assert TTL_MS < 10_000
    await redis.set(SOURCE.consumer("living"), "token", px=10_000)
    await redis.set(SOURCE.handlers("living"), "{}", px=80_000)
    await future_times.shorten(commands, {SOURCE.consumer("living"): TTL_MS, SOURCE.handlers("living"): 90_000})
    assert 0 < await redis.pttl(SOURCE.consumer("living")) <= TTL_MS
    assert TTL_MS < await redis.pttl(SOURCE.handlers("living")) <= 80_000


async def test_a_claim_takes_no_entry_of_others_later_than_the_clock_can_be(redis: Redis) -> None:
    await redis.xgroup_create(STREAM, GROUP, "0", mkstream=True)
    ids = [entry_id.encode() for entry_id in await emit_orders(redis, 1)]
    await redis.xreadgroup(GROUP, "gone", {STREAM: ">"})
    commands = SharedPool(redis, STREAM)

    async def claim(latest_ms: int) -> groups.Claimed:
        return await groups.claim(commands, SOURCE, "me", ids=ids, min_idle_ms=1, due=0, latest_ms=latest_ms)

    await eventually(lambda: _idle(redis))
    refused = await claim(1)
    assert refused.entries == []
    assert len((await claim(refused.now_ms + 60_000)).entries) == 1


async def _idle(redis: Redis) -> bool:
    return (await pending(redis))[0]["time_since_delivered"] > 1


class Clocks:
    """A server's clock and this process's, which the test sets."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, lease_seconds: float) -> None:
        self.own, self.ahead = 1_000.0, 1_700_000_000.0
        monkeypatch.setattr(time, "monotonic", lambda: self.own)
        self.clock = ServerClock({}, lease_seconds=lease_seconds)

    def see(self, *, asked_before: float = 0.001) -> int:
        """How many steps were noticed after an answer, which came so many seconds after the question."""
        asked_at = self.own
        self.own += asked_before
        self.clock.see(int((self.own + self.ahead) * 1000), asked_at)
        return self.clock.steps


@pytest.mark.parametrize("seconds", [120.0, 10.0, 1.5, -1.5, -3_600.0])
def test_a_step_is_noticed(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    clocks = Clocks(monkeypatch, lease_seconds=60)
    assert not clocks.clock.may_take_over
    clocks.see()
    clocks.own += 4.1
    assert clocks.clock.may_take_over
    assert clocks.see() == 0
    clocks.ahead += seconds
    clocks.own += 2
    assert clocks.see() == 1
    assert not clocks.clock.may_take_over
    clocks.own += 59
    assert clocks.see() == 1
    assert not clocks.clock.may_take_over
    clocks.own += 2
    assert clocks.clock.may_take_over


def test_a_drift_a_standstill_and_a_late_answer_are_no_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    clocks = Clocks(monkeypatch, lease_seconds=60)
    for turn in range(1_000):
        clocks.own += 2
        clocks.ahead += 0.001
        clocks.see(asked_before=90 if turn % 100 == 99 else 0.001)
    assert clocks.clock.steps == 0


def test_a_step_behind_a_late_answer_is_noticed_with_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    clocks = Clocks(monkeypatch, lease_seconds=60)
    clocks.see()
    clocks.see(asked_before=150)
    clocks.ahead += 120
    assert clocks.see() == 1


def test_the_latest_believable_time_is_within_half_a_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    clocks = Clocks(monkeypatch, lease_seconds=60)
    assert clocks.clock.latest_ms == 2**53
    clocks.see()
    clocks.own += 10
    now_ms = (clocks.own + clocks.ahead) * 1000
    assert now_ms + 30_000 <= clocks.clock.latest_ms < now_ms + 31_000
