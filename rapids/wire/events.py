"""Events as stream entries: eight fields, always in the same order, so that Redis stores their names once.

Reading trusts nothing: an entry may hold any bytes, and whatever is wrong with it ends as a `DeserializationError`.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC
from functools import lru_cache
from math import isfinite
from typing import Any, TypeAlias, cast

import orjson
from pydantic import AliasChoices, AliasPath, ValidationError
from pydantic_core import PydanticSerializationError, from_json, to_json

from rapids.events import TYPE_LIMIT, BaseEvent, Event, GenericEvent, get_event_class
from rapids.exceptions import DeserializationError, SerializationError

__all__ = ["EVENT_FIELDS", "Fields", "Replay", "StoredEvent", "encode", "encode_values", "event_type_in", "pairs"]

Fields: TypeAlias = Sequence[bytes]
"""Names and values in turn, as Redis keeps them."""

EVENT_FIELDS = (
    b"event_type",
    b"schema_version",
    b"data",
    b"id",
    b"timestamp",
    b"correlation_id",
    b"causation_id",
    b"metadata",
)

MESSAGE_LIMIT = 4_096
"""Characters of what a `DeserializationError` says."""

INJECTED = ("_schema_version", "_timestamp")
"""What migrations find in their input beside the event's fields."""

_BASE_FIELDS = {"id", "timestamp", "correlation_id", "causation_id", "metadata"}
_SUSPECT_NUMBERS = (b"NaN", b"Infinity")


