"""Untrusted entries become an event or a `DeserializationError`, nothing else."""

from __future__ import annotations

import json

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rapids import BaseEvent, Event
from rapids._wire.entry_format import EVENT_FIELDS, TYPE_LIMIT, StoredEvent, event_type_in, pairs
from rapids.exceptions import DeserializationError
from tests.wire.entries import (
    ID,
    MOMENT,
    STAMP,
    WireForbidding,
    WireInvoice,
    WireOrderPlaced,
    WireStrict,
    WireUser,
    decoded,
    entry,
    json_values,
)


@pytest.mark.parametrize("field", ["data", "id", "timestamp"])
@pytest.mark.parametrize("value", [None, ""])
def test_a_required_field_that_is_missing_or_empty_is_named(field: str, value: str | None) -> None:
    with pytest.raises(DeserializationError, match=f"missing or empty: {field}") as raised:
        decoded(entry(**{field: value}))
    assert raised.value.event_type == "wire_order.placed"


@pytest.mark.parametrize("field", ["schema_version", "correlation_id", "causation_id", "metadata"])
@pytest.mark.parametrize("value", [None, ""])
def test_an_optional_field_may_be_missing_or_empty(field: str, value: str | None) -> None:
    assert decoded(entry(**{field: value})) == decoded(entry())


def test_a_repeated_field_is_an_error() -> None:
    for name in EVENT_FIELDS:
        with pytest.raises(DeserializationError, match="repeated"):
            decoded([*entry(), name, b"{}"])
    with pytest.raises(DeserializationError, match="repeated"):
        decoded([*entry(), b"other", b"1", b"other", b"2"])


@pytest.mark.parametrize(
    "data",
    [
        "null", "1", '"text"', "[]", "[1]", "{", "}", "{}}", "{{}}", "", "nonsense", '{"order_id":"a","total":1.5',
        '{"order_id":"a","total":1.5}}', '{"order_id":"a","total":1.5,}', '{"order_id":"a","total":1.5} {}',
        '{"order_id":"a"}', '{"order_id":1,"total":1.5}', '{"order_id":"a","total":"x"}',
        '{"order_id":"\\ud800","total":1}', '{"order_id":"a","total":1.5,"x":"\\}',
        '{"order_id":"a","total":1e999999}x', "{'order_id':'a','total':1.5}", '{"order_id":"a","total":1.5}\x00',
        '{"order_id":"a","total":1.5,"x":"}', '{"order_id":"a","total":1.5,"x":[}',
        "{" * 100_000, "[" * 100_000, '{"a":' * 100_000 + "1" + "}" * 100_000,
    ],
    ids=lambda data: f"{data:.40}",
)  # fmt: skip
def test_data_that_is_not_the_events_is_an_error(data: str) -> None:
    with pytest.raises(DeserializationError) as raised:
        decoded(entry(data=data))
    assert raised.value.event_type == "wire_order.placed"
    assert len(str(raised.value)) < 10_000


@pytest.mark.parametrize(
    "data",
    [
        '{},"id":"forged"', '{},"raw_type":"forged"', '{},"data":{}', '{}},{"x":1', '{"x":1', '{"x":"', "nonsense", "1",
        "null", '"text"', "[]", "{} {}", '{"x":"\\ud800"}', "[" * 100_000, '{"a":' * 100_000 + "1" + "}" * 100_000,
    ],
    ids=lambda data: f"{data:.40}",
)  # fmt: skip
def test_data_of_an_unknown_type_is_one_json_object_or_an_error(data: str) -> None:
    with pytest.raises(DeserializationError):
        decoded(entry(event_type="wire.unheard_of", data=data))


@pytest.mark.parametrize(
    "metadata",
    ["null", "1", "[]", '"x"', "{", '{},"id":"forged"', '{"a":1}{}', '{"a":"\\ud800"}', "nonsense", "{" * 100_000],
    ids=lambda metadata: f"{metadata:.20}",
)
@pytest.mark.parametrize("event_type", ["wire_order.placed", "wire.unheard_of"])
def test_metadata_that_is_no_json_object_is_an_error(event_type: str, metadata: str) -> None:
    with pytest.raises(DeserializationError):
        decoded(entry(event_type=event_type, metadata=metadata, data='{"order_id":"a","total":1}'))


def test_data_cannot_replace_a_common_field() -> None:
    forged = {"id": "forged", "timestamp": "1999-01-01T00:00:00Z", "correlation_id": "forged", "causation_id": "forged"}
    data = json.dumps({"order_id": "a", "total": 1.5, **forged, "metadata": {"forged": True}})

    assert decoded(entry(data=data)) == decoded(entry())
    generic = decoded(entry(event_type="wire.unheard_of", data=data))
    assert (generic.id, generic.timestamp, generic.correlation_id, generic.metadata) == (ID, MOMENT, None, {})


@pytest.mark.parametrize("timestamp", ["yesterday", "2026-13-01", "nan", "1e999", b"\xff", "0001-01-01T00:00:00+23:00"])
def test_an_unreadable_time_is_an_error(timestamp: str | bytes) -> None:
    with pytest.raises(DeserializationError):
        decoded(entry(timestamp=timestamp))


