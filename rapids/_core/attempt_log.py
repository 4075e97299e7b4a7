"""The failed attempts of a handler at an entry: which of them are kept, and how they are stored."""

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
"""How many of a handler's last attempts are kept in addition."""

MESSAGE_LIMIT = 300
"""The longest error text of an attempt, in characters."""

NAME_LIMIT = 200
"""The longest name of an error's type or of a consumer, in characters."""

MAX_STORED = 256 * 1024
"""The most bytes that are parsed as attempts: more than the kept attempts can need."""

_MAX_NUMBER = 2**53
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)


Row: TypeAlias = list[int | str] | int
"""An attempt as it is stored: delivery, attempt, time (milliseconds since 1970), consumer, type of the error, error. Of
a delivery without a record, only its number. A number without a list says how many attempts are left out there."""


@with_json_schema
@dataclass(frozen=True, slots=True)
class Attempt:
    """A handler's attempt at an entry, and how it failed. Texts are untrusted input: show them as data only."""

    delivery: int
    """The number of the delivery in which it was made, from 1. An interrupted delivery does not count: the next
    delivery has the same number."""
    attempt: int = 0
    """The number of the quick attempt within this delivery, from 1; 0 for a delivery without a record."""
    at: datetime | None = None
    """When it failed, by the clock of the process that ran it."""
    consumer: str = ""
    error_type: str = ""
    error: str = ""
    """The error's text, cut at 300 characters."""

    recorded: bool = field(init=False, default=False)
    """Whether the failure was recorded. If not, the process that had the delivery never reported its end: it died, or
    was blocked until another process took the entry over. The handler may or may not have run."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "recorded", self.attempt > 0)

    @property
    def is_cut(self) -> bool:
        """Whether the error's text may have been longer."""
        return len(self.error) >= MESSAGE_LIMIT

    @classmethod
    def of(cls, failure: Failure, *, delivery: int, attempt: int, consumer: str) -> "Attempt":
        """An attempt that failed now."""
        now = datetime.now(UTC)
        return cls(
            delivery=delivery,
            attempt=attempt,
            at=now.replace(microsecond=now.microsecond // 1000 * 1000),
            consumer=storable(consumer)[:NAME_LIMIT],
            error_type=failure.error_type[:NAME_LIMIT],
            error=failure.message[:MESSAGE_LIMIT],
        )

    def row(self) -> Row:
        """The attempt as it is stored."""
        if not self.recorded:
            return [self.delivery]
        at = 0 if self.at is None else (self.at - _EPOCH) // _MILLISECOND
        return [self.delivery, self.attempt, at, self.consumer, self.error_type, self.error]


@dataclass(frozen=True, slots=True)
class AttemptLog:
    """Failed attempts, oldest first. If there are many, only the first and the last are kept."""

    kept: tuple[Attempt, ...] = ()
    left_out: int = 0
    """How many attempts are left out between the fifth and the sixth kept attempt."""

    def __bool__(self) -> bool:
        return bool(self.kept)

    @classmethod
    def of(cls, *attempts: Attempt) -> "AttemptLog":
        return NO_ATTEMPTS.then(cls(attempts))

    @classmethod
    def unrecorded(cls, first: int, last: int) -> "AttemptLog":
        """The deliveries from `first` to `last`, which have no record."""
        first_of_last = max(first + FIRST_KEPT, last - LAST_KEPT + 1)
        numbers = (*range(first, min(first + FIRST_KEPT, last + 1)), *range(first_of_last, last + 1))
        return cls(tuple(map(Attempt, numbers)), max(last - first + 1, 0) - len(numbers))

    def then(self, later: "AttemptLog") -> "AttemptLog":
        """These attempts and later ones, within the same limits."""
        both = self.kept + later.kept
        start = min(FIRST_KEPT, len(both))
        end = max(start, len(both) - LAST_KEPT)
        return AttemptLog(both[:start] + both[end:], self.left_out + later.left_out + end - start)

    def rows(self) -> list[Row]:
        """The attempts as they are stored."""
        rows = [attempt.row() for attempt in self.kept]
        return [*rows[:FIRST_KEPT], self.left_out, *rows[FIRST_KEPT:]] if self.left_out else rows

    def dump(self) -> bytes:
        """The attempts as they are stored on their own: JSON."""
        return orjson.dumps(self.rows())

    @classmethod
    def read(cls, rows: object) -> "AttemptLog":
        """The stored attempts; an empty log for anything else."""
        if not isinstance(rows, list):
            return NO_ATTEMPTS
        kept, left_out = list[Attempt](), 0
        for row in cast(list[Any], rows)[: FIRST_KEPT + LAST_KEPT + 1]:
            match row:
                case int() if _is_number(row):
                    left_out += row
                case [delivery] if _is_number(delivery):
                    kept.append(Attempt(delivery))
                case [delivery, attempt, at, str() as consumer, str() as error_type, str() as error, *_] if (
                    attempt and all(map(_is_number, (delivery, attempt, at)))
                ):
                    texts = consumer[:NAME_LIMIT], error_type[:NAME_LIMIT], error[:MESSAGE_LIMIT]
                    kept.append(Attempt(delivery, attempt, _moment(at), *texts))
                case _:
                    pass
        return cls(tuple(kept), left_out) if kept else NO_ATTEMPTS

    @classmethod
    def load(cls, raw: bytes) -> "AttemptLog":
        """The attempts that `dump` stored; an empty log for anything else."""
        if not raw or len(raw) > MAX_STORED:
            return NO_ATTEMPTS
        try:
            return cls.read(orjson.loads(raw))
        except orjson.JSONDecodeError:
            return NO_ATTEMPTS


NO_ATTEMPTS = AttemptLog()


def _is_number(value: object) -> bool:
    return type(value) is int and 0 <= value < _MAX_NUMBER


def _moment(ms: int) -> datetime | None:
    try:
        return _EPOCH + ms * _MILLISECOND if ms else None
    except OverflowError:
        return None
