"""What JSON cannot hold is refused when an event is written, and named."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from pydantic import BaseModel, ConfigDict, Field, SecretBytes, SecretStr, field_serializer, model_serializer

from rapids import BaseEvent, Event, GenericEvent
from rapids._wire.encoding import encode
from rapids.exceptions import SerializationError
from tests.wire.entries import WireOrderPlaced, data_of, encoded, round_trip


class WireAnything(BaseEvent):
    fine: Any = "fine"
    worse: Any = Field(default="fine", serialization_alias="bad")


def circular() -> list[Any]:
    inner: list[Any] = []
    inner.append(inner)
    return inner


def deep(levels: int) -> list[Any]:
    nested: list[Any] = []
    for _ in range(levels):
        nested = [nested]
    return nested


NOT_JSON = {
    "nan": math.nan,
    "inf": math.inf,
    "minus inf": -math.inf,
    "nested nan": {"a": [1, math.nan]},
    "object": object(),
    "function": round,
    "bytes": b"\xff",
    "lone surrogate": "\ud800",
    "lone surrogate as a key": {"\ud800": 1},
    "circular": circular(),
    "deep": deep(10_000),
}


@pytest.mark.parametrize("value", NOT_JSON.values(), ids=NOT_JSON)
def test_a_field_that_json_cannot_hold_is_named(value: Any) -> None:
    with pytest.raises(SerializationError) as raised:
        encoded(WireAnything(worse=value))

    assert (raised.value.event_type, raised.value.field) == ("wire.anything", "worse")
    assert "'worse'" in str(raised.value)


@pytest.mark.parametrize("value", NOT_JSON.values(), ids=NOT_JSON)
def test_metadata_that_json_cannot_hold_is_named(value: Any) -> None:
    with pytest.raises(SerializationError) as raised:
        encoded(WireAnything(metadata={"key": value}))

    assert raised.value.field == "metadata"


@pytest.mark.parametrize("value", NOT_JSON.values(), ids=NOT_JSON)
def test_the_data_of_a_generic_event_that_json_cannot_hold_is_named(value: Any) -> None:
    with pytest.raises(SerializationError) as raised:
        encoded(GenericEvent(raw_type="wire.other", data={"key": value}))

    assert (raised.value.event_type, raised.value.field) == ("wire.other", "data")


def test_a_number_of_an_own_field_that_json_lacks_is_named() -> None:
    with pytest.raises(SerializationError) as raised:
        encoded(WireOrderPlaced(order_id="a", total=math.inf))
    assert raised.value.field == "total"


class WirePoint(BaseModel):
    x: float


@dataclass
class WireSpan:
    length: float | None


class WireShape(BaseEvent):
    name: str | None = None
    points: list[WirePoint] = []
    span: WireSpan | None = None


@pytest.mark.parametrize(
    ("field", "value"),
    [("points", [WirePoint(x=1), WirePoint(x=math.nan)]), ("span", WireSpan(-math.inf))],
)
def test_a_number_that_json_lacks_is_not_lost_in_a_nested_model(field: str, value: Any) -> None:
    with pytest.raises(SerializationError) as raised:
        encoded(WireShape(**{field: value}))
    assert raised.value.field == field


def test_none_in_a_nested_model_is_no_lost_number() -> None:
    event = WireShape(points=[WirePoint(x=1)], span=WireSpan(None))
    assert round_trip(event) == event


class WireMeasured(BaseEvent):
    value: float

    @field_serializer("value")
    def none_for_nan(self, value: float) -> float | None:
        return value if math.isfinite(value) else None


def test_a_class_may_say_itself_what_to_write_for_a_number_that_json_lacks() -> None:
    assert data_of(WireMeasured(value=math.nan)) == {"value": None}


class WireExtras(BaseEvent):
    model_config = ConfigDict(extra="allow")


def test_an_extra_field_that_json_cannot_hold_is_named() -> None:
    with pytest.raises(SerializationError) as raised:
        encoded(WireExtras.model_validate({"fine": 1, "odd": object()}))
    assert raised.value.field == "odd"


@pytest.mark.parametrize("field", ["id", "correlation_id", "causation_id"])
def test_an_id_that_utf8_cannot_hold_is_named(field: str) -> None:
    event = WireOrderPlaced(order_id="a", total=1).model_copy(update={field: "\ud800"})
    with pytest.raises(SerializationError) as raised:
        encoded(event, event.correlation_id, event.causation_id)
    assert raised.value.field == field


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("id", ""),
        ("id", None),
        ("id", UUID(int=7)),
        ("correlation_id", 7),
        ("causation_id", b"7"),
        ("timestamp", "now"),
    ],
)
def test_a_common_field_that_was_not_validated_is_named(field: str, value: Any) -> None:
    event = WireOrderPlaced(order_id="a", total=1).model_copy(update={field: value})
    with pytest.raises(SerializationError) as raised:
        encoded(event, event.correlation_id, event.causation_id)
    assert raised.value.field == field


@pytest.mark.parametrize("raw_type", ["", "x" * 513])
def test_a_type_that_no_reader_takes_is_not_written(raw_type: str) -> None:
    with pytest.raises(SerializationError) as raised:
        encoded(GenericEvent(raw_type=raw_type))
    assert raised.value.field == "raw_type"


def test_a_time_stamp_without_a_time_zone_is_taken_as_utc() -> None:
    event = WireOrderPlaced(order_id="a", total=1).model_copy(update={"timestamp": datetime(2026, 1, 2, 3)})  # noqa: DTZ001 - that is the case
    assert round_trip(event).timestamp == datetime(2026, 1, 2, 3, tzinfo=UTC)


class WireCredentials(BaseModel):
    key: SecretStr


@dataclass
class WireLogin:
    password: SecretBytes


class WireHidden(BaseEvent):
    anything: Any = None
    span: WireLogin | None = None
    note: str = ""


SECRETS = {
    "in any value": {"anything": SecretStr("s1")},
    "in a list": {"anything": [{"a": SecretBytes(b"s1")}]},
    "as a key": {"anything": {SecretStr("s1"): 1}},
    "in a model": {"anything": WireCredentials(key=SecretStr("s1"))},
    "in a dataclass": {"span": WireLogin(SecretBytes(b"s1"))},
}


@pytest.mark.parametrize("fields", SECRETS.values(), ids=SECRETS)
def test_a_secret_is_not_written_as_asterisks(fields: dict[str, Any]) -> None:
    with pytest.raises(SerializationError, match="written as asterisks") as raised:
        encoded(WireHidden(**fields))
    assert raised.value.field == next(iter(fields))
    assert "s1" not in str(raised.value)


def test_a_secret_in_metadata_or_the_data_of_a_generic_event_is_not_written_as_asterisks() -> None:
    for event, field in (
        (WireHidden(metadata={"a": [SecretStr("s1")]}), "metadata"),
        (GenericEvent(raw_type="wire.other", data={"a": SecretStr("s1")}), "data"),
    ):
        with pytest.raises(SerializationError, match="written as asterisks") as raised:
            encoded(event)
        assert raised.value.field == field


def test_asterisks_of_a_users_own_are_written() -> None:
    event = WireHidden(note="**********", anything={"a": "**********"}, metadata={"a": "**********"})
    assert round_trip(event) == event


def test_only_events_are_encoded() -> None:
    with pytest.raises(TypeError, match="only events can be emitted"):
        encoded(Event())
    with pytest.raises(TypeError, match="only events can be emitted, not 'text'"):
        encoded("text")  # type: ignore[arg-type]


class WireAsText(BaseEvent):
    text: str = "a"

    @model_serializer
    def _as_text(self) -> str:
        return self.text


def test_an_event_that_serialises_itself_to_something_else_than_an_object_is_refused() -> None:
    with pytest.raises(SerializationError, match="model_serializer"):
        encode(WireAsText(), correlation_id=None, causation_id=None)
