"""Edits: changed data for a dead letter's event, whole or as a patch, and where they differ from the letter's."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from math import isfinite
from typing import Any, Final, Literal, TypeAlias, cast, get_args

from pydantic_core import PydanticSerializationError, from_json, to_json

from rapids._core.json_schema import with_json_schema
from rapids._wire.entry_format import (
    Fields,
    StoredEvent,
    describe,
    documents_in,
    event_type_in,
    reserved_names,
    validated,
)
from rapids._wire.letter_format import original_fields, with_data
from rapids.dead_letters.exact_json import ExactFloat, read_exact, write_exact
from rapids.dead_letters.parse_check import newer_problem, problems_in
from rapids.events import BaseEvent, get_event_class
from rapids.exceptions import DeserializationError, EditRefusedError, ParseProblem, json_pointer

__all__ = [
    "NO_JSON",
    "Difference",
    "Edit",
    "canonical",
    "differences",
    "edited",
    "merge_patch",
    "read_differences",
    "write_differences",
]

MAX_DIFFERENCES = 100
MAX_POINTER = 1_000
MAX_SHOWN_BYTES = 4_096
"""Bytes, as JSON, of a value that a difference shows."""
MAX_COMPARED_DEPTH = 64

Op: TypeAlias = Literal["add", "remove", "replace"]
Location: TypeAlias = tuple[str | int, ...]


class _NoJson:
    """A class of its own, so that it equals nothing."""


NO_JSON: Final = _NoJson()
"""Stands for data that are no JSON, which can only be replaced as a whole."""


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
    """The changed value; None if it was removed."""
    cut: bool = False
    """Whether `before` or `after` is None because it has more than 4,096 bytes, or is no JSON."""


def differences(before: object, after: object) -> tuple[Difference, ...]:
    """Where two JSON values differ: at most 100 places. If a value has more of them, the whole value is one place."""
    found = list[Difference]()
    for location, op, old, new in _differing(before, after, ()):
        (before, is_before_cut), (after, is_after_cut) = _bounded(old), _bounded(new)
        cut = is_before_cut or is_after_cut
        found.append(Difference(json_pointer(location), op, before, after, cut=cut))
    return tuple(found)


_Found: TypeAlias = tuple[Location, Op, object, object]


def _differing(before: object, after: object, location: Location) -> list[_Found]:
    whole: list[_Found] = [(location, "replace", before, after)]
    if type(before) not in (dict, list) or type(before) is not type(after) or len(location) == MAX_COMPARED_DEPTH:
        return [] if _is_same(before, after) else whole
    with suppress(ValueError):  # nested deeper than can be written
        # Most of a large value is written alike, and to compare its parts one by one takes long.
        if write_exact(before) == write_exact(after):
            return []
    found: list[_Found] = []
    if isinstance(before, dict):
        inside = _members(cast("dict[str, object]", before), cast("dict[str, object]", after), location)
    else:
        inside = _places(cast("list[object]", before), cast("list[object]", after), location)
    for one in inside:
        if len(found) == MAX_DIFFERENCES or len(json_pointer(one[0])) > MAX_POINTER:
            return whole
        found.append(one)
    return found


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
    """Item by item, without the items at both ends that are equal."""
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
        return _exact(before) == _exact(after)
    if type(before) is not type(after):
        return False
    return canonical(before) == canonical(after) if type(before) in (dict, list) else before == after


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _exact(value: object) -> object:
    """A number that equals only those with the same decimal value."""
    if not isinstance(value, float) or not isfinite(value):
        return value
    try:
        return Decimal(value.digits if isinstance(value, ExactFloat) else repr(value))
    except InvalidOperation:  # its exponent has more than 18 digits
        return value


def canonical(value: object) -> str:
    """A text that is the same for the same JSON value: `1` and `1.0` are one number, which browsers write as `1`."""
    text = json.dumps(value, sort_keys=True)
    if "." not in text and "e" not in text:
        return text

    def number(digits: str) -> float:
        value = float(digits)
        return int(value) if value.is_integer() else value

    return json.dumps(json.loads(text, parse_float=number))


def _bounded(value: object) -> tuple[Any, bool]:
    """The value, and whether it is left out. A NaN of the letter's data becomes a string: it is not JSON."""
    if value is NO_JSON:
        return None, True
    try:
        raw = to_json(value, inf_nan_mode="strings")
        return (None, True) if len(raw) > MAX_SHOWN_BYTES else (from_json(raw), False)
    except ValueError:  # nested deeper than can be written, or read again
        return None, True


