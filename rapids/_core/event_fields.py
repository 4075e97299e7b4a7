"""The fields of event classes: overrides, aliases and types that cannot work are refused where the class is defined."""

from collections.abc import AsyncIterator, Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import is_dataclass
from datetime import datetime
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NewType, Union, cast, get_args, get_origin

from pydantic import AliasChoices, AliasPath, BaseModel, PlainSerializer, Secret, SecretBytes, SecretStr, WrapSerializer
from pydantic.fields import FieldInfo

__all__ = ["INJECTED", "MASKED", "aliases_of", "check_fields", "check_schema_version", "masking"]

INJECTED = ("_schema_version", "_timestamp")
"""What migrations find in their input in addition to the event's fields."""

MASKED = b'"**********"'
"""What Pydantic writes to JSON instead of a secret."""

_SECRETS = (Secret, SecretStr, SecretBytes)

_COMMON: Mapping[str, tuple[str, tuple[type, ...]]] = {
    "id": ("str", (str,)),
    "timestamp": ("datetime", (datetime,)),
    "correlation_id": ("str | None", (str, NoneType)),
    "causation_id": ("str | None", (str, NoneType)),
    "metadata": ("dict[str, Any]", (Mapping, NoneType)),
}
"""The common fields: how they are declared, and of which types their values are."""

_CLASS_VARIABLES = {
    "event_type": 'event_type: ClassVar[str] = "payments.taken"',
    "schema_version": "schema_version: ClassVar[int] = 2",
    "_skip_registration": "_skip_registration: ClassVar[bool] = True",
}
"""What belongs to the class and not to its events, and how to write it."""

_READ_ONCE = (Iterable, Iterator, Generator, AsyncIterator)


def check_schema_version(cls: type[BaseModel], version: object) -> None:
    """Raise `TypeError` for a schema version that is no whole number."""
    if isinstance(version, bool) or not isinstance(version, int) or version < 0:
        raise TypeError(
            f"{cls.__qualname__}.schema_version must be a whole number, not {version!r}: "
            f"write `{_CLASS_VARIABLES['schema_version']}`"
        )


def check_fields(cls: type[BaseModel]) -> None:
    """Raise `TypeError` for a field of an event class that cannot work, with what to write instead.

    A type that is not known yet (a forward reference) is checked when Pydantic has completed the class.
    """
    for name, instead in _CLASS_VARIABLES.items():
        if name in cls.model_fields or name in cls.__private_attributes__:
            raise TypeError(f"{cls.__qualname__}.{name} belongs to the class, and is no field: write `{instead}`")
    own = [vars(base) for base in cls.__mro__ if base.__module__ != "rapids.events"]
    if "routing_key" in cls.model_fields or any("routing_key" in names for names in own):
        raise TypeError(
            f"{cls.__qualname__}.routing_key cannot be overridden, since patterns are matched against the event type "
            f"of the entry: write `{_CLASS_VARIABLES['event_type']}`"
        )
    for name in _COMMON:
        _check_common(cls, name)
    for name, field in cls.model_fields.items():
        if name not in _COMMON:
            _check_aliases(cls, name, field)
            _check_type(cls, name, field, f"{cls.__qualname__}.{name}", {cls})


def _check_common(cls: type[BaseModel], name: str) -> None:
    declared, kinds = _COMMON[name]
    keep = f"keep `{name}: {declared}`, and put another value in a field of its own"
    field = cls.model_fields.get(name)
    if field is None or name in cls.model_computed_fields:
        raise TypeError(f"{cls.__qualname__}.{name} must stay a field of its events: {keep}")
    wrong = [
        leaf
        for leaf in (get_origin(part) or part for part in _alternatives(field.annotation))
        if not _may_be(leaf, kinds, is_metadata=name == "metadata")
    ]
    if wrong:
        given = wrong[0].__name__ if isinstance(wrong[0], type) else repr(wrong[0])
        raise TypeError(f"{cls.__qualname__}.{name} must be a {declared}, not {given}: {keep}")
    if field.is_required() or field.default_factory is not None:
        return
    if name == "id":
        raise TypeError(
            f"{cls.__qualname__}.id must be different for each event, not always {field.default!r}: "
            "write `id: str = Field(default_factory=...)`"
        )
    if not _may_be(type(field.default), kinds, is_metadata=name == "metadata"):
        raise TypeError(f"{cls.__qualname__}.{name} must be a {declared}, not {field.default!r}: {keep}")


def _may_be(leaf: Any, kinds: tuple[type, ...], *, is_metadata: bool) -> bool:
    """Whether values of this type may be of these kinds. A type with a schema of its own may be anything."""
    if not isinstance(leaf, type) or leaf in (object, Any):
        return True
    leaf = cast("type[object]", leaf)
    if issubclass(leaf, kinds):
        return True
    if issubclass(leaf, _SECRETS):
        return False
    if issubclass(leaf, BaseModel) or is_dataclass(leaf):
        return is_metadata
    return hasattr(leaf, "__get_pydantic_core_schema__")


