"""Nodes of JSON Schemas: a schema with the definitions that its references lead to, and whether two say the same."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from rapids.event_schemas import ALIASES, CONSTRAINTS, OPAQUE, Schema

__all__ = ["ANYTHING", "Node", "is_same"]

ANNOTATIONS = frozenset(
    ("$comment", "$defs", "$id", "$schema", "contentMediaType", "default", "deprecated", "description")
) | {"discriminator", "example", "examples", "readOnly", "title", "writeOnly", ALIASES}
"""Members that refuse no value, or are looked at by themselves."""


@dataclass(frozen=True, slots=True)
class Node:
    """A schema without a reference of its own."""

    schema: Schema
    definitions: Schema
    name: str = ""
    """The name of the definition that it is; empty if it is none."""

    @classmethod
    def root(cls, schema: Schema) -> "Node":
        """The whole schema."""
        return cls(schema, schema.get("$defs", {})).inner(schema)

    def inner(self, schema: Any) -> "Node":
        """A schema in this one, with its reference followed."""
        if isinstance(schema, bool):
            return Node({} if schema else {OPAQUE: "never"}, self.definitions)
        found: Schema = schema
        name = ""
        for _ in range(len(self.definitions) + 1):
            reference, alone = cast("tuple[Any, Any]", (found.get("$ref"), found.get("allOf")))
            if isinstance(reference, str):
                name = reference.rpartition("/")[2]
                definition: Schema = self.definitions.get(name, {OPAQUE: reference})
                found = {**definition, **{key: value for key, value in found.items() if key != "$ref"}}
            elif isinstance(alone, list) and len(cast("list[Any]", alone)) == 1:
                found = {**{key: value for key, value in found.items() if key != "allOf"}, **alone[0]}
            else:
                break
        return Node(found, self.definitions, name)

    @property
    def branches(self) -> Sequence["Node"]:
        """The alternatives of a union; otherwise the node alone."""
        for word in ("anyOf", "oneOf"):
            if word in self.schema:
                beside = {key: value for key, value in self.schema.items() if key in self.constraints - {word}}
                found = [self.inner(one) for one in self.schema[word]]
                flat = [inner for one in found for inner in one.branches]
                return [Node({**beside, **one.schema}, one.definitions, one.name) for one in flat]
        if isinstance(types := self.schema.get("type"), list):
            return [Node({**self.schema, "type": one}, self.definitions) for one in cast("list[str]", types)]
        return [self]

    @property
    def constraints(self) -> set[str]:
        """The members that may refuse a value."""
        return self.schema.keys() - ANNOTATIONS

    @property
    def type(self) -> str | None:
        """The JSON type of its values; None if it has no single one."""
        found = self.schema.get("type")
        if found is None and len(values := {_type_of(one) for one in self.values or ()}) == 1:
            return values.pop()
        return found if isinstance(found, str) else None

    @property
    def values(self) -> Sequence[Any] | None:
        """The values of a constant or an enumeration; None for any other schema."""
        return [self.schema["const"]] if "const" in self.schema else self.schema.get("enum")

    @property
    def properties(self) -> Mapping[str, "Node"]:
        """The fields of an object."""
        return {name: self.inner(schema) for name, schema in self.schema.get("properties", {}).items()}

    @property
    def required(self) -> frozenset[str]:
        """The fields that an object always has, or must have."""
        return frozenset(self.schema.get("required", ()))

    @property
    def extra(self) -> "Node | None":
        """What an object may have besides its fields. None: nothing, as its writer has no more to write, or it is
        forbidden."""
        found = self.schema.get("additionalProperties", "properties" not in self.schema)
        return None if found is False else self.inner(found)

    @property
    def forbids_extra(self) -> bool:
        """Whether a reader refuses unknown fields."""
        return self.schema.get("additionalProperties") is False

    @property
    def items(self) -> "Node":
        """Every item of an array, after those that have places of their own."""
        return self.inner(self.schema.get("items", True))

    @property
    def places(self) -> Sequence["Node"]:
        """The items of an array that have places of their own, as in a tuple."""
        return [self.inner(one) for one in self.schema.get("prefixItems", ())]

    @property
    def aliases(self) -> Sequence[str]:
        """The other names under which a field is read."""
        return self.schema.get(ALIASES, ())

    def __str__(self) -> str:
        if len(self.branches) > 1:
            return " or ".join(map(str, self.branches))
        if self.values is not None:
            return " or ".join(json.dumps(one, default=str) for one in self.values)
        if OPAQUE in self.schema:
            return "something that JSON Schema cannot describe"
        title = str(self.schema.get("title", ""))
        kind = title or self.name or self.schema.get("format") or self.type or "anything"
        if kind == "array":
            inner = ", ".join(map(str, self.places)) if self.places else str(self.items)
            kind = f"array of {inner}"
        elif kind == "object" and self.extra is not None:
            kind = f"object of {self.extra}"
        shown = {"type", "format", "properties", "required", "items", "prefixItems", "additionalProperties"}
        limits = {name: self.schema[name] for name in sorted(self.constraints - shown - {CONSTRAINTS})}
        limits |= self.schema.get(CONSTRAINTS, {})
        text = ", ".join(f"{name} {value}" for name, value in limits.items())
        return f"{kind} ({text})" if text and not title else str(kind)


ANYTHING = Node({}, {})


def _type_of(value: object) -> str:
    kinds: dict[type, str] = {
        bool: "boolean",
        int: "integer",
        float: "number",
        str: "string",
        list: "array",
        dict: "object",
    }
    return kinds.get(type(value), "null")


def is_same(one: Node, other: Node, seen: frozenset[tuple[str, str]] = frozenset()) -> bool:
    """Whether both allow the same values, as far as they say it in the same words."""
    if one.name and other.name:
        if (one.name, other.name) in seen:
            return True
        seen |= {(one.name, other.name)}
    if one.constraints != other.constraints or list(one.aliases) != list(other.aliases):
        return False
    if _discriminator(one) != _discriminator(other):
        return False
    return all(_same_member(word, one, other, seen) for word in one.constraints)


def _discriminator(node: Node) -> object:
    found = node.schema.get("discriminator")
    return cast(Schema, found).get("propertyName") if isinstance(found, Mapping) else found


def _same_member(word: str, one: Node, other: Node, seen: frozenset[tuple[str, str]]) -> bool:
    mine: Any = one.schema[word]
    others: Any = other.schema[word]

    def same(a: Any, b: Any) -> bool:
        return is_same(one.inner(a), other.inner(b), seen)

    match word:
        case "properties" | "patternProperties":
            return mine.keys() == others.keys() and all(same(mine[name], others[name]) for name in mine)
        case "anyOf" | "oneOf" | "allOf" | "prefixItems":
            return len(mine) == len(others) and all(map(same, mine, others))
        case "items" | "contentSchema" | "additionalProperties" | "propertyNames":
            return mine == others if isinstance(mine, bool) or isinstance(others, bool) else same(mine, others)
        case "required":
            return sorted(mine) == sorted(others)
        case _:
            return json.dumps(mine, sort_keys=True, default=str) == json.dumps(others, sort_keys=True, default=str)
