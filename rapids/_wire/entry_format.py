"""The format of events as stream entries: eight fields, always in the same order, so that Redis stores names once.

Entries are untrusted and may hold any bytes. Every problem of an entry is raised as a `DeserializationError`.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias

import orjson
from pydantic import ValidationError
from pydantic_core import from_json

from rapids._core.event_fields import INJECTED, aliases_of
from rapids._core.failures import is_of_signal
from rapids._wire.trace_context import TRACE_FIELDS
from rapids.events import TYPE_LIMIT, BaseEvent, Event, GenericEvent, get_event_class
from rapids.exceptions import DeserializationError

__all__ = [
    "EVENT_FIELDS",
    "MAX_FAULTS",
    "Fields",
    "Replay",
    "StoredEvent",
    "decode",
    "decode_regular",
    "describe",
    "documents_in",
    "event_type_in",
    "faults_in",
    "first_values",
    "newer_version",
    "pairs",
    "regular_values",
    "replay_in",
    "reserved_names",
    "validated",
]

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
"""The longest message of a `DeserializationError`, in characters."""

MAX_FAULTS = 10_000
"""How many problems of one entry are examined. A payload of megabytes can have a million, which would take seconds."""


def pairs(fields: Fields) -> Iterable[tuple[bytes, bytes]]:
    """The fields as (name, value)."""
    return zip(fields[::2], fields[1::2], strict=True)


def first_values(fields: Fields) -> dict[bytes, bytes]:
    """The fields by name; of a repeated one the first value counts."""
    values: dict[bytes, bytes] = {}
    for name, value in pairs(fields):
        values.setdefault(name, value)
    return values


def decode(event_type: str, fields: Fields) -> Event:
    """The event of an entry whose type is known.

    Raises `DeserializationError` for an entry that is no event.
    """
    cls, values = get_event_class(event_type), regular_values(fields)
    if cls is not None and values is not None and (event := decode_regular(cls, values)) is not None:
        return event
    return StoredEvent.read(fields).decode()


def newer_version(cls: type[BaseEvent], fields: Fields) -> int | None:
    """The schema version of an entry, if it is newer than its class, which then does not know what it means."""
    version = dict(pairs(fields)).get(b"schema_version", b"")
    is_number = version.isdigit() and len(version) < 10
    return int(version) if is_number and int(version) > cls.schema_version else None


def regular_values(fields: Fields) -> Sequence[bytes] | None:
    """The values of the eight fields of an entry that has the fields of the format in their order; None for any other.

    The fields of a trace context may follow them.
    """
    names = fields[::2]
    if names == _NAMES:
        return fields[1::2]
    return fields[1 : 2 * len(_NAMES) : 2] if names in _TRACED_NAMES else None


def decode_regular(cls: type[BaseEvent], values: Sequence[bytes]) -> BaseEvent | None:
    """The event of an entry in the form that Rapids writes, by the rules of `decode` but without its checks.

    None if the entry needs those checks; `decode` then reports what is wrong, if anything is.
    """
    rules = _read_rules(cls)
    if rules.migrates:
        return None
    try:
        document = _regular_document(values)
        return _validated(cls, document, rules) if document else None
    except BaseException as error:
        if is_of_signal(error):
            raise
        return None


_NAMES = list(EVENT_FIELDS)
_TRACED_NAMES = ([*_NAMES, TRACE_FIELDS[0]], [*_NAMES, *TRACE_FIELDS])
_is_plain = re.compile(rb"[ !#-\[\]-~]*").fullmatch
"""Whether text needs no escapes in JSON."""


def _regular_document(values: Sequence[bytes]) -> bytes | None:
    """The JSON document of an entry, or None if its parts cannot simply be joined."""
    _, _, data, event_id, timestamp, correlation_id, causation_id, metadata = values
    if not (event_id and timestamp and _is_plain(event_id + timestamp + correlation_id + causation_id)):
        return None
    if data[:1] != b"{" or data[-1:] != b"}" or len(data) == 2:
        return None
    if metadata != b"{}":
        from_json(metadata)  # alone, so that it cannot bring in fields of its own
    return b'%b,"metadata":%b,"id":"%b","timestamp":"%b","correlation_id":%b,"causation_id":%b}' % (
        data[:-1],
        metadata,
        event_id,
        timestamp,
        b'"%b"' % correlation_id if correlation_id else b"null",
        b'"%b"' % causation_id if causation_id else b"null",
    )


@dataclass(frozen=True, slots=True)
class Replay:
    """What an entry of a replay stream has in addition to its event."""

    handler: str
    """The only handler to run, or empty for every one that matches."""
    letter_id: str
    count: int
    """How many times the letter's event has been replayed, this time included."""
    original_entry_id: str


