"""Encoding of events as stream entries. An event that JSON cannot hold is refused, with the name of the field."""

import re
from collections.abc import Sequence
from datetime import UTC
from math import isfinite
from typing import cast, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticSerializationError, from_json, to_json
from pydantic_core.core_schema import ErrorType

from rapids._core.event_fields import MASKED, masking
from rapids._wire.entry_format import EVENT_FIELDS, StoredEvent, decode_regular, faults_in, validated
from rapids.events import TYPE_LIMIT, BaseEvent, Event, GenericEvent, in_utc, kind_of
from rapids.exceptions import SerializationError

__all__ = ["check_readable", "encode", "encode_values"]

_by_users_code = re.compile(r"(Error calling function `[^`]*`: \w+): .*", re.DOTALL)
"""What Pydantic says of an error that a serializer of the event's class raised."""

_silent = {"too_many_errors", *get_args(ErrorType)} - {"value_error", "assertion_error", "union_tag_invalid"}
"""Types of Pydantic's errors whose message quotes neither the value nor a validator of the event's class."""

_BASE_FIELDS = {"id", "timestamp", "correlation_id", "causation_id", "metadata"}


def encode(event: Event, *, correlation_id: str | None, causation_id: str | None) -> list[bytes]:
    """The fields of the entry for `event`, names and values in turn, in the order of the format.

    Raises `SerializationError`, which names the field, for what JSON cannot hold.
    """
    values = encode_values(event, correlation_id, causation_id)
    return [part for pair in zip(EVENT_FIELDS, values, strict=True) for part in pair]


def encode_values(event: Event, correlation_id: str | None, causation_id: str | None) -> tuple[bytes, ...]:
    """The values of the entry for `event`, in the order of `EVENT_FIELDS`.

    Raises `SerializationError`, which names the field, for what JSON cannot hold.
    """
    event_type, version, data = _body(event)
    timestamp = event.timestamp
    try:
        if not event.id:
            raise SerializationError(event_type, "id", "it is empty")
        return (
            event_type.encode(),
            b"%d" % version,
            data,
            event.id.encode(),
            (timestamp if timestamp.tzinfo is UTC else in_utc(timestamp)).isoformat().encode(),
            correlation_id.encode() if correlation_id else b"",
            causation_id.encode() if causation_id else b"",
            _json(event.metadata, event_type, "metadata") if event.metadata else b"{}",
        )
    except UnicodeEncodeError as error:
        texts = {
            "event_type": event_type,
            "id": event.id,
            "correlation_id": correlation_id or "",
            "causation_id": causation_id or "",
        }
        field = next((name for name, text in texts.items() if text == error.object), "?")
        raise SerializationError(event_type, field, str(error)) from error
    except (AttributeError, TypeError, OverflowError) as error:  # a common field that was not validated
        common: dict[str, object] = {
            "id": event.id,
            "correlation_id": correlation_id or "",
            "causation_id": causation_id or "",
        }
        field = next((name for name, text in common.items() if not isinstance(text, str)), "timestamp")
        raise SerializationError(event_type, field, str(error)) from error


def check_readable(event: Event, values: Sequence[bytes]) -> None:
    """Raise `SerializationError`, which names the field, if the event's class cannot read what was written of it.

    Whether it can is mostly a matter of the class: a serializer whose result its field does not take, a tuple as a key,
    a type that only Python can give. For an event that was not validated, it is a matter of its values.
    """
    if not isinstance(event, BaseEvent):
        return
    cls = type(event)
    try:
        if (back := decode_regular(cls, values)) is None:
            stored = StoredEvent(event.event_type, dict(zip(EVENT_FIELDS, values, strict=True)))
            back = validated(cls, stored.document(cls))
    except ValidationError as error:
        faults = faults_in(error)
        fault = next((one for one in faults if one["loc"]), faults[0])
        why = fault["msg"] if fault["type"] in _silent else "a validator refuses it"
        reason = f"it is written as something that {cls.__qualname__} does not read back: {why}"
        raise SerializationError(event.event_type, str((fault["loc"] or "?")[0]), reason) from error
    except Exception as error:
        reason = f"a validator of {cls.__qualname__} fails on what is written: {type(error).__name__}"
        raise SerializationError(event.event_type, "?", reason) from error
    for name in cls.model_fields:
        if (lost := _lost(getattr(event, name, None), getattr(back, name))) is not None:
            raise SerializationError(event.event_type, name, lost)


