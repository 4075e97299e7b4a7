"""The format of dead letters as stream entries."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypedDict

from rapids._core.attempt_log import AttemptLog
from rapids._core.outcomes import Dead
from rapids._wire import compat
from rapids._wire.entry_format import EVENT_FIELDS, Fields, Replay, StoredEvent, event_type_in, first_values, pairs
from rapids._wire.fingerprints import netstrings, unpack_netstrings
from rapids._wire.trace_context import TRACE_FIELDS
from rapids.exceptions import DeserializationError

__all__ = [
    "HISTORY",
    "LETTER_ID",
    "LetterRead",
    "LetterValues",
    "Origin",
    "claimed_id",
    "history_of",
    "letter_values",
    "original_fields",
    "replay_fields",
    "taken_apart",
    "with_data",
    "write_letter",
]

HISTORY = b"rapids:history"
"""What was done to a letter, as JSON: a field of archived and of restored letters."""
LETTER_ID = b"rapids:letter_id"
"""The letter's own id: a field of archived letters."""

_REPLAY_FIELDS = (b"replay_handler", b"replay_of", b"replay_count", b"original_msg_id")


@dataclass(frozen=True, slots=True)
class Origin:
    """The origin of a failed delivery. For a replay it is the entry that failed first, not the replay's own entry."""

    entry_id: str
    stream: str
    group: str
    consumer: str
    deliveries: int
    replay_of: str = ""
    replay_count: int = 0


def write_letter(fields: Fields, origin: Origin, dead: Dead, *, failed_at: datetime | None = None) -> list[bytes]:
    """The fields of a dead letter without `letter_id`, which is known only when it is written.

    Always the same fields in the same order, so that Redis stores their names once. `original_fields` comes last, and
    only if the entry's own fields could not be rebuilt from the others.
    """
    first = first_values(fields)
    failure = dead.failure
    letter = {
        b"original_msg_id": origin.entry_id,
        b"original_stream": origin.stream,
        b"original_group": origin.group,
        b"reason": dead.reason.value,
        b"error": failure.message,
        b"handler": dead.handler,
        b"failed_at": (failed_at or datetime.now(UTC)).isoformat(),
        b"event_type": first.get(b"event_type", b""),
        b"data": first.get(b"data", b""),
        **{name: first.get(name, b"") for name in EVENT_FIELDS if name not in (b"event_type", b"data")},
        b"error_type": failure.error_type,
        b"traceback": failure.traceback,
        b"deliveries": str(origin.deliveries),
        b"consumer": origin.consumer,
        b"replay_of": origin.replay_of,
        b"replay_count": str(origin.replay_count),
        b"position": failure.position,
        b"attempts": dead.attempts.dump(),
    }
    names = tuple(fields[::2])
    traced = names[len(EVENT_FIELDS) :]
    is_regular = names[: len(EVENT_FIELDS)] == EVENT_FIELDS and traced == TRACE_FIELDS[: len(traced)]
    if traced and event_type_in(fields) is None:
        is_regular = False
    if not is_regular:
        letter[b"original_fields"] = netstrings(fields)
    else:
        letter |= {name: first[name] for name in traced}
    return [part if isinstance(part, bytes) else _utf8(part) for pair in letter.items() for part in pair]


def original_fields(letter: Fields) -> list[bytes]:
    """The fields of the entry that failed, byte for byte.

    Raises `DeserializationError` for a letter that was tampered with.
    """
    values = first_values(letter)
    if b"original_fields" in values:
        try:
            fields = list(unpack_netstrings(values[b"original_fields"]))
            if not fields or len(fields) % 2:
                raise ValueError("names and values do not pair up")
            return fields
        except ValueError as error:
            raise DeserializationError("", f"original_fields of the letter cannot be read: {error}") from error
    values = compat.with_defaults(values)
    names = [*EVENT_FIELDS, *(name for name in TRACE_FIELDS if name in values)]
    return [part for name in names for part in (name, values.get(name, b""))]


def with_data(letter: Fields, data: bytes, schema_version: int) -> list[bytes]:
    """A letter whose event has other data, of this schema version. All else is unchanged.

    Raises `DeserializationError` for a letter that was tampered with.
    """
    changed = {b"schema_version": b"%d" % schema_version, b"data": data}
    values = first_values(letter)
    if b"original_fields" in values:
        changed = {b"original_fields": netstrings(_with(original_fields(letter), changed))}
    return _with(letter, changed)


