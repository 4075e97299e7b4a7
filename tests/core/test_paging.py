"""Cursors: a list reads those of its pages, and refuses every other text."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rapids._core.paging import Listing

LETTERS, GROUPS = Listing("letters"), Listing("groups")


@given(st.binary(max_size=50))
def test_a_cursor_leads_back_to_its_place(place: bytes) -> None:
    cursor = LETTERS.cursor(place)
    assert re.fullmatch(r"[A-Za-z0-9_-]+", cursor)
    assert LETTERS.place(cursor) == place


@pytest.mark.parametrize("place", ["1-1", "1-1_2-2", "a:b", "ключ", ""])
def test_a_place_may_be_text(place: str) -> None:
    assert LETTERS.text(LETTERS.cursor(place)) == place


def test_text_is_refused_where_the_place_is_none() -> None:
    with pytest.raises(ValueError, match=r"^cursor must be"):
        LETTERS.text(LETTERS.cursor(b"\xff"))


@given(st.binary(max_size=50))
def test_a_cursor_of_another_listing_is_refused(place: bytes) -> None:
    with pytest.raises(ValueError, match=r"^cursor must be"):
        GROUPS.place(LETTERS.cursor(place))


@pytest.mark.parametrize(
    "cursor",
    [
        "",
        "1-1",
        "=",
        "A",
        "letters:1-1",
        "bGV0dGVyczoxLTE=",
        "bGV0dGVyczoxLTE ",
        "bGV0dGVyczoxLTF",
        "é",
        "\0",
        "\ud800",
        7,
        b"x",
    ],
)
def test_no_other_text_is_a_cursor(cursor: str) -> None:
    with pytest.raises(ValueError, match=r"^cursor must be one from an earlier page of this list, not "):
        LETTERS.place(cursor)


def test_a_bad_cursor_is_quoted_in_part() -> None:
    with pytest.raises(ValueError) as raised:
        LETTERS.place("x" * 10_000)
    assert len(str(raised.value)) < 200


def test_a_place_may_be_entry_ids() -> None:
    assert LETTERS.entry_ids(LETTERS.entry_cursor("1-2"), 1) == ["1-2"]
    assert LETTERS.entry_ids(LETTERS.entry_cursor("1-2", "3-4"), 2) == ["1-2", "3-4"]


@pytest.mark.parametrize(
    "place", ["", "x", "1", "1-", "-1", "1-1-1", "+", "-", "(1-1", "0-0", "01-1", "1-1_2-2", "1-1\n", "9" * 20 + "-0"]
)
def test_a_place_that_is_no_entry_id_is_refused(place: str) -> None:
    with pytest.raises(ValueError, match=r"^cursor must be"):
        LETTERS.entry_ids(LETTERS.cursor(place), 1)
