"""`trim="acknowledged"`: a stream keeps entries that a group has not settled yet, and names that group."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis

from rapids import GroupStartPosition
from rapids._worker import trimmer
from tests.support import eventually
from tests.worker.helpers import (
    GROUP,
    STREAM,
    DvOrder,
    as_text,
    check_keys,
    everywhere,
    make_emitter,
    make_router,
    replay_stream,
    running,
    until_settled,
)


@pytest.fixture(autouse=True)
async def soon(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """Trim often, to the entry, and what is a moment old."""
    monkeypatch.setattr(trimmer, "PAUSE", 0.02)
    monkeypatch.setattr(trimmer, "MIN_AGE_MS", 0)
    before = await redis.config_get("stream-node-max-entries")
    await redis.config_set("stream-node-max-entries", 1, **everywhere(redis))
    yield
    await redis.config_set("stream-node-max-entries", before["stream-node-max-entries"], **everywhere(redis))


async def length(redis: Redis, count: int) -> bool:
    return await redis.xlen(STREAM) == count


async def test_by_default_nothing_is_trimmed(redis: Redis) -> None:
    router = make_router(redis)
    async with running(router):
        assert {task.get_name() for task in asyncio.all_tasks()}.isdisjoint({"rapids:dv:events:dv-group:trimmer"})
        await make_emitter(redis).emit([DvOrder() for _ in range(20)])
        await until_settled(redis)
        assert router.trimming is None
    assert await redis.xlen(STREAM) == 20


async def test_settled_entries_are_removed_and_the_trimming_is_reported(redis: Redis) -> None:
    router, seen = make_router(redis, trim="acknowledged"), []

    @router.on(DvOrder)
    async def handle(event: DvOrder) -> None:
        seen.append(event.number)

    assert router.trimming is None
    async with running(router):
        await make_emitter(redis).emit([DvOrder(number=number) for number in range(50)])
        await eventually(lambda: length(redis, 1))
        await eventually(lambda: router.trimming is not None and router.trimming.removed == 49)
        trimming = router.trimming
        assert trimming is not None
        assert (trimming.left, trimming.held_back_by) == (1, None)
    assert router.trimming is None
    assert seen == list(range(50))
    await check_keys(redis)


async def test_more_entries_than_one_call_may_remove_are_removed(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trimmer, "MAX_REMOVED", 7)
    monkeypatch.setattr(trimmer, "PAUSE", 5.0)
    await make_emitter(redis).emit([DvOrder() for _ in range(100)])
    await redis.xgroup_create(STREAM, GROUP, "$")
    async with running(make_router(redis, trim="acknowledged")):
        await eventually(lambda: length(redis, 1))  # without a pause after each call


async def test_a_foreign_group_that_delays_trimming_is_named(
    redis: Redis, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trimmer, "LONG_HELD", 0.05)
    router = make_router(redis, trim="acknowledged")
    router.on(DvOrder)(_pass)
    await redis.xgroup_create(STREAM, "slow", "0", mkstream=True)
    with caplog.at_level(logging.INFO, "rapids"):
        async with running(router):
            ids = await make_emitter(redis).emit([DvOrder() for _ in range(20)])
            await until_settled(redis)
            await eventually(lambda: warnings(caplog, "slow"))
            seen = router.trimming
            assert seen is not None
            assert seen.held_back_by is not None
            assert (seen.held_back_by.group, seen.held_back_by.entry_id) == ("slow", ids[0])
            assert seen.held_back_by.consumer is None
            assert 0.05 <= seen.held_back_by.age < 60
            assert (seen.removed, seen.left) == (0, 20)

            await redis.xreadgroup("slow", "worker", {STREAM: ">"})
            await eventually(lambda: _held_by_consumer(router, "worker"))
            await redis.xack(STREAM, "slow", *ids)
            await eventually(lambda: length(redis, 1))
            await eventually(lambda: "any more" in caplog.text)
    [warning] = warnings(caplog, "slow")
    assert ids[0] in warning


def warnings(caplog: pytest.LogCaptureFixture, group: str) -> list[str]:
    found = [record for record in caplog.records if f"group '{group}' holds back the trimming" in record.getMessage()]
    assert all(record.levelno == logging.WARNING for record in found)
    return [record.getMessage() for record in found]


def _held_by_consumer(router: object, consumer: str) -> bool:
    if router.trimming is None:  # type: ignore[attr-defined]
        return False  # it has not looked yet
    held = router.trimming.held_back_by  # type: ignore[attr-defined]
    return held is not None and held.consumer == consumer


async def _pass(event: DvOrder) -> None: ...


async def test_groups_that_delay_trimming_are_logged_one_after_another(
    redis: Redis, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trimmer, "MANY_LEFT", 10)
    monkeypatch.setattr(trimmer, "MANY_HELD", 0.3)
    router = make_router(redis, trim="acknowledged")
    router.on(DvOrder)(_pass)
    for name in ("first", "second"):
        await redis.xgroup_create(STREAM, name, "0", mkstream=True)
    with caplog.at_level(logging.INFO, "rapids"):
        async with running(router):
            await make_emitter(redis).emit([DvOrder() for _ in range(20)])
            await eventually(lambda: warnings(caplog, "first"))
            await redis.xgroup_destroy(STREAM, "first")
            await eventually(lambda: warnings(caplog, "second"))
            await redis.xreadgroup("second", "worker", {STREAM: ">"}, count=9, noack=True)
            await eventually(lambda: length(redis, 12))
            turns = router.trimming
            await eventually(lambda: router.trimming is not turns)
            assert "'second' does not" not in caplog.text, "at the limit it would be logged at every turn"
            await redis.xreadgroup("second", "worker", {STREAM: ">"}, noack=True)
            await eventually(lambda: "'second' does not hold back" in caplog.text)
    assert (len(warnings(caplog, "first")), len(warnings(caplog, "second"))) == (1, 1)


async def test_waiting_and_parked_entries_are_not_trimmed(redis: Redis) -> None:
    router = make_router(
        redis, trim="acknowledged", dlq_stream=None, max_deliveries=1, retry_blocks_key=False, consumer="me"
    )
    ran: list[int] = []

    @router.on(DvOrder)
    async def handle(event: DvOrder) -> None:
        ran.append(event.number)
        if event.number == 0:
            raise ValueError

    async with running(router):
        ids = await make_emitter(redis).emit([DvOrder(number=number) for number in range(10)])
        await eventually(lambda: len(ran) == 10)
        await eventually(lambda: _held_by_consumer(router, "rapids:parked"))
        seen = router.trimming
        await eventually(lambda: router.trimming is not seen)
    assert [as_text(entry_id) for entry_id, _ in await redis.xrange(STREAM)] == ids
    await check_keys(redis, settled=False)


async def test_replay_streams_are_left_alone(redis: Redis) -> None:
    router = make_router(redis, trim="acknowledged")
    for _ in range(5):
        await redis.xadd(replay_stream(group="elsewhere"), {"a": "b"})
    async with running(router):
        await make_emitter(redis).emit([DvOrder() for _ in range(10)])
        await eventually(lambda: length(redis, 1))
    assert await redis.xlen(replay_stream(group="elsewhere")) == 5


async def test_a_group_made_later_begins_with_what_is_left(redis: Redis) -> None:
    router = make_router(redis, trim="acknowledged")
    async with running(router):
        await make_emitter(redis).emit([DvOrder(number=number) for number in range(10)])
        await eventually(lambda: length(redis, 1))
    later, seen = make_router(redis, group="dv-group-later", group_start_id=GroupStartPosition.BEGINNING), []

    @later.on(DvOrder)
    async def handle(event: DvOrder) -> None:
        seen.append(event.number)

    async with running(later):
        await until_settled(redis, group="dv-group-later")
    assert seen == [9]


async def test_several_routers_may_trim_and_no_group_misses_anything(redis: Redis) -> None:
    groups = [f"dv-group{number}" for number in range(3)]
    seen: dict[str, list[int]] = {name: [] for name in groups}
    routers = []
    for name in groups:
        router = make_router(redis, group=name, trim="acknowledged", batch_size=7)

        async def handle(event: DvOrder, name: str = name) -> None:
            await asyncio.sleep(0.001 * (event.number % 3))
            seen[name].append(event.number)

        router.on(DvOrder)(handle)
        routers.append(router)
    async with running(*routers):
        emitter = make_emitter(redis)
        for first in range(0, 600, 20):
            await emitter.emit([DvOrder(number=number) for number in range(first, first + 20)])
            await asyncio.sleep(0.005)
        await eventually(lambda: all(len(numbers) == 600 for numbers in seen.values()))
        await eventually(lambda: length(redis, 1))
    assert all(sorted(numbers) == list(range(600)) for numbers in seen.values())


@pytest.mark.standalone("a user for each node of a fleet is tried in tests/topologies")
async def test_a_user_without_the_right_to_trim_is_warned_once_and_handles_events(
    redis: Redis, redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    await redis.execute_command("ACL", "SETUSER", "reader", "on", "nopass", "~*", "+@all", "-xtrim")
    try:
        async with Redis.from_url(redis_url, username="reader", password="any") as limited:
            router, seen = make_router(limited, trim="acknowledged"), list[int]()

            @router.on(DvOrder)
            async def handle(event: DvOrder) -> None:
                seen.append(event.number)

            async with running(router):
                await make_emitter(redis).emit([DvOrder(number=number) for number in range(5)])
                await eventually(lambda: refusals(caplog))
                looks = router.counters.total("outages")
                await eventually(lambda: len(seen) == 5)
                await until_settled(redis)
                assert (await router.health()).ready
            assert looks == 0
    finally:
        await redis.execute_command("ACL", "DELUSER", "reader")
    assert len(refusals(caplog)) == 1
    assert await redis.xlen(STREAM) == 5


def refusals(caplog: pytest.LogCaptureFixture) -> list[str]:
    messages = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    return [message for message in messages if message.startswith("the stream is not trimmed")]
