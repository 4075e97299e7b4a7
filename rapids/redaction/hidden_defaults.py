"""Hidden defaults: what schemas of event classes say of the values of hidden fields, left out where they are shown."""

from collections.abc import Iterator
from typing import Any, cast

from rapids.redaction.redactor import Redactor

__all__ = ["without_hidden_defaults"]

_VALUES = {"default", "example", "examples", "const", "enum"}
"""The members of a JSON Schema that are values, or lists of values, of what it describes."""

_DEFINITIONS = {"$defs", "schemas"}


def without_hidden_defaults(document: dict[str, Any], redactor: Redactor) -> dict[str, Any]:
    """A JSON Schema, or a document with JSON Schemas as its components, without the defaults, examples and constants of
    hidden fields. A default of another field is shown without what is hidden in it.

    What a hidden field refers to is hidden with it.
    """
    if not redactor.names:
        return document
    hidden: set[str] = set()
    while True:
        before = len(hidden)
        shown = _shown(document, redactor, hidden, is_hidden=False)
        if len(hidden) == before:
            return cast("dict[str, Any]", shown)


def _shown(schema: Any, redactor: Redactor, hidden: set[str], *, is_hidden: bool) -> Any:
    """`hidden` are the names of hidden definitions; those that are found are added."""

    def inner(value: object, *, also: bool = False) -> Any:
        return _shown(value, redactor, hidden, is_hidden=is_hidden or also)

    match schema:
        case list():
            return [inner(one) for one in cast("list[object]", schema)]
        case dict():
            return dict(_members(cast("dict[str, Any]", schema), redactor, hidden, inner, is_hidden))
        case _:
            return schema


def _members(
    schema: dict[str, Any], redactor: Redactor, hidden: set[str], inner: Any, is_hidden: bool
) -> Iterator[tuple[str, Any]]:
    for name, value in schema.items():
        if name == "properties" and isinstance(value, dict):
            fields = cast("dict[str, Any]", value)
            yield name, {field: inner(one, also=redactor.hides(field)) for field, one in fields.items()}
        elif name in _DEFINITIONS and isinstance(value, dict):
            parts = cast("dict[str, Any]", value)
            yield name, {part: inner(one, also=part in hidden) for part, one in parts.items()}
        elif name in _VALUES:
            if not is_hidden and (searched := redactor.value(value)) is not None:
                yield name, searched.shown
        else:
            if is_hidden and name == "$ref":
                hidden.add(str(value).rpartition("/")[2])
            yield name, inner(value)
