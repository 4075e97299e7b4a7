"""An operation: which letters are replayed, discarded or restored, and its progress, which outlives the process."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Literal, TypeAlias, cast

from rapids._core.checks import instance
from rapids._core.entry_id import moment_or_last, parsed_id
from rapids._core.json_schema import with_json_schema
from rapids._core.redis_errors import reason
from rapids._storage.client.connections import Commands
from rapids._storage.operation_records import Claim, StoredOperation
from rapids.dead_letters.canary import CanaryProgress, read_canary
from rapids.dead_letters.letter import DeadLetter, Scope
from rapids.dead_letters.selection import ArchiveSearch, LetterFilter, Search

__all__ = [
    "Operation",
    "OperationError",
    "OperationKind",
    "OperationPage",
    "OperationState",
    "Preview",
    "Selector",
    "Step",
    "read_operation",
    "read_selector",
    "search_for",
    "write_error",
    "write_selector",
]

OperationKind: TypeAlias = Literal["replay", "discard", "restore"]
OperationState: TypeAlias = Literal["running", "paused", "completed", "cancelled", "failed"]


MAX_IDS = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Selector:
    """Which letters an operation is about: exactly one of the three.

    Raises `ValueError` for none, for more than one, or for an invalid value; `TypeError` for a value of another type.
    """

    ids: tuple[str, ...] | None = None
    """1 to 1,000 ids of letters."""
    filter: LetterFilter | None = None
    fingerprint: str | None = None
    """16 hexadecimal digits, as `DeadLetterQueue.causes` gives them."""

    def __post_init__(self) -> None:
        given = [name for name in ("ids", "filter", "fingerprint") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"selector must have one of ids, filter and fingerprint, not {' and '.join(given) or 'none'}"
            )
        if self.ids is not None:
            instance("ids", self.ids, (tuple, list), "a tuple of strings")
            if not 0 < len(self.ids) <= MAX_IDS:
                raise ValueError(f"ids must be 1 to {MAX_IDS:,} ids of letters, not {len(self.ids):,}")
            for one in self.ids:
                instance("each of ids", one, str, "a string")
                if parsed_id(one) != one:
                    raise ValueError(f"ids must be ids of letters, such as 1763932000000-0, not {one[:50]!r}")
        instance("filter", self.filter, LetterFilter, "a LetterFilter")
        instance("fingerprint", self.fingerprint, str, "a string")
        LetterFilter(fingerprint=self.fingerprint)  # checks it

    @property
    def as_filter(self) -> LetterFilter:
        """The same selection as a filter. It has no meaning for `ids`."""
        return self.filter or LetterFilter(fingerprint=self.fingerprint)


def search_for(commands: Commands, dlq: str, kind: OperationKind, selector: Selector) -> Search:
    """The search for the letters of an operation: in the stream, or for a restore in the archive."""
    search = ArchiveSearch if kind == "restore" else Search
    return search(commands, dlq, selector.as_filter, ids=selector.ids)


@with_json_schema
@dataclass(frozen=True, slots=True)
class OperationError:
    """Why a letter of an operation was not moved. The text is hostile input, as the letter's are."""

    letter_id: str
    """Empty if the error is not about one letter but ended the operation."""
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """An operation as it was at one moment. Counts are letters."""

    id: str
    kind: OperationKind
    state: OperationState
    """A `running` operation may have no process for some seconds. The last three states mean that it has ended."""
    selector: Selector
    scope: Scope
    """Which handlers a replay reaches. It has no meaning for the other kinds."""
    rate: float | None
    """The maximum number of letters a second; None for no limit."""
    max_items: int | None
    """The maximum number of letters that it processes; None for all."""
    actor: str
    reason: str
    created_at: datetime
    updated_at: datetime
    """When it was last started, changed its state, or had its lease renewed."""
    ended_at: datetime | None
    upto: str
    """The last place of the selection. Letters written later, also those that fail again, are not in it."""
    total: int
    """How many were selected when it started, at most `max_items`."""
    total_exact: bool
    done: int
    """Confirmed moves: counted in the step that moves the letter."""
    skipped: int
    """Letters that were gone when it came to them: somebody else had moved them, or they were trimmed."""
    failed: int
    """Letters that could not be moved."""
    errors: tuple[OperationError, ...]
    """Why they could not be moved: the first 100 errors."""
    owner: str
    """The process that has it, or had it last, as `host-pid`; empty if none has it."""
    canary: CanaryProgress | None = None
    """The steps of its canary, and their outcomes; None without one."""

    @property
    def is_ended(self) -> bool:
        """Whether it has ended. After that it does not change."""
        return self.state not in ("running", "paused")

    @property
    def is_stopped(self) -> bool:
        """Whether its canary has paused it. It continues only if somebody resumes it."""
        return self.state == "paused" and self.canary is not None and self.canary.stopped is not None

    @property
    def left(self) -> int | None:
        """How many more letters it may process; None without `max_items`."""
        processed = self.done + self.skipped + self.failed
        return None if self.max_items is None else max(self.max_items - processed, 0)