def _with(fields: Fields, changed: Mapping[bytes, bytes]) -> list[bytes]:
    """The fields with these values, each in its place if it exists, or else at the end."""
    kept = [part for name, value in pairs(fields) for part in (name, changed.get(name, value))]
    return [*kept, *(part for name, value in changed.items() if name not in fields[::2] for part in (name, value))]


def replay_fields(letter: Fields, *, handler: str, letter_id: str) -> list[bytes]:
    """The fields of the entry that replays a letter through its group's replay stream. Without `handler`: for all."""
    read = LetterRead(first_values(letter))
    return [
        *original_fields(letter),
        *(b"replay_handler", _utf8(handler)),
        *(b"replay_of", _utf8(letter_id)),
        *(b"replay_count", b"%d" % (read.number(b"replay_count") + 1)),
        *(b"original_msg_id", read.values.get(b"original_msg_id", b"")),
    ]


def taken_apart(fields: Fields) -> tuple[Fields, Replay | None]:
    """An entry of a replay stream, split: the fields of the replayed entry, and what `replay_fields` added after them.

    The replayed entry may have fields of the same names, so only the last ones count.
    """
    at = len(fields) - 2 * len(_REPLAY_FIELDS)
    if tuple(fields[max(at, 0) :: 2]) != _REPLAY_FIELDS:
        return fields, None
    return fields[:at], StoredEvent("", dict(pairs(fields[at:]))).replay()


@dataclass(frozen=True, slots=True)
class LetterRead:
    """A letter's fields by name. Letters of other versions lack some; hostile letters hold anything."""

    values: Mapping[bytes, bytes]

    @classmethod
    def of(cls, fields: Fields) -> "LetterRead":
        return cls(first_values(fields))

    def text(self, name: bytes) -> str:
        """The value as text; bytes that are not UTF-8 are replaced."""
        return self.values.get(name, b"").decode(errors="replace")

    def number(self, name: bytes) -> int:
        """The value as a whole number; 0 if it is none."""
        value = self.values.get(name, b"")
        return int(value) if value.isdigit() and len(value) < 19 else 0

    def attempts(self) -> AttemptLog:
        """The failed attempts; none if the letter, of another version or hostile, has no valid ones."""
        return AttemptLog.load(self.values.get(b"attempts", b""))

    def moment(self, name: bytes) -> datetime | None:
        """The value as a time; None if it is none."""
        try:
            moment = datetime.fromisoformat(self.text(name))
        except ValueError:
            return None
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


class LetterValues(TypedDict):
    """The values of a letter's fields, by the names that they have in `DeadLetter`."""

    stream: str
    group: str
    handler: str
    entry_id: str
    reason: str
    error: str
    error_type: str
    traceback: str
    deliveries: int
    consumer: str
    failed_at: datetime | None
    event_type: str
    data: bytes
    event_id: str
    timestamp: str
    correlation_id: str
    causation_id: str
    metadata: bytes
    schema_version: str
    replay_of: str | None
    replay_count: int
    position: str


def letter_values(fields: Fields) -> LetterValues:
    """The values of a letter of this version or another. What it lacks is empty."""
    read = LetterRead.of(fields)
    return LetterValues(
        stream=read.text(b"original_stream"),
        group=read.text(b"original_group"),
        handler=read.text(b"handler"),
        entry_id=read.text(b"original_msg_id"),
        reason=read.text(b"reason"),
        error=read.text(b"error"),
        error_type=read.text(b"error_type"),
        traceback=read.text(b"traceback"),
        deliveries=read.number(b"deliveries"),
        consumer=read.text(b"consumer"),
        failed_at=read.moment(b"failed_at"),
        event_type=read.text(b"event_type"),
        data=read.values.get(b"data", b""),
        event_id=read.text(b"id"),
        timestamp=read.text(b"timestamp"),
        correlation_id=read.text(b"correlation_id"),
        causation_id=read.text(b"causation_id"),
        metadata=read.values.get(b"metadata", b""),
        schema_version=read.text(b"schema_version"),
        replay_of=read.text(b"replay_of") or None,
        replay_count=read.number(b"replay_count"),
        position=read.text(b"position"),
    )


def claimed_id(fields: Fields) -> bytes:
    """The id that a letter claims to have; empty for none. It may be another letter's."""
    names = fields[::2]
    return fields[2 * names.index(b"letter_id") + 1] if b"letter_id" in names else b""


def history_of(fields: Fields) -> bytes:
    """What was done to a restored letter, as it is stored with it."""
    return first_values(fields).get(HISTORY, b"")


def _utf8(text: str) -> bytes:
    return text.encode(errors="backslashreplace")
