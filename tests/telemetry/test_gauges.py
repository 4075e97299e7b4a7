"""Gauges of groups: read by one process at a time, in the event loop."""

from __future__ import annotations

import asyncio

import pytest
from redis.asyncio import Redis

from rapids import group_gauges
from rapids.group_gauges import gauges_read
from rapids.hooks import DlqGauges, Gauges, GroupGauges
from rapids.telemetry.conventions import Attribute, Metric
from tests.support import eventually
from tests.telemetry.recording import Recording
from tests.worker.helpers import DLQ, GROUP, STREAM, DvOrder, emit_orders, make_router, running


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group_gauges, "PAUSE", 0.05)


async def test_a_group_is_measured(recording: Recording, redis: Redis) -> None:
    router = make_router(redis, max_deliveries=1)
    router.use_telemetry(recording.telemetry)
    held = asyncio.Event()

    @router.on(DvOrder)
    async def take(event: DvOrder) -> None:
        if event.number == 0:
            raise ValueError("dead")
        await held.wait()

    async with running(router), gauges_read(redis, [router], recording.telemetry.gauges):
        await emit_orders(redis, 0, 1)

        def values() -> dict[str, float]:
            return {name: value for name in vars(Metric).values() for _, value in recording.points(str(name))}

        expected = {Metric.DEAD_LETTERS: 1, Metric.PENDING: 1, Metric.LAG: 0, Metric.WAITING: 0, Metric.PARKED: 0}
        await eventually(lambda: expected.items() <= values().items())
        assert values()[Metric.OLDEST_UNSETTLED] >= 0
        [(labels, _)] = recording.points(Metric.PENDING)
        assert labels == {Attribute.SYSTEM: "redis", Attribute.DESTINATION: STREAM, Attribute.GROUP: GROUP}
        assert recording.metrics[Metric.OLDEST_UNSETTLED].unit == "s"
        held.set()
    assert [value for _, value in recording.points(Metric.PENDING)] == [0]


async def test_one_process_reads_at_a_time_and_another_takes_over(redis: Redis) -> None:
    first, second = list[Gauges](), list[Gauges]()
    router = make_router(redis)
    zeros = [GroupGauges(STREAM, GROUP), DlqGauges(DLQ)]
    await emit_orders(redis, 1, 2)
    await redis.xgroup_create(STREAM, GROUP, "0")
    async with gauges_read(redis, [router], second.append):
        await eventually(lambda: len(second) >= 2)
        assert isinstance(second[0], GroupGauges)
        assert (second[0].lag, second[0].pending) == (2, 0)
        async with gauges_read(redis, [router], first.append):
            seen = len(second)
            await eventually(lambda: len(second) > seen + 4)
            assert first == []
        assert first == []
    assert second[-2:] == zeros
    async with gauges_read(redis, [router], first.append):
        await eventually(lambda: first)
    assert not [key async for key in redis.scan_iter("*:gauges*")]


async def test_a_process_that_cannot_ask_redis_for_long_stops_to_report(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group_gauges, "LEASE", 0.2)
    seen = list[Gauges]()
    router = make_router(redis)
    await emit_orders(redis, 1, 2)
    await redis.xgroup_create(STREAM, GROUP, "0")
    async with gauges_read(redis, [router], seen.append):
        await eventually(lambda: len(seen) >= 2)
        assert seen[-1:] != [GroupGauges(STREAM, GROUP)]
        monkeypatch.setattr(group_gauges.groups, "hold", _unavailable)
        await eventually(lambda: seen[-2:] == [GroupGauges(STREAM, GROUP), DlqGauges(DLQ)])


async def _unavailable(*_: object, **__: object) -> None:
    raise ConnectionError("no Redis")