def _check_aliases(cls: type[BaseModel], name: str, field: FieldInfo) -> None:
    for alias in (*aliases_of(field.validation_alias), field.alias, field.serialization_alias):
        if alias in _COMMON or alias in INJECTED:
            raise TypeError(
                f"{cls.__qualname__}.{name} must not have the alias {alias!r}, which is a common field of every event: "
                "give it another alias"
            )


def aliases_of(alias: str | AliasPath | AliasChoices | None) -> Iterator[str]:
    """The names under which a validation alias reads a field."""
    match alias:
        case str():
            yield alias
        case AliasPath():
            yield str(alias.path[0])
        case AliasChoices():
            for choice in alias.choices:
                yield from aliases_of(choice)
        case None:
            pass


def _check_type(cls: type[BaseModel], name: str, field: FieldInfo, where: str, seen: set[type[BaseModel]]) -> None:
    """Check what a field is made of, and the fields of the models in it. `seen`: the models that were checked."""
    if _writes_itself(cls, name, field):
        return
    if field.exclude:  # never written, so its type does not matter
        if field.is_required():
            raise TypeError(f"{where} is required and not written (exclude=True), so no handler could read the event")
        return
    for leaf in _leaves(field.annotation):
        if isinstance(leaf, type) and issubclass(leaf, _SECRETS):
            raise TypeError(
                f"{where} is a {leaf.__name__}, which JSON gets as asterisks, so the value would be lost: leave it "
                f"out of the event, write `{name}: str`, or give it a `field_serializer` that writes the value"
            )
        if leaf in _READ_ONCE:
            raise TypeError(f"{where} can be read only once, by one handler or one write: write `{name}: list[...]`")
        if leaf is Callable:
            raise TypeError(f"{where} is a function, which JSON cannot hold: put its name in the event")
        if leaf is bytes and cls.model_config.get("ser_json_bytes", "utf8") != cls.model_config.get(
            "val_json_bytes", "utf8"
        ):
            raise TypeError(
                f"{where} is written in one encoding and read in another: set ser_json_bytes and val_json_bytes in "
                "model_config to the same"
            )
        if isinstance(leaf, type) and issubclass(leaf, BaseModel) and leaf not in seen:
            seen.add(leaf)
            for inner, inner_field in leaf.model_fields.items():
                _check_type(leaf, inner, inner_field, f"{where}.{inner}", seen)


def _writes_itself(cls: type[BaseModel], name: str, field: FieldInfo) -> bool:
    """Whether the user says how the field is written."""
    decorators = cls.__pydantic_decorators__
    named = [one for serializer in decorators.field_serializers.values() for one in serializer.info.fields]
    return bool(
        decorators.model_serializers
        or name in named
        or "*" in named
        or cls.model_config.get("json_encoders")
        or any(isinstance(part, PlainSerializer | WrapSerializer) for part in field.metadata)
    )


def _alternatives(annotation: object) -> Iterator[object]:
    """The members of a union, or the one type of another annotation, without what is annotated."""
    pending, seen = [annotation], set[int]()
    while pending:
        part: Any = pending.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        origin = get_origin(part)
        if isinstance(part, NewType):
            pending.append(part.__supertype__)
        elif not isinstance(part, type) and hasattr(part, "__value__"):  # a type alias
            pending.append(part.__value__)
        elif origin is Annotated:
            inner, *metadata = get_args(part)
            if not any(isinstance(one, PlainSerializer | WrapSerializer) for one in metadata):
                pending.append(inner)
        elif origin in (Union, UnionType):
            pending += get_args(part)
        elif origin is Literal:
            yield from {type(value) for value in get_args(part)}
        else:
            yield part


def _leaves(annotation: object) -> Iterator[object]:
    """All types that an annotation is made of, as far as its user does not say how they are written."""
    pending, seen = [annotation], list[object]()
    while pending:
        for part in _alternatives(pending.pop()):
            if any(part is one for one in seen):
                continue
            seen.append(part)
            origin = get_origin(part)
            yield origin or part
            if origin is not None and origin is not Callable:
                pending += get_args(part)


def masking(value: Any) -> str | None:
    """The name of the first secret's type in a value; None if it has none."""
    if isinstance(value, _SECRETS):
        return type(cast(object, value)).__name__
    inner: list[Any] = []
    if isinstance(value, dict):
        inner = [part for pair in cast("dict[Any, Any]", value).items() for part in pair]
    elif isinstance(value, list | tuple | set | frozenset):
        inner = list(cast("list[Any]", value))
    return next((name for name in map(masking, inner) if name is not None), None)
