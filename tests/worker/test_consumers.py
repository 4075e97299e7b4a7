"""Consumers that are gone are removed, and never one that owns something, nor one that lives."""

from __future__ import annotations

import asyncio
import logging

import pytest
from redis.asyncio import Redis

from rapids import BaseEvent, EventEmitter
from rapids.storage import groups
from rapids.storage.connection import SharedPool
from rapids.storage.keys import Source
from tests.support import eventually
from tests.worker.helpers import (
    GROUP,
    STREAM,
    check_keys,
    consumers,
    make_router,
    pending,
    replay_stream,
    running,
    until_settled,
)

SOURCE = Source(STREAM, GROUP)


class OuConsumed(BaseEvent):
    number: int = 0


async def emit(redis: Redis, count: int) -> list[str]:
    return await EventEmitter(redis, STREAM).emit([OuConsumed(number=number) for number in range(count)])


async def prune(redis: Redis, ttl_ms: int = 0) -> list[str]:
    return await groups.prune_consumers(SharedPool(redis), SOURCE, names_of=SOURCE, ttl_ms=ttl_ms)


async def gone(redis: Redis, *names: str) -> None:
    """Consumers that were there and have nothing pending."""
    for name in names:
        await redis.xgroup_createconsumer(STREAM, GROUP, name)


@pytest.fixture
async def group(redis: Redis) -> Redis:
    await redis.xgroup_create(STREAM, GROUP, "0", mkstream=True)
    return redis


async def test_a_running_router_removes_them_after_their_time(group: Redis, caplog: pytest.LogCaptureFixture) -> None:
    await gone(group, "gone", "gone too")
    caplog.set_level(logging.INFO, "rapids")
    async with running(make_router(group, consumer="here", consumer_ttl=0.4)):
        await asyncio.sleep(0.15)
        assert {"gone", "gone too"} <= set(await consumers(group))
        await eventually(lambda: _are(group, {"here"}))
    told = [vars(record)["removed"] for record in caplog.records if hasattr(record, "removed")]
    assert sorted(name for names in told for name in names) == ["gone", "gone too"]


async def _are(redis: Redis, names: set[str]) -> bool:
    return set(await consumers(redis)) == names


async def test_by_default_they_stay_for_an_hour(group: Redis) -> None:
    await gone(group, "gone")
    assert await prune(group, 3_600_000) == []
    assert "gone" in await consumers(group)


async def test_one_that_owns_something_is_never_removed(group: Redis) -> None:
    """Redis would throw its pending entries away with it."""
    await emit(group, 3)
    await group.xreadgroup(GROUP, "owner", {STREAM: ">"}, count=2)
    await gone(group, "gone")
    assert await prune(group) == ["gone"]
    assert len(await pending(group)) == 2


async def test_one_that_came_to_own_something_between_the_look_and_the_step_is_not_removed(
    group: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    await gone(group, "gone", "back")
    [entry_id] = await emit(group, 1)
    really_run = groups.run

    async def run(*args: object) -> object:
        await group.xreadgroup(GROUP, "back", {STREAM: ">"})
        return await really_run(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(groups, "run", run)
    assert await prune(group) == ["gone"]
    assert [row["message_id"].decode() for row in await pending(group)] == [entry_id]


async def test_one_whose_name_a_process_holds_is_not_removed(group: Redis) -> None:
    await gone(group, "idle", "gone")
    await groups.hold_name(SharedPool(group), SOURCE, "idle", "token", ttl_ms=60_000)
    assert await prune(group) == ["gone"]
    assert set(await consumers(group)) == {"idle"}


async def test_idle_routers_do_not_remove_one_another(redis: Redis) -> None:
    routers = [make_router(redis, consumer=name, consumer_ttl=0.05, block_ms=5_000) for name in ("one", "two")]
    async with running(*routers):
        await eventually(lambda: _are(redis, {"one", "two"}))
        await redis.xgroup_createconsumer(STREAM, GROUP, "gone")
        await eventually(lambda: _are(redis, {"one", "two"}))
        await asyncio.sleep(0.3)
        assert set(await consumers(redis)) == {"one", "two"}
        assert set(await consumers(redis, stream=replay_stream())) == {"one", "two"}


async def test_waiting_and_parked_are_not_removed_even_empty(group: Redis) -> None:
    await gone(group, "rapids:waiting", "rapids:parked", "gone")
    assert await prune(group) == ["gone"]
    assert set(await consumers(group)) == {"rapids:waiting", "rapids:parked"}


@pytest.mark.parametrize("name", ["é", "a b", "x" * 300, "{brace}", "%s"])
async def test_any_name_will_do(group: Redis, name: str) -> None:
    await gone(group, name)
    assert await prune(group) == [name]


async def test_a_name_of_any_bytes_disturbs_nobody(group: Redis) -> None:
    await group.execute_command("XGROUP", "CREATECONSUMER", STREAM, GROUP, b"\xff\xfe")
    await gone(group, "gone")
    assert "gone" in await prune(group)


async def test_a_name_taken_while_a_process_stood_still_is_told_once(
    redis: Redis, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rapids.worker.identity.TTL_MS", 150)
    async with running(make_router(redis, consumer="mine")):
        await redis.set(SOURCE.consumer("mine"), "another's token", px=60_000)
        await eventually(lambda: "took this consumer's name" in caplog.text)
        await asyncio.sleep(0.3)  # six more renewals
    assert caplog.text.count("took this consumer's name") == 1
    assert await redis.get(SOURCE.consumer("mine")) == b"another's token"


async def test_a_stopped_router_leaves_a_name_that_can_be_used_at_once(redis: Redis) -> None:
    for _ in range(2):
        router, seen = make_router(redis, consumer="mine"), []

        @router.on(OuConsumed)
        async def handle(event: OuConsumed, seen: list[int] = seen) -> None:
            seen.append(event.number)

        async with running(router):
            await emit(redis, 2)
            await until_settled(redis)
        assert seen == [0, 1]
    assert set(await consumers(redis)) == {"mine"}
    await check_keys(redis)
