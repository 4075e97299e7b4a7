"""Health: every way of being idle is ready, every way of being stuck is not ready, with the reason."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import time
from collections.abc import Callable
from dataclasses import FrozenInstanceError
from types import SimpleNamespace
from typing import Any, cast, get_args

import pytest
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from rapids import BaseEvent, EventRouter, GroupControl, HealthReason, RouterHealth
from rapids._core.settings import RouterSettings
from rapids._storage.keys import Source
from rapids._worker.health_check import READY, Limits, LoopMonitor
from rapids.exceptions import NonRetryableError, RetryAfter
from tests.redis.own_server import own_server
from tests.servers.builds import Build
from tests.support import eventually
from tests.worker.helpers import DLQ, GROUP, STREAM, make_emitter, make_router, pending, running, start, until_settled

SOURCE = Source(STREAM, GROUP)


class HeTask(BaseEvent):
    number: int = 0


async def emit(redis: Redis, *numbers: int) -> list[str]:
    return await make_emitter(redis).emit([HeTask(number=number) for number in numbers])


def a_router(redis: Redis, gate: asyncio.Event | None = None, **options: Any) -> EventRouter:
    """A router whose handlers wait for the gate."""
    router = make_router(redis, **({"block_ms": 100, "batch_size": 1} | options))

    @router.on(HeTask, timeout=3600.0)
    async def handle(event: HeTask) -> None:
        if gate is not None:
            await gate.wait()

    return router


async def becomes(router: EventRouter, reason: HealthReason) -> RouterHealth:
    """The router's health once it is that."""
    seen: list[RouterHealth] = []

    async def is_it() -> bool:
        seen.append(await router.health())
        assert seen[-1].reason == reason, seen[-1]
        return True

    await eventually(is_it)
    assert seen[-1].ready == (reason in READY)
    return seen[-1]


async def stays(router: EventRouter, reason: HealthReason, until: Callable[[RouterHealth], bool]) -> None:
    """Its health is nothing else until the condition holds."""

    async def is_over() -> bool:
        health = await router.health()
        if health.reason != reason or not health.ready:
            pytest.fail(f"not {reason}: {health}")
        return until(health)

    await eventually(is_over)


