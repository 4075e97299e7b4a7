"""Acceptance of JSON Schemas: why a reader might refuse what a writer writes. What cannot be shown is refused."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any, TypeAlias, cast

from rapids.contracts.schema_nodes import Node, is_same
from rapids.event_schemas import CONSTRAINTS, OPAQUE

__all__ = ["Refusal", "refusals"]

Location: TypeAlias = tuple[str, ...]
Pairs: TypeAlias = frozenset[tuple[str, str]]

EVERY = "*"
"""In a location: every item of a list, or every value of an object with any names."""

_AT_LEAST = {"minLength": (), "minItems": (), "minProperties": (), "minimum": ("exclusiveMinimum",), "ge": ("gt",)}
_AT_MOST = {"maxLength": (), "maxItems": (), "maxProperties": (), "maximum": ("exclusiveMaximum",), "le": ("lt",)}
_STRICT = {"exclusiveMinimum": "minimum", "gt": "ge", "exclusiveMaximum": "maximum", "lt": "le"}
_BELOW = {"exclusiveMinimum", "gt"}

_SEEN_TO = frozenset(
    ("type", "const", "enum", "anyOf", "oneOf", "properties", "required", "additionalProperties", "items")
) | {"prefixItems", "uniqueItems", "contentSchema", CONSTRAINTS}


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a reader might refuse something."""

    location: Location
    reason: str


def refusals(writer: Node, reader: Node, known: Node | None) -> list[Refusal]:
    """Why `reader` might refuse what `writer` writes; empty if it accepts everything.

    `known`: a reader that accepts it, since a class reads what it writes. What `reader` has of it, it accepts.
    """
    return list(_refused(writer, reader, known, (), frozenset()))


def _refused(writer: Node, reader: Node, known: Node | None, at: Location, seen: Pairs) -> Iterator[Refusal]:
    if known is not None and is_same(known, reader):
        return
    if writer.name and reader.name:
        if (writer.name, reader.name) in seen:
            return
        seen |= {(writer.name, reader.name)}
    if known is not None and _has_all_of(reader, known):
        return
    if len(writers := writer.branches) > 1:
        for one in writers:
            yield from _refused(one, reader, known, at, seen)
        return
    [writer] = writers
    if OPAQUE in writer.schema or OPAQUE in reader.schema:
        yield Refusal(at, "JSON Schema cannot describe it, so that it cannot be compared")
    elif not reader.constraints:
        return
    elif len(readers := reader.branches) > 1 or "oneOf" in reader.schema:
        yield from _refused_by_union(writer, reader, readers, known, at, seen)
    elif (values := writer.values) is not None:
        yield from (Refusal(at, f"{value!r} is refused") for value in values if not _accepts(readers[0], value))
    else:
        yield from _refused_by_one(writer, readers[0], known, at, seen)


def _has_all_of(reader: Node, known: Node) -> bool:
    """Whether a union has all alternatives of what is known to accept, so that it only accepts more."""
    mine, others = reader.branches, known.branches
    if "discriminator" in reader.schema and reader.schema["discriminator"] is not None:
        there: Any = known.schema.get("discriminator")
        if there is None or reader.schema["discriminator"].get("propertyName") != there.get("propertyName"):
            return False
    elif "oneOf" in reader.schema and "oneOf" not in known.schema:
        return False
    return len(mine) > 1 and all(any(is_same(one, other) for one in mine) for other in others)


