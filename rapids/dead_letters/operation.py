"""An operation: many letters replayed, discarded or restored, with progress that outlives the process."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal, TypeAlias

from rapids._core.json_schema import with_json_schema
from rapids.dead_letters.letter import DeadLetter, Scope
from rapids.dead_letters.selection import Selector

__all__ = ["Operation", "OperationError", "OperationKind", "OperationPage", "OperationState", "Preview"]

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