async def forever(*_: object, **__: object) -> Any:
    await asyncio.Event().wait()


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing may take longer than moments: stuck is what has not moved for 1.6 s, or 0.9 s for the reader."""
    monkeypatch.setattr("rapids._worker.health_check.ANSWER_TIME", 0.5)
    monkeypatch.setattr("rapids._worker.health_check.MAX_PAUSE", 0.3)
    monkeypatch.setattr("rapids._worker.reclaimer.MAX_PAUSE", 0.1)
    monkeypatch.setattr("rapids._worker.health_check.INTERVAL", 0.05)


LONGER_THAN_ANY = 3.0


# --- alive and idle -------------------------------------------------------------------------------------------------


async def test_caught_up(redis: Redis) -> None:
    router = a_router(redis, consumer="w")
    async with running(router):
        await emit(redis, *range(20))
        await until_settled(redis)
        health = await becomes(router, "caught_up")
        assert (health.stream, health.group, health.consumer) == (STREAM, GROUP, "w")
        assert (health.running, health.held, health.pending, health.waiting) == (0, 0, 0, 0)
        assert health.last_delivered_id == health.last_id != "0-0"
        with pytest.raises(FrozenInstanceError):
            health.ready = False  # type: ignore[misc]


@pytest.mark.usefixtures("short")
async def test_caught_up_for_long(redis: Redis) -> None:
    """Also where nothing ever came, and with a read that blocks for longer than anything may take."""
    router = a_router(redis, block_ms=60_000)
    async with running(router):
        await stays(router, "caught_up", lambda health: (health.seconds_since_progress or 0) > LONGER_THAN_ANY)


@pytest.mark.standalone("pauses the clients of one server")
async def test_caught_up_though_the_last_entries_were_deleted_unread(redis: Redis) -> None:
    router = a_router(redis)
    async with running(router):
        last = (await emit(redis, 1))[0]
        await until_settled(redis)
        await redis.client_pause(200, all=False)  # nothing is read during that time
        entry_id = await redis.xadd(STREAM, {"a": "b"})
        await redis.xdel(STREAM, entry_id)
        await redis.xgroup_setid(STREAM, GROUP, last)
        health = await becomes(router, "caught_up")
        assert health.last_delivered_id == last
        assert health.last_id == entry_id.decode()


@pytest.mark.usefixtures("short")
async def test_paused_with_a_backlog(redis: Redis) -> None:
    router = a_router(redis)
    async with running(router):
        await router.pause(actor="ada", reason="the bank is down")
        await emit(redis, *range(50))
        health = await becomes(router, "paused")
        assert health.message == "the group is paused by 'ada': 'the bank is down'"
        await stays(router, "paused", lambda health: (health.seconds_since_progress or 0) > LONGER_THAN_ANY)
        await router.resume()
        await until_settled(redis)
        await becomes(router, "caught_up")


async def test_everything_waits_for_its_next_delivery(redis: Redis) -> None:
    router = make_router(redis, block_ms=100)

    @router.on(HeTask)
    async def handle(event: HeTask) -> None:
        raise RetryAfter(3600)

    async with running(router):
        await emit(redis, 1, 2, 3)
        await eventually(lambda: _count_is(redis, 3))
        health = await becomes(router, "waiting")
        assert (health.waiting, health.pending, health.held) == (3, 3, 0)


async def _count_is(redis: Redis, count: int) -> bool:
    return await redis.zcard(SOURCE.due) == count


@pytest.mark.usefixtures("short")
@pytest.mark.parametrize("concurrency", [1, 3])
async def test_every_slot_is_full_of_long_handlers_while_a_backlog_grows(redis: Redis, concurrency: int) -> None:
    gate = asyncio.Event()
    router = a_router(redis, gate, concurrency=concurrency, claim_min_idle_ms=600)
    async with running(router):
        await emit(redis, *range(20))
        await eventually(lambda: _is_running(router, concurrency))
        await stays(router, "working", lambda health: (health.seconds_since_progress or 0) > LONGER_THAN_ANY)
        gate.set()
        await until_settled(redis)


async def _is_running(router: EventRouter, count: int) -> bool:
    health = await router.health()
    return health.running == count and health.held > count


async def test_another_consumer_of_the_group_is_the_active_one(redis: Redis) -> None:
    gate = asyncio.Event()
    active, standby = (a_router(redis, gate, exclusive=True, consumer=name) for name in ("active", "standby"))
    async with running(active):
        await emit(redis, *range(10))
        await eventually(lambda: _is_running(active, 1))
        async with running(standby):
            await becomes(standby, "standby")
            await becomes(active, "working")
            gate.set()


async def test_a_new_process_with_a_large_backlog_stays_ready(redis: Redis) -> None:
    await emit(redis, *range(2_000))
    router, seen = a_router(redis, batch_size=100), set[str]()
    async with running(router):
        while (health := await router.health()).reason != "caught_up":
            assert health.ready, health
            seen.add(health.reason)
        assert seen <= {"starting", "working"}


# --- stuck ----------------------------------------------------------------------------------------------------------


async def test_not_started_stopping_and_stopped(redis: Redis) -> None:
    gate = asyncio.Event()
    router = a_router(redis, gate)
    assert (await router.health()).reason == "not_running"
    async with running(router):
        await emit(redis, 1)
        await eventually(lambda: pending(redis))
        stopping = asyncio.create_task(router.stop())
        await becomes(router, "stopping")
        gate.set()
        await stopping
    health = await router.health()
    assert (health.ready, health.reason, health.consumer) == (False, "not_running", None)


async def test_the_readers_task_has_ended(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    async def ends(*_: object) -> None: ...

    monkeypatch.setattr("rapids._worker.reader.Reader.run", ends)
    router = a_router(redis)
    async with running(router):
        assert "reader" in (await becomes(router, "task_ended")).message


@pytest.mark.parametrize("part", ["reader.Reader", "executor.Executor"])
async def test_a_part_that_fails_again_and_again(redis: Redis, monkeypatch: pytest.MonkeyPatch, part: str) -> None:
    async def fails(*_: object) -> None:
        raise KeyError("a bug")

    with monkeypatch.context() as broken:
        broken.setattr(f"rapids._worker.{part}.run", fails)
        broken.setattr("rapids._core.supervision.RESTART_PAUSE", 0.01)
        monkeypatch.setattr("rapids._core.supervision.OFTEN_WITHIN", 0.5)
        router = a_router(redis)
        async with running(router):
            await becomes(router, "task_ended")
            broken.undo()
            await becomes(router, "caught_up")


@pytest.mark.usefixtures("short")
async def test_the_reader_task_runs_but_reads_nothing(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = asyncio.Event()
    router = a_router(redis, gate)
    task = await start(router)
    await emit(redis, *range(10))
    await eventually(lambda: _is_running(router, 1))  # and the reader waits for room, as it may
    monkeypatch.setattr("rapids._worker.reader.Reader._turn", forever)
    gate.set()
    await becomes(router, "reader_stuck")
    await router.stop()
    await task


@pytest.mark.usefixtures("short")
async def test_the_reclaimer_makes_no_progress(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rapids._worker.reclaimer.Reclaimer._turn", forever)
    router = a_router(redis)
    async with running(router):
        await becomes(router, "reclaimer_stuck")


@pytest.mark.usefixtures("short")
async def test_a_standby_consumer_stopped_checking(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rapids._worker.exclusivity.Exclusivity.confirm", forever)
    router = a_router(redis, exclusive=True)
    async with running(router):
        await becomes(router, "standby_stuck")


@pytest.mark.usefixtures("short")
async def test_entries_that_were_read_do_not_begin(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though its leases are renewed all the time."""
    with monkeypatch.context() as broken:
        broken.setattr("rapids._worker.executor.Executor.run", forever)
        router = a_router(redis, claim_min_idle_ms=600)
        async with running(router):
            await emit(redis, *range(10))
            await becomes(router, "handlers_stuck")


