"""What was changed in an event's data: how two JSON values differ."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias, cast, get_args

from pydantic_core import from_json, to_json

from rapids._core.json_schema import with_json_schema
from rapids.exceptions import json_pointer

__all__ = ["NO_JSON", "Difference", "canonical", "differences", "read_differences", "write_differences"]

MOST_DIFFERENCES = 100
LONGEST_POINTER = 1_000
LARGEST_VALUE = 4_096
"""Bytes, as JSON, of a value that a difference shows."""
DEEPEST = 64

Op: TypeAlias = Literal["add", "remove", "replace"]
Location: TypeAlias = tuple[str | int, ...]


class _NoJson:
    """A class of its own, so that it equals nothing."""


NO_JSON: Final = _NoJson()
"""Stands for data that are no JSON: all one can say is that they were replaced."""


@with_json_schema
@dataclass(frozen=True, slots=True)
class Difference:
    """One place where changed data differ from those of the letter. The names are those of JSON Patch (RFC 6902)."""

    pointer: str
    """Where: a JSON Pointer (RFC 6901) into the changed data if something was added, else into the letter's."""
    op: Op
    before: Any
    """The letter's value; None if there was none."""
    after: Any
    """The changed value; None if there is none any more."""
    cut: bool = False
    """Whether `before` or `after` is None because it has more than 4,096 bytes, or is no JSON."""


def differences(before: object, after: object) -> tuple[Difference, ...]:
    """Where two JSON values differ: at most 100 places. Where there would be more, the value around them is one."""
    return tuple(_difference(*found) for found in _differing(before, after, ()))


_Found: TypeAlias = tuple[Location, Op, object, object]


def _differing(before: object, after: object, location: Location) -> list[_Found]:
    whole: list[_Found] = [(location, "replace", before, after)]
    if type(before) not in (dict, list) or type(before) is not type(after) or len(location) == DEEPEST:
        return [] if _is_same(before, after) else whole
    found: list[_Found] = []
    for one in _inside(before, after, location):
        if len(found) == MOST_DIFFERENCES or len(json_pointer(one[0])) > LONGEST_POINTER:
            return whole
        found.append(one)
    return found


def _inside(before: object, after: object, location: Location) -> Iterator[_Found]:
    """Where two objects, or two lists, differ."""
    if isinstance(before, dict):
        return _members(cast("dict[str, object]", before), cast("dict[str, object]", after), location)
    return _places(cast("list[object]", before), cast("list[object]", after), location)


def _members(before: dict[str, object], after: dict[str, object], location: Location) -> Iterator[_Found]:
    for name, value in before.items():
        if name in after:
            yield from _differing(value, after[name], (*location, name))
        else:
            yield (*location, name), "remove", value, None
    for name, value in after.items():
        if name not in before:
            yield (*location, name), "add", None, value


def _places(before: Sequence[object], after: Sequence[object], location: Location) -> Iterator[_Found]:
    """What both begin and end with aside, place by place."""
    shorter = min(len(before), len(after))
    start = next((at for at in range(shorter) if not _is_same(before[at], after[at])), shorter)
    most_end = shorter - start
    end = next((at for at in range(most_end) if not _is_same(before[-1 - at], after[-1 - at])), most_end)
    for at in range(start, shorter - end):
        yield from _differing(before[at], after[at], (*location, at))
    for at in range(shorter - end, len(before) - end):
        yield (*location, at), "remove", before[at], None
    for at in range(shorter - end, len(after) - end):
        yield (*location, at), "add", None, after[at]


def _is_same(before: object, after: object) -> bool:
    if _is_number(before) and _is_number(after):
        return before == after
    if type(before) is not type(after):
        return False
    return canonical(before) == canonical(after) if type(before) in (dict, list) else before == after


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def canonical(value: object) -> str:
    """A text that is the same for the same JSON value: `1` and `1.0` are one number, which browsers write as `1`."""
    text = json.dumps(value, sort_keys=True)
    return json.dumps(json.loads(text, parse_float=_whole)) if "." in text or "e" in text else text


def _whole(text: str) -> float:
    number = float(text)
    return int(number) if number.is_integer() else number


def _difference(location: Location, op: Op, before: object, after: object) -> Difference:
    kept = [_bounded(value) for value in (before, after)]
    return Difference(json_pointer(location), op, kept[0][0], kept[1][0], cut=kept[0][1] or kept[1][1])


def _bounded(value: object) -> tuple[Any, bool]:
    """The value, and whether it is left out. A NaN of the letter's data becomes a string: it is not JSON."""
    if value is NO_JSON:
        return None, True
    try:
        raw = to_json(value, inf_nan_mode="strings")
        return (None, True) if len(raw) > LARGEST_VALUE else (from_json(raw), False)
    except ValueError:  # nested deeper than can be written, or read again
        return None, True


def write_differences(found: Sequence[Difference]) -> str:
    """Differences as JSON text."""
    return to_json(found).decode()


def read_differences(raw: str) -> tuple[Difference, ...]:
    """What `write_differences` wrote; nothing where somebody else did."""
    try:
        return tuple(_read(row) for row in json.loads(raw)) if raw else ()
    except (ValueError, TypeError, KeyError, RecursionError):
        return ()


def _read(row: dict[str, Any]) -> Difference:
    if row["op"] not in get_args(Op):
        raise ValueError("not something that can be done to a value")
    return Difference(str(row["pointer"]), row["op"], row["before"], row["after"], row["cut"] is True)