def pairs(fields: Fields) -> Iterable[tuple[bytes, bytes]]:
    """The fields as (name, value)."""
    return zip(fields[::2], fields[1::2], strict=True)


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
        return (
            event_type.encode(),
            b"%d" % version,
            data,
            event.id.encode(),
            (timestamp if timestamp.tzinfo is UTC else timestamp.astimezone(UTC)).isoformat().encode(),
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
        raise SerializationError(event_type, _unwritable(texts), str(error)) from error


def _unwritable(texts: Mapping[str, str]) -> str:
    """The first of these that UTF-8 cannot hold."""
    return next((name for name, text in texts.items() if not text.isascii() and _is_broken(text)), "?")


def _is_broken(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def _body(event: Event) -> tuple[str, int, bytes]:
    if isinstance(event, GenericEvent):
        return event.raw_type, 1, _json(event.data, event.raw_type, "data")
    if not isinstance(event, BaseEvent):
        raise TypeError(f"only events can be emitted, not {event!r}")
    return event.event_type, event.schema_version, _own_fields(event)


def _own_fields(event: BaseEvent) -> bytes:
    try:
        data = _written(event, exclude=_BASE_FIELDS)
        if data[:1] != b"{":
            raise ValueError("a model_serializer makes something else of it than an object, which no reader could take")
        return data
    except (PydanticSerializationError, ValueError) as error:
        raise SerializationError(event.event_type, _culprit(event), str(error)) from error


def _culprit(event: BaseEvent) -> str:
    """The first field that cannot be written: looked for only once the whole event has failed."""
    for name in (*type(event).model_fields, *(event.model_extra or ())):
        try:
            _written(event, include={name})
        except (PydanticSerializationError, ValueError):
            return name
    return "?"


def _written(event: BaseEvent, *, include: set[str] | None = None, exclude: set[str] | None = None) -> bytes:
    serializer = event.__pydantic_serializer__
    data = serializer.to_json(event, include=include, exclude=exclude, round_trip=True, by_alias=False)
    if b"null" in data:
        _check_numbers(serializer.to_python(event, include=include, exclude=exclude, round_trip=True))
    return _strict(data)


def _check_numbers(value: object) -> None:
    """Raises `ValueError` for NaN or an infinity: in a nested model, Pydantic would write it as null without a word."""
    if isinstance(value, float) and not isfinite(value):
        raise ValueError(f"{value} is not JSON")
    if isinstance(value, dict):
        value = list(cast("dict[object, object]", value).values())
    if isinstance(value, list | tuple | set | frozenset):
        for inner in cast("list[object]", value):
            _check_numbers(inner)


def _json(value: object, event_type: str, field: str) -> bytes:
    try:
        return _strict(to_json(value, inf_nan_mode="constants"))
    except (PydanticSerializationError, ValueError) as error:
        raise SerializationError(event_type, field, str(error)) from error


def _strict(data: bytes) -> bytes:
    """`data`, unless it has NaN or an infinity, which are not JSON. A string may hold those words: parsing tells."""
    if any(word in data for word in _SUSPECT_NUMBERS):
        try:
            from_json(data, allow_inf_nan=False)
        except ValueError as error:
            raise ValueError("NaN and infinities are not JSON") from error
    return data


@dataclass(frozen=True, slots=True)
class Replay:
    """What an entry of a replay stream says beyond its event."""

    handler: str
    """The only handler to run, or empty for every one that matches."""
    letter_id: str
    count: int
    """How many times the letter's event has been replayed, this time included."""
    original_entry_id: str


def event_type_in(fields: Fields) -> str | None:
    """The event type an entry states, or None where it states none that is readable."""
    values = [value for name, value in pairs(fields) if name == b"event_type"]
    if len(values) != 1 or len(values[0]) > TYPE_LIMIT * 4:
        return None
    try:
        text = values[0].decode()
    except UnicodeDecodeError:
        return None
    return text if 0 < len(text) <= TYPE_LIMIT else None


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """An entry's fields, found complete and not repeated; `decode` makes the event."""

    event_type: str
    values: Mapping[bytes, bytes]

    @classmethod
    def read(cls, fields: Fields) -> "StoredEvent":
        """Raises `DeserializationError` where a field is repeated or a required one is missing."""
        event_type = event_type_in(fields)
        values = dict(pairs(fields))
        if len(values) * 2 != len(fields):
            raise DeserializationError(event_type or "", "a field is repeated")
        if event_type is None:
            raise DeserializationError("", "there is no readable event_type")
        if missing := [name.decode() for name in (b"data", b"id", b"timestamp") if not values.get(name)]:
            raise DeserializationError(event_type, f"missing or empty: {', '.join(missing)}")
        return cls(event_type, values)

    def decode(self) -> Event:
        """The event: of its registered class, or a `GenericEvent`.

        Raises `DeserializationError` for anything malformed, and for whatever a class's own validators raise.
        """
        cls = get_event_class(self.event_type)
        try:
            return self._generic() if cls is None else self._typed(cls)
        except Exception as error:  # a migration is the user's code: a KeyError there is a bad entry, not a crash
            raise DeserializationError(self.event_type, _told(error)) from error

    def replay(self) -> Replay | None:
        """What makes this entry a replay, if it is one."""
        letter_id = self.values.get(b"replay_of")
        if not letter_id:
            return None
        count = self.values.get(b"replay_count", b"1")
        return Replay(
            self.values.get(b"replay_handler", b"").decode(errors="replace"),
            letter_id.decode(errors="replace"),
            int(count) if count.isdigit() and len(count) < 10 else 1,
            self.values.get(b"original_msg_id", b"").decode(errors="replace"),
        )

    def _typed(self, cls: type[BaseEvent]) -> Event:
        # One pass through pydantic-core's JSON validator, by splicing the common fields in behind the event's own.
        # JSON mode matters: a strict model takes a date from a JSON string, and not from a Python one. Of a repeated
        # key the last one counts, so that nothing in `data` can pass for a common field.
        data = self.values[b"data"].strip()
        if data[:1] != b"{" or data[-1:] != b"}":
            raise ValueError("data is not a JSON object")
        body = data[1:-1]
        head = b"{" + body + b"," if body.strip() else b"{"
        document = head + self._common() + self._for_migrations(cls) + b"}"
        return _validated(cls, document)

    def _generic(self) -> Event:
        values = self.values
        return GenericEvent.model_validate(
            {
                "raw_type": self.event_type,
                "data": from_json(values[b"data"]),
                "id": values[b"id"].decode(),
                "timestamp": values[b"timestamp"].decode(),
                "correlation_id": values.get(b"correlation_id", b"").decode() or None,
                "causation_id": values.get(b"causation_id", b"").decode() or None,
                "metadata": from_json(values.get(b"metadata", b"") or b"{}"),
            }
        )

    def _common(self) -> bytes:
        values = self.values
        metadata = values.get(b"metadata", b"") or b"{}"
        if metadata != b"{}":
            from_json(metadata)  # alone, so that it cannot bring in fields of its own
        correlation, causation = values.get(b"correlation_id", b""), values.get(b"causation_id", b"")
        return b'"metadata":%b,"id":%b,"timestamp":%b,"correlation_id":%b,"causation_id":%b' % (
            metadata,
            _quoted(values[b"id"]),
            _quoted(values[b"timestamp"]),
            _quoted(correlation) if correlation else b"null",
            _quoted(causation) if causation else b"null",
        )

    def _for_migrations(self, cls: type[BaseEvent]) -> bytes:
        if not _reading(cls).migrates:
            return b""
        version = int(self.values.get(b"schema_version", b"") or b"1")
        return b',"_schema_version":%d,"_timestamp":%b' % (version, _quoted(self.values[b"timestamp"]))


@dataclass(frozen=True, slots=True)
class _Reading:
    """What matters about a class for reading its entries."""

    migrates: bool
    """It has a validator that sees the input, and so finds `_schema_version` and `_timestamp` in it."""
    by_alias: bool
    """Fields may come by alias too. Not where an alias is another field's name: then only names are clear."""


@lru_cache(maxsize=1_024)
def _reading(cls: type[BaseEvent]) -> _Reading:
    validators = cls.__pydantic_decorators__.model_validators.values()
    taken = {(alias, name) for name, field in cls.model_fields.items() for alias in _aliases(field.validation_alias)}
    return _Reading(
        migrates=any(validator.info.mode != "after" for validator in validators),
        by_alias=not any(alias != name and alias in cls.model_fields for alias, name in taken),
    )


def _aliases(alias: str | AliasPath | AliasChoices | None) -> Iterator[str]:
    match alias:
        case str():
            yield alias
        case AliasPath():
            yield str(alias.path[0])
        case AliasChoices():
            for choice in alias.choices:
                yield from _aliases(choice)
        case None:
            pass


def _validated(cls: type[BaseEvent], document: bytes) -> BaseEvent:
    by_alias = _reading(cls).by_alias
    try:
        event = cls.__pydantic_validator__.validate_json(document, by_alias=by_alias, by_name=True)
    except ValidationError as error:
        if _faults(error):
            raise
        # Its class forbids extra fields, and its migration did not take away what was put in for it.
        event = cls.__pydantic_validator__.validate_json(document, extra="ignore", by_alias=by_alias, by_name=True)
    if event.model_extra:
        for injected in INJECTED:
            event.model_extra.pop(injected, None)
    return event


def _faults(error: ValidationError) -> list[Any]:
    """What is wrong, but for what was put in for migrations."""
    faults = error.errors(include_url=False, include_input=False, include_context=False)
    return [fault for fault in faults if fault["type"] != "extra_forbidden" or fault["loc"][0] not in INJECTED]


def _quoted(raw: bytes) -> bytes:
    return orjson.dumps(raw.decode())


def _told(error: Exception) -> str:
    """What failed, in bounds, and without the input's values, which may be personal or huge."""
    try:
        text = _told_by_field(error) if isinstance(error, ValidationError) else f"{type(error).__name__}: {error}"
    except Exception as broken:  # a user's error may have a __str__ that raises
        text = f"{type(error).__name__} whose text could not be made: {type(broken).__name__}"
    return text[:MESSAGE_LIMIT]


def _told_by_field(error: ValidationError) -> str:
    faults = _faults(error)
    told = [f"{'.'.join(map(str, fault['loc'])) or 'data'}: {fault['msg']}" for fault in faults[:10]]
    more = [f"and {len(faults) - 10} more"] if len(faults) > 10 else []
    return "; ".join(told + more)
