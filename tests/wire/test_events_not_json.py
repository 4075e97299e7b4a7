"""What JSON cannot hold is refused when an event is written, and named."""

from __future__ import annotations

import math
import pickle
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from typing import Any, Literal
from uuid import UUID

import pytest
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretBytes,
    SecretStr,
    field_serializer,
    field_validator,
    model_serializer,
)
from redis.asyncio import Redis

from rapids import BaseEvent, Event, EventEmitter, GenericEvent
from rapids._wire.encoding import encode
from rapids.emitter import as_read
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


# --- values of another type than the field declares, which Pydantic did not validate --------------------------------


class WireState(Enum):
    NEW = "new"


class WireLoose(BaseEvent):
    state: WireState = "new"  # type: ignore[assignment] - as users write it
    total: Decimal = Decimal(1)
    words: list[str] = []
    counts: dict[str, int] = {}
    either: int | WirePoint | None = None
    point: WirePoint = WirePoint(x=1)
    token: str = ""
    size: Literal["s", "m"] = "s"


WRONG = [
    ("state", "S3CRET"),
    ("total", "S3CRET"),
    ("words", "S3CRET"),
    ("words", ["a", 1, "S3CRET", b"S3CRET"]),
    ("words", None),
    ("counts", {"S3CRET": "S3CRET"}),
    ("either", "S3CRET"),
    ("point", {"x": "S3CRET"}),
    ("token", ["S3CRET"]),
    ("size", "S3CRET"),
]
"""Values that Pydantic writes, most of them with a Python warning that quotes the value, and does not read."""


@pytest.mark.parametrize("how", ["copied", "constructed"])
@pytest.mark.parametrize(("field", "value"), WRONG)
async def test_a_value_that_was_not_validated_and_is_not_read_back_is_refused_and_not_quoted(
    redis: Redis, field: str, value: Any, how: str
) -> None:
    good = WireLoose(state=WireState.NEW)
    emitter = EventEmitter(redis, "wire")
    await emitter.emit(good)
    fields: dict[str, Any] = {field: value}
    bad = good.model_copy(update=fields) if how == "copied" else WireLoose.model_construct(**fields)
    with pytest.raises(SerializationError, match="does not read back") as raised:
        await emitter.emit(bad)
    assert raised.value.field == field
    assert "S3CRET" not in str(raised.value)
    assert await redis.xlen("wire") == 1


@pytest.mark.parametrize(
    "fields", [{}, {"total": "7"}, {"words": ("a", "b")}, {"point": {"x": 7}}, {"token": b"text", "either": None}]
)
async def test_a_value_that_was_not_validated_and_is_read_back_is_written_without_a_warning(
    redis: Redis, fields: dict[str, Any]
) -> None:
    event = WireLoose().model_copy(update=fields)
    assert pickle.loads(pickle.dumps(event)) == event == WireLoose.model_construct(**dict(event))
    await EventEmitter(redis, "wire").emit(event)
    assert round_trip(event) == WireLoose.model_validate({"state": "new", **event.model_dump(warnings=False)})


class WireCautious(BaseEvent):
    token: Any = ""

    @field_validator("token")
    @classmethod
    def short(cls, token: Any) -> Any:
        if len(token) > 3:
            raise ValueError(f"{token} is too long")
        return token


def test_what_a_validator_says_of_a_value_is_not_quoted() -> None:
    event = WireCautious.model_construct(token="S3CRET")
    with pytest.raises(SerializationError, match=r"'token': .* does not read back: a validator refuses it$") as raised:
        as_read(event)
    assert "S3CRET" not in str(raised.value)


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
