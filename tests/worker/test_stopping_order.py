"""The order of the steps of a stop, from wherever it is requested, and without Redis."""

from __future__ import annotations

import asyncio
import logging
import time

import pytest
from redis.asyncio import Redis

from rapids import BaseEvent, EventEmitter, current_delivery
from rapids.exceptions import RedisUnavailableError
from tests.redis.proxy import Proxy
from tests.support import SOON, eventually
from tests.worker.helpers import (
    GROUP,
    STREAM,
    check_keys,
    consumers,
    letters,
    make_idle_router,
    make_router,
    pending,
    running,
    start,
    until_settled,
)


class OuStopped(BaseEvent):
    number: int = 0


async def emit(redis: Redis, *numbers: int) -> list[str]:
    return await EventEmitter(redis, STREAM).emit([OuStopped(number=number) for number in numbers])


class Watched:
    """A router whose handler waits until a test lets it go on, and the commands that its server gets until then."""

    def __init__(self, redis: Redis, **options: object) -> None:
        self.router = make_router(redis, **options)
        self.seen: list[tuple[int, int]] = []
        self.begun, self.go_on, self.ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

        @self.router.on(OuStopped)
        async def handle(event: OuStopped) -> None:
            delivery = current_delivery()
            assert delivery is not None
            self.seen.append((event.number, delivery.deliveries))
            self.begun.set()
            await self.go_on.wait()
            self.ended.set()


# --- the order ------------------------------------------------------------------------------------------------------


async def commands_of(redis: Redis, done: asyncio.Event) -> list[str]:
    """The commands that the server gets from now on until done, those of scripts included."""
    heard: list[str] = []
    async with redis.monitor() as monitor:
        done.set()
        while (command := (await monitor.next_command())["command"]) != "ECHO the end":
            heard.append(command)
    return heard


async def test_a_stop_makes_its_steps_in_order(redis: Redis, redis_url: str) -> None:
    watched, listening = Watched(redis, claim_min_idle_ms=600, consumer="w"), asyncio.Event()
    task = await start(watched.router)
    await emit(redis, *range(5))
    await watched.begun.wait()
    async with Redis.from_url(redis_url) as other:
        listener = asyncio.create_task(commands_of(other, listening))
        await listening.wait()
        await redis.echo("stop")
        stopping = asyncio.create_task(watched.router.stop())
        renewals = "XCLAIM dv:events dv-group w 0"
        calls = await claims(redis)
        await eventually(lambda: _more_claims(redis, calls + 2))  # renewed while the handler may finish
        await redis.echo("finish")
        watched.go_on.set()
        await stopping
        await redis.echo("the end")
        heard = [line.split(" ECHO ")[-1] for line in await listener]
    await task

    stop, finish = heard.index("ECHO stop"), heard.index("ECHO finish")
    before, afterwards = heard[stop:finish], heard[finish:]
    reads = [line for line in before if line.startswith("XREADGROUP")]
    assert len(reads) <= 1  # one that was on its way
    assert not [line for line in afterwards if line.startswith("XREADGROUP")]
    assert [line for line in before if line.startswith(renewals)]
    ack = next(at for at, line in enumerate(afterwards) if line.startswith("XACK dv:events dv-group"))
    back = [at for at, line in enumerate(afterwards) if line.startswith("XCLAIM dv:events dv-group rapids:waiting")]
    release = next(at for at, line in enumerate(afterwards) if line.startswith("DEL {dv:events}:rapids:consumer"))
    assert len(back) == 4
    assert max(ack, *back) < release == max(at for at, line in enumerate(afterwards) if "dv:events" in line)
    assert watched.seen == [(0, 1)]


async def claims(redis: Redis) -> int:
    return (await redis.info("commandstats")).get("cmdstat_xclaim", {"calls": 0})["calls"]


async def _more_claims(redis: Redis, than: int) -> bool:
    return await claims(redis) > than


async def test_released_entries_cost_no_delivery_and_run_at_once_elsewhere(redis: Redis) -> None:
    """Interrupted or never begun, on a router whose leases last for an hour and which gives one chance only."""
    options = {"claim_min_idle_ms": 3_600_000, "max_deliveries": 1}
    first, second = Watched(redis, shutdown_timeout=0.1, **options), Watched(redis, **options)
    second.go_on.set()
    task = await start(first.router)
    await emit(redis, *range(8))
    await first.begun.wait()
    async with running(second.router):
        await first.router.stop()
        stopped = time.monotonic()
        await until_settled(redis)
        assert time.monotonic() - stopped < SOON
    await task
    assert first.seen == [(0, 1)]
    assert sorted(second.seen) == [(number, 1) for number in range(8)]
    assert await letters(redis) == []
    await check_keys(redis)


async def test_a_second_stop_waits_for_the_same_end(redis: Redis) -> None:
    watched = Watched(redis)
    task = await start(watched.router)
    await emit(redis, 0)
    await watched.begun.wait()
    stops = [asyncio.create_task(watched.router.stop()) for _ in range(5)]
    await asyncio.wait(stops, timeout=0.05)
    assert not any(stop.done() for stop in stops)
    watched.go_on.set()
    await asyncio.wait_for(asyncio.gather(*stops), 30)
    await asyncio.wait_for(watched.router.stop(), 30)
    await task
    assert await pending(redis) == []


