"""The group reader: what it reads of groups and their dead letters, how often, who reports it, and what it says
during an outage."""

from __future__ import annotations

import asyncio
import logging

import pytest
from redis.asyncio import Redis

from rapids import BaseEvent, GroupControl, NonRetryableError
from rapids._storage.keys import default_dlq
from rapids.counters import OTHER
from rapids.hooks import DlqGauges, Gauges, GroupGauges
from rapids.inspection import GroupReader, GroupReadings, WatchedGroup, group_reader
from tests.redis.proxy import proxy_to
from tests.support import eventually
from tests.worker.helpers import DLQ, GROUP, STREAM, DvOrder, calls, emit_orders, make_router, running, until_settled

WATCHED = WatchedGroup(STREAM, GROUP, DLQ, 500)


async def read(redis: Redis, *watched: WatchedGroup) -> GroupReadings:
    return await GroupReader(redis, watched or (WATCHED,)).read()


async def test_the_figures_are_those_of_the_group_and_of_its_dead_letters(redis: Redis) -> None:
    router = make_router(redis, dlq_maxlen=500)

    @router.on(DvOrder)
    async def fail(event: BaseEvent) -> None:
        raise NonRetryableError("never")

    async with running(router):
        await emit_orders(redis, 1, 2, 3)
        await until_settled(redis)
        alive = await read(redis, WatchedGroup.of(router))
    pause = await GroupControl(redis, STREAM, GROUP).pause(actor="ann", reason="lunch")
    await emit_orders(redis, 4, 5)
    later = await read(redis, WatchedGroup.of(router))

    [group], [queue] = alive.groups, alive.queues
    assert (group.stream, group.group, group.consumers_alive) == (STREAM, GROUP, 1)
    assert (group.lag, group.oldest_unsettled_ms, group.pause) == (0, None, None)
    assert (queue.dlq, queue.letters, queue.stats.length, queue.stats.maxlen) == (DLQ, {GROUP: 3}, 3, 500)
    [group] = later.groups
    assert (group.lag, group.pause) == (2, pause)
    assert group.oldest_unsettled_ms is not None


async def test_what_does_not_exist_yet_is_left_out_and_has_no_letters(redis: Redis) -> None:
    await redis.xadd("other", {"a": "b"})
    readings = await read(redis, WATCHED, WatchedGroup("other", "missing"), WatchedGroup("missing", None))
    assert (readings.up, readings.groups) == (True, ())
    assert [(one.dlq, one.letters, one.stats.length) for one in readings.queues] == [(DLQ, {GROUP: 0}, 0)]


async def test_all_groups_of_a_watched_stream_are_read_also_those_of_other_programs(redis: Redis) -> None:
    for name in ("one", "two", "\t"):
        await redis.xgroup_create(STREAM, name, "0", mkstream=True)
    await redis.xadd(DLQ, {"written": "by hand"})
    readings = await read(redis, WatchedGroup(STREAM, None, DLQ))
    assert [one.group for one in readings.groups] == ["\t", "one", "two"]
    [queue] = readings.queues
    assert sum(queue.letters.values()) == 1, "each letter is some group's, or nobody's"
    assert {"one", "two"} < queue.letters.keys()


async def test_letters_that_no_cause_counts_are_nobodys(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group_reader, "READ_TIMEOUT", 300.0)  # on a busy machine, a thousand letters take their time
    pipeline = redis.pipeline(transaction=False)
    for number in range(1_100):
        pipeline.xadd(DLQ, {"original_group": GROUP, "handler": f"h{number}", "reason": "non_retryable"})
    await pipeline.execute()
    reader = GroupReader(redis, (WATCHED,))
    await reader.read()  # which indexes a thousand of them
    [queue] = (await read(redis)).queues
    assert queue.letters == {GROUP: 1_000, OTHER: 100}


async def test_readers_at_the_same_time_and_within_a_second_share_one_read(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group_reader, "FRESH", 3_600.0)
    await redis.xgroup_create(STREAM, GROUP, "0", mkstream=True)
    reader = GroupReader(redis, (WATCHED,))
    [first, *others] = await asyncio.gather(*(reader.read() for _ in range(50)))
    before = await calls(redis)
    assert all(one is first for one in (*others, await reader.read(), reader.last))
    assert (await calls(redis))["evalsha"] == before["evalsha"]

    monkeypatch.setattr(group_reader, "FRESH", 0.0)
    assert await reader.read() is not first
    sent = {name: count - before[name] for name, count in (await calls(redis)).items() if "eval" in name}
    assert sum(sent.values()) <= 2, "one for the group, one for its letters"