def write_differences(found: Sequence[Difference]) -> str:
    """Differences as JSON text."""
    return to_json(found).decode()


def read_differences(raw: str) -> tuple[Difference, ...]:
    """Differences that `write_differences` wrote; none for any other text."""
    found = list[Difference]()
    try:
        for row in json.loads(raw) if raw else ():
            if row["op"] not in get_args(Op):
                return ()
            found.append(Difference(str(row["pointer"]), row["op"], row["before"], row["after"], row["cut"] is True))
    except (ValueError, TypeError, KeyError, RecursionError):
        return ()
    return tuple(found)


MAX_PROBLEMS = 100
MAX_DEPTH = 100
"""Levels of changed data. Pydantic reads about twice as many, and code that shows data handles so many."""


@dataclass(frozen=True, slots=True)
class Edit:
    """A letter with changed data, which its event class has accepted."""

    fields: Fields
    """The letter's fields, with the changed data and the schema version of the class registered now."""
    data: str
    """The changed data: JSON."""
    diff: tuple[Difference, ...]
    """Where they differ from the letter's."""

    @property
    def change(self) -> dict[str, str]:
        """What the letter's history records of it."""
        return {"data": self.data, "diff": write_differences(self.diff)}


def edited(letter: Fields, *, data: Mapping[str, Any] | None = None, patch: Mapping[str, Any] | None = None) -> Edit:
    """A letter, given with all fields of its event, with changed data: exactly one of `data` and `patch`. Numbers keep
    their digits, those of the letter and those that `read_exact` has read.

    `data` replace all the event's own fields. `patch`, a JSON Merge Patch, changes some of them. The result is
    validated by the class registered now for the event's type, in its present schema version, so no migration runs on
    it; what it holds beyond the fields of that class is for the class to accept. So a letter of a newer schema version
    cannot be patched. The common fields, such as the event's id, cannot be changed. Data of other writers may have them
    among their own: a patch may remove them there, and whole data that name them keep the stored values.

    Raises `EditRefusedError`; `DeserializationError` where the event could not be read whatever its data; `TypeError`
    for what is no mapping; `ValueError` for both or neither.
    """
    given, change = ("data", data) if patch is None else ("patch", patch)
    if data is not None and patch is not None:
        raise ValueError("give either data or patch, not both")
    if not isinstance(change, Mapping):
        raise TypeError(f"{given} must be a mapping of the event's own fields, not a {type(change).__name__}")
    before = original_fields(letter)
    event_type = event_type_in(before)
    if event_type is None:
        raise DeserializationError("", "there is no readable event_type")
    cls = get_event_class(event_type)
    if cls is None:
        message = "this process has no class for the event's type, so nothing can tell whether other data are valid"
        raise _refused(event_type, [ParseProblem((), message, "unknown_type")])
    stored: object = NO_JSON
    with suppress(ValueError):
        stored = read_exact(documents_in(before)[0])
    raw = _written(event_type, change)
    if patch is not None:
        target = stored
        if not isinstance(target, dict):
            message = "the letter's own data are no JSON object, which a patch could change: send whole data"
            raise _refused(event_type, [ParseProblem((), message, "not_an_object")])
        if (newer := newer_problem(cls, before)) is not None:  # unpatched parts would be read as older data
            raise _refused(event_type, [newer])
        raw = _written(event_type, cast("Mapping[str, object]", merge_patch(cast("object", target), read_exact(raw))))
    own = read_exact(raw)
    # Names of common fields. Their values are not compared: that would say of a hidden value whether a guess is right.
    named = [name for name, value in change.items() if name in reserved_names(cls) and value is not None]
    if locked := [name for name in named if patch is not None or _member(stored, name) is _ABSENT]:
        message = "this is a common field of every event, kept as it is, and none of the event's own: leave it out"
        raise _refused(event_type, [ParseProblem((name,), message, "locked") for name in locked])
    if named:
        own |= {name: _member(stored, name) for name in named}
        raw = write_exact(own)
    fields = with_data(letter, raw, cls.schema_version)
    _validate(cls, StoredEvent.read(original_fields(fields)))
    return Edit(fields, raw.decode(), differences(stored, own))


