"""What goes over HTTP of operations: many letters replayed, discarded or restored."""

from datetime import datetime
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from rapids_fastapi.admin.query import LONGEST_TEXT, Moment
from rapids_fastapi.admin.schemas import SUMMARY_EXAMPLE, DeadLetterSummary, Scope
from rapids_fastapi.admin.stream_schemas import LONGEST_REASON, Name, Text

__all__ = [
    "OPERATION_EXAMPLE",
    "Filter",
    "Operation",
    "OperationChangeRequest",
    "OperationError",
    "OperationPage",
    "OperationRequest",
    "Preview",
    "Selector",
]

MOST_IDS = 1_000
LARGEST_RATE = 1_000_000
MOST_ITEMS = 1_000_000_000

Kind = Literal["replay", "discard", "restore"]
State = Literal["running", "paused", "completed", "cancelled", "failed"]
Asked = Annotated[str, Field(max_length=LONGEST_TEXT)]

_FINGERPRINT = "9f2c4b7d0a1e6f38"
_FILTER = {"event_type": "order.*", "handler": "take_payment"}
_ERROR = {"letter_id": "1763932000000-0", "error": "the letter does not say where it is from"}
OPERATION_EXAMPLE: dict[str, Any] = {
    "id": "0a4dcf0e3f0f4f2b",
    "dlq": "{orders}:dlq",
    "kind": "replay",
    "state": "completed",
    "selector": {"filter": _FILTER},
    "scope": "handler",
    "rate": 200.0,
    "max_items": 5000,
    "actor": "ann",
    "reason": "the bank is back",
    "created_at": "2025-11-23T21:10:00Z",
    "updated_at": "2025-11-23T21:10:21Z",
    "ended_at": "2025-11-23T21:10:21Z",
    "total": 4120,
    "total_exact": True,
    "done": 4117,
    "skipped": 2,
    "failed": 1,
    "errors": [_ERROR],
    "owner": "web-1-4711",
}


def _shown(example: dict[str, Any]) -> ConfigDict:
    return ConfigDict(from_attributes=True, json_schema_extra={"example": example})


def _asked(example: dict[str, Any]) -> ConfigDict:
    return ConfigDict(from_attributes=True, extra="forbid", json_schema_extra={"example": example})


class Filter(BaseModel):
    """Which letters, as in lists: what is not said does not restrict, the rest must all hold."""

    model_config: ClassVar[ConfigDict] = _asked(_FILTER)

    event_type: Asked | None = Field(default=None, description="A type, or a pattern such as order.*")
    handler: Asked | None = None
    group: Asked | None = None
    reason: Asked | None = None
    error_type: Asked | None = None
    fingerprint: str | None = Field(default=None, pattern="^[0-9a-f]{16}$")
    q: Asked | None = Field(
        default=None,
        description="Text in data, error or ids. Refused while anything is hidden: how many letters have a text would "
        "give away what is. List by it, and select by `ids`.",
    )
    since: Moment | None = None
    until: Moment | None = None


class Selector(BaseModel):
    """Which letters: exactly one of the three. Letters written later are not selected, whatever they are like."""

    model_config: ClassVar[ConfigDict] = _asked({"filter": _FILTER})

    ids: list[Asked] | None = Field(default=None, min_length=1, max_length=MOST_IDS)
    filter: Filter | None = None
    fingerprint: str | None = Field(default=None, pattern="^[0-9a-f]{16}$", description="What groups have as theirs.")


class OperationRequest(BaseModel):
    """What to do to which letters."""

    model_config: ClassVar[ConfigDict] = _asked(
        {
            "kind": "replay",
            "selector": {"fingerprint": _FINGERPRINT},
            "rate": 200,
            "max_items": 5000,
            "dry_run": True,
            "reason": "the bank is back",
        }
    )

    kind: Kind = Field(description="`replay` needs that permission; `discard` and `restore` need `discard`.")
    selector: Selector
    scope: Scope = Field(default="handler", description="For a replay: who gets the events, as for a single one.")
    rate: float | None = Field(
        default=None,
        strict=True,
        gt=0,
        le=LARGEST_RATE,
        description="Letters a second at the most; by default, as fast as it goes.",
    )
    max_items: int | None = Field(default=None, strict=True, ge=1, le=MOST_ITEMS, description="Letters at the most.")
    dry_run: bool = Field(default=False, strict=True, description="Change nothing, and say what would be done.")
    reason: str = Field(default="", max_length=LONGEST_REASON, description="Why; kept with it, and in the audit.")


class OperationError(BaseModel):
    """Why a letter was not moved."""

    model_config: ClassVar[ConfigDict] = _shown(_ERROR)

    letter_id: Name = Field(description="Empty where it is not about one letter but ended the operation.")
    error: Text


class Operation(BaseModel):
    """An operation as it stood when it was looked at. Counts are letters."""

    model_config: ClassVar[ConfigDict] = _shown(OPERATION_EXAMPLE)

    id: str
    dlq: Name
    kind: Kind
    state: State = Field(description="`running` also before a process takes it; the last three are ends.")
    selector: dict[str, Any] = Field(description="As it was asked for.")
    scope: Scope
    rate: float | None
    max_items: int | None
    actor: Name
    reason: Text
    created_at: datetime
    updated_at: datetime = Field(description="When it last changed, or was known to be worked on.")
    ended_at: datetime | None
    total: int = Field(description="How many were selected when it began.")
    total_exact: bool
    done: int = Field(description="Confirmed moves: counted in the step that moves the letter.")
    skipped: int = Field(description="Letters that were gone when their turn came.")
    failed: int = Field(description="Letters that could not be moved; the rest went on.")
    errors: list[OperationError] = Field(description="Why they could not: the first 100. Lists leave them out.")
    owner: Name = Field(description="The process that has it, or had it last; empty where none has.")


class OperationPage(BaseModel):
    """Operations, newest first; the last 100 are kept."""

    model_config: ClassVar[ConfigDict] = _shown(
        {"dlq": "{orders}:dlq", "items": [OPERATION_EXAMPLE], "next_cursor": "b3BlcmF0aW9uczowYTRkY2YwZTNmMGY0ZjJi"}
    )

    dlq: Name
    items: list[Operation]
    next_cursor: str | None = Field(description="For `cursor`, to get the next page; null on the last one.")


class Preview(BaseModel):
    """What an operation would do, were it started now: nothing was changed."""

    model_config: ClassVar[ConfigDict] = _shown(
        {
            "dlq": "{orders}:dlq",
            "total": 4120,
            "total_exact": True,
            "sample": [SUMMARY_EXAMPLE],
            "checked": 200,
            "unparseable": 3,
        }
    )

    dlq: Name
    total: int = Field(description="Letters it would deal with.")
    total_exact: bool
    sample: list[DeadLetterSummary] = Field(description="The first of them, oldest first.")
    checked: int = Field(description="How many of the first were read by today's classes, to see whether they parse.")
    unparseable: int = Field(description="How many of those would not parse.")


class OperationChangeRequest(BaseModel):
    """Why it is paused, goes on or ends."""

    model_config: ClassVar[ConfigDict] = _asked({"reason": "the bank is down again"})

    reason: str = Field(default="", max_length=LONGEST_REASON, description="Why; kept in the audit.")
