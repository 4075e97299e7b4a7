"""The schema gate: a snapshot of event schemas, and whether the classes of today fit to what it says."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, cast

from rapids import BaseEvent
from rapids.contracts.schema_differences import Compatibility, SchemaDifference, compatibility, schema_differences
from rapids.event_schemas import Schema, event_schema, migrates
from rapids.events import event_classes
from rapids.exceptions import RapidsError

__all__ = ["EventChange", "EventSnapshot", "Requirement", "Snapshot", "SnapshotError", "compare"]

FORMAT = 1

Requirement: TypeAlias = Literal["backward", "forward", "full"]


class SnapshotError(RapidsError, ValueError):
    """A text is no snapshot of event schemas. The message says why."""


@dataclass(frozen=True, slots=True)
class EventSnapshot:
    """An event class at one time."""

    schema_version: int
    written: Schema
    """The JSON Schema of what it writes as `data`."""
    read: Schema
    """The JSON Schema of what it reads."""
    migrates: bool = False
    """Whether it has a `model_validator` that can convert older data."""

    @classmethod
    def of(cls, event_class: type[BaseEvent]) -> "EventSnapshot":
        """The class as it is now."""
        schemas: list[Schema] = []
        for mode in ("written", "read"):
            # As JSON gives it back, without what only describes it, so that texts may change freely.
            schema: object = json.loads(json.dumps(event_schema(event_class, mode), default=str))
            schemas.append(cast(Schema, _without_texts(schema, is_schema=True)))
        written, read = schemas
        return cls(event_class.schema_version, written, read, migrates(event_class))


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Event classes at one time, by event type."""

    events: Mapping[str, EventSnapshot]

    @classmethod
    def of(cls, classes: Iterable[type[BaseEvent]] | None = None) -> "Snapshot":
        """The classes as they are now; by default all that are defined."""
        found = event_classes() if classes is None else classes
        return cls({one.event_type: EventSnapshot.of(one) for one in sorted(found, key=lambda one: one.event_type)})

    def dumps(self) -> str:
        """The snapshot as JSON, with a line for each value, so that a change is a small difference."""
        events = {
            event_type: {"schema_version": one.schema_version, "written": one.written, "read": one.read}
            for event_type, one in self.events.items()
        }
        return json.dumps({"rapids_snapshot": FORMAT, "events": events}, indent=2, sort_keys=True) + "\n"

    @classmethod
    def loads(cls, text: str) -> "Snapshot":
        """What `dumps` has made. Raises `SnapshotError` for anything else."""
        try:
            found = json.loads(text)
        except ValueError as error:
            raise SnapshotError(f"it is not JSON: {error}") from None
        if not isinstance(found, dict) or cast(Schema, found).get("rapids_snapshot") != FORMAT:
            raise SnapshotError(f'it is no snapshot of event schemas: "rapids_snapshot" must be {FORMAT}')
        events: dict[str, EventSnapshot] = {}
        try:
            for event_type, one in cast(dict[str, Any], found["events"]).items():
                written, read = dict(one["written"]), dict(one["read"])
                events[event_type] = EventSnapshot(int(one["schema_version"]), written, read)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise SnapshotError(f"it is no snapshot of event schemas: {type(error).__name__}: {error}") from None
        return cls(events)


@dataclass(frozen=True, slots=True)
class EventChange:
    """What changed of an event type, and who can still read what."""

    event_type: str
    compatibility: Compatibility
    differences: tuple[SchemaDifference, ...] = ()
    note: str = ""
    """What is known of the type as a whole: that it is new, or that its class migrates."""
    error: str = ""
    """What is wrong whatever is required; empty if nothing is."""

    def fits(self, required: Requirement) -> bool:
        """Whether it is as compatible as required, and nothing else is wrong."""
        return not self.error and self.compatibility in ("full", required)


def compare(old: Snapshot, new: Snapshot) -> tuple[EventChange, ...]:
    """What changed between two snapshots, by event type. Types that did not change are left out.

    A raised `schema_version` with a migration makes any change backward compatible: what the migration does cannot be
    seen here. Older processes do not read events of a newer version.
    """
    found: list[EventChange] = []
    for event_type in sorted(old.events.keys() | new.events.keys()):
        before, after = old.events.get(event_type), new.events.get(event_type)
        if before is None:
            found.append(EventChange(event_type, "full", note="new event type"))
        elif after is None:
            error = "its class is gone: handlers of the class would not get stored events of the type"
            found.append(EventChange(event_type, "none", error=error))
        elif (change := _changed(event_type, before, after)) is not None:
            found.append(change)
    return tuple(found)


def _changed(event_type: str, before: EventSnapshot, after: EventSnapshot) -> EventChange | None:
    differences = schema_differences((before.written, before.read), (after.written, after.read))
    was, now = before.schema_version, after.schema_version
    if now == was:
        if not differences:
            return None
        levels = [one.compatibility for one in differences]
        backward = all(one in ("full", "backward") for one in levels)
        forward = all(one in ("full", "forward") for one in levels)
        return EventChange(event_type, compatibility(backward=backward, forward=forward), differences)
    if now < was:
        error = f"schema_version was lowered from {was} to {now}: stored events of version {was} are not read any more"
        return EventChange(event_type, "none", differences, error=error)
    if after.migrates:
        note = f"schema_version was raised from {was} to {now}, and the class migrates older data"
        return EventChange(event_type, "backward", differences, note=note)
    error = (
        f"schema_version was raised from {was} to {now} without a migration: add a "
        'model_validator(mode="before") that converts older data'
    )
    return EventChange(event_type, "none", differences, error=error)


_TEXTS = {"description", "examples", "example", "deprecated", "title", "$comment"}
_NAMED = {"properties", "$defs", "patternProperties"}
"""Members whose own members are named by the user."""


def _without_texts(value: Any, *, is_schema: bool) -> Any:
    match value:
        case dict():
            members = cast(Schema, value)
            kept = {name: one for name, one in members.items() if not (is_schema and name in _TEXTS)}
            return {
                name: one if name in ("default", "const", "enum") and is_schema
                else _without_texts(one, is_schema=not (is_schema and name in _NAMED))
                for name, one in kept.items()
            }  # fmt: skip
        case list():
            return [_without_texts(one, is_schema=is_schema) for one in cast("list[Any]", value)]
        case _:
            return value