@dataclass(frozen=True, slots=True)
class OperationPage:
    """Operations, newest first."""

    items: tuple[Operation, ...]
    cursor: str | None
    """Where the next page starts; None after the last one."""


@dataclass(frozen=True, slots=True)
class Preview:
    """What an operation would do if it were started now. Nothing is changed."""

    total: int
    """Letters it would process, at most `max_items`."""
    total_exact: bool
    sample: tuple[DeadLetter, ...]
    """The first 20 of them, oldest first."""
    checked: int
    """How many of the first letters were parsed by the classes registered now, at most 200: see
    `DeadLetter.check_parsing`."""
    unparseable: int
    """How many of these do not parse."""
    steps: tuple[int, ...] = ()
    """With a canary, the sizes of the first 20 steps, in letters."""


_ACTIONS: dict[OperationKind, str] = {"replay": "replayed", "discard": "discarded", "restore": "restored"}


@dataclass(frozen=True, slots=True)
class Step:
    """What one step of an operation does to letters, and on whose behalf."""

    claim: Claim
    kind: OperationKind
    scope: Scope
    actor: str
    reason: str

    @property
    def change(self) -> dict[str, str]:
        """What the history of each letter records."""
        recorded = {"action": _ACTIONS[self.kind], "actor": self.actor, "reason": self.reason}
        scope = {"scope": self.scope} if self.kind == "replay" else {}
        return {**recorded, **scope, "operation": self.claim.operation_id}


MAX_ERROR = 500
"""Characters of an error that are kept."""


def write_selector(selector: Selector) -> str:
    """As JSON, in ASCII, without what is None."""
    given = asdict(selector, dict_factory=lambda items: {name: value for name, value in items if value is not None})
    return json.dumps(given, default=datetime.isoformat)


def read_selector(text: str) -> Selector:
    """What `write_selector` wrote. Raises `ValueError` for any other text."""
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
    """As JSON; long text is cut."""
    text = f"{type(error).__name__}: {reason(error)}"
    return json.dumps([letter_id, text if len(text) <= MAX_ERROR else text[: MAX_ERROR - 1] + "…"])


def read_operation(operation_id: str, stored: StoredOperation, errors: Iterable[bytes] = ()) -> Operation:
    """An operation from its fields. Raises `ValueError` if Rapids did not write them."""
    total, processed = int(stored["total"]), sum(int(stored[name]) for name in ("done", "skipped", "failed"))
    left = total - processed if stored["total_exact"] == "1" else None
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
        upto=stored["canary_upto"] or stored["upto"],
        total=total,
        total_exact=stored["total_exact"] == "1",
        done=int(stored["done"]),
        skipped=int(stored["skipped"]),
        failed=int(stored["failed"]),
        errors=tuple(OperationError(*cast(tuple[str, str], json.loads(raw))) for raw in errors),
        owner=stored["owner"].partition(":")[0],
        canary=read_canary(stored, left) if stored["canary"] else None,
    )