def merge_patch(target: object, patch: object) -> object:
    """What a JSON Merge Patch (RFC 7396) makes of a JSON value: null removes, what it does not name stays."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(cast("dict[str, object]", target)) if isinstance(target, dict) else {}
    for name, change in cast("dict[str, object]", patch).items():
        if change is None:
            merged.pop(name, None)
        else:
            merged[name] = merge_patch(merged.get(name), change)
    return merged


def _refused(event_type: str, problems: list[ParseProblem]) -> EditRefusedError:
    return EditRefusedError(event_type, tuple(problems[:MAX_PROBLEMS]), len(problems))


def _written(event_type: str, data: Mapping[str, Any]) -> bytes:
    if problems := list(_unwritable(data)):
        raise _refused(event_type, problems)
    try:
        return write_exact(data)
    except PydanticSerializationError as error:
        raise _refused(event_type, [ParseProblem((), describe(error), "not_json")]) from error


def _unwritable(data: object) -> Iterator[ParseProblem]:
    """What JSON cannot hold, and where."""
    left: list[tuple[object, Location]] = [(data, ())]
    while left:
        value, location = left.pop()
        if len(location) > MAX_DEPTH:
            yield ParseProblem(location[:1], f"nested deeper than {MAX_DEPTH} levels", "too_deep")
            return
        if isinstance(value, float) and not isfinite(value):
            yield ParseProblem(location, "NaN and infinities are not JSON", "not_json")
        elif isinstance(value, str) and _is_broken(value):
            yield ParseProblem(location, "half a surrogate pair is not text", "not_json")
        left += reversed(list(_inside(value, location)))


def _inside(value: object, location: Location) -> Iterator[tuple[object, Location]]:
    if isinstance(value, Mapping):
        for name, member in cast("Mapping[Any, object]", value).items():
            if isinstance(name, str) and _is_broken(name):
                yield name, location  # not a location itself, since no text can tell it
            else:
                yield member, (*location, str(name))
    elif isinstance(value, list | tuple):
        for at, member in enumerate(cast("list[object]", value)):
            yield member, (*location, at)


def _is_broken(text: str) -> bool:
    if text.isascii():
        return False
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def _validate(cls: type[BaseEvent], event: StoredEvent) -> None:
    try:
        document = event.document(cls)
        place = _placing(from_json(document))
    except Exception as error:  # of the event's other fields: no data would fix it
        raise DeserializationError(event.event_type, describe(error)) from error
    try:
        validated(cls, document)
    except Exception as error:  # validators are the user's code, and may raise anything
        problems, count = problems_in(error, limit=MAX_PROBLEMS, place=place)
        raise EditRefusedError(event.event_type, problems, count) from error


def _placing(document: object) -> Callable[[Any], Location]:
    """Where Pydantic's faults are in a document. Its locations also name the members of unions that it tried."""

    def place(fault: Any) -> Location:
        found: list[str | int] = []
        value, path = document, fault["loc"]
        for at, part in enumerate(path):
            inner = _member(value, part)
            if inner is not _ABSENT:
                value = inner
                found.append(part)
            elif fault["type"] == "missing" and at == len(path) - 1:
                found.append(part)
        return tuple(found)

    return place


_ABSENT = object()


def _member(value: object, part: str | int) -> object:
    if isinstance(value, dict):
        return cast("dict[str, object]", value).get(str(part), _ABSENT)
    if isinstance(value, list) and isinstance(part, int):
        members = cast("list[object]", value)
        return members[part] if part < len(members) else _ABSENT
    return _ABSENT