def _refused_by_union(
    writer: Node, reader: Node, readers: Sequence[Node], known: Node | None, at: Location, seen: Pairs
) -> Iterator[Refusal]:
    discriminator = reader.schema.get("discriminator")
    if discriminator is not None:
        name = str(discriminator.get("propertyName", ""))
        tag = writer.properties.get(name)
        if tag is None or tag.values is None or name not in writer.required:
            yield Refusal(at, f"the alternatives differ by {name!r}, which is not always written")
            return
        for value in tag.values:
            chosen = [one for one in readers if value in (((tags := one.properties.get(name)) and tags.values) or ())]
            if not chosen:
                yield Refusal(at, f"there is no alternative for {name!r} {value!r}")
            for one in chosen[:1]:
                yield from _refused(writer, one, _counterpart(one, known), at, seen)
        return
    if "oneOf" in reader.schema:
        yield Refusal(at, "it is not known which alternative is chosen")
        return
    if writer.values is not None:
        for value in writer.values:
            if not any(_accepts(one, value) for one in readers):
                yield Refusal(at, f"{value!r} is refused")
        return
    tried = [(one, list(_refused(writer, one, _counterpart(one, known), at, seen))) for one in readers]
    if all(found for _, found in tried):
        alike = [found for one, found in tried if one.type == writer.type]
        yield from alike[0] if len(alike) == 1 else [Refusal(at, f"{writer} is accepted by no alternative of {reader}")]


def _counterpart(reader: Node, known: Node | None) -> Node | None:
    """What is known to accept, if it is one alternative only and this one stands for it."""
    if known is None:
        return None
    alike = [one for one in known.branches if one.type == reader.type == "object" and one.name == reader.name]
    return alike[0] if len(alike) == 1 else None


def _refused_by_one(writer: Node, reader: Node, known: Node | None, at: Location, seen: Pairs) -> Iterator[Refusal]:
    if reader.values is not None:
        yield Refusal(at, f"only {reader} is accepted")
        return
    wanted, given = reader.schema.get("type"), writer.type
    if wanted is not None and given != wanted and (given, wanted) != ("integer", "number"):
        yield Refusal(at, f"{writer} is no {reader}" if given else f"it may be {writer}, and must be {reader}")
        return
    for word in sorted(reader.constraints - _SEEN_TO):
        if not _implies(writer.schema, word, reader.schema[word]):
            yield Refusal(at, _limit(word, reader.schema[word], writer.schema.get(word)))
    limits, others = reader.schema.get(CONSTRAINTS, {}), writer.schema.get(CONSTRAINTS, {})
    for word, value in limits.items():
        if not _implies(others, word, value):
            yield Refusal(at, _limit(word, value, others.get(word)))
    if "contentSchema" in reader.schema:
        inside = [node and node.inner(node.schema.get("contentSchema", True)) for node in (writer, reader, known)]
        if "contentSchema" not in writer.schema:
            yield Refusal(at, "it must be a text that is JSON")
        else:
            yield from _refused(cast(Node, inside[0]), cast(Node, inside[1]), inside[2], at, seen)
    known = known if known is not None and len(known.branches) == 1 else None
    if wanted == "object":
        yield from _refused_fields(writer, reader, known, at, seen)
    elif wanted == "array":
        yield from _refused_items(writer, reader, known, at, seen)


def _refused_fields(writer: Node, reader: Node, known: Node | None, at: Location, seen: Pairs) -> Iterator[Refusal]:
    fields, read = writer.properties, reader.properties
    before = known.properties if known is not None else dict[str, Node]()
    readers: dict[str, list[str]] = {}
    for name, field in read.items():
        for one in (name, *field.aliases):
            readers.setdefault(one, []).append(name)
    for name in sorted(reader.required):
        names = (name, *(read[name].aliases if name in read else ()))
        if not any(one in writer.required for one in names):
            written = any(one in fields for one in names)
            why = "it is required, and is not always written" if written else "it is required, and is not written"
            yield Refusal((*at, name), why)
    for name, field in fields.items():
        for one in readers.get(name, ()):
            yield from _refused(field, read[one], before.get(one), (*at, one), seen)
        if name not in readers:
            yield from _refused_extra(field, reader, (*at, name), seen, None)
    if (extra := writer.extra) is None:
        return
    for name, names in readers.items():
        if name not in fields:
            for one in names:  # it may have been written as an unknown field
                place = None if known is None or known.extra is None else before.get(one, known.extra)
                yield from _refused(extra, read[one], place, (*at, one), seen)
    yield from _refused_extra(extra, reader, (*at, EVERY), seen, known)


