"""Hidden defaults: what schemas of event classes say of the values of hidden fields, left out where they are shown."""

from collections.abc import Iterator
from typing import Any, cast

from rapids.redaction.redactor import Redactor

__all__ = ["without_hidden_defaults"]

_FIELDS = {"properties", "patternProperties"}
"""The members of a JSON Schema that are schemas of fields, by their names or by patterns that have words of these."""

_NAMED = {"$defs", "definitions", "dependentSchemas"}
"""The members of a JSON Schema that are schemas by names."""

_INNER = {
    "additionalProperties",
    "contains",
    "contentSchema",
    "else",
    "if",
    "items",
    "not",
    "propertyNames",
    "then",
    "allOf",
    "anyOf",
    "oneOf",
    "unevaluatedItems",
    "unevaluatedProperties",
}
"""Those that are schemas, or lists of schemas."""

_PLAIN = {
    "$anchor",
    "$comment",
    "$id",
    "$ref",
    "$schema",
    "contentEncoding",
    "contentMediaType",
    "deprecated",
    "dependentRequired",
    "description",
    "discriminator",
    "exclusiveMaximum",
    "exclusiveMinimum",
    "format",
    "maxContains",
    "maxItems",
    "maxLength",
    "maxProperties",
    "maximum",
    "minContains",
    "minItems",
    "minLength",
    "minProperties",
    "minimum",
    "multipleOf",
    "pattern",
    "readOnly",
    "required",
    "title",
    "type",
    "uniqueItems",
    "writeOnly",
    "x-rapids-aliases",
    "x-rapids-opaque",
}
"""Those that say of values which are allowed, or nothing. All others have values: `default`, `const`, and what JSON
Schema does not know, such as `x-example`."""


def without_hidden_defaults(document: dict[str, Any], redactor: Redactor) -> dict[str, Any]:
    """A JSON Schema, or an AsyncAPI document with JSON Schemas as its components, without the defaults, examples and
    constants of hidden fields. A default of another field is shown without what is hidden in it.

    What a hidden field refers to is hidden with it.
    """
    if not redactor.names:
        return document
    if "asyncapi" not in document:
        return _without(document, redactor)
    parts = cast("dict[str, Any]", document["components"])
    schemas = _without({"$defs": parts.get("schemas", {})}, redactor)["$defs"]
    return {**document, "components": {**parts, "schemas": schemas}}


def _without(schema: dict[str, Any], redactor: Redactor) -> dict[str, Any]:
    hidden: set[str] = set()
    while True:
        before = len(hidden)
        shown = _shown(schema, redactor, hidden, is_hidden=False)
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
        if name in _FIELDS and isinstance(value, dict):
            fields = cast("dict[str, Any]", value)
            usual = redactor.value({field: _usual(one) for field, one in fields.items()})
            yield (
                name,
                {field: inner(one, also=usual is None or (field,) in usual.places) for field, one in fields.items()},
            )
        elif name == "prefixItems" and isinstance(value, list):
            items = cast("list[Any]", value)
            usual = redactor.value([_usual(one) for one in items])
            yield name, [inner(one, also=usual is None or (at,) in usual.places) for at, one in enumerate(items)]
        elif name in _NAMED and isinstance(value, dict):
            parts = cast("dict[str, Any]", value)
            yield name, {part: inner(one, also=part in hidden) for part, one in parts.items()}
        elif name in _INNER:
            yield name, inner(value)
        elif name in _PLAIN:
            if is_hidden and name == "$ref":
                hidden.add(str(value).rpartition("/")[2])
            yield name, value
        elif not is_hidden and (searched := redactor.value({name: value})) is not None:
            yield from searched.shown.items()


def _usual(schema: object) -> object:
    """The value of a field that nobody gave another: it may be a name, and what is beside it that one's value."""
    members = cast("dict[str, object]", schema) if isinstance(schema, dict) else {}
    return members.get("const", members.get("default"))
