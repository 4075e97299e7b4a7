"""Gauges of groups: read by one process at a time, in the event loop."""

from __future__ import annotations

import asyncio

import pytest
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.metrics import MeterProvider
from redis.asyncio import Redis

from rapids.inspection import GroupReader, WatchedGroup, group_reader
from rapids.telemetry import OpenTelemetry
from rapids.telemetry.conventions import Attribute, Metric
from tests.support import eventually
from tests.telemetry.recording import Recording
from tests.worker.helpers import GROUP, STREAM, DvOrder, emit_orders, make_router, running


async def test_a_group_is_measured(recording: Recording, redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group_reader, "PAUSE", 0.05)
    router = make_router(redis, max_deliveries=1)
    router.use_telemetry(recording.telemetry)
    held = asyncio.Event()

    @router.on(DvOrder)
    async def take(event: DvOrder) -> None:
        if event.number == 0:
            raise ValueError("dead")
        await held.wait()

    reader = GroupReader(redis, [WatchedGroup.of(router)])
    async with running(router), reader.reported_to(recording.telemetry.gauges):
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


def test_gauges_are_wanted_if_an_sdk_records_them(recording: Recording, monkeypatch: pytest.MonkeyPatch) -> None:
    assert recording.telemetry.wants_gauges()
    assert not OpenTelemetry().wants_gauges()
    assert not OpenTelemetry(meter_provider=NoOpMeterProvider()).wants_gauges()
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    assert not OpenTelemetry(meter_provider=MeterProvider(shutdown_on_exit=False)).wants_gauges()
