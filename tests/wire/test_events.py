"""Events as stream entries: the format to the byte, and round trips."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import (
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    field_serializer,
)

from rapids import BaseEvent, GenericEvent
from rapids._wire.entry_format import EVENT_FIELDS, pairs
from rapids.exceptions import DeserializationError

# --- the format ------------------------------------------------------------------------------------------------------
from tests.wire.entries import (
    ID,
    MOMENT,
    STAMP,
    WireColor,
    WireComputed,
    WireOrderPlaced,
    WireStrict,
    data_of,
    decoded,
    encoded,
    entry,
    json_values,
    round_trip,
    texts,
)


def test_an_entry_to_the_byte() -> None:
    event = WireOrderPlaced(order_id="a", total=1.5, id=ID, timestamp=MOMENT, metadata={"a": 1})

    assert encoded(event, "request-1", "event-0") == [
        b"event_type", b"wire_order.placed",
        b"schema_version", b"1",
        b"data", b'{"order_id":"a","total":1.5}',
        b"id", ID.encode(),
        b"timestamp", STAMP.encode(),
        b"correlation_id", b"request-1",
        b"causation_id", b"event-0",
        b"metadata", b'{"a":1}',
    ]  # fmt: skip


def test_the_field_names_are_always_the_same_in_the_same_order() -> None:
    generic = GenericEvent(raw_type="x.y", data={"data": {"id": 1}})
    for event in (WireOrderPlaced(order_id="a", total=1), generic, WireOrderPlaced(order_id="", total=0)):
        assert tuple(name for name, _ in pairs(encoded(event))) == EVENT_FIELDS


def test_none_is_an_empty_string_and_no_metadata_an_empty_object() -> None:
    values = dict(pairs(encoded(WireOrderPlaced(order_id="a", total=1))))

    assert (values[b"correlation_id"], values[b"causation_id"], values[b"metadata"]) == (b"", b"", b"{}")
    event = decoded(encoded(WireOrderPlaced(order_id="a", total=1)))
    assert (event.correlation_id, event.causation_id, event.metadata) == (None, None, {})


@pytest.mark.parametrize(
    ("timestamp", "written"),
    [
        ("2026-01-01T12:00:00+02:00", b"2026-01-01T10:00:00+00:00"),
        ("2026-01-01T12:00:00", b"2026-01-01T12:00:00+00:00"),
        ("2026-01-01T12:00:00.5Z", b"2026-01-01T12:00:00.500000+00:00"),
    ],
)
def test_a_time_is_written_in_utc(timestamp: str, written: bytes) -> None:
    event = WireOrderPlaced.model_validate({"order_id": "a", "total": 1, "timestamp": timestamp})
    assert dict(pairs(encoded(event)))[b"timestamp"] == written


def test_a_time_that_was_not_validated_is_written_in_utc_too() -> None:
    moment = datetime(2026, 1, 1, 12, tzinfo=timezone(timedelta(hours=2)))
    event = WireOrderPlaced.model_construct(order_id="a", total=1.0, id=ID, timestamp=moment, metadata={})
    assert dict(pairs(encoded(event)))[b"timestamp"] == b"2026-01-01T10:00:00+00:00"


def test_an_entry_of_rapids_streams_is_read() -> None:
    event = decoded(
        [
            b"event_type", b"wire_order.placed",
            b"schema_version", b"1",
            b"data", b'{"order_id":"a","total":1.5}',
            b"id", ID.encode(),
            b"timestamp", b"2026-11-23T20:54:46.528398+00:00",
            b"correlation_id", b"",
            b"causation_id", b"",
            b"metadata", b'{"a":1}',
        ]
    )  # fmt: skip

    assert event == WireOrderPlaced(order_id="a", total=1.5, id=ID, timestamp=MOMENT, metadata={"a": 1})


def test_our_entry_reads_as_rapids_streams_reads_it() -> None:
    """Its consumer parses `data` and `metadata` with orjson, and the rest as text."""
    values = {name.decode(): value.decode() for name, value in pairs(encoded(WireOrderPlaced(order_id="é", total=1)))}

    full = orjson.loads(values["data"]) | {name: values[name] for name in ("id", "timestamp")}
    assert WireOrderPlaced.model_validate(full | {"metadata": orjson.loads(values["metadata"])}).order_id == "é"
    assert int(values["schema_version"]) == 1


def test_fields_of_later_versions_are_no_obstacle() -> None:
    fields = [*entry(), b"traceparent", b"00-aa-bb-01", b"\xff\xfe", b"\x00" * 100]
    assert isinstance(decoded(fields), WireOrderPlaced)


def test_the_order_of_fields_does_not_matter_when_reading() -> None:
    reverse = [part for name, value in reversed(list(pairs(entry()))) for part in (name, value)]
    assert decoded(reverse) == decoded(entry())


# --- round trips -----------------------------------------------------------------------------------------------------


class WireInner(BaseModel):
    model_config = ConfigDict(populate_by_name=True)

    unit_price: Decimal = Field(alias="unitPrice")


class WireEverything(BaseEvent):
    text: str
    number: float
    whole: int
    money: Decimal
    moment: datetime
    color: WireColor
    key: UUID
    inner: list[WireInner]
    table: dict[str, int | None]
    maybe: str | None = None


everything = st.builds(
    WireEverything,
    text=texts,
    number=st.floats(allow_nan=False, allow_infinity=False),
    whole=st.integers(-(10**30), 10**30),
    money=st.decimals(allow_nan=False, allow_infinity=False, places=4),
    moment=st.datetimes(timezones=st.just(UTC)),
    color=st.just(WireColor.RED),
    key=st.uuids(),
    inner=st.lists(
        st.builds(WireInner, unitPrice=st.decimals(0, 9, allow_nan=False, allow_infinity=False, places=2)), max_size=2
    ),
    table=st.dictionaries(texts, st.none() | st.integers(-9, 9), max_size=3),
    maybe=st.none() | texts,
    id=texts.filter(bool),
    timestamp=st.datetimes(timezones=st.just(UTC)),
    correlation_id=st.none() | texts.filter(bool),
    causation_id=st.none() | texts.filter(bool),
    metadata=st.dictionaries(texts, json_values, max_size=3),
)


@given(event=everything)
def test_an_event_comes_back_as_it_was(event: WireEverything) -> None:
    assert round_trip(event) == event


@given(
    raw_type=texts.filter(bool),
    data=st.dictionaries(texts, json_values, max_size=4),
    metadata=st.dictionaries(texts, json_values, max_size=2),
)
def test_an_event_of_an_unknown_type_comes_back_as_a_generic_one(
    raw_type: str, data: dict[str, Any], metadata: dict[str, Any]
) -> None:
    event = GenericEvent(raw_type=f"wire unknown {raw_type}", data=data, metadata=metadata, correlation_id="c")
    assert round_trip(event) == event


class WireAliased(BaseEvent):
    order_id: str = Field(alias="orderId")
    price: float = Field(validation_alias=AliasChoices("cost", "amount"), serialization_alias="sum")


def test_the_wire_has_field_names_and_not_aliases() -> None:
    event = WireAliased.model_validate({"orderId": "a", "amount": 2})

    assert data_of(event) == {"order_id": "a", "price": 2.0}
    assert round_trip(event) == event


def test_an_entry_written_by_alias_is_read_too() -> None:
    event = decoded(entry(event_type="wire.aliased", data='{"orderId":"a","cost":2}'))
    assert isinstance(event, WireAliased)
    assert (event.order_id, event.price) == ("a", 2.0)


class WireSwapped(BaseEvent):
    model_config = ConfigDict(populate_by_name=True)

    net: int = Field(alias="gross")
    gross: int = Field(alias="net")


class WireCamel(BaseEvent):
    model_config = ConfigDict(alias_generator=lambda name: name.title().replace("_", ""), populate_by_name=True)

    order_id: str


@pytest.mark.parametrize(
    "event",
    [
        WireSwapped.model_validate({"gross": 1, "net": 2}),
        WireCamel(order_id="o-1", correlation_id="c"),
    ],
    ids=lambda event: type(event).__name__,
)
def test_an_alias_that_is_another_fields_name_mixes_nothing_up(event: BaseEvent) -> None:
    assert round_trip(event) == event


def test_a_strict_model_takes_from_json_what_json_can_say() -> None:
    event = WireStrict(when=MOMENT, key=UUID(ID), color=WireColor.RED, pair=(1, "a"), tags=frozenset("ab"))
    assert round_trip(event) == event


def test_computed_fields_are_not_sent_so_that_a_strict_reader_takes_the_event() -> None:
    event = WireComputed(price=1)
    assert data_of(event) == {"price": 1.0}
    assert round_trip(event) == event


def test_a_forbidding_class_refuses_what_it_does_not_know() -> None:
    with pytest.raises(DeserializationError, match="bonus: Extra inputs are not permitted"):
        decoded(entry(event_type="wire.computed", data='{"price":1,"bonus":2}'))


class WireOpen(BaseEvent):
    model_config = ConfigDict(extra="allow")

    name: str


def test_a_class_that_takes_extra_fields_keeps_them() -> None:
    event = WireOpen.model_validate({"name": "a", "nick": "b"})
    assert data_of(event) == {"name": "a", "nick": "b"}
    assert round_trip(event) == event


class WireSerialized(BaseEvent):
    amount: Decimal

    @field_serializer("amount")
    def in_cents(self, amount: Decimal) -> str:
        return f"{amount:.2f}"


def test_a_field_serializer_counts() -> None:
    assert data_of(WireSerialized(amount=Decimal("1.5"))) == {"amount": "1.50"}


def test_words_that_look_like_numbers_json_lacks_are_words() -> None:
    event = WireOrderPlaced(order_id='NaN, "Infinity" and -Infinity', total=1, metadata={"NaN": "Infinity"})
    assert round_trip(event) == event
