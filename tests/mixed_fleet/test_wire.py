"""Each kind reads what the other writes: each field, in both directions."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from opentelemetry.sdk.trace import TracerProvider
from redis.asyncio import Redis

from rapids import EventEmitter, GenericEvent
from rapids.telemetry import OpenTelemetry
from tests.mixed_fleet.fleet import STREAM, Fleet, Kind, Service
from tests.support import eventually

PARCEL = {
    "weight": "12.340",
    "packed_at": "2026-02-28T23:59:59.123456+05:30",
    "size": "large",
    "boxes": [{"label": 'a "quoted" box, ünïcode \u2028 🎁', "weights": ["0.1", "1E+3"]}, {"label": ""}],
    "tags": ["fragile"],
    "note": None,
    "ratio": 1e-7,
}
COMMON = {
    "id": "parcel-1",
    "timestamp": "2026-02-28T18:30:00.000001Z",
    "correlation_id": "request-7",
    "causation_id": "order-3",
    "metadata": {"source": "scanner", "nested": {"list": [1, 2.5, None, True, "é"]}},
}
BOTH_WAYS = pytest.mark.parametrize(("sender", "reader"), [("old", "new"), ("new", "old")])


async def started(fleet: Fleet, sender: Kind, reader: Kind, **options: Any) -> tuple[Service, Service]:
    """Each in a group of its own, the sender without a handler."""
    start = {"old": fleet.old, "new": fleet.new}
    unknown = options.pop("unknown", None)
    sending = await start[sender](group="senders", handlers={}, unknown=unknown)
    return sending, await start[reader](group="readers", **options)


async def received(reader: Service, count: int = 1) -> list[dict[str, Any]]:
    return await eventually(lambda: reader.reports("done")[count - 1 :] and reader.reports("began"))


@BOTH_WAYS
async def test_every_field_arrives(fleet: Fleet, sender: Kind, reader: Kind) -> None:
    sending, reading = await started(fleet, sender, reader, handlers={"take": "FleetParcel"})

    [emitted] = await sending.emit(("FleetParcel", PARCEL | COMMON))
    [report] = await received(reading)

    assert report["type"] == "FleetParcel"
    assert report["event"] == emitted["events"][0]


@BOTH_WAYS
async def test_default_values_arrive(fleet: Fleet, sender: Kind, reader: Kind) -> None:
    sending, reading = await started(fleet, sender, reader)

    [emitted] = await sending.emit(("FleetTask", {"number": 4}))
    [report] = await received(reading)

    event = emitted["events"][0]
    assert {name: report["event"][name] for name in ("id", "timestamp", "causation_id", "metadata", "number")} == {
        name: event[name] for name in ("id", "timestamp", "causation_id", "metadata", "number")
    }
    assert report["event"]["correlation_id"] is None


@BOTH_WAYS
@pytest.mark.parametrize("timestamp", ["2026-02-28T18:30:00", "2026-02-28T18:30:00.5-08:00", "0001-01-01T00:00:00Z"])
async def test_a_time_stamp_arrives_whatever_its_zone(fleet: Fleet, sender: Kind, reader: Kind, timestamp: str) -> None:
    """An old one writes it as it is, also without a zone, which is read as UTC; a new one always writes UTC."""
    sending, reading = await started(fleet, sender, reader)

    await sending.emit(("FleetTask", {"number": 1, "timestamp": timestamp}))
    [report] = await received(reading)

    sent, read = (datetime.fromisoformat(text) for text in (timestamp, report["event"]["timestamp"]))
    assert as_utc(read) == as_utc(sent)


def as_utc(moment: datetime) -> datetime:
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


@BOTH_WAYS
async def test_correlation_and_causation_of_the_emit_arrive(fleet: Fleet, sender: Kind, reader: Kind) -> None:
    sending, reading = await started(fleet, sender, reader)

    cause = ("FleetTask", {"number": 1, "id": "cause"})
    await sending.emit(("FleetTask", {"number": 2}), ("FleetTask", {"number": 3}), scope="request-9", caused_by=cause)
    reports = await received(reading, 2)

    assert [line["event"]["number"] for line in reports] == [2, 3]
    assert {line["event"]["correlation_id"] for line in reports} == {"request-9"}
    assert {line["event"]["causation_id"] for line in reports} == {"cause"}


@BOTH_WAYS
async def test_a_list_arrives_in_its_order(fleet: Fleet, sender: Kind, reader: Kind) -> None:
    sending, reading = await started(fleet, sender, reader)

    [emitted] = await sending.emit(*(("FleetTask", {"number": n}) for n in range(50)), as_list=True)
    await received(reading, 50)

    assert len(set(emitted["entries"])) == 50
    assert reading.done() == list(range(50))


@BOTH_WAYS
async def test_a_type_the_other_has_no_class_for_is_a_generic_event(fleet: Fleet, sender: Kind, reader: Kind) -> None:
    sending, reading = await started(fleet, sender, reader, unknown="RobotMoved", handlers={"all": "*"})

    fields = {"number": 5, "anything": {"deep": [{"x": 1.25}, None, "ü"]}}
    await sending.emit(("RobotMoved", fields | COMMON))
    [report] = await received(reading)

    assert report["type"] == "GenericEvent"
    assert report["event"]["raw_type"] == "robot.moved"
    assert report["event"]["data"] == fields
    assert {name: report["event"][name] for name in COMMON} == COMMON


async def test_both_write_the_same_fields_in_the_same_order(fleet: Fleet, redis: Redis) -> None:
    """Redis keeps the names of entries that have the same ones only once."""
    sending, other = await started(fleet, "old", "new", handlers={})

    for service in (sending, other):
        await service.emit(("FleetParcel", PARCEL | COMMON))

    [(_, by_old), (_, by_new)] = await redis.xrange(STREAM)
    assert list(by_old) == list(by_new)
    assert {name for name in by_old if by_old[name] != by_new[name]} <= {b"data", b"timestamp", b"metadata"}


async def test_an_old_service_reads_events_that_were_emitted_under_a_span(fleet: Fleet, redis: Redis) -> None:
    reading = await fleet.old(group="readers", handlers={"take": "FleetTask"})
    emitter = EventEmitter(redis, stream=STREAM)
    emitter.use_telemetry(OpenTelemetry(tracer_provider=TracerProvider(shutdown_on_exit=False)))
    own = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "tracestate": "vendor=1"}

    await emitter.emit([GenericEvent(raw_type="fleet.task", data={"number": n}, metadata=own) for n in (3, 4)])
    await emitter.emit(GenericEvent(raw_type="fleet.task", data={"number": 5}))
    reports = await received(reading, 3)

    assert [report["event"]["number"] for report in reports] == [3, 4, 5]
    assert all(b"traceparent" in fields for _, fields in await redis.xrange(STREAM))