def replay_in(values: Mapping[bytes, bytes]) -> Replay:
    """The replay data among the fields of an entry of a replay stream, which may hold anything."""
    count = values.get(b"replay_count", b"")
    return Replay(
        handler=values.get(b"replay_handler", b"").decode(errors="replace"),
        letter_id=values.get(b"replay_of", b"").decode(errors="replace"),
        count=int(count) if count.isdigit() and len(count) < 10 else 1,
        original_entry_id=values.get(b"original_msg_id", b"").decode(errors="replace"),
    )


def documents_in(fields: Fields) -> tuple[bytes, bytes]:
    """The JSON documents in an entry: the event's own data, and its metadata. Empty if it has none."""
    values = dict(pairs(fields))
    return values.get(b"data", b""), values.get(b"metadata", b"")


def event_type_in(fields: Fields) -> str | None:
    """The event type of an entry, or None if it is missing or not readable."""
    names = fields[::2]
    if names == _NAMES or names in _TRACED_NAMES:
        value = fields[1]
    elif names.count(b"event_type") == 1:
        value = fields[2 * names.index(b"event_type") + 1]
    else:
        return None
    if len(value) > TYPE_LIMIT * 4:
        return None
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return None
    return text if 0 < len(text) <= TYPE_LIMIT else None


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """An entry's fields, which are complete and not repeated. `decode` creates the event."""

    event_type: str
    values: Mapping[bytes, bytes]

    @classmethod
    def read(cls, fields: Fields) -> "StoredEvent":
        """Read the fields. Raises `DeserializationError` if a field is repeated or a required field is missing."""
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

        Raises `DeserializationError` for anything malformed, and for any error of a class's own validators.
        """
        cls = get_event_class(self.event_type)
        try:
            return self.generic() if cls is None else _validated(cls, self.document(cls), _read_rules(cls))
        except BaseException as error:  # validators and migrations are the user's code, and may raise anything
            if is_of_signal(error):
                raise
            raise DeserializationError(self.event_type, describe(error)) from error

    def replay(self) -> Replay | None:
        """The replay data of this entry; None if it is no replay."""
        return replay_in(self.values) if self.values.get(b"replay_of") else None

    def document(self, cls: type[BaseEvent]) -> bytes:
        """The JSON document for `cls` to validate. It is not valid JSON if `data` is not.

        Raises `ValueError` for fields that make no document for any class.
        """
        # One pass through pydantic-core's JSON validator: the common fields are inserted after the event's own. JSON
        # mode is necessary: a strict model accepts a date from a JSON string, but not from a Python string. Of a
        # repeated key the last one counts, so nothing in `data` can replace a common field.
        data = self.values[b"data"].strip()
        if data[:1] != b"{" or data[-1:] != b"}":
            raise ValueError("data is not a JSON object")
        body = data[1:-1]
        head = b"{" + body + b"," if body.strip() else b"{"
        common = self._common()
        if _read_rules(cls).migrates:
            version = int(self.values.get(b"schema_version", b"") or b"1")
            common += b',"_schema_version":%d,"_timestamp":%b' % (version, _quoted(self.values[b"timestamp"]))
        return head + common + b"}"

    def generic(self) -> GenericEvent:
        """The event as a `GenericEvent`. Raises `ValueError` for anything malformed."""
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


@dataclass(frozen=True, slots=True)
class _ReadRules:
    """The properties of a class that matter for reading its entries."""

    migrates: bool
    """Whether it has a validator that gets the input, with `_schema_version` and `_timestamp` in it."""
    keeps_extra: bool
    """Whether it keeps undeclared fields."""
    by_alias: bool
    """Whether fields may also come by alias. False if an alias is another field's name: then only names are clear."""


