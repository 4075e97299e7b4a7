"""Consumers whose process is gone are removed, but never one with pending entries or a living process."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

import pytest
import redis as redis_sync
from redis.asyncio import Redis

from rapids import BaseEvent, EventEmitter, current_delivery
from rapids._storage import groups
from rapids._storage.client.connections import SharedPool
from rapids._storage.keys import Source
from rapids._worker import identity
from tests.support import eventually
from tests.worker.helpers import (
    GROUP,
    STREAM,
    DvOrder,
    as_text,
    calls,
    check_keys,
    consumers,
    emit_orders,
    everywhere,
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
    return await groups.prune_consumers(SharedPool(redis, SOURCE.stream), SOURCE, names_of=SOURCE, ttl_ms=ttl_ms)


async def gone(redis: Redis, *names: str) -> None:
    """Consumers that were there and have nothing pending."""
    for name in names:
        await redis.xgroup_createconsumer(STREAM, GROUP, name)


@pytest.fixture
async def group(redis: Redis) -> Redis:
    await redis.xgroup_create(STREAM, GROUP, "0", mkstream=True)
    return redis


async def test_a_running_router_removes_gone_consumers_after_their_time(
    group: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    began = time.monotonic()
    await gone(group, "gone", "gone too")
    caplog.set_level(logging.INFO, "rapids")
    async with running(make_router(group, consumer="here", consumer_ttl=0.4)):
        await eventually(lambda: _has_none_of(group, {"gone", "gone too"}))
        assert time.monotonic() - began >= 0.4
    logged = [vars(record)["removed"] for record in caplog.records if hasattr(record, "removed")]
    assert sorted(name for names in logged for name in names) == ["gone", "gone too"]


async def _has_none_of(redis: Redis, names: set[str]) -> bool:
    return names.isdisjoint(await consumers(redis))


async def test_by_default_gone_consumers_stay_for_an_hour(group: Redis) -> None:
    await gone(group, "gone")
    assert await prune(group, 3_600_000) == []
    assert "gone" in await consumers(group)


async def test_a_consumer_with_pending_entries_is_never_removed(group: Redis) -> None:
    """Redis would throw its pending entries away with it."""
    await emit(group, 3)
    await group.xreadgroup(GROUP, "owner", {STREAM: ">"}, count=2)
    await gone(group, "gone")
    assert await prune(group) == ["gone"]
    assert len(await pending(group)) == 2


async def test_a_consumer_that_got_an_entry_just_before_its_removal_is_not_removed(
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


async def test_a_consumer_whose_name_a_process_holds_is_not_removed(group: Redis) -> None:
    await gone(group, "idle", "gone")
    await groups.hold(SharedPool(group, SOURCE.stream), SOURCE.consumer("idle"), "token", ttl_ms=60_000)
    assert await prune(group) == ["gone"]
    assert set(await consumers(group)) == {"idle"}


async def test_idle_routers_do_not_remove_one_another(redis: Redis) -> None:
    routers = [make_router(redis, consumer=name, consumer_ttl=0.05, block_ms=5_000) for name in ("one", "two")]
    async with running(*routers):
        for name in ("one", "two"):  # Redis 6.2 does so only when it has something for them
            await redis.xgroup_createconsumer(STREAM, GROUP, name)
            await redis.xgroup_createconsumer(replay_stream(), GROUP, name)
        await redis.xgroup_createconsumer(STREAM, GROUP, "gone")
        await eventually(lambda: _has_none_of(redis, {"gone"}))
        await redis.xgroup_createconsumer(STREAM, GROUP, "gone later")
        await eventually(lambda: _has_none_of(redis, {"gone later"}))
        assert set(await consumers(redis)) == {"one", "two"}
        assert set(await consumers(redis, stream=replay_stream())) == {"one", "two"}


async def test_empty_holding_consumers_are_not_removed(group: Redis) -> None:
    await gone(group, "rapids:waiting", "rapids:parked", "gone")
    assert await prune(group) == ["gone"]
    assert set(await consumers(group)) == {"rapids:waiting", "rapids:parked"}


@pytest.mark.parametrize("name", ["é", "a b", "x" * 300, "{brace}", "%s"])
async def test_a_consumer_may_have_any_name(group: Redis, name: str) -> None:
    await gone(group, name)
    assert await prune(group) == [name]


async def test_a_consumer_name_of_any_bytes_does_no_harm(group: Redis) -> None:
    await group.execute_command("XGROUP", "CREATECONSUMER", STREAM, GROUP, b"\xff\xfe")
    await gone(group, "gone")
    assert "gone" in await prune(group)


async def test_a_suspended_process_whose_name_was_taken_drops_its_entries_and_takes_another_name(
    redis: Redis, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rapids._worker.identity.TTL_MS", 150)
    router, seen, go_on = make_router(redis, consumer="mine"), [], asyncio.Event()

    @router.on(OuConsumed)
    async def handle(event: OuConsumed) -> None:
        delivery = current_delivery()
        assert delivery is not None
        seen.append((event.number, delivery.consumer))
        await go_on.wait()

    async with running(router):
        _, *held = await emit(redis, 4)
        await eventually(lambda: seen)
        await redis.set(SOURCE.consumer("mine"), "another's token", px=60_000)
        await eventually(lambda: "took the consumer name 'mine'" in caplog.text)
        go_on.set()
        await eventually(lambda: redis.exists(SOURCE.consumer("mine-2")))
        before = (await calls(redis))["xreadgroup"]
        await eventually(lambda: _has_read(redis, before + 2))  # the last one under the old name, and one under the new
        await EventEmitter(redis, STREAM).emit(OuConsumed(number=9))
        await eventually(lambda: (9, "mine-2") in seen)
        await eventually(lambda: _pend(redis, dict.fromkeys(held, "mine")))
        await redis.delete(SOURCE.consumer("mine"))
    assert seen == [(0, "mine"), (9, "mine-2")], "what another process runs by now was run"
    assert caplog.text.count("took the consumer name") == 1
    [details] = [vars(record) for record in caplog.records if hasattr(record, "lost_leases")]
    assert (details["consumer"], details["lost_leases"]) == ("mine-2", 4)


async def _pend(redis: Redis, owners: dict[str, str]) -> bool:
    return {as_text(row["message_id"]): as_text(row["consumer"]) for row in await pending(redis)} == owners


async def _has_read(redis: Redis, count: int) -> bool:
    return (await calls(redis))["xreadgroup"] >= count


@pytest.mark.standalone("the process is blocked by a client that blocks the event loop")
async def test_a_suspended_process_checks_its_name_before_it_begins_anything(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its leases last for a minute, and the name for less: the process that has it has recalled what is pending."""
    monkeypatch.setattr("rapids._worker.identity.TTL_MS", 400)
    router, seen = make_router(redis, consumer="mine"), []

    @router.on(OuConsumed)
    async def handle(event: OuConsumed) -> None:
        seen.append(event.number)
        if event.number == 0:
            with redis_sync.Redis(**sync_options(redis)) as taker:
                taker.set(SOURCE.consumer("mine"), "another's token", px=60_000)
            time.sleep(0.5)  # the process is blocked

    await emit(redis, 4)
    async with running(router):
        await eventually(lambda: _pend_count(redis, 3))
        assert seen == [0]


