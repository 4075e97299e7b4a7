"""Entries that are bad by construction, each in at least one way, whatever else is in them."""

from __future__ import annotations

from hypothesis import strategies as st

from rapids import BaseEvent
from rapids._wire.encoding import encode
from rapids.events import TYPE_LIMIT

Flat = list[bytes]
Pairs = list[tuple[bytes, bytes]]


class MoReading(BaseEvent):
    number: int


TYPE = MoReading.event_type.encode()
REQUIRED = (b"data", b"id", b"timestamp")

hostile_names = st.sampled_from(
    [
        *(b"letter_id", b"reason", b"original_fields", b"original_msg_id", b"original_stream", b"original_group"),
        *(b"handler", b"error", b"failed_at", b"traceback", b"deliveries", b"consumer"),
        *(b"replay_of", b"replay_handler", b"replay_count", b"traceparent", b"_schema_version", b"", b"\xff\x00"),
    ]
)
values = st.one_of(
    st.binary(max_size=40),
    st.sampled_from([b"", b"{}", b"1-1", b"0-0", b"3:abc,", b"9" * 5_000, b"\xff\xfe", b"[" * 100_000, b"x" * 300_000]),
)
spoilt_data = st.one_of(
    st.binary(max_size=60).filter(lambda raw: not raw.strip().startswith(b"{")),
    st.sampled_from(
        [
            *(b"null", b"[]", b'"text"', b"{}", b"{", b'{"number":"x"}', b'{"number":1', b'{"number":1}{}'),
            *(b'{"number":' * 50_000 + b"1" + b"}" * 50_000, b'{"number":[' + b"1," * 100_000 + b"1]}"),
            *(b'{"number":1,"x":"\\ud800"}', b'{"other":' + b'"x"}', b"\xff{}", b'{"number":1e999}'),
        ]
    ),
)
unreadable_types = st.sampled_from([b"", b"\xff", b"x" * (TYPE_LIMIT + 1), b"y" * 100_000])
spoilt_times = st.sampled_from([b"yesterday", b"2026-13-01", b"nan", b"\xff", b"9" * 400])
spoilt_metadata = st.sampled_from([b"null", b"[]", b"{", b'{},"id":"forged"', b"\xff", b"{" * 100_000])


def good_fields(number: int) -> Pairs:
    flat = encode(MoReading(number=number), correlation_id=None, causation_id=None)
    return list(zip(flat[::2], flat[1::2], strict=True))


def flat(fields: Pairs) -> Flat:
    return [part for pair in fields for part in pair]


def with_value(fields: Pairs, name: bytes, value: bytes) -> Pairs:
    return [(key, value if key == name else old) for key, old in fields]


@st.composite
def spoilt(draw: st.DrawFn) -> Pairs:
    """A good entry with one thing wrong that no other field can put right."""
    fields = good_fields(0)
    match draw(st.sampled_from(["data", "type", "time", "metadata", "bytes", "missing", "no type", "repeated"])):
        case "data":
            return with_value(fields, b"data", draw(spoilt_data))
        case "type":
            return with_value(fields, b"event_type", draw(unreadable_types))
        case "time":
            return with_value(fields, b"timestamp", draw(spoilt_times))
        case "metadata":
            return with_value(fields, b"metadata", draw(spoilt_metadata))
        case "bytes":
            return with_value(fields, draw(st.sampled_from([b"id", b"correlation_id", b"causation_id"])), b"\xff\xfe")
        case "missing":
            missing = draw(st.sampled_from(REQUIRED))
            return [pair for pair in fields if pair[0] != missing]
        case "no type":
            return [pair for pair in fields if pair[0] != b"event_type"]
        case _:
            return [*fields, (draw(st.sampled_from([name for name, _ in fields])), draw(values))]


@st.composite
def bad_entries(draw: st.DrawFn) -> Flat:
    """Spoilt entries among hostile fields in any order, and fields of any bytes with no readable type."""
    if draw(st.integers(0, 4)) == 0:
        nameless = st.binary(max_size=12).filter(lambda name: name != b"event_type")
        many = draw(st.sampled_from([1, 1, 1, 500]))
        return flat(draw(st.lists(st.tuples(nameless | hostile_names, values), min_size=1, max_size=6)) * many)
    fields = draw(spoilt()) + draw(st.lists(st.tuples(hostile_names, values), max_size=4))
    return flat(draw(st.permutations(fields)) if draw(st.booleans()) else fields)


@st.composite
def nobodys_entries(draw: st.DrawFn) -> Flat:
    """Entries of a readable type that the group has no handler for: nothing in them matters."""
    fields = [(b"event_type", draw(st.sampled_from([b"mo.nobody", b"\xc3\xa4", b"letter"])))]
    return flat(fields + draw(st.lists(st.tuples(hostile_names, values), max_size=3)))
