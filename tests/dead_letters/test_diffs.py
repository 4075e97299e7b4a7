"""How two JSON values differ."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rapids.dead_letters import Difference
from rapids.dead_letters.edit import NO_JSON, canonical, differences, read_differences, write_differences

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats(-2, 2) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.sampled_from("ab/~"), inner, max_size=4),
    max_leaves=30,
)


def described(before: Any, after: Any) -> list[tuple[str, str, Any, Any]]:
    return [(one.pointer, one.op, one.before, one.after) for one in differences(before, after)]


def test_differences_of_members_are_found() -> None:
    assert described({"a": 1, "b": {"x": 1, "y": 2}, "c": 3}, {"b": {"y": 2, "x": [1]}, "c": 3, "d/~": None}) == [
        ("/a", "remove", 1, None),
        ("/b/x", "replace", 1, [1]),
        ("/d~1~0", "add", None, None),
    ]


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ([1, 2, 3], [1, 3], [("/1", "remove", 2, None)]),
        ([1, 3], [1, 2, 3], [("/1", "add", None, 2)]),
        ([1, 2, 3], [1, 9, 3], [("/1", "replace", 2, 9)]),
        ([1, 1], [1, 1, 1], [("/2", "add", None, 1)]),
        ([{"n": 1}, {"n": 2}], [{"n": 1}, {"n": 3}], [("/1/n", "replace", 2, 3)]),
        ([], [[]], [("/0", "add", None, [])]),
    ],
)
def test_differences_of_lists_are_found(before: Any, after: Any, expected: Any) -> None:
    assert described(before, after) == expected


@pytest.mark.parametrize(("before", "after"), [(1, True), (0.0, False), ([0], [False]), ({}, []), (None, {}), ("1", 1)])
def test_values_equal_in_python_but_not_in_json_differ(before: Any, after: Any) -> None:
    assert len(differences(before, after)) == 1


@pytest.mark.parametrize(("before", "after"), [(1.0, 1), ([1.0, {"a": 2.0}], [1, {"a": 2}]), (1e300, 1e300)])
def test_one_number_written_in_two_ways_is_the_same(before: Any, after: Any) -> None:
    assert differences(before, after) == differences(after, before) == ()
    assert described([before, 5], [after]) == [("/1", "remove", 5, None)]


def test_order_of_members_is_no_difference() -> None:
    assert differences({"a": 1, "b": {"c": 2, "d": 3}}, {"b": {"d": 3, "c": 2}, "a": 1}) == ()
    assert differences([{"a": 1, "b": 2}], [{"b": 2, "a": 1}]) == ()


@given(VALUES, VALUES)
def test_applying_the_differences_to_one_value_gives_the_other(before: Any, after: Any) -> None:
    """Removed and replaced places are in the letter's data, added ones in the changed: so removed last to first."""
    found = differences(before, after)
    assert read_differences(write_differences(found)) == found
    value = json.loads(json.dumps(before))
    for one in [one for one in found if one.op == "replace"]:
        value = patched(value, one)
    for one in reversed([one for one in found if one.op == "remove"]):
        value = patched(value, one)
    for one in [one for one in found if one.op == "add"]:
        value = patched(value, one)
    assert canonical(value) == canonical(after)


def patched(value: Any, one: Difference) -> Any:
    assert not one.cut
    if not one.pointer:
        return one.after
    *path, last = [part.replace("~1", "/").replace("~0", "~") for part in one.pointer[1:].split("/")]
    around = value
    for part in path:
        around = around[int(part) if isinstance(around, list) else part]
    at = int(last) if isinstance(around, list) else last
    match one.op:
        case "remove":
            assert around.pop(at) == one.before
        case "replace":
            assert around[at] == one.before
            around[at] = one.after
        case "add" if isinstance(around, list):
            around.insert(at, one.after)
        case "add":
            around[at] = one.after
    return value


def test_very_many_differences_become_one_of_their_parent() -> None:
    before = {"same": 1, "many": list(range(101))}
    after = {"same": 1, "many": [-number for number in range(101)]}
    after["many"][0] = "x"

    assert described(before, after) == [("/many", "replace", before["many"], after["many"])]
    [whole] = differences({str(number): 0 for number in range(101)}, {})
    assert (whole.pointer, whole.op, whole.cut) == ("", "replace", False)


def test_large_values_are_left_out() -> None:
    [one] = differences({"a": "x" * 5_000}, {"a": "y"})
    assert (one.pointer, one.before, one.after, one.cut) == ("/a", None, "y", True)


def test_depth_and_length_of_pointers_are_bounded() -> None:
    deep: Any = 1
    for _ in range(150):
        deep = {"a": [deep]}
    [one] = differences({"x": deep}, {"x": 1})
    assert one.pointer == "/x"
    [one] = differences(deep, json.loads(json.dumps(deep).replace("1", "2")))
    assert one.pointer.count("/") == 64
    [one] = differences({"o": {"k" * 2_000: 1}}, {"o": {"k" * 2_000: 2}})
    assert (one.pointer, len(one.after)) == ("/o", 1)


def test_data_that_was_no_json_has_one_difference() -> None:
    assert differences(NO_JSON, {"a": 1}) == (Difference("", "replace", None, {"a": 1}, cut=True),)
    [one] = differences({"a": float("nan")}, {"a": 1})
    assert (one.before, one.after) == ("NaN", 1)


OTHER = '[{"pointer": "", "op": "x", "before": 1, "after": 1, "cut": true}]'


@pytest.mark.parametrize("raw", ["", "x", "{}", "[1]", "[{}]", "[" * 100_000, '[{"pointer": 1}]', "null", OTHER])
def test_unreadable_differences_are_none(raw: str) -> None:
    assert read_differences(raw) == ()