async def test_a_stop_that_is_cancelled_is_still_a_stop(redis: Redis) -> None:
    watched = Watched(redis)
    task = await start(watched.router)
    await emit(redis, 0)
    await watched.begun.wait()
    stopping = asyncio.create_task(watched.router.stop())
    await asyncio.wait([stopping], timeout=0.05)
    stopping.cancel()
    watched.go_on.set()
    await asyncio.wait_for(task, 30)
    assert await pending(redis) == []


async def test_cancelling_start_during_a_stop_shortens_it(redis: Redis) -> None:
    watched = Watched(redis, shutdown_timeout=60)
    task = await start(watched.router)
    await emit(redis, 0, 1)
    await watched.begun.wait()
    stopping = asyncio.create_task(watched.router.stop())
    await asyncio.wait([stopping], timeout=0.05)
    task.cancel()
    await asyncio.wait_for(stopping, 30)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await consumers(redis) == {"rapids:waiting": 2, **dict.fromkeys(_but_waiting(await consumers(redis)), 0)}


def _but_waiting(names: dict[str, int]) -> list[str]:
    return [name for name in names if name != "rapids:waiting"]


# --- while Redis is down --------------------------------------------------------------------------------------------


async def take_down(proxy: Proxy, how: str) -> None:
    if how == "refused":
        await proxy.refuse()
    else:
        proxy.swallows = True


@pytest.mark.parametrize("how", ["refused", "swallowed"])
async def test_a_stop_during_an_outage_ends_within_seconds_and_loses_nothing(
    redis: Redis, proxy: Proxy, through: Redis, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    watched = Watched(through, shutdown_timeout=300, claim_min_idle_ms=300)
    task = await start(watched.router)
    await emit(redis, *range(5))
    await watched.begun.wait()
    await take_down(proxy, how)
    watched.go_on.set()
    started = time.monotonic()
    await asyncio.wait_for(watched.router.stop(), 30)
    assert time.monotonic() - started < SOON
    await task
    assert "could not settle all entries" in caplog.text

    second = Watched(redis, claim_min_idle_ms=300)
    second.go_on.set()
    async with running(second.router):
        await until_settled(redis)
    assert {number for number, _ in [*watched.seen, *second.seen]} == set(range(5))


@pytest.mark.parametrize("how", ["refused", "swallowed"])
async def test_a_claim_that_waits_for_redis_does_not_delay_a_stop(
    redis: Redis, proxy: Proxy, through: Redis, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No handler runs, so that there is nothing to wait `shutdown_timeout` for."""
    monkeypatch.setattr("rapids._worker.worker.FLUSH_TIME", 0.3)
    await emit(redis, *range(3))
    await redis.xgroup_create(STREAM, GROUP, "0")
    await redis.xreadgroup(GROUP, "dead", {STREAM: ">"})
    watched = Watched(through, shutdown_timeout=300, claim_min_idle_ms=600)
    task = await start(watched.router)
    await watched.begun.wait()  # the others were announced by then, and are claimed in their turn
    await take_down(proxy, how)
    watched.go_on.set()
    await eventually(watched.ended.is_set)
    started = time.monotonic()
    await asyncio.wait_for(watched.router.stop(), 30)
    assert time.monotonic() - started < SOON
    await task
    assert watched.seen == [(0, 2)]


async def test_a_start_that_is_stopped_before_redis_answers(proxy: Proxy, through: Redis) -> None:
    proxy.swallows = True
    router = make_idle_router(through)
    task = asyncio.create_task(router.start())
    await eventually(lambda: proxy.connections)
    task.cancel()
    started = time.monotonic()
    with pytest.raises((asyncio.CancelledError, RedisUnavailableError)):
        await asyncio.wait_for(task, 30)
    assert time.monotonic() - started < SOON
    await router.stop()


async def test_starting_and_stopping_are_logged(redis: Redis, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "rapids")
    async with running(make_router(redis, consumer="w")):
        pass
    logged = [(record.getMessage(), vars(record)["consumer"]) for record in caplog.records]
    started = f"started: router of group {GROUP!r} on stream {STREAM!r}, as consumer 'w'"
    assert logged == [(started, "w"), ("stopped", "w")]


async def test_a_stop_whose_task_is_cancelled_leaves_no_task(redis: Redis) -> None:
    """As an event loop does that ends during a stop: it would wait for ever for a task that is left."""
    router, began = make_router(redis, shutdown_timeout=30), asyncio.Event()

    @router.on(OuStopped)
    async def handle(event: OuStopped) -> None:
        began.set()
        await asyncio.Event().wait()

    before = asyncio.all_tasks()
    await start(router)
    await emit(redis, 0)
    await began.wait()
    stopping = asyncio.create_task(router.stop())
    while not any(task.get_name().endswith(":closing") for task in asyncio.all_tasks()):
        await asyncio.sleep(0)

    tasks = asyncio.all_tasks() - before
    assert stopping in tasks
    for task in tasks:
        task.cancel()
    _, left = await asyncio.wait(tasks, timeout=SOON)
    assert left == set()
