"""JSON Schemas of event classes: of the `data` that are written of an event, and of the `data` that the class reads."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias, cast

from pydantic import AliasChoices, AliasPath
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode, JsonSchemaValue
from pydantic_core import PydanticOmit, core_schema

from rapids._core.event_fields import aliases_of
from rapids.events import BaseEvent, Event

__all__ = ["ALIASES", "CONSTRAINTS", "OPAQUE", "Schema", "event_schema", "migrates"]

Schema: TypeAlias = dict[str, Any]

OPAQUE = "x-rapids-opaque"
"""A member of the schema of what JSON Schema cannot describe: what it is."""

ALIASES = "x-rapids-aliases"
"""A member of the schema of a field: the other names under which it is read."""

CONSTRAINTS = "x-rapids-constraints"
"""A member of the schema of a type with limits that JSON Schema has no words for: these limits, as text."""

_LIMITS = ("ge", "gt", "le", "lt")
_HIDDEN: Mapping[str, Sequence[str]] = {
    "datetime": (*_LIMITS, "tz_constraint", "now_op"),
    "date": (*_LIMITS, "now_op"),
    "time": (*_LIMITS, "tz_constraint"),
    "timedelta": _LIMITS,
    "decimal": (*_LIMITS, "multiple_of", "max_digits", "decimal_places"),
    "url": ("allowed_schemes", "host_required"),
    "multi-host-url": ("allowed_schemes", "host_required"),
}
"""The limits of types of Pydantic that their JSON Schemas do not have."""

COMMON = frozenset(Event.model_fields)


class _Generator(GenerateJsonSchema):
    """Describes what Rapids writes: all fields by their names, without computed ones, and `Json` fields as text."""

    ignored_warning_kinds = {"skipped-choice", "non-serializable-default", "skipped-discriminator"}

    def generate_inner(self, schema: Any) -> JsonSchemaValue:
        found = super().generate_inner(schema)
        limits = {name: str(schema[name]) for name in _HIDDEN.get(schema["type"], ()) if schema.get(name) is not None}
        keys = schema.get("keys_schema") if schema["type"] == "dict" else None
        if keys is not None and keys["type"] != "str":
            limits["keys"] = json.dumps(self.generate_inner(keys), sort_keys=True)
        return {**found, CONSTRAINTS: limits} if limits and "$ref" not in found else found

    def computed_field_schema(self, schema: core_schema.ComputedField) -> JsonSchemaValue:
        raise PydanticOmit

    def field_is_required(self, field: Any, total: bool) -> bool:
        if self.mode == "validation" or field["type"] == "typed-dict-field":
            return super().field_is_required(field, total)
        return field.get("serialization_exclude_if") is None

    def model_field_schema(self, schema: core_schema.ModelField) -> JsonSchemaValue:
        return self._with_aliases(schema, super().model_field_schema(schema))

    def dataclass_field_schema(self, schema: core_schema.DataclassField) -> JsonSchemaValue:
        return self._with_aliases(schema, super().dataclass_field_schema(schema))

    def typed_dict_field_schema(self, schema: core_schema.TypedDictField) -> JsonSchemaValue:
        return self._with_aliases(schema, super().typed_dict_field_schema(schema))

    def json_schema(self, schema: core_schema.JsonSchema) -> JsonSchemaValue:
        inner = self.generate_inner(schema.get("schema") or core_schema.any_schema())
        return {"type": "string", "contentMediaType": "application/json", "contentSchema": inner}

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def handle_invalid_for_json_schema(self, schema: Any, error_info: str) -> JsonSchemaValue:
        return {OPAQUE: error_info}

    def _with_aliases(self, field: Mapping[str, Any], schema: JsonSchemaValue) -> JsonSchemaValue:
        names = sorted(set(_names_in(field.get("validation_alias")))) if self.mode == "validation" else []
        return {**schema, ALIASES: names} if names else schema


def _names_in(alias: Any) -> list[str]:
    """The names in the validation alias of a core schema: a text, a path, or a list of paths. A longer path names what
    is inside of another field, which no schema says."""
    if isinstance(alias, str | AliasPath | AliasChoices) or alias is None:
        return list(aliases_of(alias))
    paths = cast("list[Any]", alias)
    if paths and not isinstance(paths[0], list):
        paths = [paths]
    return [path[0] for path in paths if len(path) == 1 and isinstance(path[0], str)]


def event_schema(cls: type[BaseEvent], mode: Literal["written", "read"]) -> Schema:
    """The JSON Schema (2020-12) of the `data` of an event: its own fields, by their names.

    `written`: what `emit` writes, with every field. `read`: what the class accepts, where fields with defaults may be
    missing. What validators of your own accept or refuse is not in it.
    """
    pydantic_mode: JsonSchemaMode = "serialization" if mode == "written" else "validation"
    try:
        found = cls.model_json_schema(by_alias=False, schema_generator=_Generator, mode=pydantic_mode)
    except Exception as error:  # a class may have its own code for it
        return {OPAQUE: f"{type(error).__name__}: {error}"}
    fields = cls.model_fields
    aliases = [(name, alias) for name, field in fields.items() for alias in aliases_of(field.validation_alias)]
    if any(alias in fields for name, alias in aliases if alias != name):
        found = cast(Schema, _without_aliases(found))  # then names alone are clear, and only these are read
    definitions: Schema = found.pop("$defs", {})
    if "$ref" in found:  # the class refers to itself
        found = {**definitions[str(found["$ref"]).rpartition("/")[2]]}
    properties = found.get("properties")
    if isinstance(properties, dict):
        own = {name: schema for name, schema in cast(Schema, properties).items() if name not in COMMON}
        required = [name for name in found.get("required", ()) if name not in COMMON]
        found = {**{name: value for name, value in found.items() if name != "required"}, "properties": own}
        if required:
            found["required"] = sorted(required)
    return {**found, "$defs": definitions} if definitions else found


def _without_aliases(schema: Any) -> Any:
    match schema:
        case dict():
            members = cast(Schema, schema)
            return {name: _without_aliases(member) for name, member in members.items() if name != ALIASES}
        case list():
            return [_without_aliases(one) for one in cast("list[Any]", schema)]
        case _:
            return schema


def migrates(cls: type[BaseEvent]) -> bool:
    """Whether the class has a validator that gets stored data before they are parsed, and so can convert older ones."""
    return any(one.info.mode != "after" for one in cls.__pydantic_decorators__.model_validators.values())
