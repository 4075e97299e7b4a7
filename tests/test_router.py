"""The router from outside: starting, stopping, registering, and the lag of a group."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from rapids import EventEmitter, EventRouter, GroupStartPosition, RapidsError
from rapids._core.settings import RouterSettings
from rapids._storage.keys import announced_routers
from rapids.exceptions import NotConfiguredError, RedisUnavailableError
from tests.support import SOON, eventually
from tests.worker.helpers import (
    GROUP,
    STREAM,
    DvOrder,
    check_keys,
    make_emitter,
    make_idle_router,
    make_router,
    running,
    start,
    until_settled,
)

# --- options --------------------------------------------------------------------------------------------------------


def test_the_defaults_are_the_reference_s() -> None:
    router = EventRouter()
    assert (router.stream, router.group, router.dlq_stream) == ("events:all", "default", None)


def test_every_option_of_the_settings_is_one_of_the_router() -> None:
    for option in RouterSettings.names():
        with pytest.raises((TypeError, ValueError), match=option):
            EventRouter(**{option: object()})  # type: ignore[arg-type]


@pytest.mark.parametrize("middleware", [[5], ["text"], [None]])
def test_middleware_must_be_callable(middleware: Any) -> None:
    with pytest.raises(TypeError, match="middleware"):
        EventRouter(middleware=middleware)


def test_the_default_dead_letter_stream_lies_in_the_stream_s_slot() -> None:
    router = EventRouter(stream="dv:events")
    router.use_default_dlq()
    assert router.dlq_stream == "{dv:events}:dlq"


def test_a_given_dead_letter_stream_is_kept() -> None:
    router = EventRouter(dlq_stream="dv:mine")
    router.use_default_dlq()
    assert router.dlq_stream == "dv:mine"


# --- starting -------------------------------------------------------------------------------------------------------


async def test_without_a_client_it_says_what_to_call() -> None:
    router = EventRouter()
    with pytest.raises(NotConfiguredError, match="start") as caught:
        await router.start()
    assert isinstance(caught.value, RapidsError)
    assert isinstance(caught.value, RuntimeError)
    with pytest.raises(NotConfiguredError):
        await router.get_consumer_lag()


async def test_a_router_accepts_its_client_at_start(redis: Redis) -> None:
    router, seen = make_router(None), []

    @router.on(DvOrder)
    async def handle(event: DvOrder) -> None:
        seen.append(event.number)

    async with running(router, redis=redis):
        await make_emitter(redis).emit(DvOrder(number=1))
        await eventually(lambda: seen == [1])
        assert (await router.get_consumer_lag()).stream_length == 1


async def test_a_missing_server_is_one_clear_error() -> None:
    async with Redis.from_url("redis://127.0.0.1:1") as nowhere:
        with pytest.raises(RedisUnavailableError, match="Redis") as caught:
            await make_idle_router(nowhere).start()
    assert isinstance(caught.value, ConnectionError)


async def test_a_router_without_handlers_does_not_start(redis: Redis) -> None:
    await make_emitter(redis).emit(DvOrder(number=1))
    router = make_router(redis)
    with pytest.raises(NotConfiguredError, match=rf"group '{GROUP}' on stream '{STREAM}' has no handlers.*imported"):
        await router.start()
    assert not router.running
    assert await redis.xinfo_groups(STREAM) == [], "nothing was read, so nothing was acknowledged"
    seen: list[int] = []

    @router.on(DvOrder)
    async def handle(event: DvOrder) -> None:
        seen.append(event.number)

    async with running(router):
        await eventually(lambda: seen == [1])


async def test_a_start_that_failed_can_be_repeated(redis: Redis) -> None:
    async with Redis.from_url("redis://127.0.0.1:1") as nowhere:
        router = make_idle_router(nowhere)
        with pytest.raises(RedisUnavailableError):
            await router.start()
    assert not router.running
    async with running(router, redis=redis):
        assert router.running


async def test_a_stream_that_is_something_else_is_an_error_at_start(redis: Redis) -> None:
    await redis.set(STREAM, "a string")
    with pytest.raises(ResponseError, match="WRONGTYPE"):
        await make_idle_router(redis).start()


async def test_a_router_cannot_be_started_twice_at_the_same_time(redis: Redis) -> None:
    router = make_router(redis)
    async with running(router):
        with pytest.raises(RapidsError, match="start"):
            await router.start()
        assert router.running


async def test_handlers_cannot_be_registered_while_it_runs(redis: Redis) -> None:
    router = make_router(redis)

    async def handle(event: DvOrder) -> None: ...

    async with running(router):
        with pytest.raises(RapidsError, match="on"):
            router.on(DvOrder)(handle)
        with pytest.raises(RapidsError, match="use_default_dlq"):
            router.use_default_dlq()
    router.on(DvOrder)(handle)


async def test_wait_started_returns_once_it_consumes(redis: Redis) -> None:
    router = make_idle_router(redis)
    starting = asyncio.create_task(router.start())

    await router.wait_started()

    assert router.running
    assert [row["name"] for row in await redis.xinfo_groups(STREAM)] == [GROUP.encode()]
    await router.stop()
    await starting


async def test_wait_started_raises_the_error_of_a_start_that_failed() -> None:
    async with Redis.from_url("redis://127.0.0.1:1") as nowhere:
        router = make_idle_router(nowhere)
        starting = asyncio.create_task(router.start())
        with pytest.raises(RapidsError):
            await router.wait_started()
        with pytest.raises(RedisUnavailableError):
            await starting


async def test_wait_started_without_a_start_is_an_error() -> None:
    with pytest.raises(RapidsError, match="start"):
        await EventRouter().wait_started()


# --- where a group starts -------------------------------------------------------------------------------------------


async def handled(router: EventRouter, redis: Redis, then: int) -> list[int]:
    """The numbers a router handles when event `then` is emitted once it runs."""
    seen: list[int] = []

    @router.on(DvOrder)
    async def handle(event: DvOrder) -> None:
        seen.append(event.number)

    async with running(router):
        await make_emitter(redis).emit(DvOrder(number=then))
        await eventually(lambda: then in seen)
        await until_settled(redis)
    return seen


async def test_a_new_group_starts_at_the_beginning(redis: Redis) -> None:
    await make_emitter(redis).emit([DvOrder(number=1), DvOrder(number=2)])
    assert await handled(make_router(redis), redis, then=3) == [1, 2, 3]


async def test_a_new_group_starts_at_the_end_on_request(redis: Redis) -> None:
    await make_emitter(redis).emit([DvOrder(number=1), DvOrder(number=2)])
    router = make_router(redis, group_start_id=GroupStartPosition.LATEST)
    assert await handled(router, redis, then=3) == [3]


async def test_a_new_group_starts_after_a_given_entry(redis: Redis) -> None:
    ids = await make_emitter(redis).emit([DvOrder(number=1), DvOrder(number=2)])
    assert await handled(make_router(redis, group_start_id=ids[0]), redis, then=3) == [2, 3]


@pytest.mark.parametrize("position", list(GroupStartPosition))
async def test_a_group_that_exists_keeps_its_position(redis: Redis, position: GroupStartPosition) -> None:
    assert await handled(make_router(redis), redis, then=1) == [1]
    await make_emitter(redis).emit(DvOrder(number=2))
    assert await handled(make_router(redis, group_start_id=position), redis, then=3) == [2, 3]


# --- stopping -------------------------------------------------------------------------------------------------------


async def test_stop_is_harmless_if_nothing_runs_and_when_repeated(redis: Redis) -> None:
    router = make_router(redis)
    await router.stop()
    task = await start(router)
    await asyncio.gather(router.stop(), router.stop())
    await router.stop()
    await asyncio.wait_for(task, 30)
    assert not router.running


async def test_a_router_with_nothing_to_do_stops_at_once_however_long_it_blocks(redis: Redis) -> None:
    task = await start(make := make_router(redis, block_ms=60_000))
    await asyncio.wait_for(make.stop(), 30)
    await asyncio.wait_for(task, 30)


async def test_a_handler_may_stop_its_router(redis: Redis) -> None:
    router, finished = make_router(redis), []

    @router.on(DvOrder)
    async def handle(event: DvOrder) -> None:
        await router.stop()
        finished.append(event.number)

    task = await start(router)
    await make_emitter(redis).emit([DvOrder(number=1), DvOrder(number=2)])
    await asyncio.wait_for(task, 30)

    assert finished == [1]


@pytest.mark.parametrize("way", ["wait_for", "task"])
async def test_a_handler_may_stop_its_router_from_a_task_of_its_own(redis: Redis, way: str) -> None:
    router, finished = make_router(redis, shutdown_timeout=20), []

    @router.on(DvOrder)
    async def handle(event: DvOrder) -> None:
        # In Python 3.11 wait_for, too, runs what it waits for in another task.
        await (asyncio.wait_for(router.stop(), 30) if way == "wait_for" else asyncio.create_task(router.stop()))
        finished.append(event.number)

    task = await start(router)
    await make_emitter(redis).emit(DvOrder(number=1))
    await asyncio.wait_for(task, 30)

    assert finished == [1]


async def test_cancelling_the_task_of_start_stops_gracefully(redis: Redis) -> None:
    router, begun, finished = make_router(redis), asyncio.Event(), []

    @router.on(DvOrder)
    async def handle(event: DvOrder) -> None:
        begun.set()
        await asyncio.sleep(0.1)
        finished.append(event.number)

    task = await start(router)
    await make_emitter(redis).emit(DvOrder(number=1))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert finished == [1]
    await until_settled(redis)
    assert not router.running


async def test_cancelling_start_again_and_again_leaves_no_task(redis: Redis) -> None:
    router, begun = make_router(redis, shutdown_timeout=20), asyncio.Event()

    @router.on(DvOrder)
    async def handle(event: DvOrder) -> None:
        begun.set()
        await asyncio.sleep(20)

    task = await start(router)
    await make_emitter(redis).emit(DvOrder(number=1))
    await begun.wait()
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0.02)
    await asyncio.wait([task], timeout=SOON)

    assert task.cancelled()
    assert [left.get_name() for left in asyncio.all_tasks() if left.get_name().startswith("rapids:")] == []
    assert not router.running


async def test_a_router_left_running_ends_with_its_event_loop(redis_url: str) -> None:
    def run() -> None:
        async def main() -> None:
            client = Redis.from_url(redis_url)
            task = await start(make_router(client))
            await client.aclose()
            assert not task.done()

        asyncio.run(main())

    await asyncio.wait_for(asyncio.to_thread(run), 30)


async def test_after_stop_nothing_is_left_running_or_connected(redis: Redis) -> None:
    before = len(await redis.client_list())
    async with running(make_router(redis)):
        assert len(await redis.client_list()) > before
    assert [task.get_name() for task in asyncio.all_tasks() if task.get_name().startswith("rapids:")] == []
    await eventually(lambda: _connections(redis, before))
    kept = await check_keys(redis) - {announced_routers()}  # of routers that ran long enough to be announced
    assert kept == {STREAM, "{dv:events}:rapids:replay:dv-group", "{dv:events}:rapids:rates:dv-group"}


async def _connections(redis: Redis, wanted: int) -> bool:
    return len(await redis.client_list()) == wanted


async def test_a_router_can_run_again(redis: Redis) -> None:
    router, seen = make_router(redis), []

    @router.on(DvOrder)
    async def handle(event: DvOrder) -> None:
        seen.append(event.number)

    for number in range(3):
        async with running(router):
            assert router.last_progress is not None
            await make_emitter(redis).emit(DvOrder(number=number))
            await eventually(lambda number=number: number in seen)
        assert router.last_progress is None
    assert seen == [0, 1, 2]


def test_a_router_can_run_again_on_another_event_loop(redis_url: str) -> None:
    router, seen = make_router(None), []
    emitter = EventEmitter(stream=STREAM)

    @router.on(DvOrder)
    async def handle(event: DvOrder) -> None:
        seen.append(event.number)

    async def run(number: int) -> None:
        async with Redis.from_url(redis_url) as client:
            emitter.configure(client)
            async with running(router, redis=client):
                await emitter.emit(DvOrder(number=number))
                await eventually(lambda: number in seen)

    for number in range(3):
        asyncio.run(run(number))
    assert seen == [0, 1, 2]


async def test_a_stop_before_the_start_ran_is_not_lost(redis: Redis) -> None:
    router = make_idle_router(redis)
    task = asyncio.create_task(router.start())
    await router.stop()
    await asyncio.wait_for(task, 30)
    assert not router.running


def test_a_router_refuses_an_object_that_is_no_client() -> None:
    with pytest.raises(TypeError, match=r"redis must be a redis\.asyncio\.Redis or RedisCluster client"):
        EventRouter("redis://localhost")  # type: ignore[arg-type]
