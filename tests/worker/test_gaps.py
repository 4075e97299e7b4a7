"""What is cut from the stream before the group has read it: reported once, with a count, and only if certain."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from typing import Any

import pytest
from redis.asyncio import Redis

from rapids import EventRouter, GroupStartPosition
from rapids._storage import read_positions
from rapids._worker import losses
from tests.support import eventually
from tests.worker.gap_reports import ReportedGaps, reported_gaps, warnings
from tests.worker.helpers import (
    GROUP,
    STREAM,
    DvOrder,
    as_text,
    check_keys,
    everywhere,
    make_emitter,
    make_router,
    running,
    until_settled,
)

# --- on a server ----------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
async def exact(redis: Redis) -> AsyncIterator[None]:
    """Streams that are cut to the entry."""
    before = await redis.config_get("stream-node-max-entries")
    await redis.config_set("stream-node-max-entries", 1, **everywhere(redis))
    yield
    await redis.config_set("stream-node-max-entries", before["stream-node-max-entries"], **everywhere(redis))


@pytest.fixture
def reported(caplog: pytest.LogCaptureFixture) -> Iterator[ReportedGaps]:
    with caplog.at_level(logging.INFO, "rapids"):
        yield partial(reported_gaps, caplog)


async def counts(redis: Redis) -> bool:
    """Whether this server counts what was added to a stream: from Redis 7.0 on."""
    return "entries-added" in await redis.xinfo_stream(STREAM)


class Slow:
    """A handler that takes one entry for each step that a test allows."""

    def __init__(self, router: EventRouter) -> None:
        self.seen: list[int] = []
        self.steps = asyncio.Semaphore(0)
        router.on(DvOrder)(self._handle)

    async def _handle(self, event: DvOrder) -> None:
        self.seen.append(event.number)
        await self.steps.acquire()

    def let_go(self, count: int = 1_000_000) -> None:
        for _ in range(count):
            self.steps.release()


async def emit(redis: Redis, numbers: range) -> list[str]:
    return await make_emitter(redis, maxlen=None).emit([DvOrder(number=number) for number in numbers])


async def test_entries_cut_while_nothing_ran_are_reported_at_the_start(redis: Redis, reported: Any) -> None:
    router = make_router(redis, batch_size=3)
    router.on(DvOrder)(_pass)
    ids = await emit(redis, range(10))
    async with running(router):
        await until_settled(redis)
    ids += await emit(redis, range(10, 60))
    await redis.xtrim(STREAM, maxlen=20, approximate=False)
    async with running(router):
        await until_settled(redis)
        await emit(redis, range(60, 80))
        await until_settled(redis)
    assert reported() == ([(ids[9], ids[40], 30)] if await counts(redis) else [])
    await check_keys(redis)


async def _pass(event: DvOrder) -> None: ...


async def test_entries_cut_while_a_router_runs_are_reported_once_for_each_gap(redis: Redis, reported: Any) -> None:
    router = make_router(redis, batch_size=2)
    slow = Slow(router)
    ids = await emit(redis, range(50))
    async with running(router):
        await eventually(lambda: slow.seen)
        await eventually(lambda: _has_read(redis, 4))  # two batches wait after the one that is handled
        await redis.xtrim(STREAM, maxlen=20, approximate=False)
        slow.let_go(10)
        await eventually(lambda: reported())
        await eventually(lambda: len(slow.seen) == 11)
        ids += await emit(redis, range(50, 60))
        last = await _read_so_far(redis)
        await redis.xtrim(STREAM, maxlen=5, approximate=False)
        slow.let_go()
        await until_settled(redis)
    known = await counts(redis)
    at = ids.index(last) + 1
    assert reported() == [(ids[3], ids[30], 26 if known else None), (last, ids[55], 55 - at if known else None)]
    assert slow.seen == [*range(4), *range(30, at), *range(55, 60)]


async def _has_read(redis: Redis, count: int) -> bool:
    return (await redis.xpending(STREAM, GROUP))["pending"] == count


async def _read_so_far(redis: Redis) -> str:
    [group] = await redis.xinfo_groups(STREAM)
    return as_text(group["last-delivered-id"])


async def test_a_stream_that_was_emptied(redis: Redis, reported: Any) -> None:
    router = make_router(redis, batch_size=2)
    slow = Slow(router)
    ids = await emit(redis, range(20))
    async with running(router):
        await eventually(lambda: slow.seen)
        await eventually(lambda: _has_read(redis, 4))
        await redis.xtrim(STREAM, maxlen=0, approximate=False)
        slow.let_go()
        await eventually(lambda: _has_read(redis, 0))
        await emit(redis, range(20, 21))
        await until_settled(redis)
    assert [(after, estimated) for after, _, estimated in reported()] == [(ids[3], 16 if await counts(redis) else None)]
    assert slow.seen == [*range(4), 20]


async def test_reads_that_end_without_entries_since_another_group_was_destroyed(
    redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    """As they do before Redis 7.2, if the last entry was deleted before the group read it."""
    router = make_router(redis, batch_size=1)
    slow = Slow(router)
    await emit(redis, range(4))
    async with running(router):
        await eventually(lambda: slow.seen)
        await redis.xtrim(STREAM, maxlen=0, approximate=False)
        slow.let_go()
        await eventually(lambda: _has_read(redis, 0))
        for _ in range(5):
            await redis.xgroup_create(STREAM, "another", "$")
            await redis.xgroup_destroy(STREAM, "another")
        await emit(redis, range(4, 5))
        await eventually(lambda: slow.seen[-1] == 4)
    assert "restarted" not in caplog.text


async def test_only_one_of_several_consumers_reports_a_gap(redis: Redis, reported: Any) -> None:
    routers = [make_router(redis, batch_size=1) for _ in range(3)]
    slows = [Slow(router) for router in routers]
    await emit(redis, range(100))
    async with running(*routers):
        await eventually(lambda: _has_read(redis, 9))
        await redis.xtrim(STREAM, maxlen=40, approximate=False)
        for slow in slows:
            slow.let_go()
        await until_settled(redis)
    if await counts(redis):
        assert [estimated for _, _, estimated in reported()] == [51]
    else:  # which of them can be certain depends on who read last
        assert len(reported()) <= 1


async def test_a_router_slower_than_the_emitters_maxlen_reports_every_loss(
    redis: Redis, reported: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From when a look has seen that the stream is cut: from then on, a look goes ahead of every read."""
    monkeypatch.setattr(losses, "INTERVAL", 0.0)
    router = make_router(redis, batch_size=5)
    seen: list[int] = []

    @router.on(DvOrder)
    async def handle(event: DvOrder) -> None:
        seen.append(event.number)
        await asyncio.sleep(0.001)

    async with running(router):
        emitter = make_emitter(redis, maxlen=50)
        for _ in range(15):
            await emitter.emit([DvOrder()] * 20)
            await until_settled(redis)
        assert reported() == []
        monkeypatch.setattr(losses, "INTERVAL", 1_000.0)
        seen.clear()
        for first in range(0, 1_000, 100):
            await emitter.emit([DvOrder(number=number) for number in range(first, first + 100)])
            await asyncio.sleep(0.02)
        await until_settled(redis)
    assert len(seen) < 1_000
    if await counts(redis):
        assert sum(estimated for _, _, estimated in reported()) == 1_000 - len(seen)
    else:
        assert reported()


