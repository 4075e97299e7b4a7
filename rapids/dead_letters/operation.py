"""An operation: many letters replayed, discarded or restored, with progress that outlives the process."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Literal, TypeAlias, cast

from rapids._core.entry_id import moment_or_last
from rapids._core.json_schema import with_json_schema
from rapids._core.redis_errors import reason
from rapids._storage.operation_records import StoredOperation
from rapids.dead_letters.letter import DeadLetter, LetterFilter, Scope
from rapids.dead_letters.selection import Selector

__all__ = [
    "Operation",
    "OperationError",
    "OperationKind",
    "OperationPage",
    "OperationState",
    "Preview",
    "read_operation",
    "read_selector",
    "write_error",
    "write_selector",
]

OperationKind: TypeAlias = Literal["replay", "discard", "restore"]
OperationState: TypeAlias = Literal["running", "paused", "completed", "cancelled", "failed"]


@with_json_schema
@dataclass(frozen=True, slots=True)
class OperationError:
    """Why a letter of an operation was not moved. The text is hostile input, as the letter's are."""

    letter_id: str
    """Empty where it is not about one letter but ended the operation."""
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """An operation as it stood when it was looked at. Counts are letters."""

    id: str
    kind: OperationKind
    state: OperationState
    """`running` also while no process has it: one takes it within seconds. The last three are ends."""
    selector: Selector
    scope: Scope
    """Whom a replay reaches. It means nothing for the other kinds."""
    rate: float | None
    """Letters a second at the most; None for as fast as it goes."""
    max_items: int | None
    """Letters it deals with at the most; None for all."""
    actor: str
    reason: str
    created_at: datetime
    updated_at: datetime
    """When it last began, changed its state, or was known to be worked on."""
    ended_at: datetime | None
    upto: str
    """What the selection ends with: letters written later, those that fail again among them, are not in it."""
    total: int
    """How many were selected when it began, `max_items` at the most."""
    total_exact: bool
    done: int
    """Confirmed moves: counted in the step that moves the letter."""
    skipped: int
    """Letters that were gone when their turn came: somebody was faster, or they were cut."""
    failed: int
    """Letters that could not be moved; the rest went on."""
    errors: tuple[OperationError, ...]
    """Why they could not: the first 100."""
    owner: str
    """The process that has it, or had it last, as `host-pid`; empty where none has."""

    @property
    def is_ended(self) -> bool:
        """Whether nothing changes any more."""
        return self.state not in ("running", "paused")

    @property
    def left(self) -> int | None:
        """How many letters it may deal with yet; None without `max_items`."""
        dealt_with = self.done + self.skipped + self.failed
        return None if self.max_items is None else max(self.max_items - dealt_with, 0)


@dataclass(frozen=True, slots=True)
class OperationPage:
    """Operations, newest first."""

    items: tuple[Operation, ...]
    cursor: str | None
    """Where the next page starts; None after the last one."""


@dataclass(frozen=True, slots=True)
class Preview:
    """What an operation would do, were it started now: nothing was changed."""

    total: int
    """Letters it would deal with, `max_items` at the most."""
    total_exact: bool
    sample: tuple[DeadLetter, ...]
    """The first 20 of them, oldest first."""
    checked: int
    """How many of the first were read by today's classes, at most 200: see `DeadLetter.check_parsing`."""
    unparseable: int
    """How many of those would not parse."""


LONGEST_ERROR = 500
"""Characters of an error that are kept."""


def write_selector(selector: Selector) -> str:
    """As JSON."""
    parts = {
        "ids": selector.ids,
        "filter": selector.filter and asdict(selector.filter),
        "fingerprint": selector.fingerprint,
    }
    return json.dumps({name: value for name, value in parts.items() if value is not None}, default=_iso)


def read_selector(text: str) -> Selector:
    """What `write_selector` wrote. Raises `ValueError` for anything else."""
    try:
        parts: dict[str, Any] = json.loads(text)
        if (given := parts.get("filter")) is not None:
            for name in ("since", "until"):
                given[name] = given.get(name) and datetime.fromisoformat(given[name])
            parts["filter"] = LetterFilter(**given)
        if parts.get("ids") is not None:
            parts["ids"] = tuple(parts["ids"])
        return Selector(**parts)
    except (TypeError, AttributeError, KeyError) as error:
        raise ValueError(f"the selector of an operation cannot be read: {error}") from error


def write_error(letter_id: str, error: Exception) -> str:
    """As JSON; a long one is cut."""
    text = f"{type(error).__name__}: {reason(error)}"
    return json.dumps([letter_id, text if len(text) <= LONGEST_ERROR else text[: LONGEST_ERROR - 1] + "…"])


def read_operation(operation_id: str, stored: StoredOperation, errors: Iterable[bytes] = ()) -> Operation:
    """An operation from its fields. Raises `ValueError` for what no version of Rapids wrote."""
    return Operation(
        id=operation_id,
        kind=cast(OperationKind, stored["kind"]),
        state=cast(OperationState, stored["state"]),
        selector=read_selector(stored["selector"]),
        scope=cast(Scope, stored["scope"]),
        rate=float(stored["rate"]) if stored["rate"] else None,
        max_items=int(stored["max_items"]) if stored["max_items"] else None,
        actor=stored["actor"],
        reason=stored["reason"],
        created_at=moment_or_last(int(stored["created_ms"] or 0)),
        updated_at=moment_or_last(int(stored["updated_ms"] or 0)),
        ended_at=moment_or_last(int(stored["ended_ms"] or 0)) if stored["ended_ms"] else None,
        upto=stored["upto"],
        total=int(stored["total"]),
        total_exact=stored["total_exact"] == "1",
        done=int(stored["done"]),
        skipped=int(stored["skipped"]),
        failed=int(stored["failed"]),
        errors=tuple(map(_error, errors)),
        owner=stored["owner"].partition(":")[0],
    )


def _error(raw: bytes) -> OperationError:
    letter_id, error = cast(Sequence[str], json.loads(raw))
    return OperationError(letter_id, error)


def _iso(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"{value!r} cannot be written as JSON")
