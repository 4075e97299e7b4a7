"""Event classes and their changes, at random: a class by its fields, a changed class, and events of a class."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import reduce
from operator import or_
from typing import Annotated, Any, Literal
from uuid import UUID

from hypothesis import strategies as st
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from rapids import BaseEvent

__all__ = ["Kind", "Model", "annotation", "changed", "event_class", "kinds", "models", "values"]


@dataclass(frozen=True)
class Kind:
    """The type of a field: its name, its limits, and what is inside."""

    name: str
    low: int | None = None
    high: int | None = None
    inside: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Model:
    """The fields of a model: name, type, whether there is a default, and an alias."""

    fields: tuple[tuple[str, Kind, bool, str | None], ...]
    extra: Literal["ignore", "forbid", "allow"] = "ignore"
    tag: str | None = None


LEAVES = ("int", "float", "str", "bool", "date", "datetime", "aware", "uuid", "decimal", "literal", "any", "bytes")
NAMES = ("a", "b", "c", "d")
TAGS = ("cat", "dog", "eel")
bounds = st.none() | st.integers(0, 4)


@st.composite
def kinds(draw: st.DrawFn, depth: int = 1) -> Kind:
    names = list(LEAVES)
    if depth > 0:
        names += ["optional", "list", "set", "dict", "intdict", "tuple", "union", "model", "tagged"] * 2
    name = draw(st.sampled_from(names))
    low, high = draw(bounds), draw(bounds)
    low, high = (min(low, high), max(low, high)) if low is not None and high is not None else (low, high)
    inner = kinds(depth - 1)
    match name:
        case "literal":
            return Kind(name, inside=tuple(draw(st.lists(st.sampled_from(["x", "y", 1, 2]), min_size=1, unique=True))))
        case "optional" | "dict" | "intdict":
            return Kind(name, inside=(draw(inner),))
        case "list":
            return Kind(name, low, high, (draw(inner),))
        case "set":
            return Kind(name, low, high, (Kind(draw(st.sampled_from(["int", "str"]))),))
        case "tuple" | "union":
            return Kind(name, inside=tuple(draw(st.lists(inner, min_size=2, max_size=3))))
        case "model":
            return Kind(name, inside=(draw(models(depth - 1)),))
        case "tagged":
            tags = draw(st.lists(st.sampled_from(TAGS), min_size=2, unique=True))
            return Kind(name, inside=tuple(replace(draw(models(depth - 1)), tag=tag) for tag in sorted(tags)))
        case _:
            return Kind(name, low, high)


@st.composite
def models(draw: st.DrawFn, depth: int = 1) -> Model:
    names = draw(st.lists(st.sampled_from(NAMES), min_size=1, unique=True))
    fields = tuple((name, draw(kinds(depth)), draw(st.booleans()), None) for name in sorted(names))
    return Model(fields, draw(st.sampled_from(["ignore", "ignore", "forbid", "allow"])))


@st.composite
def changed(draw: st.DrawFn, model: Model) -> Model:
    """The model after a change of one field, or two."""
    fields = {name: (kind, default, alias) for name, kind, default, alias in model.fields}
    for _ in range(draw(st.integers(1, 2))):
        what = draw(st.sampled_from(["type"] * 4 + ["default", "add", "remove", "rename", "extra"]))
        name = draw(st.sampled_from(sorted(fields)))
        kind, default, alias = fields[name]
        match what:
            case "type":
                fields[name] = (draw(changed_kinds(kind)), default, alias)
            case "default":
                fields[name] = (kind, not default, alias)
            case "add":
                fields.setdefault(draw(st.sampled_from(NAMES)), (draw(kinds(1)), draw(st.booleans()), None))
            case "remove" if len(fields) > 1:
                del fields[name]
            case "rename" if "z" not in fields:
                del fields[name]
                fields["z"] = (kind, default, name)
            case _:
                model = replace(model, extra=draw(st.sampled_from(["ignore", "forbid", "allow"])))
    return replace(model, fields=tuple((name, *field) for name, field in sorted(fields.items())))


@st.composite
def changed_kinds(draw: st.DrawFn, kind: Kind) -> Kind:
    how = draw(st.sampled_from(["bounds", "optional", "union", "inside", "inside", "number", "other"]))
    match how:
        case "bounds" if kind.low is not None or kind.high is not None:
            free = draw(st.booleans())
            return replace(kind, low=None) if free else replace(kind, high=None if kind.high is None else kind.high + 1)
        case "optional":
            return kind.inside[0] if kind.name == "optional" else Kind("optional", inside=(kind,))
        case "union" if kind.name == "union":
            return replace(kind, inside=(*kind.inside, draw(kinds(0))))
        case "union" if kind.name == "tagged":
            return replace(kind, inside=kind.inside[:-1]) if len(kind.inside) > 2 else kind
        case "union":
            return Kind("union", inside=(kind, draw(kinds(0))))
        case "inside" if kind.name == "literal":
            return replace(kind, inside=tuple(dict.fromkeys((*kind.inside, draw(st.sampled_from(["x", "z", 1]))))))
        case "inside" if kind.inside:
            at = draw(st.integers(0, len(kind.inside) - 1))
            inner = kind.inside[at]
            new = draw(changed(inner) if isinstance(inner, Model) else changed_kinds(inner))
            if kind.name == "set" and new.name not in ("int", "str"):
                return kind
            return replace(kind, inside=(*kind.inside[:at], new, *kind.inside[at + 1 :]))
        case "number" if kind.name == "int":
            return replace(kind, name=draw(st.sampled_from(["float", "decimal"])))
        case _:
            return draw(kinds(1))


def annotation(kind: Kind) -> Any:
    """The type as it stands in a class."""
    low, high, inside = kind.low, kind.high, kind.inside
    types = [annotation(one) for one in inside] if inside and isinstance(inside[0], Kind) else []
    match kind.name:
        case "int" | "float" | "decimal":
            base: Any = {"int": int, "float": float, "decimal": Decimal}[kind.name]
            return Annotated[base, Field(ge=low, le=high)]
        case "str":
            return Annotated[str, Field(min_length=low, max_length=high)]
        case "bool" | "date" | "datetime" | "aware" | "uuid" | "bytes":
            plain = {"bool": bool, "date": date, "datetime": datetime, "aware": AwareDatetime, "uuid": UUID}
            return {**plain, "bytes": bytes}[kind.name]
        case "any":
            return Any
        case "literal":
            return Literal[inside]
        case "optional":
            return types[0] | None
        case "list":
            return Annotated[list[types[0]], Field(min_length=low, max_length=high)]  # type: ignore[valid-type]
        case "set":
            return Annotated[set[types[0]], Field(min_length=low, max_length=high)]  # type: ignore[valid-type]
        case "dict":
            return dict[str, types[0]]  # type: ignore[valid-type]
        case "intdict":
            return dict[int, types[0]]  # type: ignore[valid-type]
        case "tuple":
            return tuple[tuple(types)]  # type: ignore[misc]
        case "union":
            return reduce(or_, types)
        case "model":
            return made("Inner", BaseModel, inside[0])
        case _:
            members: list[Any] = [made(f"Tagged{one.tag}", BaseModel, one) for one in inside]
            return Annotated[reduce(or_, members), Field(discriminator="kind")]


def made(name: str, base: type[BaseModel], model: Model) -> type[BaseModel]:
    space: dict[str, Any] = {"__annotations__": {}, "__module__": __name__, "__qualname__": name}
    space["model_config"] = ConfigDict(extra=model.extra)
    if model.tag is not None:
        space["__annotations__"]["kind"] = Literal[model.tag]
    for field, kind, has_default, alias in model.fields:
        space["__annotations__"][field] = annotation(kind)
        options: dict[str, Any] = {"default": None} if has_default else {}  # a default is not validated
        space[field] = Field(validation_alias=alias, **options)
    return type(base)(name, (base,), space)


def event_class(model: Model) -> type[BaseEvent]:
    """An event class with these fields. Each replaces the one before."""
    return made("GeneratedEvent", BaseEvent, model)  # type: ignore[return-value]


@st.composite
def values(draw: st.DrawFn, kind: Kind) -> Any:
    """A value that the type accepts."""
    low, high, inside = kind.low, kind.high, kind.inside
    size = {"min_size": low or 0, "max_size": 4 if high is None else high}
    match kind.name:
        case "int":
            return draw(st.integers(-(10**6) if low is None else low, 10**20 if high is None else high))
        case "float":
            return draw(st.floats(low, high, allow_nan=False, allow_infinity=False))
        case "decimal":
            return draw(st.decimals(-1_000 if low is None else low, 1_000 if high is None else high, places=2))
        case "str":
            return draw(st.text(**size))
        case "bool":
            return draw(st.booleans())
        case "date":
            return draw(st.dates(date(1900, 1, 1)))
        case "datetime" | "aware":
            zone = st.just(UTC) if kind.name == "aware" else st.none() | st.just(UTC)
            return draw(st.datetimes(datetime(1900, 1, 1), timezones=zone))  # noqa: DTZ001
        case "uuid":
            return draw(st.uuids())
        case "bytes":
            return draw(st.text(max_size=3)).encode()
        case "any":
            return draw(st.none() | st.integers() | st.text(max_size=3) | st.lists(st.integers(), max_size=2))
        case "literal":
            return draw(st.sampled_from(inside))
        case "optional":
            return draw(st.none() | values(inside[0]))
        case "list":
            return draw(st.lists(values(inside[0]), **size))
        case "set":
            return draw(st.lists(values(inside[0]), unique=True, **size))
        case "dict":
            return draw(st.dictionaries(st.text(max_size=2), values(inside[0]), max_size=3))
        case "intdict":
            return draw(st.dictionaries(st.integers(), values(inside[0]), max_size=3))
        case "tuple":
            return [draw(values(one)) for one in inside]
        case "union":
            return draw(values(draw(st.sampled_from(inside))))
        case _:
            return draw(fields_of(draw(st.sampled_from(inside))))


@st.composite
def fields_of(draw: st.DrawFn, model: Model) -> dict[str, Any]:
    """The input of a model."""
    found: dict[str, Any] = {} if model.tag is None else {"kind": model.tag}
    for name, kind, has_default, alias in model.fields:
        if not (has_default and draw(st.booleans())):
            found[alias or name] = draw(values(kind))
    if model.extra == "allow" and draw(st.booleans()):
        found[draw(st.sampled_from([*NAMES, "z"]))] = draw(st.integers() | st.text(max_size=2))
    return found
