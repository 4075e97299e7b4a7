"""What a search for a correlation id reads of an entry: some fields of an event, replay or letter, cut to a length."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from rapids._wire.entry_format import EVENT_FIELDS, Fields, Replay, replay_in
from rapids._wire.letter_format import HISTORY, LETTER_ID

__all__ = ["READ", "EventFields", "Found", "TraceKind"]

TraceKind: TypeAlias = Literal["events", "replays", "letters", "archive"]

_SHORT, _PAYLOAD = 1_024, 64 * 1_024
_EVENT = {name: _PAYLOAD if name in (b"data", b"metadata") else _SHORT for name in EVENT_FIELDS}
_REPLAY = dict.fromkeys((b"original_msg_id", b"replay_of", b"replay_count", b"replay_handler"), _SHORT)
_LETTER = dict.fromkeys(
    (
        b"original_msg_id",
        b"original_stream",
        b"original_group",
        b"handler",
        b"reason",
        b"error_type",
        b"failed_at",
        b"deliveries",
        b"consumer",
        b"replay_of",
        b"replay_count",
        b"letter_id",
        LETTER_ID,
    ),
    _SHORT,
)
_OF_LETTERS = {**_EVENT, **_LETTER, b"error": 8 * _SHORT, HISTORY: 4 * _PAYLOAD}

READ: Mapping[TraceKind, Mapping[bytes, int]] = {
    "events": _EVENT,
    "replays": {name: longest for name, longest in _EVENT.items() if longest == _SHORT} | _REPLAY,
    "letters": _OF_LETTERS,
    "archive": _OF_LETTERS,
}
"""The names of the fields that are read, each with the longest value in bytes."""


@dataclass(frozen=True, slots=True)
class EventFields:
    """What an entry says about its event. `data` and `metadata` are None if they were cut."""

    event_id: str
    event_type: str
    timestamp: str
    causation_id: str
    schema_version: str
    data: bytes | None
    data_size: int
    metadata: bytes | None
    metadata_size: int


@dataclass(frozen=True, slots=True)
class Found:
    """An entry: the first value of each field that was read, cut, and the full lengths of the values (bytes)."""

    entry_id: str
    values: Mapping[bytes, bytes]
    sizes: Mapping[bytes, int]

    @property
    def fields(self) -> Fields:
        """Names and values in turn."""
        return [part for pair in self.values.items() for part in pair]

    @property
    def event(self) -> EventFields:
        return EventFields(
            event_id=self._text(b"id"),
            event_type=self._text(b"event_type"),
            timestamp=self._text(b"timestamp"),
            causation_id=self._text(b"causation_id"),
            schema_version=self._text(b"schema_version"),
            data=self._whole(b"data"),
            data_size=self.sizes.get(b"data", 0),
            metadata=self._whole(b"metadata"),
            metadata_size=self.sizes.get(b"metadata", 0),
        )

    @property
    def replay(self) -> Replay:
        return replay_in(self.values)

    @property
    def correlation_id(self) -> bytes:
        """The correlation id, or the event id if there is none: its handlers pass that on to what they emit."""
        return self.values.get(b"correlation_id") or self.values.get(b"id", b"")

    @property
    def origin(self) -> tuple[str, str]:
        """The stream and the entry that a letter comes from."""
        return self._text(b"original_stream"), self._text(b"original_msg_id")

    @property
    def letter_id(self) -> str:
        """The id of an archived letter."""
        return self._text(LETTER_ID)

    @property
    def history(self) -> bytes:
        """What was done to a letter, as JSON."""
        return self.values.get(HISTORY, b"")

    def _text(self, name: bytes) -> str:
        return self.values.get(name, b"").decode(errors="replace")

    def _whole(self, name: bytes) -> bytes | None:
        value = self.values.get(name, b"")
        return value if self.sizes.get(name, 0) == len(value) else None