def _lost(value: object, back: object) -> str | None:
    """What is lost of a model in a value that is read back as another model with fewer fields, such as its base class.

    Pydantic writes only the fields of the class that the field declares.
    """
    if isinstance(value, BaseModel) and isinstance(back, BaseModel):
        gone = type(value).model_fields.keys() - type(back).model_fields.keys()
        if gone and not back.model_extra:
            return (
                f"a {type(value).__qualname__} is read back as a {type(back).__qualname__}, so {sorted(gone)} would be "
                f"lost: declare the field with {type(value).__qualname__}, or with a union of the classes"
            )
        pairs = [
            (getattr(value, name), getattr(back, name)) for name in type(back).model_fields if hasattr(value, name)
        ]
    elif isinstance(value, list | tuple) and isinstance(back, list | tuple):
        pairs = list(zip(cast("list[object]", value), cast("list[object]", back), strict=False))
    elif isinstance(value, dict) and isinstance(back, dict):
        others = cast("dict[object, object]", back)
        pairs = [(inner, others[key]) for key, inner in cast("dict[object, object]", value).items() if key in others]
    else:
        return None
    return next((lost for one, other in pairs if (lost := _lost(one, other)) is not None), None)


def _body(event: Event) -> tuple[str, int, bytes]:
    kind = kind_of(type(event))
    if kind is BaseEvent:
        own = cast(BaseEvent, event)
        return own.event_type, own.schema_version, _own_fields(own)
    if kind is GenericEvent:
        generic = cast(GenericEvent, event)
        if not 0 < len(generic.raw_type) <= TYPE_LIMIT:
            raise SerializationError(generic.raw_type, "raw_type", f"it must have 1 to {TYPE_LIMIT} characters")
        return generic.raw_type, 1, _json(generic.data, generic.raw_type, "data")
    raise TypeError(f"only events can be emitted, not {event!r}")


def _own_fields(event: BaseEvent) -> bytes:
    try:
        data = event.__pydantic_serializer__.to_json(
            event, exclude=_BASE_FIELDS, round_trip=True, by_alias=False, warnings=False
        )
        if b"null" in data or b"NaN" in data or b"Infinity" in data or MASKED in data:
            data = _written(event, exclude=_BASE_FIELDS)
        if data[:1] != b"{":
            raise ValueError("its model_serializer does not return an object, so no reader could parse it")
        return data
    except (PydanticSerializationError, ValueError) as error:
        raise SerializationError(event.event_type, _culprit(event), _reason(error)) from error


def _reason(error: Exception) -> str:
    """The text of an error, without what a serializer of a class says, which may quote a hidden value. It is in the
    cause of the `SerializationError`, but neither in the log nor in a span."""
    return _by_users_code.sub(r"\1", str(error))


def _culprit(event: BaseEvent) -> str:
    """The first field that cannot be written. It is searched only after the whole event has failed."""
    for name in (*type(event).model_fields, *(event.model_extra or ())):
        try:
            _written(event, include={name})
        except (PydanticSerializationError, ValueError):
            return name
    return "?"


def _written(event: BaseEvent, *, include: set[str] | None = None, exclude: set[str] | None = None) -> bytes:
    # Without Pydantic's warnings, which quote values.
    serializer = event.__pydantic_serializer__
    data = serializer.to_json(event, include=include, exclude=exclude, round_trip=True, by_alias=False, warnings=False)
    if b"null" in data:
        _check_numbers(serializer.to_python(event, include=include, exclude=exclude, round_trip=True, warnings=False))
    if MASKED in data:
        _check_secrets(serializer.to_python(event, include=include, exclude=exclude, round_trip=True, warnings=False))
    return _strict(data)


def _check_numbers(value: object) -> None:
    """Raises `ValueError` for NaN or an infinity, which Pydantic would silently write as null in a nested model."""
    if isinstance(value, float) and not isfinite(value):
        raise ValueError(f"{value} is not JSON")
    if isinstance(value, dict):
        value = list(cast("dict[object, object]", value).values())
    if isinstance(value, list | tuple | set | frozenset):
        for inner in cast("list[object]", value):
            _check_numbers(inner)


def _check_secrets(value: object) -> None:
    """Raises `ValueError` for a secret, of which Pydantic would silently write asterisks."""
    if (secret := masking(value)) is not None:
        raise ValueError(f"a {secret} is written as asterisks, so its value would be lost")


def _json(value: object, event_type: str, field: str) -> bytes:
    try:
        data = to_json(value, inf_nan_mode="constants")
        if MASKED in data:
            _check_secrets(value)
        return _strict(data)
    except (PydanticSerializationError, ValueError) as error:
        raise SerializationError(event_type, field, _reason(error)) from error


def _strict(data: bytes) -> bytes:
    """`data`, unless it has NaN or an infinity, which are not JSON. Strings may hold these words, so it is parsed."""
    if b"NaN" in data or b"Infinity" in data:
        try:
            from_json(data, allow_inf_nan=False)
        except ValueError as error:
            raise ValueError("NaN and infinities are not JSON") from error
    return data