# --- what is no loss ------------------------------------------------------------------------------------------------

Quiet = Callable[[Redis], Awaitable[None]]


async def cut_behind_it(redis: Redis) -> None:
    await redis.xtrim(STREAM, maxlen=0, approximate=False)


async def cut_to_what_is_unread(redis: Redis) -> None:
    await emit(redis, range(10))
    await redis.xtrim(STREAM, maxlen=10, approximate=False)


async def delete_what_was_read(redis: Redis) -> None:
    ids = [entry_id for entry_id, _ in await redis.xrange(STREAM)]
    await redis.xdel(STREAM, *ids[5:15])
    await emit(redis, range(3))
    await redis.xtrim(STREAM, maxlen=3, approximate=False)


async def set_it_forward(redis: Redis) -> None:
    ids = await emit(redis, range(20))
    await redis.xgroup_setid(STREAM, GROUP, ids[9])
    await redis.xtrim(STREAM, maxlen=10, approximate=False)


async def set_it_back(redis: Redis) -> None:
    ids = [entry_id for entry_id, _ in await redis.xrange(STREAM)]
    await redis.xtrim(STREAM, maxlen=5, approximate=False)
    await redis.xgroup_setid(STREAM, GROUP, ids[3])


async def make_it_again(redis: Redis) -> None:
    await redis.xgroup_destroy(STREAM, GROUP)
    await redis.xtrim(STREAM, maxlen=5, approximate=False)


