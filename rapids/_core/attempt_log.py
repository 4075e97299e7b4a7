"""The failed attempts of a handler at an entry: what is kept of each, how many are kept, and how they are stored."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias, cast

import orjson

from rapids._core.failures import Failure, storable
from rapids._core.json_schema import with_json_schema

__all__ = ["NO_ATTEMPTS", "Attempt", "AttemptLog"]

FIRST_KEPT = 5
"""How many of a handler's first attempts are kept."""

LAST_KEPT = 15
"""How many of its last ones are kept besides."""

MESSAGE_LIMIT = 300
"""Characters of an attempt's error."""

NAME_LIMIT = 200
"""Characters of the name of an error's type, and of a consumer's."""

LARGEST_STORED = 256 * 1024
"""Bytes of what is taken for attempts: more than as many as are kept can have."""

_LARGEST_NUMBER = 2**53
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_PLAIN_ROW = 6

Row: TypeAlias = list[int | str] | int
"""An attempt as it is stored: delivery, attempt, when (milliseconds since 1970), consumer, type of the error, error. Of
a delivery of which nothing was recorded only its number. A number by itself says how many are left out there."""


@with_json_schema
@dataclass(frozen=True, slots=True)
class Attempt:
    """A handler's attempt at an entry, and how it failed. Texts are hostile input: show them as data only."""

    delivery: int
    """The delivery of the entry on which it was made, from 1. One that was interrupted did not count: the next has its
    number again."""
    attempt: int = 0
    """The quick attempt within this delivery, from 1; 0 for a delivery of which nothing was recorded."""
    at: datetime | None = None
    """When it failed, by the clock of the process it ran in."""
    consumer: str = ""
    error_type: str = ""
    error: str = ""
    """The error's text, cut at 300 characters."""

    recorded: bool = field(init=False, default=False)
    """Whether the failure was recorded. If not, the process that had the delivery never reported its end: it died, or
    stood still until another process took the entry over. The handler may have run then or not."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "recorded", self.attempt > 0)

    @property
    def is_cut(self) -> bool:
        """Whether the error may have had a longer text."""
        return len(self.error) >= MESSAGE_LIMIT

    @classmethod
    def of(cls, failure: Failure, *, delivery: int, attempt: int, consumer: str) -> "Attempt":
        """One that has failed just now."""
        now = datetime.now(UTC)
        return cls(
            *(delivery, attempt, now.replace(microsecond=now.microsecond // 1000 * 1000)),
            *(storable(consumer)[:NAME_LIMIT], failure.error_type[:NAME_LIMIT], failure.message[:MESSAGE_LIMIT]),
        )

    def row(self) -> Row:
        """As it is stored."""
        if not self.recorded:
            return [self.delivery]
        at = 0 if self.at is None else (self.at - _EPOCH) // _MILLISECOND
        return [self.delivery, self.attempt, at, self.consumer, self.error_type, self.error]


@dataclass(frozen=True, slots=True)
class AttemptLog:
    """Failed attempts, oldest first: of many, the first and the last ones."""

    kept: tuple[Attempt, ...] = ()
    left_out: int = 0
    """How many are left out between the fifth and the sixth that are kept."""

    def __bool__(self) -> bool:
        return bool(self.kept)

    @classmethod
    def of(cls, *attempts: Attempt) -> "AttemptLog":
        return NO_ATTEMPTS.then(cls(attempts))

    @classmethod
    def unrecorded(cls, first: int, last: int) -> "AttemptLog":
        """The deliveries from `first` to `last`, of which nothing was recorded."""
        behind = max(first + FIRST_KEPT, last - LAST_KEPT + 1)
        numbers = (*range(first, min(first + FIRST_KEPT, last + 1)), *range(behind, last + 1))
        return cls(tuple(map(Attempt, numbers)), max(last - first + 1, 0) - len(numbers))

    def then(self, later: "AttemptLog") -> "AttemptLog":
        """These and those that came later, which are as bounded."""
        both = self.kept + later.kept
        start = min(FIRST_KEPT, len(both))
        end = max(start, len(both) - LAST_KEPT)
        return AttemptLog(both[:start] + both[end:], self.left_out + later.left_out + end - start)

    def rows(self) -> list[Row]:
        """As they are stored."""
        rows = [attempt.row() for attempt in self.kept]
        return [*rows[:FIRST_KEPT], self.left_out, *rows[FIRST_KEPT:]] if self.left_out else rows

    def dump(self) -> bytes:
        """As they are stored by themselves: JSON."""
        return orjson.dumps(self.rows())

    @classmethod
    def read(cls, rows: object) -> "AttemptLog":
        """Attempts that were stored; whatever else was, is none."""
        if not isinstance(rows, list):
            return NO_ATTEMPTS
        kept, left_out = list[Attempt](), 0
        for row in cast(list[Any], rows)[: FIRST_KEPT + LAST_KEPT + 1]:
            if _is_number(row):
                left_out += row
            elif (attempt := _attempt(row)) is not None:
                kept.append(attempt)
        return cls(tuple(kept), left_out) if kept else NO_ATTEMPTS

    @classmethod
    def load(cls, raw: bytes) -> "AttemptLog":
        """What `dump` made; whatever else is there, is none."""
        if not raw or len(raw) > LARGEST_STORED:
            return NO_ATTEMPTS
        try:
            return cls.read(orjson.loads(raw))
        except orjson.JSONDecodeError:
            return NO_ATTEMPTS


NO_ATTEMPTS = AttemptLog()


def _attempt(row: object) -> Attempt | None:
    parts: Sequence[Any] = cast(list[Any], row) if isinstance(row, list) else ()
    numbers, texts = parts[:3], parts[3:_PLAIN_ROW]
    if not numbers or not all(map(_is_number, numbers)):
        return None
    if len(parts) == 1:
        return Attempt(numbers[0])
    if len(parts) < _PLAIN_ROW or numbers[1] == 0 or not _are_texts(texts):
        return None
    return Attempt(numbers[0], numbers[1], _moment(numbers[2]), *_cut(texts))


def _is_number(value: object) -> bool:
    return type(value) is int and 0 <= value < _LARGEST_NUMBER


def _are_texts(values: Iterable[object]) -> bool:
    return all(isinstance(value, str) for value in values)


def _cut(texts: Sequence[str]) -> tuple[str, ...]:
    limits = (NAME_LIMIT, NAME_LIMIT, MESSAGE_LIMIT)
    return tuple(text[:limit] for text, limit in zip(texts, limits, strict=True))


def _moment(ms: int) -> datetime | None:
    try:
        return _EPOCH + ms * _MILLISECOND if ms else None
    except OverflowError:
        return None
