"""The recording emitter, and assertions about what was emitted: above all, what they say when they fail."""

from __future__ import annotations

from typing import ClassVar

import pytest

from rapids import BaseEvent, Event, EventEmitter, GenericEvent, correlation_scope
from rapids.exceptions import SerializationError
from rapids.testing import RecordingEmitter


class ParcelEvent(BaseEvent):
    _skip_registration: ClassVar[bool] = True
    parcel: str


class ParcelSent(ParcelEvent):
    weight: float = 1.0


class ParcelLost(ParcelEvent):
    pass


async def two_sent() -> RecordingEmitter:
    emitter = RecordingEmitter()
    await emitter.emit([ParcelSent(parcel="p-1"), ParcelSent(parcel="p-2", weight=2.5)])
    return emitter


async def test_it_keeps_events_as_their_readers_get_them() -> None:
    emitter: EventEmitter = RecordingEmitter(stream="parcels")
    cause = ParcelSent(parcel="p-1")
    with correlation_scope("web-1"):
        assert await emitter.emit(ParcelLost(parcel="p-1"), caused_by=cause) == "1-0"
        assert await emitter.emit([cause]) == ["2-0"]
    assert isinstance(emitter, RecordingEmitter)
    lost = emitter.only(ParcelLost)
    assert (lost.correlation_id, lost.causation_id, emitter.stream) == ("web-1", cause.id, "parcels")
    assert emitter.of(ParcelEvent) == list(emitter) == list(emitter.events)
    emitter.clear()
    emitter.nothing()


async def test_what_emit_refuses_is_refused() -> None:
    emitter = RecordingEmitter()
    with pytest.raises(SerializationError, match="weight"):
        await emitter.emit(ParcelSent(parcel="p-1", weight=float("nan")))
    with pytest.raises(TypeError, match="only events can be emitted"):
        await emitter.emit("parcel.sent")  # type: ignore[call-overload]
    emitter.error = ConnectionError("no server")
    with pytest.raises(ConnectionError):
        await emitter.emit(ParcelSent(parcel="p-1"))
    emitter.nothing()


async def test_events_are_found_by_class_type_and_fields() -> None:
    emitter = await two_sent()
    await emitter.emit(GenericEvent(raw_type="parcel.returned", data={"parcel": "p-3"}))
    assert emitter.only(ParcelSent, weight=2.5).parcel == "p-2"
    assert [event.parcel for event in emitter.emitted(ParcelEvent)] == ["p-1", "p-2"]
    assert emitter.only("parcel.returned", parcel="p-3").routing_key == "parcel.returned"
    assert emitter.of(Event, id="another") == []
    emitter.nothing(ParcelLost)


FAILURES = {
    "only another": (
        lambda emitter: emitter.only(ParcelSent, parcel="p-3"),
        "expected exactly one ParcelSent(parcel='p-3') to be emitted, not 0; emitted were:\n"
        "  1. ParcelSent(parcel='p-1', weight=1.0)   <- parcel='p-1'\n"
        "  2. ParcelSent(parcel='p-2', weight=2.5)   <- parcel='p-2'",
    ),
    "only of two": (
        lambda emitter: emitter.only(ParcelSent),
        "expected exactly one ParcelSent to be emitted, not 2; emitted were:\n"
        "  1. ParcelSent(parcel='p-1', weight=1.0)\n"
        "  2. ParcelSent(parcel='p-2', weight=2.5)",
    ),
    "emitted": (
        lambda emitter: emitter.emitted("parcel.lost"),
        "expected parcel.lost to be emitted; emitted were:\n"
        "  1. ParcelSent(parcel='p-1', weight=1.0)\n"
        "  2. ParcelSent(parcel='p-2', weight=2.5)",
    ),
    "nothing": (
        lambda emitter: emitter.nothing(ParcelSent, weight=2.5),
        "expected no ParcelSent(weight=2.5) to be emitted; emitted were:\n"
        "  1. ParcelSent(parcel='p-1', weight=1.0)   <- weight=1.0\n"
        "  2. ParcelSent(parcel='p-2', weight=2.5)",
    ),
}


@pytest.mark.parametrize("name", FAILURES)
async def test_a_failed_assertion_lists_what_was_emitted_instead(name: str) -> None:
    check, message = FAILURES[name]
    with pytest.raises(AssertionError) as raised:
        check(await two_sent())
    assert str(raised.value) == message


async def test_an_assertion_without_events_says_so_and_a_wrong_one_is_refused() -> None:
    with pytest.raises(AssertionError, match=r"expected ParcelSent to be emitted; nothing was emitted"):
        RecordingEmitter().emitted(ParcelSent)
    with pytest.raises(TypeError, match=r"ParcelSent has no field 'wate'; it has .*'weight'"):
        (await two_sent()).only(ParcelSent, wate=1.0)
    with pytest.raises(TypeError, match="target must be an event class or an event type"):
        (await two_sent()).of(1)  # type: ignore[call-overload]


async def test_a_wrong_assertion_is_refused_also_if_nothing_was_emitted() -> None:
    emitter = RecordingEmitter()
    with pytest.raises(TypeError, match=r"ParcelSent has no field 'wate'; it has .*'weight'"):
        emitter.nothing(ParcelSent, wate=1.0)
    with pytest.raises(TypeError, match="target must be an event class or an event type"):
        emitter.nothing(1)  # type: ignore[call-overload]
    emitter.nothing(ParcelEvent, weight=1.0)  # a field that a subclass has
    emitter.nothing(Event, anything=1)  # one that a GenericEvent may have


async def test_a_long_record_is_cut() -> None:
    emitter = RecordingEmitter()
    await emitter.emit([ParcelSent(parcel="x" * 1_000) for _ in range(40)])
    with pytest.raises(AssertionError) as raised:
        emitter.nothing()
    assert "and 10 more" in str(raised.value)
    assert len(str(raised.value)) < 10_000