@pytest.mark.standalone("the process is blocked by a client that blocks the event loop")
async def test_a_taken_name_is_reported_once_though_several_executors_ask(
    redis: Redis, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rapids._worker.identity.TTL_MS", 400)
    router = make_router(redis, consumer="mine", concurrency=4)

    @router.on(OuConsumed)
    async def handle(event: OuConsumed) -> None:
        if event.number == 0:
            with redis_sync.Redis(**sync_options(redis)) as taker:
                taker.set(SOURCE.consumer("mine"), "another's token", px=60_000)
            time.sleep(0.5)  # the process is blocked

    await emit(redis, 8)
    async with running(router):
        await eventually(lambda: redis.exists(SOURCE.consumer("mine-2")))
        await EventEmitter(redis, STREAM).emit(OuConsumed(number=9))
        await eventually(lambda: _is_consumer(redis, "mine-2"))
    assert caplog.text.count("took the consumer name") == 1
    assert not await redis.exists(SOURCE.consumer("mine-3"))


async def _is_consumer(redis: Redis, name: str) -> bool:
    return name in await consumers(redis)


async def _pend_count(redis: Redis, count: int) -> bool:
    return len(await pending(redis)) == count


def sync_options(redis: Redis) -> dict[str, Any]:
    return {"unix_socket_path": redis.connection_pool.connection_kwargs["path"]}


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


async def test_a_server_out_of_memory_for_longer_than_a_name_lasts_does_not_stop_handling(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(identity, "TTL_MS", 600)
    router, seen = make_router(redis), []

    @router.on(DvOrder)
    async def handle(event: DvOrder) -> None:
        seen.append(event.number)
        await asyncio.sleep(0.02)

    async with running(router):
        await emit_orders(redis, *range(1_000))
        await redis.config_set("maxmemory", "1", **everywhere(redis))
        try:
            before = len(seen)
            await eventually(lambda: len(seen) >= before + 100)  # two seconds, by what the handler takes
        finally:
            await redis.config_set("maxmemory", "0", **everywhere(redis))
