"""The schema gate: which change of an event class leaves which reader able to read."""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any, ClassVar, Literal

import pytest
from hypothesis import assume, event, given, target
from hypothesis import strategies as st
from pydantic import AwareDatetime, BaseModel, Field, ValidationError, model_validator

import rapids.events
from rapids import BaseEvent
from rapids._wire.encoding import encode
from rapids._wire.entry_format import decode
from rapids.contracts import Snapshot, SnapshotError, compare
from rapids.exceptions import DeserializationError, SerializationError
from tests.contracts.generated_events import Model, changed, event_class, fields_of, models


@pytest.fixture(autouse=True)
def registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Classes defined inside a test are forgotten after it."""
    monkeypatch.setattr(rapids.events, "_registry", dict(rapids.events._registry))


def change_between(old: Model, new: Model) -> Any:
    snapshots = [Snapshot.of([event_class(one)]) for one in (old, new)]
    stored = Snapshot.loads(snapshots[0].dumps())
    found = compare(stored, snapshots[1])
    return found[0] if found else None


def written(cls: type[BaseEvent], fields: dict[str, Any]) -> list[bytes]:
    """What is stored of an event; the example is left out if the class does not take it."""
    try:
        one = cls.model_validate(fields)
        return encode(one, correlation_id=None, causation_id=None)
    except (ValidationError, SerializationError, UserWarning):
        assume(False)
        raise


def check(data: st.DataObject, writer: Model, reader: Model) -> None:
    """Whatever the writer writes is read by the reader, unless the writer itself does not read it."""
    fields = data.draw(fields_of(writer))
    cls = event_class(writer)
    entry = written(cls, fields)
    try:
        decode(cls.event_type, entry)
    except DeserializationError:
        assume(False)
    event_class(reader)
    decode(cls.event_type, entry)


@given(st.data())
def test_what_is_called_compatible_is_read(data: st.DataObject) -> None:
    old = data.draw(models())
    new = data.draw(changed(old))
    found = change_between(old, new)
    level = "full" if found is None else found.compatibility
    event(f"{level}{'' if found else ', unchanged'}")
    target(float(level != "none"))
    if level in ("full", "backward"):
        check(data, old, new)
    if level in ("full", "forward"):
        check(data, new, old)


# --- each kind of change ----------------------------------------------------------------------------------------------


class Money(BaseModel):
    amount: int


class Money2(BaseModel):
    amount: int
    currency: str = "EUR"


class Cat(BaseModel):
    kind: Literal["cat"] = "cat"


class Dog(BaseModel):
    kind: Literal["dog"] = "dog"


class Eel(BaseModel):
    kind: Literal["eel"] = "eel"


TAG = Field(discriminator="kind")


class Tree(BaseModel):
    label: str
    children: list[Tree] = []


class Size(Enum):
    SMALL = "s"
    LARGE = "l"


class Size3(Enum):
    SMALL = "s"
    LARGE = "l"
    HUGE = "h"


def made(name: str = "GateEvent", version: int = 1, **fields: Any) -> type[BaseEvent]:
    """An event class. A field is a type, or a type and a default or `Field`."""
    space: dict[str, Any] = {"__module__": __name__, "__qualname__": name, "__annotations__": {}}
    space["schema_version"] = version
    space["__annotations__"]["schema_version"] = ClassVar[int]
    for field, declared in fields.items():
        kind, *default = declared if isinstance(declared, list) else [declared]
        space["__annotations__"][field] = kind
        space.update({field: default[0]} if default else {})
    return type(BaseEvent)(name, (BaseEvent,), space)  # type: ignore[return-value]


def difference(old: Any, new: Any) -> tuple[str, dict[str, tuple[str, str]]]:
    """The compatibility, and that of each pointer with its change."""
    before = Snapshot.loads(Snapshot.of([made(**old)]).dumps())
    found = compare(before, Snapshot.of([made(**new)]))
    if not found:
        return "unchanged", {}
    return found[0].compatibility, {one.pointer: (one.compatibility, one.change) for one in found[0].differences}


REQUIRED = [
    ({"a": int}, {"a": int, "b": int}, "forward", "/b", "added, required: integer"),
    ({"a": int}, {"a": int, "b": [int, 0]}, "full", "/b", "added, optional: integer"),
    ({"a": int, "b": int}, {"a": int}, "backward", "/b", "removed: integer"),
    ({"a": int, "b": [int, 0]}, {"a": int}, "full", "/b", "removed: integer"),
    ({"a": [int, 0]}, {"a": int}, "full", "/a", "required now"),
    ({"a": int}, {"a": [int, 0]}, "full", "/a", "optional now"),
    ({"old": int}, {"new": [int, Field(validation_alias="old")]}, "backward", "/old", "renamed to new"),
]
TYPES = [
    ({"a": int}, {"a": float}, "backward", "/a", "integer -> number"),
    ({"a": int}, {"a": str}, "none", "/a", "integer -> string"),
    ({"a": int}, {"a": int | None}, "backward", "/a", "integer -> integer or null"),
    ({"a": int}, {"a": int | str}, "backward", "/a", "integer -> integer or string"),
    ({"a": int | str}, {"a": str}, "forward", "/a", "integer or string -> string"),
    ({"a": date}, {"a": str}, "backward", "/a", "date -> string"),
    ({"a": datetime}, {"a": AwareDatetime}, "forward", "/a", "date-time -> date-time (tz_constraint aware)"),
    ({"a": Any}, {"a": int}, "forward", "/a", "anything -> integer"),
    ({"a": Literal["x", "y"]}, {"a": Literal["x", "y", "z"]}, "backward", "/a", '"x" or "y" -> "x" or "y" or "z"'),
    ({"a": Size}, {"a": Size3}, "backward", "/a", '"s" or "l" -> "s" or "l" or "h"'),
    ({"a": Literal["x"]}, {"a": str}, "backward", "/a", '"x" -> string'),
    ({"a": list[int]}, {"a": list[float]}, "backward", "/a/*", "integer -> number"),
    ({"a": list[int]}, {"a": set[int]}, "full", "/a", "array of integer -> array of integer (uniqueItems True)"),
    ({"a": tuple[int, str]}, {"a": tuple[int, str, int]}, "none", "/a", None),
    ({"a": dict[str, int]}, {"a": dict[str, int | None]}, "backward", "/a", None),
    ({"a": dict[str, int]}, {"a": dict[int, int]}, "forward", "/a", None),
    ({"a": Decimal}, {"a": Annotated[Decimal, Field(max_digits=6)]}, "forward", "/a", None),
]
LIMITS = [
    ({"a": Annotated[int, Field(ge=1)]}, {"a": int}, "backward", "/a", "integer (minimum 1) -> integer"),
    ({"a": Annotated[int, Field(ge=1)]}, {"a": Annotated[int, Field(gt=0)]}, "backward", "/a", None),
    ({"a": Annotated[int, Field(le=9)]}, {"a": Annotated[int, Field(le=5)]}, "forward", "/a", None),
    ({"a": str}, {"a": Annotated[str, Field(max_length=5)]}, "forward", "/a", "string -> string (maxLength 5)"),
    ({"a": Annotated[str, Field(pattern="^a")]}, {"a": Annotated[str, Field(pattern="^b")]}, "none", "/a", None),
    ({"a": Annotated[list[int], Field(max_length=3)]}, {"a": list[int]}, "backward", "/a", None),
    ({"a": Annotated[int, Field(multiple_of=4)]}, {"a": Annotated[int, Field(multiple_of=2)]}, "backward", "/a", None),
]
NESTED = [
    ({"a": Money}, {"a": Money2}, "full", "/a/currency", "added, optional: string"),
    ({"a": list[Money] | None}, {"a": list[Money2] | None}, "full", "/a", None),
    ({"a": Money | None}, {"a": Money2 | None}, "full", "/a/currency", "added, optional: string"),
    ({"a": [Cat | Dog, TAG]}, {"a": [Cat | Dog | Eel, TAG]}, "backward", "/a", "Cat or Dog -> Cat or Dog or Eel"),
    ({"a": Tree}, {"a": Tree, "b": [Tree | None, None]}, "full", "/b", "added, optional: Tree or null"),
]


@pytest.mark.parametrize(("old", "new", "level", "pointer", "change"), [*REQUIRED, *TYPES, *LIMITS, *NESTED])
def test_a_change_is_classified(old: Any, new: Any, level: str, pointer: str, change: str | None) -> None:
    found, differences = difference(old, new)
    assert (found, differences[pointer][1] if change else None) == (level, change), differences
    backwards = {"backward": "forward", "forward": "backward"}
    assert difference(new, old)[0] == backwards.get(level, level), "the other way round"


@pytest.mark.parametrize("fields", [old for old, *_ in (*REQUIRED, *TYPES, *LIMITS, *NESTED)])
def test_no_change_is_no_difference(fields: Any) -> None:
    assert difference(fields, fields) == ("unchanged", {})


def test_texts_and_defaults_may_change() -> None:
    old = {"a": [int, Field(default=1, description="an old text", title="Old")]}
    assert difference(old, {"a": [int, Field(default=2, description="new")]})[0] == "unchanged"


def test_a_raised_version_needs_a_migration_and_a_lowered_one_is_wrong() -> None:
    def migrate(cls: Any, data: Any) -> Any:
        return data

    old = Snapshot.of([made(version=2, a=int)])
    raised = compare(old, Snapshot.of([made(version=3, a=str)]))[0]
    migrated = compare(
        old, Snapshot.of([made(version=3, a=str, _migrate=[Any, model_validator(mode="before")(classmethod(migrate))])])
    )[0]
    lowered = compare(old, Snapshot.of([made(version=1, a=int)]))[0]

    assert "raised from 2 to 3 without a migration" in raised.error
    assert (migrated.error, migrated.compatibility, migrated.fits("backward")) == ("", "backward", True)
    assert not migrated.fits("forward"), "an older process does not read a newer version"
    assert [one.pointer for one in migrated.differences] == ["/a"]
    assert "lowered from 2 to 1" in lowered.error
    assert not any(one.fits("backward") for one in (raised, lowered))


def test_a_type_that_is_gone_is_an_error_and_a_new_one_is_none() -> None:
    snapshot = Snapshot.of([made(a=int)])
    [gone] = compare(snapshot, Snapshot({}))
    [new] = compare(Snapshot({}), snapshot)
    assert (gone.event_type, "its class is gone" in gone.error, gone.fits("backward")) == ("gate.event", True, False)
    assert (new.note, new.fits("full")) == ("new event type", True)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"rapids_snapshot": 1}', '{"rapids_snapshot": 1, "events": {"a": 1}}']
)
def test_what_is_no_snapshot_is_refused(text: str) -> None:
    with pytest.raises(SnapshotError):
        Snapshot.loads(text)