def _refused_extra(field: Node, reader: Node, at: Location, seen: Pairs, known: Node | None) -> Iterator[Refusal]:
    """Whether the reader refuses a field that it does not know."""
    if reader.forbids_extra:
        yield Refusal(at, "unknown fields are forbidden")
    elif (extra := reader.schema.get("additionalProperties")) not in (None, True):
        before = None if known is None else known.extra
        yield from _refused(field, reader.inner(extra), before, at, seen)


def _refused_items(writer: Node, reader: Node, known: Node | None, at: Location, seen: Pairs) -> Iterator[Refusal]:
    places, wanted = writer.places, reader.places
    before = known.places if known is not None else ()
    if wanted and len(places) < len(wanted):
        yield Refusal(at, f"it must have {len(wanted)} items of their own kinds")
        return
    if "uniqueItems" in reader.schema and "uniqueItems" not in writer.schema:
        if reader.schema.get("minItems", 0) > 1:
            yield Refusal(at, "equal items count once, so that there may be too few")
        if any(one.type not in ("string", "integer", "number", "boolean") for one in writer.items.branches):
            yield Refusal(at, "not every item can be in a set")
    for number, place in enumerate(places):
        if number < len(wanted):
            other = before[number] if number < len(before) else None
            yield from _refused(place, wanted[number], other, (*at, str(number)), seen)
        else:
            yield from _refused(place, reader.items, None, (*at, str(number)), seen)
    may_have_more = "items" in writer.schema or writer.schema.get("maxItems") != len(places)
    if may_have_more and "items" in reader.schema:
        other = known.items if known is not None else None
        yield from _refused(writer.items, reader.items, other, (*at, EVERY), seen)


def _accepts(reader: Node, value: Any) -> bool:
    """Whether one alternative accepts a value of an enumeration."""
    if reader.values is not None:
        return any(type(one) is type(value) and one == value for one in reader.values)
    return not list(_refused(_just(value), reader, None, (), frozenset()))


def _just(value: Any) -> Node:
    """A schema for one value only, by limits instead of its being the only one."""
    match value:
        case bool():
            return Node({"type": "boolean"}, {})
        case int():
            return Node({"type": "integer", "minimum": value, "maximum": value}, {})
        case float():
            return Node({"type": "number", "minimum": value, "maximum": value}, {})
        case str():
            return Node({"type": "string", "minLength": len(value), "maxLength": len(value)}, {})
        case None:
            return Node({"type": "null"}, {})
        case _:
            return Node({OPAQUE: "a value"}, {})


def _implies(given: dict[str, Any], word: str, limit: Any) -> bool:
    """Whether what is given keeps a limit."""
    if word in _STRICT:
        strict, loose = _number(given.get(word)), _number(given.get(_STRICT[word]))
        wanted = _number(limit)
        if wanted is None:
            return given.get(word) == limit
        if word in _BELOW:
            return (strict is not None and strict >= wanted) or (loose is not None and loose > wanted)
        return (strict is not None and strict <= wanted) or (loose is not None and loose < wanted)
    for words, sign in ((_AT_LEAST, 1), (_AT_MOST, -1)):
        if word in words:
            if (wanted := _number(limit)) is None:
                return given.get(word) == limit
            known = [_number(given.get(one)) for one in (word, *words[word])]
            return any(one is not None and sign * one >= sign * wanted for one in known)
    if word == "multipleOf" and isinstance(limit, int) and isinstance(given.get(word), int):
        return given[word] % limit == 0
    return word in given and given[word] == limit


def _number(value: Any) -> Decimal | None:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return Decimal(str(value))
    except InvalidOperation:
        return None


def _limit(word: str, limit: Any, given: Any) -> str:
    return f"{word} {limit} was {'not there' if given is None else given}"