@pytest.mark.usefixtures("short")
async def test_the_reader_waits_for_room_while_nothing_finishes(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as broken:
        broken.setattr("rapids._worker.intake.Intake.has_room", False)
        broken.setattr("rapids._worker.intake.Intake.room", forever)
        router = a_router(redis)
        task = await start(router)
        await emit(redis, 1)
        await becomes(router, "starting")
        await becomes(router, "no_progress")
    await router.stop()
    await task


async def test_a_handler_blocked_the_event_loop(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rapids._worker.health_check.STALL", 0.5)
    monkeypatch.setattr("rapids._worker.health_check.MEMORY", 1.0)
    router, blocked = make_router(redis), asyncio.Event()

    @router.on(HeTask)
    async def handle(event: HeTask) -> None:
        time.sleep(1.5)
        blocked.set()

    async with running(router):
        await becomes(router, "caught_up")
        await emit(redis, 1)
        await blocked.wait()
        health = await router.health()
        assert (health.ready, health.reason) == (False, "loop_blocked"), health
        assert re.search(r"the event loop stood still for \d+\.\d s", health.message)
        await becomes(router, "caught_up")


async def test_the_group_is_gone_and_cannot_be_made_again(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[int] = []

    async def refused(*_: object, **__: object) -> bool:
        tries.append(1)
        raise ResponseError("NOPERM this user has no permissions")

    router = a_router(redis)
    async with running(router):
        await becomes(router, "caught_up")
        with monkeypatch.context() as broken:
            broken.setattr("rapids._storage.groups.recreate", refused)
            await redis.xgroup_destroy(STREAM, GROUP)
            assert (await router.health()).reason == "group_lost"
            await eventually(lambda: len(tries) >= 3)
            assert (await becomes(router, "group_lost")).pending is None
        await becomes(router, "caught_up")
        await redis.delete(SOURCE.replays().stream)
        await becomes(router, "group_lost")
        await becomes(router, "caught_up")


async def test_redis_is_gone_and_comes_back(build: Build) -> None:
    async with own_server(build) as server, Redis.from_url(server.url) as redis:
        router = a_router(redis)
        async with running(router):
            await becomes(router, "caught_up")
            await server.kill()
            health = await router.health()
            assert (health.ready, health.reason, health.last_id) == (False, "redis_unavailable", None)
            await server.start()
            await becomes(router, "caught_up")


async def test_health_answers_in_time_while_redis_hangs(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rapids._worker.health_check.ANSWER_WITHIN", 0.3)
    async with own_server(build) as server, Redis.from_url(server.url) as redis:
        router = a_router(redis)
        async with running(router):
            await becomes(router, "caught_up")
            pid = (await redis.info("server"))["process_id"]
            os.kill(pid, signal.SIGSTOP)
            try:
                health = await asyncio.wait_for(router.health(), 30)
            finally:
                os.kill(pid, signal.SIGCONT)
            assert (health.ready, health.reason) == (False, "redis_unavailable")
            assert "no answer within 0.3 s" in health.message
            await becomes(router, "caught_up")


@pytest.mark.usefixtures("short")
async def test_redis_answers_but_refuses_every_settlement(redis: Redis) -> None:
    router = make_router(redis, block_ms=100)

    @router.on(HeTask)
    async def handle(event: HeTask) -> None:
        raise NonRetryableError("never")

    await redis.set(DLQ, "no stream")
    async with running(router):
        await emit(redis, 1)
        assert "settling has been failing for" in (await becomes(router, "redis_unavailable")).message
        await redis.delete(DLQ)
        await becomes(router, "caught_up")


@pytest.mark.usefixtures("short")
async def test_other_consumers_took_everything_it_held(redis: Redis) -> None:
    gate = asyncio.Event()
    router = a_router(redis, gate, claim_min_idle_ms=600, consumer="w")
    async with running(router):
        await emit(redis, *range(10))
        await eventually(lambda: _is_running(router, 1))
        await redis.xclaim(STREAM, GROUP, "another", 0, [row["message_id"] for row in await pending(redis)])
        health = await becomes(router, "leases_lost")
        assert (health.running, health.held) == (1, 0)
        gate.set()
        await until_settled(redis)
        await becomes(router, "caught_up")


async def test_finishing_an_entry_that_another_consumer_has_is_no_progress(redis: Redis) -> None:
    gate = asyncio.Event()
    router = make_router(redis, consumer="w")

    @router.on(HeTask)
    async def handle(event: HeTask) -> None:
        await gate.wait()
        raise ValueError

    async with running(router):
        entry_ids = await emit(redis, 1)
        await eventually(lambda: _is_handling(router, 1))
        await redis.xclaim(STREAM, GROUP, "another", 0, entry_ids)
        gate.set()
        await eventually(lambda: _is_handling(router, 0))
        assert "none settled yet" in (await becomes(router, "caught_up")).message


async def _is_handling(router: EventRouter, count: int) -> bool:
    health = await router.health()
    return (health.running, health.held) == (count, count)


async def test_another_process_took_its_name(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rapids._worker.identity.TTL_MS", 300)
    router = a_router(redis, consumer="mine", block_ms=60_000)
    async with running(router):
        await becomes(router, "caught_up")
        await redis.set(SOURCE.consumer("mine"), "another's token", px=60_000)
        await becomes(router, "name_taken")
        await eventually(lambda: _is_named(router, "mine-2"))
        await emit(redis, 1)  # ends the read under the old name
        await becomes(router, "caught_up")
        await redis.delete(SOURCE.consumer("mine"))


async def _is_named(router: EventRouter, consumer: str) -> bool:
    return (await router.health()).consumer == consumer


async def test_its_name_could_not_be_kept(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rapids._worker.identity.TTL_MS", 300)
    monkeypatch.setattr("rapids._worker.identity.Identity.run", forever)
    router = a_router(redis)
    async with running(router):
        await becomes(router, "name_taken")


# --- the rules ------------------------------------------------------------------------------------------------------


async def test_handlers_that_come_to_an_end_between_two_beats_are_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    """Though at each beat an entry waited, and no handler ran."""
    monkeypatch.setattr("rapids._worker.health_check.INTERVAL", 0.01)
    gate, acks = SimpleNamespace(is_shut=False, running=0), SimpleNamespace(settled_at=0.0)
    monitor = LoopMonitor(cast(Any, gate), cast(Any, SimpleNamespace(is_empty=False)), cast(Any, acks))
    beating = asyncio.create_task(monitor.run())
    for _ in range(20):
        await eventually(lambda: monitor.idle_seconds > 0)
        acks.settled_at += 1
        await eventually(lambda: monitor.idle_seconds == 0, interval=0)
    await eventually(lambda: monitor.idle_seconds > 0.6)
    gate.running = 1
    await eventually(lambda: monitor.idle_seconds == 0)
    beating.cancel()


def test_limits_follow_from_the_settings() -> None:
    by_default = Limits.of(RouterSettings())
    assert (by_default.reader, by_default.lease, by_default.progress) == (12.0, 60.0, 14.0)
    assert Limits.of(RouterSettings(block_ms=60_000)).reader == 67.0
    assert Limits.of(RouterSettings(claim_min_idle_ms=3_600_000)).lease == 3_600.0


def test_every_reason_is_explained_and_tried_here() -> None:
    with open(__file__) as file:
        tried = file.read()
    for reason in get_args(HealthReason):
        assert f"`{reason}`" in str(RouterHealth.__doc__)
        assert f'"{reason}"' in tried


async def test_the_health_of_a_group_someone_else_paused(redis: Redis) -> None:
    """As Redis has it, before this process has looked."""
    router = a_router(redis)
    async with running(router):
        await GroupControl(redis, STREAM, GROUP).pause()
        assert (await router.health()).reason == "paused"