@lru_cache(maxsize=1_024)
def _read_rules(cls: type[BaseEvent]) -> _ReadRules:
    validators = cls.__pydantic_decorators__.model_validators.values()
    taken = {(alias, name) for name, field in cls.model_fields.items() for alias in aliases_of(field.validation_alias)}
    return _ReadRules(
        migrates=any(validator.info.mode != "after" for validator in validators),
        keeps_extra=cls.model_config.get("extra") == "allow",
        by_alias=not any(alias != name and alias in cls.model_fields for alias, name in taken),
    )


_COMMON = tuple(Event.model_fields)


def reserved_names(cls: type[BaseEvent]) -> frozenset[str]:
    """The names under which common fields are read, which the event's own fields cannot have, and `INJECTED`."""
    aliases = {alias for name in _COMMON for alias in aliases_of(cls.model_fields[name].validation_alias)}
    return frozenset((*_COMMON, *(aliases - cls.model_fields.keys()), *INJECTED))


def validated(cls: type[BaseEvent], document: bytes) -> BaseEvent:
    """The event in a document that `StoredEvent.document` made.

    Raises `ValidationError`, any error of a class's own validators, and `DeserializationError` for an exit of theirs,
    such as by `sys.exit`, which must not end the process.
    """
    try:
        return _validated(cls, document, _read_rules(cls))
    except Exception:
        raise
    except BaseException as error:
        if is_of_signal(error):
            raise
        raise DeserializationError(cls.event_type, describe(error)) from error


def _validated(cls: type[BaseEvent], document: bytes, rules: _ReadRules) -> BaseEvent:
    by_alias = rules.by_alias
    try:
        event = cls.__pydantic_validator__.validate_json(document, by_alias=by_alias, by_name=True)
    except ValidationError as error:
        if faults_in(error):
            raise
        event = None
    if event is None:  # the class forbids extra fields, and its migration did not remove what was added for it
        event = cls.__pydantic_validator__.validate_json(document, extra="ignore", by_alias=by_alias, by_name=True)
    if rules.keeps_extra and event.model_extra:
        for injected in INJECTED:
            event.model_extra.pop(injected, None)
    return event


def faults_in(error: ValidationError) -> list[Any]:
    """The problems, without those of fields added for migrations. If they exceed `MAX_FAULTS`, only their number."""
    if (count := error.error_count()) > MAX_FAULTS:
        return [{"loc": (), "type": "too_many_errors", "msg": f"{count} validation errors, too many to list"}]
    faults = error.errors(include_url=False, include_input=False, include_context=False)
    return [fault for fault in faults if fault["type"] != "extra_forbidden" or fault["loc"][0] not in INJECTED]


def _quoted(raw: bytes) -> bytes:
    return orjson.dumps(raw.decode())


def describe(error: BaseException) -> str:
    """What failed, in limited length, without the values of the input, which may be personal or huge."""
    try:
        if not isinstance(error, ValidationError):
            text = f"{type(error).__name__}: {error}"
        else:
            faults = faults_in(error)
            first = [f"{'.'.join(map(str, fault['loc'])) or 'data'}: {fault['msg']}" for fault in faults[:10]]
            text = "; ".join(first + ([f"and {len(faults) - 10} more"] if len(faults) > 10 else []))
    except BaseException as broken:  # a user's error may have a __str__ that raises
        if is_of_signal(broken):
            raise
        text = f"{type(error).__name__} whose text could not be made: {type(broken).__name__}"
    return text[:MESSAGE_LIMIT]
