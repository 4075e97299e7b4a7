"""`tests.printed` takes an answer for what is printed only if it is."""

from __future__ import annotations

import pytest

from tests.printed import Printed

PRINTED = '{"id": "1763932000000-0", "at": "2026-11-25T12:00:00Z", "items": [1, "..."], "text": "so it begins..."}'
ANSWER = '{"id": "1795609106420-3", "at": "2027-01-01T00:00:00Z", "items": [1, 2], "text": "so it begins", "n": 1}'


def test_varying_values_may_differ_and_fields_may_be_left_out() -> None:
    printed = Printed()
    printed.check(PRINTED, ANSWER)
    assert printed.actual("/letters/1763932000000-0") == "/letters/1795609106420-3"


@pytest.mark.parametrize(
    ("said", "instead"),
    [('"items": [1, 2]', '"items": [2]'), ("so it", "it"), ('"at"', '"when"'), ("2027-01-01T", ""), ("420-3", "x")],
)
def test_any_other_difference_fails(said: str, instead: str) -> None:
    with pytest.raises(AssertionError, match="the answer"):
        Printed().check(PRINTED, ANSWER.replace(said, instead))


def test_a_list_that_does_not_end_in_dots_is_complete() -> None:
    with pytest.raises(AssertionError, match="/items has 2 items"):
        Printed().check('{"items": [1]}', '{"items": [1, 2]}')


def test_an_id_stands_for_one_thing_only() -> None:
    printed = Printed()
    printed.check("1763932000000-0", "1795609106420-3")
    with pytest.raises(AssertionError):
        printed.check('{"id": "1763932000000-0"}', '{"id": "1795609106420-4"}')


def test_ids_of_a_wrong_answer_are_forgotten() -> None:
    printed = Printed()
    with pytest.raises(AssertionError):
        printed.check('{"id": "1763932000000-0", "n": 1}', '{"id": "1795609106420-3", "n": 2}')
    printed.check('{"id": "1763932000000-0", "n": 1}', '{"id": "1795609106420-4", "n": 1}')


def test_lines_may_be_left_out_but_not_reordered() -> None:
    printed = Printed()
    printed.check("a: 1\nc...", "a: 1\nb: 2\nc: 3\n")
    with pytest.raises(AssertionError):
        printed.check("c...\na: 1", "a: 1\nb: 2\nc: 3\n")