@pytest.mark.parametrize("field", ["data", "id", "timestamp", "correlation_id", "causation_id", "metadata"])
def test_bytes_that_are_no_text_are_an_error(field: str) -> None:
    with pytest.raises(DeserializationError):
        decoded(entry(**{field: b"\xff\xfe\x00"}))


@pytest.mark.parametrize("event_type", [None, b"", b"\xff", "x" * (TYPE_LIMIT + 1), b"\xc3\xa4" * (TYPE_LIMIT + 1)])
def test_an_unreadable_event_type_is_an_error_without_a_type(event_type: bytes | str | None) -> None:
    fields = entry(event_type=event_type)
    assert event_type_in(fields) is None
    with pytest.raises(DeserializationError, match="there is no readable event_type") as raised:
        decoded(fields)
    assert raised.value.event_type == ""


def test_the_longest_event_type_is_read() -> None:
    assert decoded(entry(event_type="ä" * TYPE_LIMIT)).routing_key == "ä" * TYPE_LIMIT


def test_an_error_does_not_repeat_the_values_it_is_about() -> None:
    with pytest.raises(DeserializationError) as raised:
        decoded(entry(data='{"order_id":{"iban":"DE02 1203"},"total":"4111 1111"}'))

    assert "order_id" in str(raised.value)
    assert "total" in str(raised.value)
    assert "1203" not in str(raised.value)
    assert "4111" not in str(raised.value)


class WireMany(BaseEvent):
    numbers: list[int]


def test_an_error_about_very_many_faults_stays_short() -> None:
    with pytest.raises(DeserializationError, match=r"numbers\.9: .*; and 990 more$"):
        decoded(entry(event_type="wire.many", data=json.dumps({"numbers": ["x"] * 1_000})))


CLASSES = (WireOrderPlaced, WireUser, WireInvoice, WireForbidding, WireStrict)
TYPES = [b"wire.unheard_of", *(cls.event_type.encode() for cls in CLASSES)]
raw_values = st.one_of(
    st.binary(max_size=60),
    json_values.map(lambda value: json.dumps(value).encode()),
    st.dictionaries(st.sampled_from(["order_id", "total", "user_id", "id", "data"]), json_values).map(orjson.dumps),
    st.text('{}[]",:\\0e-tnu', max_size=20).map(str.encode),
    st.sampled_from([b"", b"{}", STAMP.encode(), b"1", b"NaN", b"Infinity", b'{"a":NaN}', b"9" * 5_000]),
)
names = st.sampled_from([*EVENT_FIELDS, b"replay_of", b"replay_count", b"replay_handler"]) | st.binary(max_size=5)


@st.composite
def raw_entries(draw: st.DrawFn) -> list[bytes]:
    fields = dict(pairs(entry(event_type=draw(st.sampled_from(TYPES)))))
    if draw(st.booleans()):
        fields.clear()
    fields |= draw(st.dictionaries(names, raw_values, max_size=6))
    parts = [part for item in fields.items() for part in item]
    return parts + draw(st.lists(st.binary(max_size=5), max_size=4).filter(lambda extra: len(extra) % 2 == 0))


def event_or_error(fields: list[bytes]) -> Event | DeserializationError:
    try:
        stored = StoredEvent.read(fields)
        stored.replay()
        return stored.decode()
    except DeserializationError as error:
        return error


@given(fields=raw_entries())
def test_any_bytes_are_an_event_or_a_deserialization_error(fields: list[bytes]) -> None:
    made = event_or_error(fields)
    if isinstance(made, DeserializationError):
        assert len(str(made)) < 10_000
        assert made.event_type == (event_type_in(fields) or "")
    else:
        assert made.routing_key == event_type_in(fields)
        assert made.id.encode() == dict(pairs(fields))[b"id"]


# --- replays ---------------------------------------------------------------------------------------------------------


def test_a_replay_says_which_handler_and_which_letter() -> None:
    fields = [*entry(), b"replay_handler", b"ship", b"replay_of", b"1-0", b"replay_count", b"2"]
    replay = StoredEvent.read(fields).replay()

    assert replay is not None
    assert (replay.handler, replay.letter_id, replay.count) == ("ship", "1-0", 2)
    assert decoded(fields) == decoded(entry())


def test_an_ordinary_entry_is_no_replay() -> None:
    assert StoredEvent.read(entry()).replay() is None
    assert StoredEvent.read([*entry(), b"replay_of", b""]).replay() is None


COUNTS = [b"", b"x", b"-1", b"\xff", b"9" * 5_000, "\u0663".encode()]


@pytest.mark.parametrize("count", COUNTS, ids=lambda count: f"{count!r:.10}")
def test_an_unreadable_replay_count_counts_as_the_first(count: bytes) -> None:
    replay = StoredEvent.read([*entry(), b"replay_of", b"\xff", b"replay_count", count]).replay()
    assert replay is not None
    assert (replay.handler, replay.count) == ("", 1)