@pytest.mark.parametrize(
    "happens",
    [cut_behind_it, cut_to_what_is_unread, delete_what_was_read, set_it_forward, set_it_back, make_it_again],
)
async def test_entries_that_are_not_lost_are_not_reported(
    redis: Redis, reported: Any, monkeypatch: pytest.MonkeyPatch, happens: Quiet
) -> None:
    monkeypatch.setattr(losses, "INTERVAL", 0.0)  # a sample ahead of every read
    router, seen = make_router(redis, block_ms=20), []

    @router.on(DvOrder)
    async def handle(event: DvOrder) -> None:
        seen.append(event.number)

    await emit(redis, range(20))
    for group_is_used in range(2):
        async with running(router):
            await until_settled(redis)
            if not group_is_used:
                await happens(redis)
                await eventually(lambda: _is_settled_again(redis))
            await emit(redis, range(100, 103))
            await until_settled(redis)
            if not group_is_used:
                await router.stop()
                await happens(redis)
    assert seen[-3:] == [100, 101, 102]
    assert reported() == []


async def _is_settled_again(redis: Redis) -> bool:
    groups = await redis.xinfo_groups(STREAM)
    return bool(groups) and groups[0]["pending"] == 0


@pytest.mark.parametrize("start", list(GroupStartPosition))
async def test_a_new_group_has_lost_nothing_of_what_was_cut_away_before(
    redis: Redis, reported: Any, start: GroupStartPosition
) -> None:
    await emit(redis, range(50))
    await redis.xtrim(STREAM, maxlen=10, approximate=False)
    router = make_router(redis, group_start_id=start, batch_size=2)
    router.on(DvOrder)(_pass)
    async with running(router):
        await until_settled(redis)
        await emit(redis, range(20))
        await until_settled(redis)
        await redis.xtrim(STREAM, maxlen=0, approximate=False)
        await emit(redis, range(20))
        await until_settled(redis)
    assert reported() == []


# --- before it happens ----------------------------------------------------------------------------------------------


async def test_a_group_that_is_about_to_lose_entries_is_warned_once(
    redis: Redis, reported: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(losses, "INTERVAL", 0.0)
    router = make_router(redis, batch_size=1)
    slow = Slow(router)
    await redis.xgroup_create(STREAM, GROUP, "0", mkstream=True)
    await emit(redis, range(300))
    await redis.xreadgroup(GROUP, "elsewhere", {STREAM: ">"}, count=50, noack=True)
    async with running(router):
        await eventually(lambda: slow.seen)
        for step in range(10):
            before = len(slow.seen)
            await emit(redis, range(300 + step, 301 + step))
            await redis.xtrim(STREAM, maxlen=300, approximate=False)
            slow.let_go(1)
            await eventually(lambda before=before: len(slow.seen) > before)
        await eventually(lambda: warnings(caplog))
        slow.let_go()
        await until_settled(redis)
        assert len(warnings(caplog)) == 1
    assert reported() == []
    if await counts(redis):
        assert "entries" in warnings(caplog)[0].partition("%")[0]


async def test_a_group_that_keeps_up_is_not_warned_of_anything(
    redis: Redis, reported: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(losses, "INTERVAL", 0.0)
    router = make_router(redis)
    router.on(DvOrder)(_pass)
    emitter = make_emitter(redis, maxlen=50)
    async with running(router):
        for number in range(200):
            await emitter.emit(DvOrder(number=number))
        await until_settled(redis)
    assert (reported(), warnings(caplog)) == ([], [])


# --- what it costs --------------------------------------------------------------------------------------------------


async def test_reads_of_an_untrimmed_stream_need_no_samples(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    taken, commands = [], read_positions.commands

    def counted(*arguments: Any, **options: Any) -> Any:
        taken.append(1)
        return commands(*arguments, **options)

    monkeypatch.setattr(losses, "INTERVAL", 1_000.0)
    monkeypatch.setattr(read_positions, "commands", counted)
    await emit(redis, range(3_000))
    router = make_router(redis, batch_size=50)
    router.on(DvOrder)(_pass)
    async with running(router):
        await until_settled(redis)
    assert len(taken) == 1


async def test_a_script_that_the_server_forgot_is_loaded_again(redis: Redis, reported: Any) -> None:
    router = make_router(redis, batch_size=2)
    slow = Slow(router)
    await emit(redis, range(40))
    async with running(router):
        await eventually(lambda: _has_read(redis, 4))
        await redis.script_flush()
        slow.let_go(4)
        await eventually(lambda: len(slow.seen) == 5)
        await redis.xtrim(STREAM, maxlen=10, approximate=False)
        slow.let_go()
        await until_settled(redis)
    assert len(reported()) == 1


async def test_a_server_that_refuses_samples_does_no_harm(
    redis: Redis, reported: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read_positions, "commands", lambda *_, **__: [("NO-SUCH-COMMAND",)])
    router, seen = make_router(redis), []

    @router.on(DvOrder)
    async def handle(event: DvOrder) -> None:
        seen.append(event.number)

    async with running(router):
        await emit(redis, range(40))
        await until_settled(redis)
    assert seen == list(range(40))
