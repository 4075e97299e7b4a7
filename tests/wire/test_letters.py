"""Dead letters as stream entries: the fields, and the way back to the entry that failed."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rapids._core.attempt_log import NO_ATTEMPTS, Attempt, AttemptLog
from rapids._core.outcomes import Dead, Failure, Reason
from rapids._wire.entry_format import EVENT_FIELDS, Replay
from rapids._wire.letter_format import LetterRead, Origin, original_fields, replay_fields, taken_apart, write_letter
from rapids.exceptions import DeserializationError

REGULAR = [part for name in EVENT_FIELDS for part in (name, b"value of " + name)]
ORIGIN = Origin("7-1", "orders", "billing", "worker-1", 5)
FAILED = AttemptLog.of(
    Attempt(1), Attempt(2, 1, datetime(2026, 1, 1, tzinfo=UTC), "worker-1", "ValueError", "declined")
)
DEAD = Dead("pay", Reason.NON_RETRYABLE, Failure("ValueError", "declined", "Traceback ...", "shop:7 pay"), FAILED)
AT = datetime(2026, 1, 1, 12, tzinfo=UTC)


def letter(fields: list[bytes], origin: Origin = ORIGIN) -> list[bytes]:
    return write_letter(fields, origin, DEAD, failed_at=AT)


def values(fields: list[bytes]) -> dict[bytes, bytes]:
    return dict(zip(fields[::2], fields[1::2], strict=True))


def test_the_reference_s_fields_come_first_and_ours_after_them() -> None:
    written = letter(REGULAR)
    assert written[::2] == [
        b"original_msg_id",
        b"original_stream",
        b"original_group",
        b"reason",
        b"error",
        b"handler",
        b"failed_at",
        b"event_type",
        b"data",
        b"schema_version",
        b"id",
        b"timestamp",
        b"correlation_id",
        b"causation_id",
        b"metadata",
        b"error_type",
        b"traceback",
        b"deliveries",
        b"consumer",
        b"replay_of",
        b"replay_count",
        b"position",
        b"attempts",
    ]
    fields = values(written)
    assert (fields[b"original_msg_id"], fields[b"original_stream"], fields[b"original_group"]) == (
        b"7-1",
        b"orders",
        b"billing",
    )
    assert (fields[b"reason"], fields[b"error"], fields[b"handler"]) == (b"non_retryable", b"declined", b"pay")
    assert fields[b"failed_at"] == b"2026-01-01T12:00:00+00:00"
    assert (fields[b"error_type"], fields[b"traceback"]) == (b"ValueError", b"Traceback ...")
    assert fields[b"position"] == b"shop:7 pay"
    assert fields[b"attempts"] == b'[[1],[2,1,1767225600000,"worker-1","ValueError","declined"]]'
    assert (fields[b"deliveries"], fields[b"consumer"]) == (b"5", b"worker-1")
    assert (fields[b"replay_of"], fields[b"replay_count"]) == (b"", b"0")
    for name in EVENT_FIELDS:
        assert fields[name] == b"value of " + name


def test_a_letter_of_a_replay_says_which_and_how_often() -> None:
    fields = values(letter(REGULAR, Origin("7-1", "orders", "billing", "worker-1", 1, replay_of="9-0", replay_count=3)))
    assert (fields[b"replay_of"], fields[b"replay_count"]) == (b"9-0", b"3")


def test_the_trace_parent_is_kept() -> None:
    fields = [*REGULAR, b"traceparent", b"00-ab-cd-01"]
    assert b"original_fields" not in values(letter(fields))
    assert original_fields(letter(fields)) == fields


@pytest.mark.parametrize(
    "fields",
    [
        [],
        REGULAR[2:],
        REGULAR[:-2],
        [*REGULAR[2:], *REGULAR[:2]],
        [*REGULAR, *REGULAR[:2]],
        [*REGULAR, b"traceparent", b"1", b"traceparent", b"2"],
        [*REGULAR, b"letter_id", b"1-1"],
        [*REGULAR, b"original_fields", b"x"],
        [*REGULAR, b"reason", b"x", b"error", b"y"],
        [b"", b"", b"\xff", b"\x00,:1:"],
    ],
    ids=range(10),
)
def test_an_irregular_entry_is_kept_whole(fields: list[bytes]) -> None:
    written = letter(fields)
    assert list(values(written))[-1] == b"original_fields"
    assert len(written) == len(values(written)) * 2
    if fields:
        assert original_fields(written) == fields
        assert original_fields([*written, b"letter_id", b"1-1"]) == fields


parts = st.binary(max_size=20) | st.sampled_from(
    [*EVENT_FIELDS, b"traceparent", b"letter_id", b"original_fields", b"replay_of"]
)
pairs_of_bytes = st.lists(st.tuples(parts, parts), min_size=1, max_size=12).map(
    lambda pairs: [part for pair in pairs for part in pair]
)


@given(pairs_of_bytes)
def test_any_entry_comes_back_byte_for_byte(fields: list[bytes]) -> None:
    assert original_fields(letter(fields)) == fields


@given(pairs_of_bytes, st.text(max_size=10).filter(lambda text: text.isprintable()))
def test_a_replay_is_split_into_its_letter_and_its_entry(fields: list[bytes], handler: str) -> None:
    replayed = replay_fields(letter(fields), handler=handler, letter_id="9-0")
    assert taken_apart(replayed) == (fields, Replay(handler, "9-0", 1, "7-1"))


@given(pairs_of_bytes)
def test_an_entry_that_is_no_replay_is_left_as_it_is(fields: list[bytes]) -> None:
    assert taken_apart(fields) == (fields, None)
    assert taken_apart([]) == ([], None)


def test_each_replay_counts_one_more() -> None:
    again = letter(REGULAR, Origin("7-1", "orders", "billing", "w", 1, replay_of="9-0", replay_count=3))
    _, replay = taken_apart(replay_fields(again, handler="pay", letter_id="10-0"))
    assert replay == Replay("pay", "10-0", 4, "7-1")


def test_the_attempts_of_a_letter_are_read_back() -> None:
    assert LetterRead.of(letter(REGULAR)).attempts() == FAILED


@pytest.mark.parametrize("stored", [None, b"", b"[]", b"x", b"\xff", b"[" * 100_000, b"7", b'{"pay":[]}'], ids=repr)
def test_a_letter_without_an_attempts_field_has_no_attempts(stored: bytes | None) -> None:
    fields = [] if stored is None else [b"attempts", stored]
    assert LetterRead.of([b"handler", b"pay", *fields]).attempts() == NO_ATTEMPTS


SPOILT = [b"", b"x", b"1", b"1:", b"1:a", b"3:abc", b"3:abc,", b"-1:,", b"1:a,1:b,-8:,", b"9" * 5_000 + b":", b"1_0:"]


@pytest.mark.parametrize("packed", SPOILT, ids=lambda packed: repr(packed[:12]))
def test_spoilt_original_fields_are_an_error_and_not_another_entry(packed: bytes) -> None:
    with pytest.raises(DeserializationError, match="original_fields"):
        original_fields([b"original_fields", packed])


@given(st.binary(max_size=40))
def test_any_original_fields_are_read_or_refused(packed: bytes) -> None:
    try:
        fields = original_fields([b"original_fields", packed])
    except DeserializationError:
        return
    assert len(fields) % 2 == 0


@pytest.mark.parametrize(
    ("raw", "number"),
    [(b"5", 5), (b"", 0), (b"-1", 0), (b"1e3", 0), (b"9" * 30, 0), ("\u0663".encode(), 0), (b" 5", 0)],
)
def test_numbers_are_read_or_zero(raw: bytes, number: int) -> None:
    assert LetterRead.of([b"deliveries", raw]).number(b"deliveries") == number


def test_texts_and_times_are_read_or_replaced() -> None:
    read = LetterRead.of([b"error", b"\xff!", b"failed_at", b"2026-01-01T12:00:00", b"error", b"again"])
    assert read.text(b"error") == "\ufffd!"
    assert read.moment(b"failed_at") == AT
    assert read.moment(b"missing") is None