async def test_an_outage_leaves_nothing_to_show_and_is_logged_once(
    redis: Redis, redis_url: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group_reader, "FRESH", 0.0)
    await redis.xgroup_create(STREAM, GROUP, "0", mkstream=True)
    async with proxy_to(redis_url) as proxy, Redis.from_url(proxy.url) as client:
        reader = GroupReader(client, (WATCHED,))
        with caplog.at_level(logging.WARNING):
            assert (await reader.read()).up
            await proxy.refuse()
            await proxy.cut()
            assert [await reader.read() for _ in range(3)] == [GroupReadings(up=False)] * 3
            await proxy.accept()
            await eventually(lambda: _is_up(reader))
    said = [record.getMessage() for record in caplog.records if "metrics" in record.getMessage()]
    assert len(said) == 2
    assert said[0].startswith("metrics: the figures of groups cannot be read: ")
    assert said[1] == "metrics: the figures of groups can be read again"


async def test_a_server_that_does_not_answer_is_not_waited_for(
    redis: Redis, redis_url: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group_reader, "READ_TIMEOUT", 0.05)
    async with proxy_to(redis_url) as proxy, Redis.from_url(proxy.url) as client:
        proxy.hold_up(b"EVAL")
        with caplog.at_level(logging.WARNING):
            assert not (await GroupReader(client, (WATCHED,)).read()).up
        proxy.let_through()
    assert "cannot be read: no answer in 0.05 s" in caplog.text


async def _is_up(reader: GroupReader) -> bool:
    return (await reader.read()).up


def test_the_queue_of_a_router_has_the_routers_limit() -> None:
    router = make_router(None, dlq_stream=None)
    assert WatchedGroup.of(router) == WatchedGroup(STREAM, GROUP, None, 10_000)
    router.use_default_dlq()
    assert WatchedGroup.of(router) == WatchedGroup(STREAM, GROUP, default_dlq(STREAM), 10_000)


async def test_one_process_reports_at_a_time_and_another_takes_over(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group_reader, "PAUSE", 0.05)
    first, second = list[Gauges](), list[Gauges]()
    reader, other = GroupReader(redis, (WATCHED,)), GroupReader(redis, (WATCHED,))
    zeros = [GroupGauges(STREAM, GROUP), DlqGauges(DLQ)]
    await emit_orders(redis, 1, 2)
    await redis.xgroup_create(STREAM, GROUP, "0")
    async with reader.reported_to(second.append):
        await eventually(lambda: len(second) >= 2)
        assert isinstance(second[0], GroupGauges)
        assert (second[0].lag, second[0].pending) == (2, 0)
        async with other.reported_to(first.append):
            seen = len(second)
            await eventually(lambda: len(second) > seen + 4)
            assert first == []
        assert first == []
    assert second[-2:] == zeros
    async with other.reported_to(first.append):
        await eventually(lambda: first)
    assert not [key async for key in redis.scan_iter("*:gauges*")]


async def test_a_process_that_records_no_gauges_leaves_them_to_another(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group_reader, "PAUSE", 0.01)
    unwanted, seen, asked = list[Gauges](), list[Gauges](), list[None]()

    def wanted() -> bool:
        asked.append(None)
        return False

    async with GroupReader(redis, (WATCHED,)).reported_to(unwanted.append, wanted):
        await eventually(lambda: len(asked) > 2)
        async with GroupReader(redis, (WATCHED,)).reported_to(seen.append):
            await eventually(lambda: seen)
    assert unwanted == []


async def test_a_process_that_cannot_ask_redis_for_long_stops_to_report(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group_reader, "PAUSE", 0.05)
    monkeypatch.setattr(group_reader, "LEASE", 0.2)
    seen = list[Gauges]()
    await emit_orders(redis, 1, 2)
    await redis.xgroup_create(STREAM, GROUP, "0")
    async with GroupReader(redis, (WATCHED,)).reported_to(seen.append):
        await eventually(lambda: len(seen) >= 2)
        assert seen[-1:] != [GroupGauges(STREAM, GROUP)]
        monkeypatch.setattr(group_reader.groups, "hold", _unavailable)
        await eventually(lambda: seen[-2:] == [GroupGauges(STREAM, GROUP), DlqGauges(DLQ)])


async def _unavailable(*_: object, **__: object) -> None:
    raise ConnectionError("no Redis")
