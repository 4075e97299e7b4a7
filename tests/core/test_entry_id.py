"""Ids of entries: what is one, their order, their neighbours, and the time in them."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rapids._core.entry_id import (
    FIRST_ID,
    LAST_ID,
    is_before,
    milliseconds,
    moment,
    moment_or_last,
    next_id,
    numbers,
    order,
    parsed_id,
    previous_id,
    time_of,
)

MAX = 2**64 - 1
parts = st.integers(0, MAX) | st.sampled_from([0, 1, MAX - 1, MAX])
ids = st.tuples(parts, parts).map(lambda id_: f"{id_[0]}-{id_[1]}")


@pytest.mark.parametrize(("text", "parsed"), [("1-2", "1-2"), ("01-002", "1-2"), ("0-1", "0-1"), (LAST_ID, LAST_ID)])
def test_an_id_is_read_as_redis_writes_it(text: str, parsed: str) -> None:
    assert parsed_id(text) == parsed


@pytest.mark.parametrize(
    "text", ["", "1", "1-", "-1", "1-2-3", "+1-2", " 1-2", "1-2\n", "a-b", "\u0661-1", f"{MAX + 1}-0", f"0-{MAX + 1}"]
)
def test_other_text_is_no_id(text: str) -> None:
    assert parsed_id(text) is None
    assert numbers(text) is None


def test_no_entry_has_the_id_before_the_first() -> None:
    assert parsed_id(FIRST_ID) is None
    assert numbers(FIRST_ID) == (0, 0)


def test_ids_are_ordered_by_their_numbers_and_not_as_text() -> None:
    assert sorted(["10-0", "9-10", "9-9"], key=order) == ["9-9", "9-10", "10-0"]
    assert order(b"7-3") == order("7-3") == (7, 3)
    assert order("7") == (7, 0)


@given(ids, ids)
def test_one_of_two_different_ids_is_before_the_other(one: str, other: str) -> None:
    assert is_before(one, other) + is_before(other, one) == (one != other)


@given(ids)
def test_the_next_id_is_the_least_after_it_and_has_it_as_the_previous_one(entry_id: str) -> None:
    following = next_id(entry_id)
    if entry_id == LAST_ID:
        assert following == entry_id
    else:
        assert is_before(entry_id, following)
        assert previous_id(following) == entry_id


@given(ids)
def test_the_previous_id_is_before_it(entry_id: str) -> None:
    before = previous_id(entry_id)
    assert before == FIRST_ID if entry_id == FIRST_ID else next_id(before) == entry_id


def test_the_time_in_an_id_is_that_of_its_milliseconds() -> None:
    assert time_of("1700000000123-5") == time_of(b"1700000000123-5") == moment(1_700_000_000_123)
    assert moment(1_700_000_000_123) == datetime(2023, 11, 14, 22, 13, 20, 123_000, UTC)


@pytest.mark.parametrize("entry_id", [f"{MAX}-0", "", "-", "x-1", "\u0661-1", b"\xff-1", "1" * 5_000])
def test_an_id_without_a_time_has_none(entry_id: str | bytes) -> None:
    assert time_of(entry_id) is None


def test_a_time_after_every_datetime_is_none_or_the_last_one() -> None:
    assert moment(MAX) is None
    assert moment(-MAX) is None
    assert moment_or_last(MAX) == datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)


def test_milliseconds_of_a_time_without_a_zone_are_utc_and_none_is_before_1970() -> None:
    zone = timezone(timedelta(hours=9))
    assert milliseconds(datetime(1970, 1, 1, 0, 0, 1)) == 1_000  # noqa: DTZ001 - what is tested
    assert milliseconds(datetime(1970, 1, 1, 9, 0, 1, tzinfo=zone)) == 1_000
    assert milliseconds(datetime(1969, 1, 1, tzinfo=UTC)) == 0
