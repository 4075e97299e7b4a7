"""Differences of two versions of an event class: what changed in each field, and who can still read what."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

from rapids.contracts.schema_acceptance import Refusal, refusals
from rapids.contracts.schema_nodes import Node, is_same
from rapids.event_schemas import Schema
from rapids.exceptions import json_pointer

__all__ = ["Compatibility", "SchemaDifference", "compatibility", "schema_differences"]

Compatibility: TypeAlias = Literal["full", "backward", "forward", "none"]
"""`backward`: the new class reads what the old one wrote. `forward`: the old class reads what the new one writes.
`full`: both. `none`: neither."""

Location: TypeAlias = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SchemaDifference:
    """A difference in one field."""

    pointer: str
    """Where, as a JSON Pointer into the event's data; `*` is every item of a list, or every value of an object. Empty
    for the whole event."""
    change: str
    compatibility: Compatibility
    reason: str
    """Why not more is compatible; empty if it is fully."""


def compatibility(*, backward: bool, forward: bool) -> Compatibility:
    """The name of a compatibility."""
    if backward:
        return "full" if forward else "backward"
    return "forward" if forward else "none"


@dataclass(frozen=True, slots=True)
class _Pair:
    """A part of the schema of one version: what it writes, and what it reads."""

    written: Node
    read: Node


def schema_differences(old: tuple[Schema, Schema], new: tuple[Schema, Schema]) -> tuple[SchemaDifference, ...]:
    """What changed from one version of a class to the next. Each version: what it writes, and what it reads."""
    before, after = _Pair(*map(Node.root, old)), _Pair(*map(Node.root, new))
    backward = refusals(before.written, after.read, before.read)
    forward = refusals(after.written, before.read, after.read)
    changes = dict(_changes(before, after, (), frozenset()))
    for refusal in (*backward, *forward):  # one that no change explains still counts
        if not any(_is_about(refusal, location) for location in changes):
            changes[refusal.location] = "changed"
    return tuple(_difference(location, change, backward, forward) for location, change in sorted(changes.items()))


def _difference(location: Location, change: str, backward: list[Refusal], forward: list[Refusal]) -> SchemaDifference:
    by_new = [one for one in backward if _is_about(one, location)]
    by_old = [one for one in forward if _is_about(one, location)]
    reasons: list[str] = []
    for who, found in (("new", by_new), ("old", by_old)):
        if found:
            inside = found[0].location[len(location) :]
            reasons.append(f"{who}: {f'{json_pointer(inside)}: ' if inside else ''}{found[0].reason}")
    return SchemaDifference(
        pointer=json_pointer(location),
        change=change,
        compatibility=compatibility(backward=not by_new, forward=not by_old),
        reason="; ".join(reasons),
    )


def _is_about(refusal: Refusal, location: Location) -> bool:
    return refusal.location[: len(location)] == location or refusal.location == location[: len(refusal.location)]


def _changes(
    before: _Pair, after: _Pair, at: Location, seen: frozenset[tuple[str, str]]
) -> Iterator[tuple[Location, str]]:
    """Where the versions differ, and how, as deep as both have the same structure."""
    if is_same(before.written, after.written) and is_same(before.read, after.read):
        return
    if before.read.name and after.read.name:
        if (before.read.name, after.read.name) in seen:
            return
        seen |= {(before.read.name, after.read.name)}
    pairs = _alike(before, after)
    if pairs is not None:
        yield from _changes(*pairs, at, seen)
        return
    old, new = before.read, after.read
    found: list[tuple[Location, str]] = []
    if old.properties and new.properties:
        found = list(_changed_fields(before, after, at, seen))
    elif old.type == new.type == "array" and not old.places and not new.places:
        items = [_Pair(one.written.items, one.read.items) for one in (before, after)]
        found = list(_changes(items[0], items[1], (*at, "*"), seen))
        limits = [{word: node.schema[word] for word in node.constraints - {"items"}} for node in (old, new)]
        if limits[0] != limits[1]:
            found.append((at, f"{old} -> {new}"))
    if found:
        yield from found
    else:
        same = str(old) == str(new)
        yield at, f"{before.written} -> {after.written}, as written" if same else f"{old} -> {new}"


def _alike(before: _Pair, after: _Pair) -> tuple[_Pair, _Pair] | None:
    """Of unions that differ in one alternative only, this alternative, if both are objects."""
    found: list[_Pair] = []
    for mine, other in ((before, after), (after, before)):
        if len(mine.read.branches) < 2 or len(mine.written.branches) < 2:
            return None
        reads = [one for one in mine.read.branches if not any(is_same(one, two) for two in other.read.branches)]
        writes = [one for one in mine.written.branches if not any(is_same(one, two) for two in other.written.branches)]
        if len(reads) != 1 or len(writes) != 1 or reads[0].type != "object" or writes[0].type != "object":
            return None
        found.append(_Pair(writes[0], reads[0]))
    return found[0], found[1]


def _changed_fields(
    before: _Pair, after: _Pair, at: Location, seen: frozenset[tuple[str, str]]
) -> Iterator[tuple[Location, str]]:
    old, new = before.read.properties, after.read.properties
    for name in sorted(old.keys() | new.keys()):
        here = (*at, name)
        if name not in new:
            renamed = next((other for other, field in new.items() if name in field.aliases), None)
            yield here, f"removed: {old[name]}" if renamed is None else f"renamed to {renamed}"
        elif name not in old:
            needed = "required" if name in after.read.required else "optional"
            yield here, f"added, {needed}: {new[name]}"
        else:
            was, now = name in before.read.required, name in after.read.required
            inner = [_Pair(one.written.properties.get(name, one.read.properties[name]), one.read.properties[name])
                     for one in (before, after)]  # fmt: skip
            found = list(_changes(inner[0], inner[1], here, seen))
            if was != now and not any(location == here for location, _ in found):
                yield here, "required now" if now else "optional now"
            yield from found
    extras = [one.read.schema.get("additionalProperties") for one in (before, after)]
    if extras[0] != extras[1]:
        words = ["ignored" if one is None else "forbidden" if one is False else "kept" for one in extras]
        yield at, f"unknown fields: {words[0]} -> {words[1]}"
